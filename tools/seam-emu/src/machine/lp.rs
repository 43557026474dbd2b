//! A logical processor: what issues SEAMCALLs.

use core::ops::Deref;

use tdvisor_base::sync::Arc;
use tdx_module_iface::{Gprs, SeamCall, SeamCallFault};

use super::Machine;
use crate::guest::GuestCpu;

/// A token for one logical processor of a machine.
///
/// `M` is how the machine is held: `&Machine`, or `Arc<Machine>` for tokens that travel between threads.
#[derive(Clone, Copy, Debug)]
pub struct Lp<M = Arc<Machine>> {
    machine: M,
    index: usize,
}

impl<M: Deref<Target = Machine>> Lp<M> {
    /// The token of processor `index`; `None` where the machine has fewer.
    pub fn new(machine: M, index: usize) -> Option<Self> {
        (index < machine.num_lps()).then_some(Self { machine, index })
    }

    /// The number of the processor.
    pub const fn index(&self) -> usize {
        self.index
    }

    /// The machine.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Executes a SEAMCALL; if it is TDH.VP.ENTER, the guest runs on `guest` instead of the processor's own
    /// CPU.
    ///
    /// # Errors
    /// As for [`SeamCall::seamcall`].
    pub fn seamcall_with(&self, gprs: &mut Gprs, guest: &mut dyn GuestCpu) -> Result<(), SeamCallFault> {
        self.machine.seamcall(self.index, gprs, Some(guest))
    }
}

impl<M: Deref<Target = Machine>> SeamCall for Lp<M> {
    fn seamcall(&mut self, gprs: &mut Gprs) -> Result<(), SeamCallFault> {
        self.machine.seamcall(self.index, gprs, None)
    }
}
