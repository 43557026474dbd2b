//! TDH.SYS.INIT (33): the first call. RCX must be 0.

use tdx_module_iface::lifecycle::SysState;
use tdx_module_iface::{Gprs, Operand, StatusCode};

use super::lock_sys;
use crate::host::{Call, Step, invalid, plain};
use crate::lock::Mode;

pub(in crate::host) fn init(call: &Call<'_>, regs: &mut Gprs) -> Step {
    let attributes = core::mem::take(&mut regs.rcx);
    let _lock = lock_sys(call, Mode::Exclusive)?;
    if attributes != 0 {
        return Err(invalid(Operand::RCX));
    }
    if call.machine.module.state() != SysState::INIT_PENDING {
        return Err(plain(StatusCode::SYS_INIT_NOT_PENDING));
    }
    if !call.machine.rdseed_has_entropy() {
        return Err(plain(StatusCode::RND_NO_ENTROPY));
    }
    call.machine.module.set_state(SysState::INIT_DONE);
    Ok(())
}
