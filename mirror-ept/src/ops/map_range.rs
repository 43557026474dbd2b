//! Mapping a whole private range at once: building a guest, or populating memory ahead of its use.
//!
//! # Protocol
//! Under [`Exclusive`] no entry is contended, so there is nothing to freeze: for each table, the absent
//! entries of the range are given to the external side in one run, and then published with plain stores. A
//! failure publishes what was mapped before it and stops there: every page is either mapped in both tables
//! or in neither (1, 7). Tables come from the cache; parents are linked before children (4).
//!
//! Leaves that map the right page already are passed over (32); one that maps another page stops the run (29).

use tdvisor_base::sync::Ordering;
use tdvisor_base::{Gfn, Level, Pfn, to_usize};

use crate::cache::{MirrorTable, TableCache};
use crate::error::{MmuError, Step};
use crate::external::{External, HookError};
use crate::fault::goal_level;
use crate::lock::{Exclusive, Tree};
use crate::mmu::{Mmu, index};
use crate::range::{GfnRange, Position};
use crate::slab;
use crate::spte::Spte;
use crate::table::{ENTRIES, Table, TablePages};

/// How a range mapping ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum MappedRange<E> {
    /// Every frame of the range is mapped; so many leaves were added.
    Complete(u64),
    /// The cache ran out: top it up and go on from this frame.
    NeedTables {
        /// Leaves added.
        leaves: u64,
        /// The first frame that is not mapped.
        next: Gfn,
    },
    /// A hook failed: everything before this frame is mapped, nothing after it was touched.
    Stopped {
        /// Leaves added.
        leaves: u64,
        /// The first frame that is not mapped.
        next: Gfn,
        /// The step that failed.
        step: Step,
        /// Why.
        why: HookError<E>,
    },
}

/// What is still to be mapped.
#[derive(Clone, Copy)]
struct Left {
    range: GfnRange,
    /// The page of its first frame.
    pfn: Pfn,
    max_level: Level,
}

/// How one step went on.
enum Stepped<E> {
    /// Mapped up to this frame.
    To(Gfn),
    NeedTables,
    Failed(Gfn, Step, HookError<E>),
}

impl<P: TablePages, X: External<Page = P::ExternalPage>> Mmu<P, X> {
    /// Maps the frames of a range to consecutive pages from `pfn`, with leaves of up to `max_level`.
    ///
    /// # Errors
    /// [`MmuError::PfnMismatch`] where another page is mapped in the range; what lies before it is mapped.
    /// The others as for a fault.
    pub fn map_private_range(
        &self,
        ctx: &mut X::Ctx,
        guard: &mut Exclusive<'_>,
        cache: &mut TableCache<P::ExternalPage>,
        range: GfnRange,
        pfn: Pfn,
        max_level: Level,
    ) -> Result<MappedRange<X::Error>, MmuError<X::Error>> {
        if !guard.is_of(&self.core) {
            return Err(MmuError::ForeignGuard);
        }
        self.check_alive()?;
        self.check_range(range)?;
        let mut leaves = 0;
        let mut next = range.start();
        while next < range.end() {
            let left = Left {
                range: GfnRange::new(next, range.end()),
                pfn: pfn.wrapping_add(next.get() - range.start().get()),
                max_level,
            };
            match self.map_in_one_table(ctx, guard, cache, left, &mut leaves)? {
                Stepped::To(gfn) => next = gfn,
                Stepped::NeedTables => return Ok(MappedRange::NeedTables { leaves, next }),
                Stepped::Failed(next, step, why) => {
                    if let HookError::Fatal(_) = why {
                        return Err(self.die(Position::of(next, Level::L4K), step, why));
                    }
                    return Ok(MappedRange::Stopped { leaves, next, step, why });
                }
            }
        }
        Ok(MappedRange::Complete(leaves))
    }

    /// Goes down to the table that the first frame's leaf belongs in and maps what of the range is in it.
    fn map_in_one_table(
        &self,
        ctx: &mut X::Ctx,
        guard: &mut Exclusive<'_>,
        cache: &mut TableCache<P::ExternalPage>,
        left: Left,
        leaves: &mut u64,
    ) -> Result<Stepped<X::Error>, MmuError<X::Error>> {
        let Left { range, pfn, max_level } = left;
        let gfn = range.start();
        let mut level = self.config.root_level;
        let mut table = self.mirror_table(self.mirror_root).ok_or(corrupt(gfn, level))?;
        loop {
            let at = Position::of(gfn, level);
            let entry = &table[index(gfn, level)];
            let value = Spte(entry.load(Ordering::Acquire));
            if value.is_table(level) {
                table = self.mirror_table(value.table_ref()).ok_or(MmuError::Corrupt(at))?;
                level = level.down().ok_or(MmuError::Corrupt(at))?;
                continue;
            }
            if value.is_present() || level <= largest_whole(range, pfn, max_level) {
                return self.map_run(ctx, guard, table, level, left, leaves);
            }
            let Some(MirrorTable { table: child, mut twin }) = cache.mirror.pop_front() else {
                return Ok(Stepped::NeedTables);
            };
            let (Some(home), Some(entries)) = (self.slab.twin(child), self.mirror_table(child)) else {
                return Err(MmuError::Corrupt(at));
            };
            slab::fill(entries, Spte::ABSENT);
            if let Err(why) = self.external.link_external_spt(ctx, &guard.as_shared(), at, &mut twin) {
                cache.mirror.push_front(MirrorTable { table: child, twin });
                return Ok(Stepped::Failed(gfn, Step::Link, why));
            }
            *home.lock() = Some(twin);
            entry.store(Spte::table(child).0, Ordering::Release);
            guard.counters().add_table(Tree::Mirror);
        }
    }

    /// Maps consecutive entries of one table, as far as they are absent and whole leaves of the range fit.
    fn map_run(
        &self,
        ctx: &mut X::Ctx,
        guard: &mut Exclusive<'_>,
        table: &Table,
        level: Level,
        left: Left,
        leaves: &mut u64,
    ) -> Result<Stepped<X::Error>, MmuError<X::Error>> {
        let Left { range, pfn, .. } = left;
        let first = Position::of(range.start(), level);
        let start = index(range.start(), level);
        let entries = table.get(start..).unwrap_or_default();
        let head = entries.first().map(|entry| Spte(entry.load(Ordering::Acquire)));
        if let Some(leaf) = head.filter(|value| value.is_present()) {
            let mapped = leaf.pfn().wrapping_add(range.start().get() - first.gfn().get());
            if mapped != pfn {
                return Err(MmuError::PfnMismatch { at: first, mapped, wanted: pfn });
            }
            return Ok(Stepped::To(first.range().end()));
        }
        let fit = to_usize(range.frames() / level.frames()).min(ENTRIES);
        let absent = |entry: &&tdvisor_base::sync::AtomicU64| {
            let value = Spte(entry.load(Ordering::Relaxed));
            !value.is_present() && !value.is_frozen()
        };
        let run = entries.iter().take(fit).take_while(absent).count();
        let (done, result) = self.external.set_external_run(ctx, &guard.as_shared(), first, pfn, run);
        let done = done.min(run);
        let mut value = Spte::mirror_leaf(pfn, level).0;
        for entry in entries.iter().take(done) {
            entry.store(value, Ordering::Relaxed);
            value = value.wrapping_add(level.bytes());
        }
        guard.counters().add_leaves(Tree::Mirror, level, done as u64);
        *leaves += done as u64;
        let next = first.gfn().wrapping_add(done as u64 * level.frames());
        match result {
            // An entry frozen at rest, or hooks that do nothing and say nothing: do not spin on them.
            Ok(()) if done == 0 => Err(MmuError::Corrupt(first)),
            Ok(()) => Ok(Stepped::To(next)),
            Err(why) => Ok(Stepped::Failed(next, Step::Set, why)),
        }
    }
}

const fn corrupt<E>(gfn: Gfn, level: Level) -> MmuError<E> {
    MmuError::Corrupt(Position::of(gfn, level))
}

/// The largest level at which a whole leaf can begin at the start of a range.
fn largest_whole(range: GfnRange, pfn: Pfn, limit: Level) -> Level {
    let aligned = goal_level(range.start(), pfn, limit);
    [Level::L1G, Level::L2M]
        .into_iter()
        .find(|level| {
            *level <= aligned && range.start().is_aligned(*level) && range.frames() >= level.frames()
        })
        .unwrap_or(Level::L4K)
}
