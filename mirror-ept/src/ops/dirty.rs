//! Dirty logging: which shared frames the guest wrote since somebody last asked.
//!
//! # Protocol
//! One bit per frame. A fault that makes a leaf of a logged frame writable publishes the leaf and then sets
//! the bit, both under [`crate::Shared`]; see [`crate::Mmu::harvest_dirty`] for the other side, which is
//! exclusive. So either the fault comes first, and the harvest takes its bit and its permission; or it comes
//! after, and its bit is in the next harvest. A write without a bit set, or about to be set, is impossible.
//!
//! 1. [`crate::Mmu::start_logging`]: write-protect the range, flush once. Huge leaves stay; the first write to
//!    one splits it, or [`crate::Mmu::split_direct_range`] does so beforehand.
//! 2. The guest writes; each first write is a fault that sets its bit.
//! 3. [`crate::Mmu::harvest_dirty`]: take the bits, write-protect exactly those frames, flush once, report.
//! 4. When it is over, faults no longer name the log; [`crate::Mmu::recover_huge`] makes leaves huge again.
//!
//! Write protection takes a write permission that aging put aside as well, so aging cannot bring it back (46).
//!
//! *Eager splitting* is best effort and changes no translation, so nothing is flushed (45). It runs under
//! [`crate::Shared`] with the tables at hand; when they run out it stops, its caller drops the guard, gets
//! more if there are any, and goes on from where it was. Who finds no memory leaves the rest to faults.

use alloc::boxed::Box;
use alloc::vec::Vec;

use tdvisor_base::sync::{AtomicU64, Ordering};
use tdvisor_base::{Gfn, Level, to_usize};

use crate::cache::TableCache;
use crate::error::MmuError;
use crate::external::External;
use crate::lock::{Exclusive, Shared};
use crate::mmu::Mmu;
use crate::range::GfnRange;
use crate::spte::Spte;
use crate::table::{NoMemory, TablePages};

/// The log of one range of guest memory.
#[derive(Debug)]
pub struct DirtyLog {
    range: GfnRange,
    words: Box<[AtomicU64]>,
}

impl DirtyLog {
    /// A log with no bit set.
    ///
    /// # Errors
    /// [`NoMemory`].
    pub fn new(range: GfnRange) -> Result<Self, NoMemory> {
        let count = usize::try_from(range.frames().div_ceil(64)).map_err(|_| NoMemory)?;
        let mut words = Vec::new();
        words.try_reserve_exact(count).map_err(|_| NoMemory)?;
        words.extend((0..count).map(|_| AtomicU64::new(0)));
        Ok(Self { range, words: words.into_boxed_slice() })
    }

    /// The frames that are logged.
    pub const fn range(&self) -> GfnRange {
        self.range
    }

    /// Notes a write. Frames outside the range are nobody's business.
    pub fn mark(&self, gfn: Gfn) {
        if self.range.contains(gfn) {
            let bit = gfn.get() - self.range.start().get();
            if let Some(word) = self.words.get(to_usize(bit / 64)) {
                word.fetch_or(1 << (bit % 64), Ordering::AcqRel);
            }
        }
    }

    /// Whether a frame's bit is set.
    pub fn is_marked(&self, gfn: Gfn) -> bool {
        let bit = gfn.get().wrapping_sub(self.range.start().get());
        self.range.contains(gfn)
            && self
                .words
                .get(to_usize(bit / 64))
                .is_some_and(|w| w.load(Ordering::Acquire) >> (bit % 64) & 1 == 1)
    }
}

/// How far eager splitting came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum EagerSplit {
    /// No leaf above 4K is left in the range; so many were split.
    Complete(u64),
    /// The tables ran out after some leaves were split: everything before this frame is done.
    NeedTables {
        /// Leaves split.
        done: u64,
        /// Where to go on.
        next: Gfn,
    },
}

impl<P: TablePages, X: External<Page = P::ExternalPage>> Mmu<P, X> {
    /// Takes write permission from every shared leaf that overlaps the log's range, so that the log sees each
    /// first write from now on.
    ///
    /// # Errors
    /// [`MmuError::ForeignGuard`], [`MmuError::OutOfRange`], [`MmuError::Corrupt`].
    pub fn start_logging(&self, guard: &mut Exclusive<'_>, log: &DirtyLog) -> Result<(), MmuError<X::Error>> {
        if !guard.is_of(&self.core) {
            return Err(MmuError::ForeignGuard);
        }
        self.check_range(log.range())?;
        if self.write_protect(log.range(), |_| true)? {
            self.external.flush_direct(log.range());
        }
        Ok(())
    }

    /// Reports and forgets every frame that was written since the last time, and makes the next write to each
    /// visible again. Gives their number.
    ///
    /// # Errors
    /// [`MmuError::ForeignGuard`], [`MmuError::Corrupt`].
    pub fn harvest_dirty(
        &self,
        guard: &mut Exclusive<'_>,
        log: &DirtyLog,
        mut report: impl FnMut(Gfn),
    ) -> Result<u64, MmuError<X::Error>> {
        if !guard.is_of(&self.core) {
            return Err(MmuError::ForeignGuard);
        }
        self.check_range(log.range())?;
        let mut count = 0;
        let mut flush: Option<GfnRange> = None;
        let mut first = log.range().start();
        for word in &log.words {
            let end = first.wrapping_add(64).min(log.range().end());
            let bits = word.swap(0, Ordering::AcqRel);
            if bits != 0 {
                let range = GfnRange::new(first, end);
                let written = |gfn: Gfn| bits >> (gfn.get() - first.get()) & 1 == 1;
                if self.write_protect(range, written)? {
                    flush = Some(flush.map_or(range, |f| f.union(range)));
                }
                for gfn in (first.get()..end.get()).map(Gfn::new).filter(|gfn| written(*gfn)) {
                    report(gfn);
                    count += 1;
                }
            }
            first = end;
        }
        if let Some(range) = flush {
            self.external.flush_direct(range);
        }
        Ok(count)
    }

    /// Write-protects the chosen leaves of a range. Whether any was writable: then flush.
    fn write_protect(
        &self,
        range: GfnRange,
        chosen: impl Fn(Gfn) -> bool,
    ) -> Result<bool, MmuError<X::Error>> {
        let mut any = false;
        for found in self.direct_walk(range) {
            let found = found.map_err(MmuError::Corrupt)?;
            if found.at.level() == Level::L4K && !chosen(found.at.gfn()) {
                continue;
            }
            let mut value = found.value;
            // Only aging can interfere, and it changes an entry at most once between two uses of the page.
            while value.may_be_dirtied() {
                let protected = value.write_protected();
                match found.entry.compare_exchange(value.0, protected.0, Ordering::AcqRel, Ordering::Acquire)
                {
                    Ok(_) => any = true,
                    Err(now) => {
                        value = Spte(now);
                        continue;
                    }
                }
                break;
            }
        }
        Ok(any)
    }

    /// Splits every shared leaf of a range down to 4K, as far as the tables in `cache` go.
    ///
    /// # Errors
    /// [`MmuError::ForeignGuard`], [`MmuError::OutOfRange`], [`MmuError::Corrupt`].
    pub fn split_direct_range(
        &self,
        guard: &Shared<'_>,
        cache: &mut TableCache<P::ExternalPage>,
        range: GfnRange,
    ) -> Result<EagerSplit, MmuError<X::Error>> {
        if !guard.is_of(&self.core) {
            return Err(MmuError::ForeignGuard);
        }
        self.check_range(range)?;
        let mut done = 0;
        let mut next = range.start();
        'again: loop {
            let left = GfnRange::new(next, range.end());
            for found in self.direct_walk(left) {
                let found = found.map_err(MmuError::Corrupt)?;
                next = found.at.gfn().max(next);
                if found.at.level() > Level::L4K {
                    if cache.direct.is_empty() {
                        return Ok(EagerSplit::NeedTables { done, next });
                    }
                    // Lost to a fault or an ager: look again with the same table at hand.
                    if self.split_direct(guard, cache, &found)? {
                        done += 1;
                    }
                    continue 'again;
                }
            }
            return Ok(EagerSplit::Complete(done));
        }
    }
}
