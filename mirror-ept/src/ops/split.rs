//! Splitting private leaves (demote).
//!
//! # Protocol
//! Under [`Exclusive`], for a batch of leaves of one level:
//! 1. Everything is reserved: the mirror tables with their twins are in the cache before the guard is taken.
//! 2. BLOCK every leaf; one TRACK with one kick.
//! 3. For each: write the 512 children into a table that nobody can reach (26d), which map the same pages (26);
//!    let the hook split the external leaf; publish the table.
//! 4. Put the twins of the new tables in their places.
//!
//! A failure unblocks what is blocked and gives back what was reserved: the leaf is huge and usable, in both
//! tables (26b, 26c). A twin that the external side may have scribbled on goes back as such (57). Leaves of
//! the batch that were split before the failure stay split, which changes no translation.
//!
//! *Inhibit*: a guest that accepts memory at 4K in a range wants no huge page there. The entry above the
//! small leaves carries that wish; it can only be set where no larger leaf is left (26f), keeps
//! [`Mmu::collapse_range`] away, and ends when it is cleared or when the table goes.

use heapless::Vec as Bounded;
use tdvisor_base::sync::Ordering;
use tdvisor_base::{Gfn, Level};

use crate::cache::{MirrorTable, TableCache};
use crate::error::{MmuError, Step};
use crate::external::phase::{Batch, Section};
use crate::external::{Blocking, External, HookError};
use crate::fault::{count_split, fill_children};
use crate::find::Finder;
use crate::lock::{Exclusive, Tree};
use crate::mmu::Mmu;
use crate::range::{GfnRange, Position};
use crate::spte::Spte;
use crate::table::{Returned, TablePages};

/// Leaves split in one batch.
const BATCH: usize = 128;

/// How a split of a range ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum SplitOutcome<E> {
    /// No leaf above the level is left; so many were split.
    Complete(u64),
    /// The cache ran out: top it up and repeat. So many were split.
    NeedTables(u64),
    /// A step failed after others had succeeded; this leaf is as it was.
    Partial {
        /// How many were split.
        done: u64,
        /// The leaf that was not.
        at: Position,
        /// The step that failed.
        step: Step,
        /// Why.
        why: HookError<E>,
    },
}

/// The leaves of one batch.
type Leaves = Bounded<Position, BATCH>;

impl<P: TablePages, X: External<Page = P::ExternalPage>> Mmu<P, X> {
    /// Splits every private leaf that overlaps a range and is larger than `to`, with the tables in `cache`.
    ///
    /// # Errors
    /// As [`MmuError`]: nothing was split.
    pub fn split_range(
        &self,
        ctx: &mut X::Ctx,
        guard: &mut Exclusive<'_>,
        cache: &mut TableCache<P::ExternalPage>,
        range: GfnRange,
        to: Level,
    ) -> Result<SplitOutcome<X::Error>, MmuError<X::Error>> {
        if !guard.is_of(&self.core) {
            return Err(MmuError::ForeignGuard);
        }
        self.check_alive()?;
        self.check_range(range)?;
        let mut done = 0;
        let mut from = range.start();
        loop {
            let mut leaves = Leaves::new();
            for found in self.mirror_walk(GfnRange::new(from, range.end())) {
                let at = found.map_err(MmuError::Corrupt)?.at;
                if at.level() > to && (leaves.len() >= cache.mirror.len() || leaves.push(at).is_err()) {
                    if leaves.is_empty() {
                        return Ok(SplitOutcome::NeedTables(done));
                    }
                    break;
                }
            }
            if leaves.is_empty() {
                return Ok(SplitOutcome::Complete(done));
            }
            // What this batch leaves behind may have to be split again, one level lower; what lies before it
            // is done.
            from = match (leaves.first(), leaves.last()) {
                (Some(_), Some(last)) if leaves.iter().all(|at| at.level().down() == Some(to)) => {
                    last.range().end()
                }
                (Some(first), _) => first.gfn().max(range.start()),
                _ => from,
            };
            let mut split = 0;
            let result = self.split_leaves(ctx, guard, cache, &leaves, &mut split);
            done += split;
            match result {
                Ok(()) => {}
                Err(MmuError::Hook { at, step, why }) if done > 0 => {
                    return Ok(SplitOutcome::Partial { done, at, step, why });
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Splits the leaves that stick out of a range, down to where the range's boundaries lie.
    pub(crate) fn split_boundaries(
        &self,
        ctx: &mut X::Ctx,
        guard: &mut Exclusive<'_>,
        cache: &mut TableCache<P::ExternalPage>,
        range: GfnRange,
    ) -> Result<(), MmuError<X::Error>> {
        if range.is_empty() {
            return Ok(());
        }
        let needed = self.boundary_tables(range);
        if needed > cache.mirror.len() {
            return Err(MmuError::NeedTables { mirror: needed });
        }
        loop {
            let mut leaves = Leaves::new();
            for boundary in [range.start(), range.end()] {
                if let Some(at) = self.cut_leaf(boundary)
                    && !leaves.contains(&at)
                {
                    let _ = leaves.push(at);
                }
            }
            if leaves.is_empty() {
                return Ok(());
            }
            self.split_leaves(ctx, guard, cache, &leaves, &mut 0)?;
        }
    }

    /// The leaf that a boundary lies inside of.
    fn cut_leaf(&self, boundary: Gfn) -> Option<Position> {
        if boundary >= self.config.end {
            return None;
        }
        self.mirror_leaf(boundary).map(|(at, ..)| at).filter(|at| at.gfn() != boundary)
    }

    /// At most how many tables the boundaries of a range need.
    fn boundary_tables(&self, range: GfnRange) -> usize {
        let of = |boundary: Gfn| match self.cut_leaf(boundary) {
            Some(at) if at.level() == Level::L1G && !boundary.is_aligned(Level::L2M) => 2,
            Some(_) => 1,
            None => 0,
        };
        of(range.start()) + of(range.end())
    }

    /// Splits a batch of leaves, each by one level.
    fn split_leaves(
        &self,
        ctx: &mut X::Ctx,
        guard: &mut Exclusive<'_>,
        cache: &mut TableCache<P::ExternalPage>,
        leaves: &[Position],
        done: &mut u64,
    ) -> Result<(), MmuError<X::Error>> {
        if cache.mirror.len() < leaves.len() {
            return Err(MmuError::NeedTables { mirror: leaves.len() });
        }
        let counters = guard.counters();
        let mut finder = Finder::new(self);
        let mut batch = Batch::new();
        batch.make_room(leaves.len())?;
        let mut section = Section::new(&self.external, ctx, guard);
        for &at in leaves {
            let (_, value) = finder.entry(at).ok_or(MmuError::Corrupt(at))?;
            match section.block(at, Blocking::Leaf(value.pfn())) {
                Ok(blocked) => batch.push(blocked),
                Err(why) => {
                    self.undo_blocked(&mut section, batch, at)?;
                    return Err(self.undone(at, Step::Block, why));
                }
            }
        }
        let first = batch.positions().next();
        let mut tracked = match section.track(batch) {
            Ok(tracked) => tracked,
            Err((batch, why)) => {
                let at = first.unwrap_or(Position::of(Gfn::new(0), Level::L4K));
                self.undo_blocked(&mut section, batch, at)?;
                return Err(self.undone(at, Step::Track, why));
            }
        };
        // The twins go to their places when all hooks were called: a lock makes the processor wait for every
        // store before it, and so for the children of the leaf just split to arrive in its cache.
        let (mut split, mut failed) = (0, None);
        while let Some(entry) = tracked.take() {
            let at = entry.at();
            let Some((place, value)) = finder.entry(at) else {
                failed = Some((entry, MmuError::Corrupt(at)));
                break;
            };
            let Some(MirrorTable { table, twin }) = cache.mirror.get_mut(split) else {
                // Counted above; if it were not so, the leaf would be made usable again like any other.
                failed = Some((entry, MmuError::NeedTables { mirror: leaves.len() }));
                break;
            };
            let Some(children) = self.mirror_table(*table) else {
                failed = Some((entry, MmuError::Corrupt(at)));
                break;
            };
            fill_children(children, value, at.level());
            if let Err((entry, why)) = section.split(entry, value.pfn(), twin) {
                failed = Some((entry, MmuError::Hook { at, step: Step::Split, why }));
                break;
            }
            place.store(Spte::table(*table).0, Ordering::Release);
            count_split(counters, Tree::Mirror, at.level());
            split += 1;
        }
        *done = split as u64;
        for MirrorTable { table, twin } in cache.mirror.drain(..split) {
            if let Some(home) = self.slab.twin(table) {
                *home.lock() = Some(twin);
            }
        }
        let Some((entry, error)) = failed else { return Ok(()) };
        if let MmuError::Hook { .. } = error
            && let Some(MirrorTable { table, twin }) = cache.mirror.pop_front()
        {
            self.slab.free(table);
            self.pages.return_external(twin, Returned::Scribbled);
        }
        match error {
            MmuError::Hook { at, step, why: why @ HookError::Fatal(_) } => Err(self.die(at, step, why)),
            fatal if fatal.is_fatal() => Err(fatal),
            error => {
                self.undo(&mut section, entry)?;
                self.undo_tracked(&mut section, &mut tracked)?;
                Err(error)
            }
        }
    }

    /// Notes that the guest wants no huge page of `level` around a frame. `false` where a leaf of that level,
    /// or nothing, is mapped there: split or map first.
    ///
    /// # Errors
    /// [`MmuError::ForeignGuard`].
    pub fn inhibit_huge(
        &self,
        guard: &mut Exclusive<'_>,
        gfn: Gfn,
        level: Level,
    ) -> Result<bool, MmuError<X::Error>> {
        self.change_table_entry(guard, gfn, level, Spte::with_inhibit)
    }

    /// Takes the guest's wish back. `false` where there is no table to carry one.
    ///
    /// # Errors
    /// [`MmuError::ForeignGuard`].
    pub fn allow_huge(
        &self,
        guard: &mut Exclusive<'_>,
        gfn: Gfn,
        level: Level,
    ) -> Result<bool, MmuError<X::Error>> {
        self.change_table_entry(guard, gfn, level, Spte::without_inhibit)
    }

    /// Whether the guest wants no huge page of `level` around a frame. May be asked at any time; under a
    /// guard the answer stays true.
    pub fn is_inhibited(&self, _guard: &crate::lock::Shared<'_>, gfn: Gfn, level: Level) -> bool {
        Finder::new(self)
            .entry(Position::of(gfn, level))
            .is_some_and(|(_, value)| value.is_table(level) && value.is_inhibited())
    }

    fn change_table_entry(
        &self,
        guard: &mut Exclusive<'_>,
        gfn: Gfn,
        level: Level,
        change: fn(Spte) -> Spte,
    ) -> Result<bool, MmuError<X::Error>> {
        if !guard.is_of(&self.core) {
            return Err(MmuError::ForeignGuard);
        }
        let Some((place, value)) = Finder::new(self).entry(Position::of(gfn, level)) else {
            return Ok(false);
        };
        if !value.is_table(level) {
            return Ok(false);
        }
        place.store(change(value).0, Ordering::Release);
        Ok(true)
    }
}
