//! What the CPU asks of the machine: second-stage translation, time, random numbers.

use phys_memory::Arena;
use tdvisor_base::sync::Arc;
use tdvisor_base::{Gpa, PAGE_SIZE};
use x86_emu::{Access, Bus, BusFault, FaultKind, Translation};

use crate::guest::{self, VmExit};
use crate::machine::GuestEnv;

/// The only number by which this bus refuses: the reason is in [`GuestBus::take_refusal`].
const REFUSED: u64 = 0;

/// The surroundings of one run.
pub(super) struct GuestBus<'e, 'm> {
    env: &'e GuestEnv<'m>,
    refusal: Option<VmExit>,
}

impl<'e, 'm> GuestBus<'e, 'm> {
    pub(super) const fn new(env: &'e GuestEnv<'m>) -> Self {
        Self { env, refusal: None }
    }

    /// The VM exit behind the last refused translation.
    pub(super) const fn take_refusal(&mut self) -> Option<VmExit> {
        self.refusal.take()
    }
}

const fn second_stage(access: Access) -> guest::Access {
    match access {
        Access::Read | Access::WalkRead => guest::Access::Read,
        Access::Write | Access::WalkWrite => guest::Access::Write,
        Access::Execute => guest::Access::Execute,
    }
}

impl Bus for GuestBus<'_, '_> {
    fn memory(&self) -> Arc<Arena> {
        self.env.machine().memory().clone()
    }

    fn translate(&mut self, gpa: Gpa, access: Access) -> Result<Translation, BusFault> {
        match self.env.translate(gpa, second_stage(access)) {
            Ok(found) => Ok(Translation {
                hpa: found.hpa.align_down(PAGE_SIZE),
                key: found.key,
                level: found.level,
                readable: found.rights & 1 != 0,
                writable: found.rights & 2 != 0,
                executable: found.rights & 4 != 0,
            }),
            Err(exit) => {
                self.refusal = Some(exit);
                Err(BusFault { gpa, access, kind: FaultKind::Bus(REFUSED) })
            }
        }
    }

    fn tsc(&mut self) -> u64 {
        self.env.guest_tsc()
    }

    fn random(&mut self) -> Option<u64> {
        self.env.random()
    }
}
