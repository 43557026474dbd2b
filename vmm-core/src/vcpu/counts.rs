//! Exits by reason.

use core::fmt;

use tdx_module_iface::exit::ExitReason;
use tdx_module_iface::ghci::Function;
use tdx_module_iface::tdh::TdExit;

/// Why a vCPU left the guest, for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExitKind {
    /// TDG.VP.VMCALL for a function of the GHCI.
    Call(Function),
    /// TDG.VP.VMCALL for a vendor's function.
    Vendor,
    /// Anything else, by VMX exit reason.
    Exit(ExitReason),
}

impl ExitKind {
    pub(crate) fn of(exit: &TdExit) -> Self {
        use tdx_module_iface::Reg;
        match exit {
            TdExit::TdVmCall(call) if call.gprs.get(Reg::R10).is_some_and(|r10| r10 != 0) => Self::Vendor,
            TdExit::TdVmCall(call) => Self::Call(Function(call.gprs.get(Reg::R11).unwrap_or_default())),
            TdExit::Async(exit) => Self::Exit(exit.reason.basic()),
        }
    }
}

impl fmt::Display for ExitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(function) => write!(f, "TDVMCALL {function}"),
            Self::Vendor => f.write_str("TDVMCALL of a vendor"),
            Self::Exit(reason) => write!(f, "{reason}"),
        }
    }
}
