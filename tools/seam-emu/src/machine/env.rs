//! What a guest's processor reaches while it runs: memory through two EPTs, the interrupt line, time.

use phys_memory::MemoryFault;
use tdvisor_base::sync::{AtomicBool, Ordering};
use tdvisor_base::{Gpa, Hpa, KeyId, Level, PAGE_SIZE};
use x86_arch::Access;
use x86_emu::Translation;

use super::{Asid, Machine};
use crate::config::TscSource;
use crate::fields::layout::tdcs::MSR_BITMAPS;
use crate::guest::{VmExit, Windows};
use crate::l2::Vm;
use crate::l2::controls::Intercepts;
use crate::msr::{self, MsrAccess};
use crate::td::Tdr;
use crate::vcpu::control::OwnedControls;

/// PAUSEs after which a guest that has a number of instructions gives the rest away, as PAUSE-loop exiting would have it. The
/// loop of a vCPU that waits costs more than instructions that get somewhere.
const PAUSES_OF_A_TURN: u32 = 128;

/// The surroundings of a guest that runs on one logical processor.
#[derive(Clone, Copy, Debug)]
pub struct GuestEnv<'m> {
    pub(crate) machine: &'m Machine,
    pub(crate) lp: usize,
    pub(crate) asid: Asid,
    /// The vCPU's TDVPR.
    pub(crate) vcpu: Hpa,
    pub(crate) space: GuestSpace,
    pub(crate) time: GuestTime,
    pub(crate) windows: Windows,
    pub(crate) controls: OwnedControls,
    pub(crate) intercepts: Intercepts,
}

/// How a guest's time-stamp counter follows the host's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct GuestTime {
    /// With 48 fractional bits.
    pub(crate) multiplier: u64,
    pub(crate) offset: u64,
}

/// Identifies the translations that a CPU may keep: one vCPU's, in one address space, since the last flush.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translations {
    asid: Asid,
    vcpu: Hpa,
    space: GuestSpace,
    flushes: u64,
}

/// The guest-physical address space of a TD.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct GuestSpace {
    /// The TD's key.
    pub(crate) key: KeyId,
    /// Root page of the Secure EPT.
    pub(crate) sept_root: Hpa,
    /// Level of the entries in the root page.
    pub(crate) root_level: Level,
    /// Root page of the shared EPT; zero where the host set none.
    pub(crate) shared_root: Hpa,
    /// The SHARED bit: the highest bit of a guest address.
    pub(crate) shared_bit: u64,
}

impl<'m> GuestEnv<'m> {
    /// The machine.
    pub const fn machine(&self) -> &'m Machine {
        self.machine
    }

    /// The control-register bits that the module keeps to itself.
    pub(crate) const fn controls(&self) -> &OwnedControls {
        &self.controls
    }

    /// What L1 asks for an L2 VM.
    pub(crate) const fn intercepts(&self) -> &Intercepts {
        &self.intercepts
    }

    /// Whether the time is over that L1 gives an L2 VM.
    pub(crate) fn is_overdue(&self) -> bool {
        self.intercepts.deadline.is_some_and(|deadline| self.machine.tsc() >= deadline)
    }

    /// The logical processor on which the guest runs.
    pub const fn lp(&self) -> usize {
        self.lp
    }

    /// The VM that runs.
    pub const fn vm(&self) -> Vm {
        self.asid.vm
    }

    /// What the processor exits for as soon as the guest could take it.
    pub const fn windows(&self) -> Windows {
        self.windows
    }

    /// The guest's physical address space.
    pub(crate) const fn space(&self) -> &GuestSpace {
        &self.space
    }

    /// The SHARED bit of guest addresses.
    pub const fn shared_bit(&self) -> u64 {
        self.space.shared_bit
    }

    /// Whether the MSR bitmaps of the TD let an access through to the processor.
    pub(crate) fn passes_msr(&self, index: u32, access: MsrAccess) -> bool {
        Tdr::at(self.machine.memory(), self.asid.tdr)
            .is_some_and(|tdr| msr::passes(&tdr.tdcs(), MSR_BITMAPS, index, access))
    }

    /// Whether the VMM has an external interrupt pending on this processor: a CPU that polls exits then.
    pub fn interrupt_pending(&self) -> bool {
        self.machine.interrupt_pending(self.lp)
    }

    /// The host's time-stamp counter.
    pub fn host_tsc(&self) -> u64 {
        self.machine.tsc()
    }

    /// The guest's time-stamp counter.
    pub fn guest_tsc(&self) -> u64 {
        let scaled = ((u128::from(self.machine.tsc()) * u128::from(self.time.multiplier)) >> 48) as u64;
        scaled.wrapping_add(self.time.offset)
    }

    /// A number for RDRAND and RDSEED; `None` while there is no entropy.
    pub fn random(&self) -> Option<u64> {
        self.machine.random()
    }

    /// The line that [`Self::interrupt_pending`] looks at, for a CPU that polls it itself.
    pub(crate) fn interrupt_line(&self) -> &'m AtomicBool {
        /// The line of a processor that does not exist.
        static QUIET: AtomicBool = AtomicBool::new(false);
        self.machine.processors().get(self.lp).map_or(&QUIET, |processor| &processor.interrupt_pending)
    }

    /// Instructions that the guest may execute before the processor leaves it.
    pub(crate) fn quantum(&self) -> u64 {
        self.machine.processors().get(self.lp).map_or(u64::MAX, |at| at.quantum.load(Ordering::Acquire))
    }

    /// Between two slices of instructions: the interrupt controllers look at the time, and others may run first.
    pub(crate) fn poll_interrupts(&self) {
        if let Some(controller) = self.machine.interrupt_controller() {
            controller.poll(self.lp);
        }
    }

    /// Whether others run only when this processor lets them: the time is virtual, and interrupt controllers say whose turn it
    /// is, or a turn has so many instructions.
    pub(crate) fn takes_turns(&self) -> bool {
        self.machine.config().tsc_source == TscSource::Virtual
            && (self.machine.interrupt_controller().is_some() || self.quantum() != u64::MAX)
    }

    /// The guest executed so many PAUSEs since it was entered, where processors take turns: who waits for another lets it run.
    pub(crate) fn spin(&self, pauses: u32) {
        if let Some(controller) = self.machine.interrupt_controller() {
            controller.spin(self.lp);
        } else if pauses >= PAUSES_OF_A_TURN {
            self.machine.set_quantum(self.lp, Some(0));
        }
    }

    /// The guest executed this many instructions: the quantum shrinks, and a virtual clock moves.
    pub(crate) fn executed(&self, instructions: u64) {
        let config = self.machine.config();
        if config.tsc_source == TscSource::Virtual {
            self.machine.advance_tsc(instructions.saturating_mul(config.tsc_ticks_per_instruction));
        }
        if let Some(processor) = self.machine.processors().get(self.lp) {
            let left = processor.quantum.load(Ordering::Acquire);
            if left != u64::MAX {
                processor.quantum.store(left.saturating_sub(instructions), Ordering::Release);
            }
        }
    }

    /// Whose translations these are, and which of them are void. A CPU that keeps translations drops them when
    /// this is not what it was.
    pub fn translations(&self) -> Translations {
        let flushes = self.machine.processors().get(self.lp).map_or(0, |processor| processor.tlb.flushes());
        Translations { asid: self.asid, vcpu: self.vcpu, space: self.space, flushes }
    }

    /// Translates an access as the processor does: through its TLB, then by a walk.
    ///
    /// # Errors
    /// The VM exit that the access causes instead (EPT violation or misconfiguration). It carries no linear
    /// address and says so.
    pub fn translate(&self, gpa: Gpa, access: Access) -> Result<Translation, VmExit> {
        self.machine.translate(self.lp, self.asid, &self.space, gpa, access)
    }

    /// Reads guest memory; may cross pages.
    ///
    /// # Errors
    /// [`GuestMemoryError`].
    pub fn read(&self, gpa: Gpa, out: &mut [u8]) -> Result<(), GuestMemoryError> {
        for (at, range) in pieces(gpa, out.len()) {
            let place = self.translate(at, Access::Read)?;
            if let Some(piece) = out.get_mut(range) {
                self.machine.memory().read(place.byte(at), place.key, piece)?;
            }
        }
        Ok(())
    }

    /// Writes guest memory; may cross pages.
    ///
    /// # Errors
    /// [`GuestMemoryError`].
    pub fn write(&self, gpa: Gpa, data: &[u8]) -> Result<(), GuestMemoryError> {
        for (at, range) in pieces(gpa, data.len()) {
            let place = self.translate(at, Access::Write)?;
            if let Some(piece) = data.get(range) {
                let _ = self.machine.memory().write(place.byte(at), place.key, piece)?;
            }
        }
        Ok(())
    }
}

/// Why a guest access did not happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GuestMemoryError {
    /// The access leaves the guest.
    Exit(VmExit),
    /// Memory refused: a machine check.
    Memory(MemoryFault),
}

impl From<VmExit> for GuestMemoryError {
    fn from(exit: VmExit) -> Self {
        Self::Exit(exit)
    }
}

impl From<MemoryFault> for GuestMemoryError {
    fn from(fault: MemoryFault) -> Self {
        Self::Memory(fault)
    }
}

/// Cuts a range at page boundaries.
fn pieces(gpa: Gpa, len: usize) -> impl Iterator<Item = (Gpa, core::ops::Range<usize>)> {
    let mut done = 0usize;
    core::iter::from_fn(move || {
        if done >= len {
            return None;
        }
        let at = gpa.wrapping_add(done as u64);
        let room = (PAGE_SIZE - at.page_offset()) as usize;
        let range = done..done + room.min(len - done);
        done = range.end;
        Some((at, range))
    })
}
