//! What the CPU asks of the machine: second-stage translation, time, random numbers.

use phys_memory::Arena;
use tdvisor_base::Gpa;
use tdvisor_base::sync::Arc;
use x86_arch::Access;
use x86_emu::{Answer, Bus};

use crate::guest::VmExit;
use crate::machine::GuestEnv;

/// The surroundings of one run. A TD has no devices: what its VMM emulates it asks for by TDCALL.
pub(super) struct GuestBus<'e, 'm> {
    env: &'e GuestEnv<'m>,
}

impl<'e, 'm> GuestBus<'e, 'm> {
    pub(super) const fn new(env: &'e GuestEnv<'m>) -> Self {
        Self { env }
    }
}

impl Bus for GuestBus<'_, '_> {
    /// The VM exit that the access causes.
    type Refusal = VmExit;

    fn memory(&self) -> Arc<Arena> {
        self.env.machine().memory().clone()
    }

    fn translate(&mut self, gpa: Gpa, access: Access) -> Result<Answer, VmExit> {
        self.env.translate(gpa, access).map(Answer::Memory)
    }

    fn tsc(&mut self) -> u64 {
        self.env.guest_tsc()
    }

    fn random(&mut self) -> Option<u64> {
        self.env.random()
    }
}
