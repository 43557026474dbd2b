//! Where a SEAMCALL arrives.

use tdx_module_iface::{Gprs, SeamCallFault, Status, StatusCode};

use super::Machine;
use crate::guest::GuestCpu;

impl Machine {
    pub(super) fn seamcall(
        &self,
        lp: usize,
        gprs: &mut Gprs,
        guest: Option<&mut dyn GuestCpu>,
    ) -> Result<(), SeamCallFault> {
        let _ = (lp, guest);
        gprs.rax = Status::new(StatusCode::SYS_NOT_READY).raw();
        Ok(())
    }
}
