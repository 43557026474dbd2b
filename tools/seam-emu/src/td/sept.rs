//! The Secure EPT: walks, entry locks, and the entries' atomic changes.
//!
//! # Protocol
//! An entry changes only under its lock (bit 11), or under the exclusive tree lock together with it. The
//! guest side locks entries too (ACCEPT); host priority (bit 52) keeps guests away from an entry on which the
//! host lost. The state bits change in one store, so that a processor's walk never sees half of a change.

use tdvisor_base::sync::{AtomicU64, Ordering, preemption_point};
use tdvisor_base::{Gpa, Hpa, Level};
use tdx_module_iface::sept::{SeptEntry, SeptState};

use super::Tdcs;
use crate::lock::{Busy, Side};

/// Where an entry is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SeptSlot<'m> {
    word: &'m AtomicU64,
    /// The level of the entry.
    pub(crate) level: Level,
}

/// How a walk ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Walk<'m> {
    /// At the entry of the wanted level.
    Found(SeptSlot<'m>),
    /// Above it, at an entry that does not lead further down.
    Stopped(SeptSlot<'m>),
}

impl<'m> SeptSlot<'m> {
    pub(crate) const fn new(word: &'m AtomicU64, level: Level) -> Self {
        Self { word, level }
    }

    /// The entry, without its lock and priority bits.
    pub(crate) fn entry(&self) -> SeptEntry {
        SeptEntry(self.word.load(Ordering::Acquire) & !(SeptEntry::LOCK | SeptEntry::HOST_PRIORITY))
    }

    pub(crate) fn state(&self) -> SeptState {
        self.entry().state().unwrap_or(SeptState::Free)
    }

    /// Takes the entry's lock.
    pub(crate) fn lock(self, side: Side) -> Result<SeptLock<'m>, Busy> {
        preemption_point();
        let mut current = self.word.load(Ordering::Relaxed);
        loop {
            let (next, outcome) = attempt(current, side);
            if next == current {
                return outcome.map(|()| SeptLock { slot: self });
            }
            match self.word.compare_exchange_weak(current, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return outcome.map(|()| SeptLock { slot: self }),
                Err(found) => current = found,
            }
        }
    }
}

fn attempt(word: u64, side: Side) -> (u64, Result<(), Busy>) {
    if side == Side::Guest && word & SeptEntry::HOST_PRIORITY != 0 {
        return (word, Err(Busy::HostPriority));
    }
    if word & SeptEntry::LOCK != 0 {
        let marked = if side == Side::Host { word | SeptEntry::HOST_PRIORITY } else { word };
        return (marked, Err(Busy::Held));
    }
    let cleared = if side == Side::Host { word & !SeptEntry::HOST_PRIORITY } else { word };
    (cleared | SeptEntry::LOCK, Ok(()))
}

/// A locked entry; dropping it lets go.
#[derive(Debug)]
pub(crate) struct SeptLock<'m> {
    slot: SeptSlot<'m>,
}

impl<'m> SeptLock<'m> {
    pub(crate) const fn slot(&self) -> SeptSlot<'m> {
        self.slot
    }

    pub(crate) fn entry(&self) -> SeptEntry {
        self.slot.entry()
    }

    pub(crate) fn state(&self) -> SeptState {
        self.slot.state()
    }

    /// Replaces the entry; it stays locked.
    pub(crate) fn set(&self, entry: SeptEntry) {
        const LOCK_BITS: u64 = SeptEntry::LOCK | SeptEntry::HOST_PRIORITY;
        let _ = crate::lock::change(self.slot.word, |old| Some(old & LOCK_BITS | entry.0 & !LOCK_BITS));
    }
}

impl Drop for SeptLock<'_> {
    fn drop(&mut self) {
        preemption_point();
        self.slot.word.fetch_and(!SeptEntry::LOCK, Ordering::Release);
    }
}

impl<'m> Tdcs<'m> {
    /// Walks the TD's own Secure EPT to the entry of `target` for `gpa`.
    ///
    /// `None` only where a table is not in memory, which the module's own bookkeeping rules out.
    pub(crate) fn walk(&self, gpa: Gpa, target: Level) -> Option<Walk<'m>> {
        if let Some(word) = self.missing_tree() {
            let slot = SeptSlot::new(word, Level::L4K);
            return Some(if target == Level::L4K { Walk::Found(slot) } else { Walk::Stopped(slot) });
        }
        self.walk_from(self.sept_root(), gpa, target)
    }

    /// Walks a tree of this TD from its root page.
    pub(crate) fn walk_from(&self, root: Hpa, gpa: Gpa, target: Level) -> Option<Walk<'m>> {
        let mut table = root;
        let mut level = self.root_level();
        loop {
            let word = self.table(table)?.get(level.table_index(gpa.frame()))?;
            let slot = SeptSlot::new(word, level);
            if level <= target {
                return Some(Walk::Found(slot));
            }
            let entry = slot.entry();
            if entry.state() != Some(SeptState::NlMapped) {
                return Some(Walk::Stopped(slot));
            }
            table = entry.hpa();
            level = level.down()?;
        }
    }
}
