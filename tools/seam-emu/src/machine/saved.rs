//! A machine's state as a snapshot on a disk holds it: everything but memory.
//!
//! [`MachineSnapshot`](super::MachineSnapshot) is for many machines in one process; this is for another process.
//!
//! # Protocol
//! [`Machine::save`] is called between two SEAMCALLs of every processor. [`Machine::restore`] makes the same machine with
//! empty memory; the caller fills that, page by page, each under its key, before anybody uses the machine.
//!
//! Every field of [`Machine`] is named in [`Machine::save`], so that one that is added does not compile until it is decided what
//! becomes of it. What a processor's line says, and which CPU runs guests there, is up to whoever goes on with the machine.

use core::fmt;

use serde::{Deserialize, Serialize};
use tdvisor_base::{Gpa, Hpa, KeyId, Level};

use super::{Asid, HostViolation, Machine, PconfigMode, Processor, StaleTranslation, tlb};
use crate::config::{MachineConfig, TscSource};
use crate::l2::Vm;
use crate::module::Module;
use crate::module::saved::SavedModule;

/// A machine's state without its memory.
#[derive(Debug, Serialize, Deserialize)]
pub struct SavedMachine {
    tsc: u64,
    guest_retired: u64,
    module: SavedModule,
    processors: Vec<SavedProcessor>,
    /// Pages with dirty lines of a key that is no longer theirs.
    dirty: Vec<(u64, u16)>,
    violations: Vec<SavedViolation>,
}

/// Why a machine's state cannot be saved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CannotSave {
    /// A guest runs on this processor.
    GuestRuns {
        /// Which.
        lp: usize,
    },
    /// Faults are injected: where their plan stands is not saved.
    FaultsInjected,
    /// A guest met what the emulator does not implement, or shut its processor down: what is known of it is not saved.
    GuestStopped,
}

impl fmt::Display for CannotSave {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GuestRuns { lp } => write!(f, "a guest runs on processor {lp}"),
            Self::FaultsInjected => {
                f.write_str("faults are injected, and where their plan stands is not saved")
            }
            Self::GuestStopped => f.write_str(
                "a guest was stopped by the emulator or shut down, and what is known of it is not saved",
            ),
        }
    }
}

impl core::error::Error for CannotSave {}

/// A saved state that is not of such a machine, or does not fit together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotThisMachine;

impl fmt::Display for NotThisMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the state is not of such a machine, or does not fit together")
    }
}

impl core::error::Error for NotThisMachine {}

/// What a processor holds while it runs no guest.
#[derive(Debug, Serialize, Deserialize)]
struct SavedProcessor {
    translations: Vec<SavedTranslation>,
    quantum: u64,
    xmm: [u128; 16],
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedTranslation {
    tdr: u64,
    vm: u8,
    gpa: u64,
    hpa: u64,
    key: u16,
    level: u8,
    rights: u8,
    shared: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedStale {
    lp: u64,
    gpa: u64,
    hpa: u64,
    level: u8,
}

#[derive(Debug, Serialize, Deserialize)]
enum SavedViolation {
    StalePrivate(SavedStale),
    StaleShared(SavedStale),
    DirtyLines { page: u64, old: u16, new: u16 },
    WriteToPrivate { page: u64, held_under: u16 },
}

const fn level(number: u8) -> Option<Level> {
    Some(match number {
        0 => Level::L4K,
        1 => Level::L2M,
        2 => Level::L1G,
        3 => Level::L512G,
        4 => Level::L256T,
        _ => return None,
    })
}

const fn vm(number: u8) -> Option<Vm> {
    if number == 0 { Some(Vm::L1) } else { Vm::l2(number) }
}

impl SavedTranslation {
    fn of(asid: Asid, gpa: Gpa, entry: tlb::Entry) -> Self {
        let Asid { tdr, vm } = asid;
        let tlb::Entry { hpa, key, level, rights, shared } = entry;
        Self {
            tdr: tdr.get(),
            vm: vm.number(),
            gpa: gpa.get(),
            hpa: hpa.get(),
            key: key.get(),
            level: level as u8,
            rights,
            shared,
        }
    }

    fn translation(self) -> Option<(Asid, Gpa, tlb::Entry)> {
        let Self { tdr, vm: number, gpa, hpa, key, level: at, rights, shared } = self;
        let asid = Asid { tdr: Hpa::new(tdr), vm: vm(number)? };
        let (hpa, key) = (Hpa::new(hpa), KeyId::new(key));
        Some((asid, Gpa::new(gpa), tlb::Entry { hpa, key, level: level(at)?, rights, shared }))
    }
}

impl SavedStale {
    const fn of(stale: StaleTranslation) -> Self {
        let StaleTranslation { lp, gpa, hpa, level } = stale;
        Self { lp: lp as u64, gpa: gpa.get(), hpa: hpa.get(), level: level as u8 }
    }

    fn stale(self) -> Option<StaleTranslation> {
        let Self { lp, gpa, hpa, level: at } = self;
        let lp = usize::try_from(lp).ok()?;
        Some(StaleTranslation { lp, gpa: Gpa::new(gpa), hpa: Hpa::new(hpa), level: level(at)? })
    }
}

impl SavedViolation {
    const fn of(violation: HostViolation) -> Self {
        match violation {
            HostViolation::StalePrivateTranslation(stale) => Self::StalePrivate(SavedStale::of(stale)),
            HostViolation::StaleSharedTranslation(stale) => Self::StaleShared(SavedStale::of(stale)),
            HostViolation::DirtyLinesOfOldKey { page, old, new } => {
                Self::DirtyLines { page: page.get(), old: old.get(), new: new.get() }
            }
            HostViolation::WriteToPrivatePage { page, held_under } => {
                Self::WriteToPrivate { page: page.get(), held_under: held_under.get() }
            }
        }
    }

    fn violation(self) -> Option<HostViolation> {
        Some(match self {
            Self::StalePrivate(stale) => HostViolation::StalePrivateTranslation(stale.stale()?),
            Self::StaleShared(stale) => HostViolation::StaleSharedTranslation(stale.stale()?),
            Self::DirtyLines { page, old, new } => HostViolation::DirtyLinesOfOldKey {
                page: Hpa::new(page),
                old: KeyId::new(old),
                new: KeyId::new(new),
            },
            Self::WriteToPrivate { page, held_under } => {
                HostViolation::WriteToPrivatePage { page: Hpa::new(page), held_under: KeyId::new(held_under) }
            }
        })
    }
}

impl SavedProcessor {
    fn of(lp: usize, processor: &Processor) -> Result<Self, CannotSave> {
        use tdvisor_base::sync::Ordering;
        let Processor {
            package: _,
            interrupt_pending: _,
            interrupt_line: _,
            tlb,
            running,
            quantum,
            xmm,
            // Asked for right after the call that sets it.
            exit_xfam: _,
            guest_exits: _,
            guest_cpu: _,
        } = processor;
        if running.load(Ordering::Acquire) != 0 {
            return Err(CannotSave::GuestRuns { lp });
        }
        let translations = tlb
            .all()
            .into_iter()
            .map(|((asid, gpa), entry)| SavedTranslation::of(asid, gpa, entry))
            .collect();
        Ok(Self { translations, quantum: quantum.load(Ordering::Acquire), xmm: *xmm.lock() })
    }

    fn restore(self, processor: &Processor) -> Option<()> {
        use tdvisor_base::sync::Ordering;
        let Self { translations, quantum, xmm } = self;
        for saved in translations {
            let (asid, gpa, entry) = saved.translation()?;
            processor.tlb.insert(asid, gpa, entry);
        }
        processor.quantum.store(quantum, Ordering::Release);
        *processor.xmm.lock() = xmm;
        Some(())
    }
}

impl Machine {
    /// The state without memory.
    ///
    /// # Errors
    /// [`CannotSave`].
    pub fn save(&self) -> Result<SavedMachine, CannotSave> {
        let Self {
            config: _,
            memory: _,
            processors,
            module,
            violations,
            limits,
            shutdowns,
            dirty,
            rdseed: _,
            pconfig: _,
            faults,
            tdcalls: _,
            interrupts: _,
            clock: _,
            started: _,
            guest_retired,
        } = self;
        let modes = (self.rdseed_has_entropy(), self.pconfig_mode());
        if faults.is_armed() || modes != (true, PconfigMode::Ok) {
            return Err(CannotSave::FaultsInjected);
        }
        if !limits.all().is_empty() || !shutdowns.all().is_empty() {
            return Err(CannotSave::GuestStopped);
        }
        let processors =
            processors.iter().enumerate().map(|(lp, processor)| SavedProcessor::of(lp, processor));
        Ok(SavedMachine {
            tsc: self.tsc(),
            guest_retired: guest_retired.load(tdvisor_base::sync::Ordering::Acquire),
            module: module.save(),
            processors: processors.collect::<Result<_, _>>()?,
            dirty: dirty.all().into_iter().map(|(pfn, key)| (pfn, key.get())).collect(),
            violations: violations.all().into_iter().map(SavedViolation::of).collect(),
        })
    }

    /// A machine in a saved state, with empty memory: what was in it has to be put back before the machine is used.
    ///
    /// # Errors
    /// [`NotThisMachine`].
    pub fn restore(config: MachineConfig, saved: SavedMachine) -> Result<Self, NotThisMachine> {
        let config = config.presented();
        let SavedMachine { tsc, guest_retired, module, processors, dirty, violations } = saved;
        let module = Module::restore(&config, module).ok_or(NotThisMachine)?;
        let machine = Self::assemble_empty(config, module);
        if processors.len() != machine.processors.len() {
            return Err(NotThisMachine);
        }
        for (saved, processor) in processors.into_iter().zip(&machine.processors) {
            saved.restore(processor).ok_or(NotThisMachine)?;
        }
        machine.dirty.restore(dirty.into_iter().map(|(pfn, key)| (pfn, KeyId::new(key))));
        for violation in violations {
            machine.violations.push(violation.violation().ok_or(NotThisMachine)?);
        }
        machine.note_guest_retired(guest_retired);
        machine.advance_tsc(match machine.config.tsc_source {
            TscSource::Virtual => tsc.saturating_sub(machine.tsc()),
            TscSource::Host => tsc,
        });
        Ok(machine)
    }
}
