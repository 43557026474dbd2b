//! Where a SEAMCALL arrives.

use tdx_module_iface::{Gprs, LeafWord, SeamCallFault, TdhLeaf};

use super::Machine;
use crate::guest::GuestCpu;
use crate::host::{Call, dispatch};
use crate::inject::{self, Effect, Leaf};

impl Machine {
    pub(super) fn seamcall(
        &self,
        lp: usize,
        gprs: &mut Gprs,
        guest: Option<&mut dyn GuestCpu>,
    ) -> Result<(), SeamCallFault> {
        if self.module.has_shut_down() {
            return Err(SeamCallFault::VmFailInvalid);
        }
        let call = Call { machine: self, lp };
        match self.faults().decide_seamcall(lp, gprs) {
            None => dispatch(&call, gprs, guest),
            Some(Effect::Return(status)) => {
                inject::fail(gprs, Leaf::Host(TdhLeaf(LeafWord(gprs.rax).leaf())), status);
            }
            Some(Effect::Interrupt) => self.with_interrupt(lp, || dispatch(&call, gprs, guest)),
        }
        // A module that met broken memory in this call does not return from it.
        if self.module.has_shut_down() { Err(SeamCallFault::VmFailInvalid) } else { Ok(()) }
    }
}
