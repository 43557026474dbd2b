//! Memory slots: runs of guest frames with memory behind them, which come and go while the TD runs.
//!
//! # Protocol
//! *Adding* ([`GuestMemory::add_slot`]): open an invalidation window, remove what the shared tree holds there
//! (device entries: hardware reports no touch of them), publish the slot, close the window.
//!
//! *Removing* ([`GuestMemory::remove_slot`]):
//! 1. Under a window the slot becomes *leaving*: for faults and for the host's own accesses it no longer exists.
//!    A fault that had resolved a page of it before is invalidated by the window, looks again, finds no slot and
//!    ends. Nobody waits for a fault, so a fault that retries cannot hold the removal up, nor the removal the
//!    fault (invariants 34 and 38).
//! 2. Its mappings are removed on both sides, piece by piece, each piece in a section and a window of its own;
//!    what was removed is freed.
//! 3. The slot goes. A removal that had to stop says how far it got; the slot stays leaving, and the next call
//!    goes on from there.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use mirror_ept::{DirtyLog, Filter, GfnRange};
use tdvisor_base::sync::{Mutex, RwLock};
use tdvisor_base::{Gfn, Level, Side};

use super::attributes::AttributeMap;

use super::backing::Backing;
use super::remove::{Reached, pieces};
use super::{GuestMemory, Seat};
use crate::error::Error;
use crate::platform::Platform;

/// Guest frames with memory behind them.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) frames: GfnRange,
    pub(super) state: Mutex<SlotState>,
}

#[derive(Debug)]
pub(super) struct SlotState {
    phase: Phase,
    pub(super) attributes: AttributeMap,
    pub(super) backing: Backing,
    /// Where writes to shared frames are logged, while they are.
    pub(super) log: Option<Arc<DirtyLog>>,
}

/// Where a slot is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Live,
    /// Being removed: nothing of it may be mapped or accessed any more.
    Leaving,
}

impl Slot {
    /// A slot that is private throughout, with no page yet.
    fn new(frames: GfnRange, largest: Level) -> Self {
        Self {
            frames,
            state: Mutex::new(SlotState {
                phase: Phase::Live,
                attributes: AttributeMap::new(frames, Side::Private),
                backing: Backing::new(frames, largest),
                log: None,
            }),
        }
    }
}

/// All slots of a TD, ascending and disjoint.
pub(super) struct Slots(RwLock<Vec<Slot>>);

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ranges()).finish()
    }
}

/// A set of slots that cannot be.
const NOT_DISJOINT: Error = Error::Caller("memory ranges must be disjoint, not empty, and addressable");

impl Slots {
    /// Slots for these ranges, which end at `end` at most.
    pub(super) fn new(ranges: &[GfnRange], end: Gfn, largest: Level) -> Result<Self, Error> {
        let mut ranges = ranges.to_vec();
        ranges.sort_unstable_by_key(|range| range.start());
        let apart = ranges.windows(2).all(|pair| match pair {
            [a, b] => a.end() <= b.start(),
            _ => true,
        });
        if !apart || ranges.iter().any(|range| range.is_empty() || range.end() > end) {
            return Err(NOT_DISJOINT);
        }
        Ok(Self(RwLock::new(ranges.into_iter().map(|frames| Slot::new(frames, largest)).collect())))
    }

    /// Looks at the slot of a frame, in whatever phase it is.
    pub(super) fn with_any<T>(&self, gfn: Gfn, look: impl FnOnce(&Slot) -> T) -> Option<T> {
        let list = self.0.read();
        let index = list.partition_point(|slot| slot.frames.start() <= gfn).checked_sub(1)?;
        list.get(index).filter(|slot| slot.frames.contains(gfn)).map(look)
    }

    /// Looks at the live slot of a frame.
    pub(super) fn with<T>(&self, gfn: Gfn, look: impl FnOnce(GfnRange, &mut SlotState) -> T) -> Option<T> {
        self.with_any(gfn, |slot| {
            let mut state = slot.state.lock();
            (state.phase == Phase::Live).then(|| look(slot.frames, &mut state))
        })
        .flatten()
    }

    /// Looks at each live slot that shares a frame with a range, and at their common part.
    pub(super) fn for_each(&self, range: GfnRange, mut look: impl FnMut(GfnRange, &mut SlotState)) {
        for slot in self.0.read().iter().filter(|slot| slot.frames.overlaps(range)) {
            let start = range.start().max(slot.frames.start());
            let end = range.end().min(slot.frames.end());
            let mut state = slot.state.lock();
            if state.phase == Phase::Live {
                look(GfnRange::new(start, end), &mut state);
            }
        }
    }

    /// Looks at every live slot, ascending.
    pub(super) fn for_live(&self, mut look: impl FnMut(GfnRange, &mut SlotState)) {
        for slot in self.0.read().iter() {
            let mut state = slot.state.lock();
            if state.phase == Phase::Live {
                look(slot.frames, &mut state);
            }
        }
    }

    /// Looks at the state of every slot, in whatever phase it is.
    pub(super) fn for_all(&self, mut look: impl FnMut(&mut SlotState)) {
        self.0.read().iter().for_each(|slot| look(&mut slot.state.lock()));
    }

    /// Whether no slot is being removed, and no write is logged.
    pub(super) fn all_live(&self) -> bool {
        let is_live = |state: &SlotState| state.phase == Phase::Live && state.log.is_none();
        self.0.read().iter().all(|slot| is_live(&slot.state.lock()))
    }

    /// Frames of live slots, ascending.
    pub(super) fn ranges(&self) -> Vec<GfnRange> {
        let list = self.0.read();
        list.iter().filter(|slot| slot.state.lock().phase == Phase::Live).map(|slot| slot.frames).collect()
    }

    /// Makes room for one more, so that publishing it allocates nothing.
    fn make_room(&self) -> Result<(), Error> {
        self.0.write().try_reserve(1).map_err(|_| Error::NoMemory)
    }

    fn overlaps(&self, range: GfnRange) -> bool {
        self.0.read().iter().any(|slot| slot.frames.overlaps(range))
    }

    fn insert(&self, new: Slot) {
        let mut list = self.0.write();
        let index = list.partition_point(|slot| slot.frames.start() < new.frames.start());
        list.insert(index, new);
    }

    fn remove(&self, frames: GfnRange) {
        self.0.write().retain(|slot| slot.frames != frames);
    }
}

impl<'h, P: Platform> GuestMemory<'h, P> {
    /// Adds memory to the TD: private, and nothing of it mapped.
    ///
    /// # Errors
    /// [`Error::Caller`] where the range is empty, is not addressable or has memory already (also memory that
    /// is being removed); [`Error::NoMemory`]. Nothing was added then.
    pub fn add_slot(&self, seat: &mut Seat<'_, 'h, P>, range: GfnRange) -> Result<(), Error> {
        if range.is_empty() || range.end() > self.mmu.config().end {
            return Err(NOT_DISJOINT);
        }
        let _conversion = self.conversions.lock();
        if self.slots.overlaps(range) {
            return Err(NOT_DISJOINT);
        }
        let slot = Slot::new(range, self.largest);
        self.slots.make_room()?;
        let Seat { participant, cache, ctx, .. } = seat;
        let mut guard = participant.exclusive();
        let window = self.mmu.notifier().begin(&mut guard, range);
        let removed = self.mmu.zap_range(ctx, &mut guard, cache, range, Filter::Shared);
        if removed.is_ok() {
            self.slots.insert(slot);
        }
        self.mmu.notifier().end(&mut guard, window);
        removed.map(drop).map_err(Error::from)
    }

    /// Takes a slot away, with its mappings and its pages. `range` is exactly the slot's.
    ///
    /// [`Reached::Upto`] says that the module was busy beyond its bound: the slot is leaving, call again.
    ///
    /// # Errors
    /// [`Error::Caller`] for a range that is no slot. Other errors mean that the TD cannot go on.
    pub fn remove_slot(&self, seat: &mut Seat<'_, 'h, P>, range: GfnRange) -> Result<Reached, Error> {
        let _conversion = self.conversions.lock();
        let known = self.slots.with_any(range.start(), |slot| slot.frames == range);
        if known != Some(true) {
            return Err(Error::Caller("no memory slot has exactly this range"));
        }
        {
            let mut guard = seat.participant.exclusive();
            let window = self.mmu.notifier().begin(&mut guard, range);
            self.slots.with_any(range.start(), |slot| slot.state.lock().phase = Phase::Leaving);
            self.mmu.notifier().end(&mut guard, window);
        }
        for piece in pieces(range) {
            let reached = self.discard(seat, piece)?;
            if reached < piece.end() {
                return Ok(Reached::Upto(reached));
            }
        }
        // What the slot withdrew stays withdrawn.
        self.slots.with_any(range.start(), |slot| {
            for folio in slot.state.lock().backing.quarantined() {
                self.core.host.quarantine(folio.pfn, folio.level);
            }
        });
        self.slots.remove(range);
        Ok(Reached::All)
    }
}
