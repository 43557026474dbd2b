//! Model-specific registers that the module leaves to the host.
//!
//! Nothing is emulated yet: the guest learns that the register does not exist, and its RDMSR or WRMSR faults.

use tdx_module_iface::ghci::CallStatus;

use super::Reply;

/// RDMSR.
pub(crate) fn read(_index: u32) -> Reply {
    Reply::status(CallStatus::INVALID_OPERAND)
}

/// WRMSR.
pub(crate) fn write(_index: u32, _value: u64) -> Reply {
    Reply::status(CallStatus::INVALID_OPERAND)
}
