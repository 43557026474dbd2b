//! Stopping all processors between two instructions, none of them in a TD.
//!
//! # Protocol
//! Somebody asks for it ([`Freeze::request`]) and rings every processor. What happens then depends on how the server runs:
//!
//! - Where processors take turns, the one whose turn begins looks whether any other one is in a TD. If none is, the
//!   machine freezes there; otherwise the run goes on as if nobody had asked, until such a moment comes. So a run that is
//!   frozen and continued is the run that was never frozen.
//! - Side by side, each processor stops where it comes to its next turn; one in a TD stops when the TD exits next, which
//!   the host's own timer brings about. The last one to stop freezes the machine.

use std::sync::{Mutex, PoisonError};

use tdvisor_base::sync::{AtomicBool, AtomicU64, Ordering};

use crate::interrupts::Interrupts;
use crate::turns::SavedTurns;

/// Whether the server is to freeze, and who has stopped.
#[derive(Debug, Default)]
pub(crate) struct Freeze {
    requested: AtomicBool,
    in_guests: AtomicU64,
    arrived: AtomicU64,
    /// Where the turns stood when it froze.
    turns: Mutex<Option<SavedTurns>>,
}

/// A processor is in a TD; until it is dropped.
#[must_use]
pub(crate) struct InGuest<'f>(&'f Freeze);

impl Drop for InGuest<'_> {
    fn drop(&mut self) {
        self.0.in_guests.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Freeze {
    pub(crate) fn request(&self) {
        self.requested.store(true, Ordering::SeqCst);
    }

    pub(crate) fn enter_guest(&self) -> InGuest<'_> {
        self.in_guests.fetch_add(1, Ordering::SeqCst);
        InGuest(self)
    }

    /// Side by side: whether the processor that asks stops here. It asks once.
    pub(crate) fn takes_in(&self, interrupts: &Interrupts) -> bool {
        let stops = !interrupts.takes_turns() && self.requested.load(Ordering::SeqCst);
        if stops {
            self.arrived.fetch_add(1, Ordering::SeqCst);
        }
        stops
    }

    /// Whether as many processors have stopped.
    pub(crate) fn is_complete(&self, processors: usize) -> bool {
        self.arrived.load(Ordering::SeqCst) == processors as u64
    }

    /// In turns: whether the machine freezes here, at the beginning of the turn of the one that asks.
    pub(crate) fn is_now(&self, interrupts: &Interrupts) -> bool {
        let now = interrupts.takes_turns()
            && self.requested.load(Ordering::SeqCst)
            && self.in_guests.load(Ordering::SeqCst) == 0;
        if now {
            *self.turns.lock().unwrap_or_else(PoisonError::into_inner) = interrupts.save_turns();
        }
        now
    }

    /// Where the turns stood when the machine froze.
    pub(crate) fn take_turns(&self) -> Option<SavedTurns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
