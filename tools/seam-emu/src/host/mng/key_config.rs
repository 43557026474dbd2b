//! TDH.MNG.KEY.CONFIG (8): programs the TD's key on this package. RCX TDR.

use tdx_module_iface::lifecycle::LifecycleState;
use tdx_module_iface::{Gprs, Operand, StatusCode};

use crate::host::steps::{lock_tdr, program_key};
use crate::host::{Call, Step, plain};
use crate::lock::Mode;

pub(in crate::host) fn key_config(call: &Call<'_>, regs: &Gprs) -> Step {
    let owner = lock_tdr(call, regs.rcx, Mode::Exclusive, Operand::RCX)?;
    let tdr = &owner.tdr;
    if tdr.is_fatal() {
        return Err(plain(StatusCode::TD_FATAL));
    }
    if tdr.lifecycle() != LifecycleState::HKID_ASSIGNED {
        return Err(plain(StatusCode::LIFECYCLE_STATE_INCORRECT));
    }
    let package = 1u64 << call.machine.config().package_number(call.package()).min(63);
    if tdr.configured_packages() & package != 0 {
        return Err(plain(StatusCode::KEY_CONFIGURED));
    }
    program_key(call)?;
    let configured = tdr.configured_packages() | package;
    tdr.set_configured_packages(configured);
    if configured.count_ones() >= call.machine.config().num_packages() {
        tdr.set_lifecycle(LifecycleState::KEYS_CONFIGURED);
    }
    Ok(())
}
