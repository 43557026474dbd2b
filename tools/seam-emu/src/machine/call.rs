//! Where a SEAMCALL arrives.

use tdx_module_iface::{Gprs, SeamCallFault};

use super::Machine;
use crate::guest::GuestCpu;
use crate::host::{Call, dispatch};

impl Machine {
    pub(super) fn seamcall(
        &self,
        lp: usize,
        gprs: &mut Gprs,
        guest: Option<&mut dyn GuestCpu>,
    ) -> Result<(), SeamCallFault> {
        dispatch(&Call { machine: self, lp }, gprs, guest);
        Ok(())
    }
}
