//! TDH.SYS.KEY.CONFIG (31): once on each package; the last one makes the module ready.

use tdx_module_iface::StatusCode;
use tdx_module_iface::lifecycle::SysState;

use super::lock_sys;
use crate::host::steps::program_key;
use crate::host::{Call, Step, plain};
use crate::lock::Mode;

pub(in crate::host) fn key_config(call: &Call<'_>) -> Step {
    let module = &call.machine.module;
    let _lock = lock_sys(call, Mode::Exclusive)?;
    if module.state() != SysState::CONFIG_DONE {
        return Err(plain(StatusCode::SYS_KEY_CONFIG_NOT_PENDING));
    }
    let package = call.package();
    if module.package_is_configured(package) {
        return Err(plain(StatusCode::KEY_CONFIGURED));
    }
    program_key(call)?;
    if module.set_package_configured(package) >= call.machine.config().num_packages() {
        module.set_state(SysState::READY);
    }
    Ok(())
}
