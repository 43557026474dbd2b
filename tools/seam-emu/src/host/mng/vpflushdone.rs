//! TDH.MNG.VPFLUSHDONE (19): no vCPU is on any processor any more. RCX TDR.

use tdx_module_iface::lifecycle::{HkidState, LifecycleState};
use tdx_module_iface::{Gprs, Operand, StatusCode};

use crate::fields::layout::tdcs::NUM_ASSOC_VCPUS;
use crate::fields::{FieldStore, Width};
use crate::host::steps::lock_tdr;
use crate::host::{Call, Step, busy, plain};
use crate::lock::Mode;

pub(in crate::host) fn vpflushdone(call: &Call<'_>, regs: &Gprs) -> Step {
    let owner = lock_tdr(call, regs.rcx, Mode::Exclusive, Operand::RCX)?;
    let tdr = &owner.tdr;
    let module = &call.machine.module;
    let _kot = module.kot.lock(Mode::Exclusive).map_err(|_| busy(Operand::KOT))?;
    if !matches!(tdr.lifecycle(), LifecycleState::HKID_ASSIGNED | LifecycleState::KEYS_CONFIGURED) {
        return Err(plain(StatusCode::LIFECYCLE_STATE_INCORRECT));
    }
    if tdr.tdcs().load(NUM_ASSOC_VCPUS, Width::B4) != 0 {
        return Err(plain(StatusCode::FLUSHVP_NOT_DONE));
    }
    tdr.set_lifecycle(LifecycleState::BLOCKED);
    let packages = call.machine.config().num_packages().min(56);
    module.kot.set(tdr.hkid(), HkidState::FLUSHED, (1 << packages) - 1);
    Ok(())
}
