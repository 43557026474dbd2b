//! A machine whose turns froze, as a snapshot holds it: all but its memory.
//!
//! # Protocol
//! [`Freezer::freeze`] stops the turns at the end of the present one; every vCPU's thread then leaves. Afterwards nobody is in a
//! SEAMCALL or on a processor, and [`EmulatedMachine::save`] saves the module, the time, what is pending on each processor, whose
//! turn it would have been, which frames are free, and how many calls there were. [`EmulatedMachine::restore`] makes the machine
//! again with empty memory, which the caller fills, page by page under its key, before anything else.
//!
//! What processors have cached of their guests (decoded and compiled instructions) begins anew: how many instructions a turn has does
//! not depend on it. Where the last calls and exits are kept for people, that begins anew, too.

use std::fmt;
use std::sync::Arc;

use mirror_ept::{Numbers, Reader};
use seam_emu::{CannotSave, Machine, NotThisMachine};
use serde::{Deserialize, Serialize};
use td_host::frames::FreeFrames;

use crate::lp::{SavedEvents, Timing};
use crate::trace::Trace;
use crate::turns::{SavedTurns, Turns};
use crate::{EmulatedMachine, Hardware, Pace, shape};

/// A machine's state without its memory.
#[derive(Debug, Serialize, Deserialize)]
pub struct SavedMachine {
    machine: seam_emu::SavedMachine,
    events: Vec<SavedEvents>,
    turns: SavedTurns,
    frames: Vec<u64>,
    calls: Vec<u64>,
}

/// Why a machine cannot be saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CannotSaveMachine {
    /// Its turns did not freeze, or it has none.
    NotFrozen,
    /// The emulated machine.
    Machine(CannotSave),
}

impl fmt::Display for CannotSaveMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFrozen => f.write_str("the machine did not stop at a point where it can be saved"),
            Self::Machine(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CannotSaveMachine {}

/// Freezes a machine, from any thread.
#[derive(Clone)]
pub struct Freezer(Arc<Turns>);

impl fmt::Debug for Freezer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Freezer")
    }
}

impl Freezer {
    /// The present turn is the last one. Waits for nothing.
    pub fn freeze(&self) {
        self.0.freeze();
    }
}

impl EmulatedMachine {
    /// What freezes the machine; `None` where its processors take no turns.
    pub fn freezer(&self) -> Option<Freezer> {
        match &self.timing {
            Timing::Turns(turns) => Some(Freezer(turns.clone())),
            Timing::Real(_) => None,
        }
    }

    /// Whether the machine has frozen.
    pub fn is_frozen(&self) -> bool {
        matches!(&self.timing, Timing::Turns(turns) if turns.is_frozen())
    }

    /// The state of a machine that has frozen, and whose vCPUs' threads have left.
    ///
    /// # Errors
    /// [`CannotSaveMachine`].
    pub fn save(&self) -> Result<SavedMachine, CannotSaveMachine> {
        let Timing::Turns(turns) = &self.timing else { return Err(CannotSaveMachine::NotFrozen) };
        let turns = turns.save().ok_or(CannotSaveMachine::NotFrozen)?;
        let mut frames = Numbers::new();
        self.frames.save(&mut frames);
        Ok(SavedMachine {
            machine: self.machine.save().map_err(CannotSaveMachine::Machine)?,
            events: self.processors.save(),
            turns,
            frames: frames.into_vec(),
            calls: self.trace.counts(),
        })
    }

    /// A machine as [`Self::with_hardware`] makes it, in a saved state and with empty memory. It takes turns.
    ///
    /// # Errors
    /// [`NotThisMachine`].
    pub fn restore(
        hardware: &Hardware,
        memory: u64,
        vcpus: u32,
        saved: SavedMachine,
        trace: Trace,
    ) -> Result<Self, NotThisMachine> {
        let SavedMachine { machine, events, turns, frames, calls } = saved;
        // What the seed decides follows from where the turns stood.
        let (config, range) = shape(hardware, memory, vcpus, Pace::Deterministic { seed: 0 });
        let mut reader = Reader::new(&frames);
        let frames = FreeFrames::restore(&[range], &mut reader).map_err(|_| NotThisMachine)?;
        reader.end().map_err(|_| NotThisMachine)?;
        let machine = Arc::new(Machine::restore(config, machine)?);
        let turns = Turns::restore(machine.num_lps() - 1, turns).ok_or(NotThisMachine)?;
        trace.count_on(&calls);
        let restored = Self::assemble(machine, hardware.engine, Some(turns), frames, range, trace);
        restored.processors.restore(events).ok_or(NotThisMachine)?;
        Ok(restored)
    }
}
