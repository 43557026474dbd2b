//! The end of the module. TDH.SYS.SHUTDOWN (52) leaves data for the next one: RCX names their version, 0 is ours and the
//! only one. TDH.SYS.DISABLE (69) leaves nothing.

use tdx_module_iface::lifecycle::SysState;
use tdx_module_iface::{Gprs, Operand};

use super::lock_sys;
use crate::host::{Call, Step, invalid};
use crate::lock::Mode;

pub(in crate::host) fn shutdown(call: &Call<'_>, regs: &mut Gprs) -> Step {
    if regs.rcx != 0 {
        return Err(invalid(Operand::RCX));
    }
    disable(call)
}

/// TDH.SYS.DISABLE (69): no call follows it until the module is loaded again.
pub(in crate::host) fn disable(call: &Call<'_>) -> Step {
    let _lock = lock_sys(call, Mode::Exclusive)?;
    call.machine.module.set_state(SysState::SHUTDOWN);
    Ok(())
}
