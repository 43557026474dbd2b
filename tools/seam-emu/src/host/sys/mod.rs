//! TDH.SYS.*: bringing the module up and down. SYS.INFO, SYS.RD and SYS.RDALL are in `metadata`.

pub(super) mod config;
pub(super) mod init;
pub(super) mod key_config;
pub(super) mod lp_init;
pub(super) mod shutdown;
pub(super) mod tdmr_init;
pub(super) mod update;

use tdx_module_iface::StatusCode;

use super::{Call, Step, plain};
use crate::lock::{Guard, Mode};

/// Takes the lock that serialises changes of the module's state.
fn lock_sys<'m>(call: &Call<'m>, mode: Mode) -> Step<Guard<'m>> {
    call.machine.module.lock(mode).map_err(|_| plain(StatusCode::SYS_BUSY))
}
