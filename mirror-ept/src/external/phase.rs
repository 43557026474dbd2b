//! The order of removal and split as types: block each entry, track all of them once, then finish each.
//!
//! # Protocol
//! ```text
//! Section::block(at)  -> Blocked            entry by entry, collected in a Batch<Blocked>
//! Section::track(Batch<Blocked>) -> Batch<Tracked>     one TRACK and one kick for all of them
//! Section::{remove, split, promote, free, unblock}(Tracked)
//! ```
//! Consecutive leaves of one table go through the phases as one [`Run`], with one call of a hook each:
//! ```text
//! Section::block_leaves(first, leaves) -> Run<Blocked>  collected in the same Batch<Blocked>
//! Section::remove_leaves(Run<Tracked>, leaves)
//! ```
//! A [`Tracked`] can only come out of [`Section::track`], so what needs a tracked entry cannot be called
//! with one that is merely blocked (11, 53); and since each token is used up, an entry is finished once.
//! A step that fails gives its token back: the entry is still what the token says.
//!
//! Removing an entry that is only blocked does not compile:
//! ```compile_fail
//! use mirror_ept::external::{External, phase::{Blocked, Section}};
//! use tdvisor_base::Pfn;
//! fn wrong<X: External>(section: &mut Section<'_, '_, X>, entry: Blocked) {
//!     let _ = section.remove(entry, Pfn::new(1));
//! }
//! ```
//! Nor does finishing one twice:
//! ```compile_fail
//! use mirror_ept::external::{External, phase::{Section, Tracked}};
//! use tdvisor_base::Pfn;
//! fn wrong<X: External>(section: &mut Section<'_, '_, X>, entry: Tracked) {
//!     let _ = section.remove(entry, Pfn::new(1));
//!     let _ = section.unblock(entry);
//! }
//! ```
//! The right order does:
//! ```
//! use mirror_ept::external::{External, phase::{Section, Tracked}};
//! use tdvisor_base::Pfn;
//! fn right<X: External>(section: &mut Section<'_, '_, X>, entry: Tracked) {
//!     if let Err((entry, _why)) = section.remove(entry, Pfn::new(1)) {
//!         let _ = section.unblock(entry);
//!     }
//! }
//! ```

use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;

use tdvisor_base::Pfn;

use super::{Blocking, External, HookError, Leaves};
use crate::lock::Exclusive;
use crate::range::Position;
use crate::table::NoMemory;

/// An entry that is blocked: no new translation goes through it, old ones may still be in use.
#[derive(Debug)]
#[must_use = "a blocked entry stays blocked until it is tracked and finished"]
pub struct Blocked(Position);

impl Blocked {
    /// Which entry.
    pub const fn at(&self) -> Position {
        self.0
    }
}

/// An entry that is blocked and that no vCPU can still be using.
#[derive(Debug)]
#[must_use = "a tracked entry stays blocked until it is removed, split or unblocked"]
pub struct Tracked(Position);

impl Tracked {
    /// Which entry.
    pub const fn at(&self) -> Position {
        self.0
    }
}

/// Consecutive entries of one table.
#[derive(Clone, Copy)]
struct Span {
    first: Position,
    entries: u32,
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {}", self.entries, self.first)
    }
}

impl Span {
    #[inline]
    fn positions(self) -> impl Iterator<Item = Position> {
        self.first.and_following().take(self.entries as usize)
    }

    /// Forgets the first entries.
    #[inline]
    fn skip(&mut self, entries: usize) {
        let entries = u32::try_from(entries).map_or(self.entries, |entries| entries.min(self.entries));
        self.first = self.first.following(u64::from(entries));
        self.entries -= entries;
    }
}

/// Consecutive entries of one table in one phase.
#[must_use = "the entries of a run stay blocked until each is finished"]
pub struct Run<T> {
    span: Span,
    phase: PhantomData<T>,
}

impl<T> fmt::Debug for Run<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.span.fmt(f)
    }
}

impl<T> Run<T> {
    fn of(span: Span) -> Self {
        Self { span, phase: PhantomData }
    }

    /// The first entry.
    pub const fn first(&self) -> Position {
        self.span.first
    }

    /// How many entries there are.
    pub const fn len(&self) -> usize {
        self.span.entries as usize
    }

    /// Whether there is none left.
    pub const fn is_empty(&self) -> bool {
        self.span.entries == 0
    }

    /// The entries.
    #[inline]
    pub fn positions(&self) -> impl Iterator<Item = Position> + use<T> {
        self.span.positions()
    }
}

impl Run<Tracked> {
    /// Takes the first entry.
    pub fn take(&mut self) -> Option<Tracked> {
        if self.is_empty() {
            return None;
        }
        let first = self.span.first;
        self.span.skip(1);
        Some(Tracked(first))
    }

    /// The entries one by one, for hooks that finish them one by one.
    #[inline]
    pub(super) fn entries(&self) -> impl Iterator<Item = Tracked> + use<> {
        self.span.positions().map(Tracked)
    }
}

/// Entries in one phase, in the order in which they were blocked.
#[must_use = "the entries in a batch stay blocked until each is finished"]
pub struct Batch<T> {
    spans: Vec<Span>,
    /// Spans before this one are finished.
    next: usize,
    entries: usize,
    phase: PhantomData<T>,
}

impl<T> fmt::Debug for Batch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.left()).finish()
    }
}

impl<T> Batch<T> {
    fn left(&self) -> &[Span] {
        self.spans.get(self.next..).unwrap_or_default()
    }

    /// How many entries are in it.
    #[inline]
    pub const fn len(&self) -> usize {
        self.entries
    }

    /// Whether nothing is in it.
    pub const fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// The entries in it.
    pub fn positions(&self) -> impl Iterator<Item = Position> + '_ {
        self.left().iter().flat_map(|span| span.positions())
    }
}

impl Batch<Blocked> {
    /// An empty batch. It allocates nothing.
    pub const fn new() -> Self {
        Self { spans: Vec::new(), next: 0, entries: 0, phase: PhantomData }
    }

    /// Makes room for so many entries or runs more. To be called before they are blocked.
    ///
    /// # Errors
    /// [`NoMemory`].
    #[inline]
    pub fn make_room(&mut self, runs: usize) -> Result<(), NoMemory> {
        self.spans.try_reserve(runs).map_err(|_| NoMemory)
    }

    /// Adds an entry.
    #[inline]
    pub fn push(&mut self, entry: Blocked) {
        self.push_run(Run::of(Span { first: entry.0, entries: 1 }));
    }

    /// Adds a run.
    #[inline]
    pub fn push_run(&mut self, run: Run<Blocked>) {
        if !run.is_empty() {
            self.entries += run.len();
            self.spans.push(run.span);
        }
    }
}

impl Default for Batch<Blocked> {
    fn default() -> Self {
        Self::new()
    }
}

impl Batch<Tracked> {
    /// Takes the entry that was blocked first of those that are left.
    #[inline]
    pub fn take(&mut self) -> Option<Tracked> {
        let span = self.spans.get_mut(self.next)?;
        let first = span.first;
        span.skip(1);
        self.next += usize::from(span.entries == 0);
        self.entries -= 1;
        Some(Tracked(first))
    }

    /// Takes the run that was blocked first of those that are left.
    #[inline]
    pub fn take_run(&mut self) -> Option<Run<Tracked>> {
        let span = *self.spans.get(self.next)?;
        self.next += 1;
        self.entries -= span.entries as usize;
        Some(Run::of(span))
    }
}

/// What a failed step gives back: its token, and why.
pub type Back<T, X> = (T, HookError<<X as External>::Error>);

/// An exclusive section in which entries are blocked, tracked and finished.
pub struct Section<'s, 'g, X: External> {
    external: &'s X,
    ctx: &'s mut X::Ctx,
    guard: &'s mut Exclusive<'g>,
}

impl<X: External> fmt::Debug for Section<'_, '_, X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Section")
    }
}

impl<'s, 'g, X: External> Section<'s, 'g, X> {
    /// Opens a section; the guard is what makes it one. Every hook in it gets the same context.
    pub fn new(external: &'s X, ctx: &'s mut X::Ctx, guard: &'s mut Exclusive<'g>) -> Self {
        Self { external, ctx, guard }
    }

    pub(crate) fn guard(&self) -> &Exclusive<'g> {
        self.guard
    }

    /// Blocks one entry.
    ///
    /// # Errors
    /// The hook's; the entry is then not blocked.
    #[inline]
    pub fn block(&mut self, at: Position, what: Blocking) -> Result<Blocked, HookError<X::Error>> {
        self.external.block(self.ctx, self.guard, at, what)?;
        Ok(Blocked(at))
    }

    /// Blocks consecutive leaves of one table, in order, up to the first that cannot be. The run has those that
    /// are blocked.
    #[inline]
    pub fn block_leaves(
        &mut self,
        first: Position,
        leaves: Leaves<'_>,
    ) -> (Run<Blocked>, Result<(), HookError<X::Error>>) {
        let (done, result) = self.external.block_leaves(self.ctx, self.guard, first, leaves);
        let entries = if result.is_ok() { leaves.len() } else { done.min(leaves.len()) };
        // Leaves are of one table.
        let entries = u32::try_from(entries).unwrap_or(u32::MAX);
        (Run::of(Span { first, entries }), result)
    }

    /// Tracks a whole batch with one call.
    ///
    /// # Errors
    /// The batch and why; its entries are then still only blocked.
    pub fn track(&mut self, batch: Batch<Blocked>) -> Result<Batch<Tracked>, Back<Batch<Blocked>, X>> {
        if let Err(why) = self.external.track(self.ctx, self.guard, &batch) {
            return Err((batch, why));
        }
        let Batch { spans, next, entries, .. } = batch;
        Ok(Batch { spans, next, entries, phase: PhantomData })
    }

    /// Removes a leaf.
    ///
    /// # Errors
    /// The token and why; the leaf is then still mapped and blocked.
    #[inline]
    pub fn remove(&mut self, entry: Tracked, pfn: Pfn) -> Result<(), Back<Tracked, X>> {
        self.external.remove_external_spte(self.ctx, self.guard, &entry, pfn).map_err(|why| (entry, why))
    }

    /// Removes consecutive leaves of one table, in order, up to the first that cannot be.
    ///
    /// # Errors
    /// The rest of the run and why; its leaves are then still mapped and blocked.
    #[inline]
    pub fn remove_leaves(
        &mut self,
        mut run: Run<Tracked>,
        leaves: Leaves<'_>,
    ) -> Result<(), Back<Run<Tracked>, X>> {
        let (done, result) = self.external.remove_external_leaves(self.ctx, self.guard, &run, leaves);
        match result {
            Ok(()) => Ok(()),
            Err(why) => {
                run.span.skip(done);
                Err((run, why))
            }
        }
    }

    /// Splits a leaf into a table in `page`.
    ///
    /// # Errors
    /// The token and why; the leaf is then still mapped and blocked.
    #[inline]
    pub fn split(&mut self, entry: Tracked, pfn: Pfn, page: &mut X::Page) -> Result<(), Back<Tracked, X>> {
        self.external.split_external_spt(self.ctx, self.guard, &entry, pfn, page).map_err(|why| (entry, why))
    }

    /// Merges a table into a leaf.
    ///
    /// # Errors
    /// The token and why; the table is then still linked and blocked.
    pub fn promote(&mut self, entry: Tracked, pfn: Pfn, page: &mut X::Page) -> Result<(), Back<Tracked, X>> {
        self.external
            .promote_external_spt(self.ctx, self.guard, &entry, pfn, page)
            .map_err(|why| (entry, why))
    }

    /// Unlinks an empty table.
    ///
    /// # Errors
    /// The token and why; the table is then still linked and blocked.
    pub fn free(&mut self, entry: Tracked, page: &mut X::Page) -> Result<(), Back<Tracked, X>> {
        self.external.free_external_spt(self.ctx, self.guard, &entry, page).map_err(|why| (entry, why))
    }

    /// Makes an entry usable again.
    ///
    /// # Errors
    /// The token and why; the entry is then still blocked.
    pub fn unblock(&mut self, entry: Tracked) -> Result<(), Back<Tracked, X>> {
        self.external.unblock(self.ctx, self.guard, &entry).map_err(|why| (entry, why))
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use tdvisor_base::{Gfn, Level};

    fn at(gfn: u64) -> Position {
        Position::of(Gfn::new(gfn), Level::L2M)
    }

    fn run<T>(first: u64, entries: u32) -> Run<T> {
        Run::of(Span { first: at(first), entries })
    }

    fn tracked(batch: Batch<Blocked>) -> Batch<Tracked> {
        let Batch { spans, next, entries, .. } = batch;
        Batch { spans, next, entries, phase: PhantomData }
    }

    #[test]
    fn a_batch_gives_its_entries_in_the_order_in_which_they_were_blocked_one_by_one_or_by_runs() {
        let mut batch = Batch::new();
        batch.make_room(4).unwrap();
        batch.push_run(run(512, 3));
        batch.push_run(run(0, 0));
        batch.push(Blocked(at(0)));
        batch.push_run(run(8192, 2));
        let expected = [512, 1024, 1536, 0, 8192, 8704].map(at);
        assert_eq!(batch.positions().collect::<Vec<_>>(), expected);
        let mut batch = tracked(batch);
        assert_eq!(batch.take().unwrap().at(), at(512));
        let rest = batch.take_run().unwrap();
        assert_eq!(rest.positions().collect::<Vec<_>>(), expected[1..3]);
        assert_eq!(batch.len(), 3);
        assert_eq!(batch.take().unwrap().at(), at(0));
        let mut last = batch.take_run().unwrap();
        assert_eq!((last.take().unwrap().at(), last.len()), (at(8192), 1));
        assert_eq!((last.take().unwrap().at(), last.is_empty()), (at(8704), true));
        assert!(last.take().is_none() && batch.take().is_none() && batch.take_run().is_none());
        assert!(batch.is_empty());
    }
}
