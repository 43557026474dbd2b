//! TDH.SYS.SHUTDOWN (52): the end of the module. RCX names the handoff version; ours is 0 and the only one.

use tdx_module_iface::lifecycle::SysState;
use tdx_module_iface::{Gprs, Operand};

use super::lock_sys;
use crate::host::{Call, Step, invalid};
use crate::lock::Mode;

pub(in crate::host) fn shutdown(call: &Call<'_>, regs: &mut Gprs) -> Step {
    if regs.rcx != 0 {
        return Err(invalid(Operand::RCX));
    }
    let _lock = lock_sys(call, Mode::Exclusive)?;
    call.machine.module.set_state(SysState::SHUTDOWN);
    Ok(())
}
