//! TDH.SYS.LP.INIT (35): once on each logical processor.

use tdx_module_iface::StatusCode;
use tdx_module_iface::lifecycle::SysState;

use super::lock_sys;
use crate::host::{Call, Step, plain};
use crate::lock::Mode;

pub(in crate::host) fn lp_init(call: &Call<'_>) -> Step {
    let module = &call.machine.module;
    let _lock = lock_sys(call, Mode::Shared)?;
    if module.state() != SysState::INIT_DONE {
        return Err(plain(StatusCode::SYS_LP_INIT_NOT_PENDING));
    }
    if module.lp_is_initialised(call.lp) {
        return Err(plain(StatusCode::SYS_LP_INIT_DONE));
    }
    module.set_lp_initialised(call.lp);
    Ok(())
}
