//! Removal: conversion, hole punching, slot deletion, and the way back to huge pages.
//!
//! # Protocol
//! Under [`Exclusive`], for the *mirror*:
//! 1. A leaf that a boundary of the range cuts is split first, so that exactly the range goes (40).
//! 2. Round 1: BLOCK every leaf of the range, and every table that earlier removals emptied; one TRACK with
//!    one kick; REMOVE every leaf, free every such table. The mirror entry becomes absent after its hook
//!    succeeded, so there is nothing to repair when one fails.
//! 3. Tables that this removal emptied are noted. They cannot go in the same round: below a blocked entry
//!    nothing can be removed. They ride on the next removal, or on [`Mmu::reclaim_tables`]. After that the
//!    range can be mapped huge again.
//!
//! A failure before the first REMOVE unblocks everything: nothing happened. After it, contents are gone: the
//! rest is unblocked and the removal ends as [`Zapped::Partial`]. Where even that fails, [`MmuError::Dead`].
//!
//! For the *direct* tree: every leaf that overlaps the range is exchanged for absent, then one flush for all,
//! before anybody may hear that the pages are free. A huge leaf goes whole: the next fault brings it back.
//! Device entries go with the leaves and need no flush: the next touch leaves the guest again.

use tdvisor_base::sync::Ordering;
use tdvisor_base::{Gfn, Level, to_usize};

use crate::cache::TableCache;
use crate::emptied::Emptying;
use crate::error::{MmuError, Step};
use crate::external::phase::{Batch, Section};
use crate::external::{External, HookError, Leaves};
use crate::find::Finder;
use crate::lock::{Counters, Exclusive, LevelCounts, Tree};
use crate::mmu::Mmu;
use crate::range::{GfnRange, Position};
use crate::spte::Spte;
use crate::table::{Table, TablePages, TableRef};
use crate::walk::{FoundLeaves, Walk};

/// Which trees an operation works on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Filter {
    /// The mirror, which maps private memory.
    Private,
    /// The direct tree, which maps shared memory.
    Shared,
    /// The mirror and the direct tree.
    Both,
}

impl Filter {
    const fn private(self) -> bool {
        matches!(self, Self::Private | Self::Both)
    }

    const fn shared(self) -> bool {
        matches!(self, Self::Shared | Self::Both)
    }
}

/// What a removal removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ZapCount {
    /// Private leaves, by level, and the empty tables that rode along.
    pub mirror: LevelCounts,
    /// Shared leaves, by level.
    pub direct: LevelCounts,
    /// How many of the shared leaves hardware had marked dirty: always 0 where it does not mark.
    pub dirty: u64,
    /// Device entries.
    pub devices: u64,
}

/// How a removal ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Zapped<E> {
    /// Nothing is mapped in the range any more.
    Complete(ZapCount),
    /// A step failed after pages had been removed. The rest of the range is as it was: repeat the removal to
    /// go on.
    Partial {
        /// What was removed.
        done: ZapCount,
        /// The first leaf that was not.
        at: Position,
        /// The step that failed.
        step: Step,
        /// Why.
        why: HookError<E>,
    },
}

/// How one round went on.
enum Round<E> {
    /// The range is empty up to here.
    Upto(Gfn),
    Stopped {
        at: Position,
        step: Step,
        why: HookError<E>,
    },
}

impl<P: TablePages, X: External<Page = P::ExternalPage>> Mmu<P, X> {
    /// Removes every mapping of a range. `cache` holds [`crate::Reserve::PRIVATE`] tables, for the boundaries.
    ///
    /// # Errors
    /// As [`MmuError`]: nothing was removed then, and only [`MmuError::Dead`] ends the TD. A boundary may have
    /// been split, which changes no translation.
    pub fn zap_range(
        &self,
        ctx: &mut X::Ctx,
        guard: &mut Exclusive<'_>,
        cache: &mut TableCache<P::ExternalPage>,
        range: GfnRange,
        filter: Filter,
    ) -> Result<Zapped<X::Error>, MmuError<X::Error>> {
        if !guard.is_of(&self.core) {
            return Err(MmuError::ForeignGuard);
        }
        self.check_alive()?;
        self.check_range(range)?;
        let mut done = ZapCount::default();
        if filter.private() {
            self.split_boundaries(ctx, guard, cache, range)?;
            let mut from = range.start();
            while from < range.end() {
                let left = GfnRange::new(from, range.end());
                match self.zap_round(ctx, guard, left, &mut done.mirror) {
                    Ok(Round::Upto(next)) => from = next,
                    Ok(Round::Stopped { at, step, why }) => {
                        return Ok(Zapped::Partial { done, at, step, why });
                    }
                    // The round failed before its first REMOVE and is undone: everything from its start is mapped.
                    Err(MmuError::Hook { step, why, .. }) if done != ZapCount::default() => {
                        let at = Position::of(from, Level::L4K);
                        return Ok(Zapped::Partial { done, at, step, why });
                    }
                    Err(MmuError::NoMemory) if done != ZapCount::default() => {
                        let at = Position::of(from, Level::L4K);
                        let (step, why) = (Step::Block, HookError::NoMemory);
                        return Ok(Zapped::Partial { done, at, step, why });
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        if filter.shared() {
            self.zap_direct(guard, range, &mut done)?;
        }
        Ok(Zapped::Complete(done))
    }

    /// Frees tables that removals emptied: one BLOCK each, one TRACK and one kick for all. Tables that become
    /// empty by that wait for the next call. Gives the number of tables freed.
    ///
    /// # Errors
    /// As [`MmuError`]; tables that could not be freed stay linked, and are tried again next time.
    pub fn reclaim_tables(
        &self,
        ctx: &mut X::Ctx,
        guard: &mut Exclusive<'_>,
    ) -> Result<u64, MmuError<X::Error>> {
        if !guard.is_of(&self.core) {
            return Err(MmuError::ForeignGuard);
        }
        self.check_alive()?;
        let mut done = LevelCounts::default();
        let nothing = GfnRange::new(Gfn::new(0), Gfn::new(0));
        match self.zap_round(ctx, guard, nothing, &mut done)? {
            Round::Upto(_) => Ok(done.tables),
            Round::Stopped { at, step, why } => Err(MmuError::Hook { at, step, why }),
        }
    }

    /// One BLOCK–TRACK–REMOVE round over as much of the range as one batch holds.
    fn zap_round(
        &self,
        ctx: &mut X::Ctx,
        guard: &mut Exclusive<'_>,
        range: GfnRange,
        total: &mut LevelCounts,
    ) -> Result<Round<X::Error>, MmuError<X::Error>> {
        let counters = guard.counters();
        let mapped = self.statistics().mirror;
        let leaves = mapped.leaves_4k + mapped.leaves_2m + mapped.leaves_1g;
        let room = to_usize(range.frames().min(leaves)).min(self.config.batch.max(1));
        let mut batch = Batch::new();
        let mut section = Section::new(&self.external, ctx, guard);

        let mut next = range.end();
        let mut walk = self.mirror_walk(range);
        while let Some(found) = walk.next_leaves(room - batch.len()) {
            let FoundLeaves { first, entries } = found.map_err(MmuError::Corrupt)?;
            if batch.len() == room {
                next = first.gfn();
                break;
            }
            if batch.make_room(1).is_err() {
                self.undo_blocked(&mut section, batch, first)?;
                return Err(MmuError::NoMemory);
            }
            let (run, result) = section.block_leaves(first, Leaves(entries));
            let at = first.following(run.len() as u64);
            batch.push_run(run);
            if let Err(why) = result {
                self.undo_blocked(&mut section, batch, at)?;
                return Err(self.undone(at, Step::Block, why));
            }
        }
        let leaves = batch.len();
        self.block_emptied(&mut section, &mut batch)?;
        if batch.is_empty() {
            return Ok(Round::Upto(next));
        }
        let mut tracked = match section.track(batch) {
            Ok(tracked) => tracked,
            Err((batch, why)) => {
                let at = Position::of(range.start(), Level::L4K);
                batch.positions().skip(leaves).for_each(|table| self.note_emptied(table));
                self.undo_blocked(&mut section, batch, at)?;
                return Err(self.undone(at, Step::Track, why));
            }
        };

        let mut removed = LevelCounts::default();
        let mut finder = Finder::new(self);
        let mut parents = Emptying::new(self);
        let tables = tracked.len() - leaves;
        while tracked.len() > tables {
            let Some(run) = tracked.take_run() else { break };
            let (first, count) = (run.first(), run.len());
            let entries = finder.entries(first, count).ok_or(MmuError::Corrupt(first))?;
            let result = section.remove_leaves(run, Leaves(entries));
            let done = count - result.as_ref().err().map_or(0, |(rest, _)| rest.len());
            for entry in entries.iter().take(done) {
                entry.store(Spte::ABSENT.0, Ordering::Release);
            }
            removed.count_leaves(first.level(), done as u64);
            parents.removed(first, done);
            if let Err((mut rest, why)) = result {
                let at = rest.first();
                parents.finish();
                settle(counters, total, &removed);
                if let HookError::Fatal(_) = why {
                    return Err(self.die(at, Step::Remove, why));
                }
                while let Some(entry) = rest.take() {
                    self.undo(&mut section, entry)?;
                }
                let unfinished = tracked.len() - tables;
                tracked.positions().skip(unfinished).for_each(|table| self.note_emptied(table));
                self.undo_tracked(&mut section, &mut tracked)?;
                if removed == LevelCounts::default() {
                    return Err(MmuError::Hook { at, step: Step::Remove, why });
                }
                return Ok(Round::Stopped { at, step: Step::Remove, why });
            }
        }
        parents.finish();
        settle(counters, total, &removed);
        self.free_tables(&mut section, &mut tracked, counters, total)?;
        Ok(Round::Upto(next))
    }

    /// Removes the direct leaves that overlap a range, and flushes once.
    pub(crate) fn zap_direct(
        &self,
        guard: &mut Exclusive<'_>,
        range: GfnRange,
        done: &mut ZapCount,
    ) -> Result<(), MmuError<X::Error>> {
        let mut flush: Option<GfnRange> = None;
        let mut corrupt = None;
        let mut walk = self.direct_walk(range);
        while let Some(found) = walk.next_where(|value, level| value.is_leaf(level) || value.is_device()) {
            match found {
                Ok(found) if found.value.is_device() => {
                    // Only faults and removals change it, and we hold both off.
                    found.entry.store(Spte::ABSENT.0, Ordering::Release);
                    done.devices += 1;
                }
                Ok(found) => {
                    // An ager may be writing: exchange, and look at what was there (30).
                    let last = Spte(found.entry.swap(Spte::ABSENT.0, Ordering::AcqRel));
                    done.dirty += u64::from(last.is_dirty());
                    done.direct.count_leaf(found.at.level());
                    guard.counters().sub_leaves(Tree::Direct, found.at.level(), 1);
                    let range = found.at.range();
                    flush = Some(flush.map_or(range, |f| f.union(range)));
                }
                Err(at) => {
                    corrupt = Some(at);
                    break;
                }
            }
        }
        if let Some(range) = flush {
            self.external.flush_direct(range);
        }
        corrupt.map_or(Ok(()), |at| Err(MmuError::Corrupt(at)))
    }

    /// All leaves of the mirror that overlap a range.
    pub(crate) fn mirror_walk<'m>(
        &'m self,
        range: GfnRange,
    ) -> Walk<'m, impl Fn(TableRef) -> Option<&'m Table>> {
        Walk::new(
            |table| self.mirror_table(table),
            self.mirror_root,
            self.config.root_level,
            Gfn::new(0),
            range,
        )
    }

    /// All leaves of the direct tree that overlap a range.
    pub(crate) fn direct_walk<'m>(
        &'m self,
        range: GfnRange,
    ) -> Walk<'m, impl Fn(TableRef) -> Option<&'m Table>> {
        Walk::new(
            |table| self.direct_table(table),
            TableRef::from_pfn(self.direct_root()),
            self.config.root_level,
            self.config.shared_bit,
            range,
        )
    }
}

/// Adds what one round removed to the statistics and to the caller's count.
fn settle(counters: &Counters, done: &mut LevelCounts, removed: &LevelCounts) {
    for level in [Level::L4K, Level::L2M, Level::L1G] {
        counters.sub_leaves(Tree::Mirror, level, removed.leaves(level));
    }
    done.add(removed);
}
