//! TDH.MNG.KEY.FREEID (20): gives the key id back once no cache holds lines of it. RCX TDR.

use tdx_module_iface::lifecycle::{HkidState, LifecycleState};
use tdx_module_iface::{Gprs, Operand, StatusCode};

use crate::host::steps::lock_tdr;
use crate::host::{Call, Step, busy, plain};
use crate::lock::Mode;

pub(in crate::host) fn key_freeid(call: &Call<'_>, regs: &Gprs) -> Step {
    let owner = lock_tdr(call, regs.rcx, Mode::Exclusive, Operand::RCX)?;
    let tdr = &owner.tdr;
    if tdr.lifecycle() != LifecycleState::BLOCKED {
        return Err(plain(StatusCode::LIFECYCLE_STATE_INCORRECT));
    }
    let kot = &call.machine.module.kot;
    let _kot = kot.lock(Mode::Exclusive).map_err(|_| busy(Operand::KOT))?;
    if kot.unwritten_packages(tdr.hkid()) != 0 {
        return Err(plain(StatusCode::WBCACHE_NOT_COMPLETE));
    }
    kot.set(tdr.hkid(), HkidState::FREE, 0);
    tdr.set_lifecycle(LifecycleState::TEARDOWN);
    Ok(())
}
