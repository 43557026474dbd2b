//! TDH.SYS.UPDATE (53): takes over what a module before this one left. There never is such data here.

use tdx_module_iface::StatusCode;
use tdx_module_iface::lifecycle::SysState;

use super::lock_sys;
use crate::host::{Call, Step, plain};
use crate::lock::Mode;

pub(in crate::host) fn update(call: &Call<'_>) -> Step {
    let module = &call.machine.module;
    let _lock = lock_sys(call, Mode::Exclusive)?;
    if module.state() != SysState::INIT_DONE
        || (module.num_initialised_lps() as usize) < call.machine.num_lps()
    {
        return Err(plain(StatusCode::SYS_STATE_INCORRECT));
    }
    Err(plain(StatusCode::SYS_INVALID_HANDOFF))
}
