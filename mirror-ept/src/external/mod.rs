//! The hooks: how a change of the mirror reaches the external table, which only somebody else may touch.
//!
//! # Protocol
//! | transition of the mirror | guard | hooks, in order |
//! |---|---|---|
//! | absent → table | [`Shared`] | [`External::link_external_spt`] |
//! | absent → leaf | [`Shared`] | [`External::set_external_spte`] |
//! | leaf → absent | [`Exclusive`] | `block`, `track`, [`External::remove_external_spte`] |
//! | leaf → table of leaves | [`Exclusive`] | `block`, `track`, [`External::split_external_spt`] |
//! | table of leaves → leaf | [`Exclusive`] | `block`, `track`, [`External::promote_external_spt`] |
//! | empty table → absent | [`Exclusive`] | `block`, `track`, [`External::free_external_spt`] |
//! | blocked, then given up | [`Exclusive`] | `track`, [`External::unblock`] |
//! | leaf without write → leaf with write | [`Shared`] | [`External::release_writes`] |
//!
//! Where a leaf stands in a transfer to another machine, and leaves that arrive from one, change by lists; their hooks
//! are given to [`crate::transfer`] and [`crate::arrive`] by whoever transfers.
//!
//! Consecutive leaves of one table are blocked and removed by one call each, [`External::block_leaves`] and
//! [`External::remove_external_leaves`], which as they stand call the hooks above for each.
//!
//! No other transition can be expressed: there is no hook for it. `block`, `track` and what follows are
//! called through [`phase`], whose tokens make the order a matter of types.
//!
//! A hook that fails has changed nothing, with one exception: after [`HookError::Fatal`] nobody knows, and
//! the TD must end. Hooks retry on their own within a static bound (18) and leave no lock of the module
//! marked for host priority when they give up (51).

pub mod phase;

use core::fmt;

use tdvisor_base::Pfn;
use tdvisor_base::sync::{AtomicU64, Ordering};

use crate::lock::{Exclusive, Shared};
use crate::range::{GfnRange, Position};
use crate::spte::Spte;
use crate::table::ExternalPage;
use phase::{Batch, Blocked, Run, Tracked};

/// Why a hook did not do what it was asked. `E` is what the external side said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HookError<E> {
    /// A lock on the external side was held, for longer than the hook's bound. Nothing changed.
    Busy,
    /// The operation was interrupted more often than the hook's bound. Nothing changed.
    Interrupted,
    /// Memory that the hook needs, beyond what was reserved, is not there. Nothing changed.
    NoMemory,
    /// The external side declines in the present state (for example: children not uniform). Nothing
    /// changed, and repeating it at once is useless.
    Refused(E),
    /// The external side contradicts the mirror, or is broken: this TD cannot continue.
    Fatal(E),
}

impl<E> HookError<E> {
    /// Whether the same call may succeed later without anything else being changed first.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Busy | Self::Interrupted | Self::NoMemory)
    }
}

impl<E: fmt::Display> fmt::Display for HookError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("the external table is busy"),
            Self::Interrupted => f.write_str("interrupted too often"),
            Self::NoMemory => f.write_str("no memory for the external table"),
            Self::Refused(e) => write!(f, "refused: {e}"),
            Self::Fatal(e) => write!(f, "fatal: {e}"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for HookError<E> {}

/// What is being blocked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blocking {
    /// A leaf that maps this host page.
    Leaf(Pfn),
    /// An entry that points at a table.
    Table,
}

/// What consecutive leaves of one mirror table map.
#[derive(Clone, Copy)]
pub struct Leaves<'m>(pub(crate) &'m [AtomicU64]);

impl fmt::Debug for Leaves<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.pfns()).finish()
    }
}

impl<'m> Leaves<'m> {
    /// How many there are.
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first host frame of each.
    #[inline]
    pub fn pfns(self) -> impl Iterator<Item = Pfn> + use<'m> {
        self.0.iter().map(|entry| Spte(entry.load(Ordering::Relaxed)).pfn())
    }
}

/// The external side of a mirror root.
///
/// The methods under [`Exclusive`] have the section for themselves; those under [`Shared`] run concurrently
/// on different entries, never twice at once on one entry (it is FROZEN meanwhile), and never for a child
/// before its parent succeeded (4).
pub trait External: Send + Sync {
    /// The twin of a mirror table.
    type Page: ExternalPage;
    /// What the external side says when it refuses.
    type Error: fmt::Debug + fmt::Display + Send + 'static;
    /// What a hook needs of whoever changes the mirror, and what it leaves for them. It is lent to each operation,
    /// which hands it from hook to hook: so it needs no lock, and two callers never meet in it.
    type Ctx;

    /// Links `page` as the table under the absent entry `at`.
    ///
    /// On success the external table owns the page until [`Self::free_external_spt`] or
    /// [`Self::promote_external_spt`] frees it.
    ///
    /// # Errors
    /// As [`HookError`] says; the page is then not part of the external table.
    fn link_external_spt(
        &self,
        ctx: &mut Self::Ctx,
        guard: &Shared<'_>,
        at: Position,
        page: &mut Self::Page,
    ) -> Result<(), HookError<Self::Error>>;

    /// Maps `pfn` at the absent entry `at`. Private leaves always allow everything.
    ///
    /// # Errors
    /// As [`HookError`] says; the page is then not mapped.
    fn set_external_spte(
        &self,
        ctx: &mut Self::Ctx,
        guard: &Shared<'_>,
        at: Position,
        pfn: Pfn,
    ) -> Result<(), HookError<Self::Error>>;

    /// Maps `count` consecutive pages from `pfn` at `count` consecutive absent entries of one table, from
    /// `first` on. Gives how many were mapped before the first failure, which is all where there is none.
    ///
    /// For building: one call instead of many. As it stands it makes the many.
    ///
    /// # Errors
    /// As [`HookError`] says, for the entry after the ones that were mapped.
    fn set_external_run(
        &self,
        ctx: &mut Self::Ctx,
        guard: &Shared<'_>,
        first: Position,
        pfn: Pfn,
        count: usize,
    ) -> (usize, Result<(), HookError<Self::Error>>) {
        let (mut at, mut pfn) = (first, pfn);
        let frames = first.level().frames();
        for done in 0..count {
            if let Err(why) = self.set_external_spte(ctx, guard, at, pfn) {
                return (done, Err(why));
            }
            at = Position::of(at.gfn().wrapping_add(frames), at.level());
            pfn = pfn.wrapping_add(frames);
        }
        (count, Ok(()))
    }

    /// Blocks the entry `at`: no new translation through it is made from now on; old ones may still be used.
    ///
    /// # Errors
    /// As [`HookError`] says; the entry is then not blocked.
    fn block(
        &self,
        ctx: &mut Self::Ctx,
        guard: &mut Exclusive<'_>,
        at: Position,
        what: Blocking,
    ) -> Result<(), HookError<Self::Error>>;

    /// Blocks consecutive leaves of one table from `first` on. Gives how many were blocked before the first
    /// failure, which is all where there is none.
    ///
    /// # Errors
    /// As [`HookError`] says, for the leaf after the ones that were blocked.
    #[inline]
    fn block_leaves(
        &self,
        ctx: &mut Self::Ctx,
        guard: &mut Exclusive<'_>,
        first: Position,
        leaves: Leaves<'_>,
    ) -> (usize, Result<(), HookError<Self::Error>>) {
        for (done, (at, pfn)) in first.and_following().zip(leaves.pfns()).enumerate() {
            if let Err(why) = self.block(ctx, guard, at, Blocking::Leaf(pfn)) {
                return (done, Err(why));
            }
        }
        (leaves.len(), Ok(()))
    }

    /// Makes every entry that was blocked before tracked: advances the epoch and gets every vCPU out of the
    /// guest once. One call serves the whole batch (11).
    ///
    /// # Errors
    /// As [`HookError`] says; the blocked entries are then blocked, not tracked.
    fn track(
        &self,
        ctx: &mut Self::Ctx,
        guard: &mut Exclusive<'_>,
        blocked: &Batch<Blocked>,
    ) -> Result<(), HookError<Self::Error>>;

    /// Removes the leaf that maps `pfn`. On success its contents are gone and the page is the host's: the
    /// hook gives it back to its owner. There is no way back from here.
    ///
    /// # Errors
    /// As [`HookError`] says; the leaf is then still blocked, and mapped.
    fn remove_external_spte(
        &self,
        ctx: &mut Self::Ctx,
        guard: &mut Exclusive<'_>,
        entry: &Tracked,
        pfn: Pfn,
    ) -> Result<(), HookError<Self::Error>>;

    /// Removes consecutive leaves of one table. Gives how many were removed before the first failure, which is
    /// all where there is none. Each is as final as [`Self::remove_external_spte`].
    ///
    /// # Errors
    /// As [`HookError`] says, for the leaf after the ones that were removed.
    #[inline]
    fn remove_external_leaves(
        &self,
        ctx: &mut Self::Ctx,
        guard: &mut Exclusive<'_>,
        run: &Run<Tracked>,
        leaves: Leaves<'_>,
    ) -> (usize, Result<(), HookError<Self::Error>>) {
        for (done, (entry, pfn)) in run.entries().zip(leaves.pfns()).enumerate() {
            if let Err(why) = self.remove_external_spte(ctx, guard, &entry, pfn) {
                return (done, Err(why));
            }
        }
        (run.len(), Ok(()))
    }

    /// Splits the leaf that maps `pfn` into a table, in `page`, of leaves one level below. On success the
    /// children are not blocked.
    ///
    /// # Errors
    /// As [`HookError`] says; the leaf is then still blocked, and the page may have been written to.
    fn split_external_spt(
        &self,
        ctx: &mut Self::Ctx,
        guard: &mut Exclusive<'_>,
        entry: &Tracked,
        pfn: Pfn,
        page: &mut Self::Page,
    ) -> Result<(), HookError<Self::Error>>;

    /// Merges the table under the entry into a leaf that maps `pfn`, and frees `page`, the table's twin. On
    /// success the leaf is not blocked.
    ///
    /// # Errors
    /// As [`HookError`] says; [`HookError::Refused`] where the children are not uniform. The entry is then
    /// still blocked.
    fn promote_external_spt(
        &self,
        ctx: &mut Self::Ctx,
        guard: &mut Exclusive<'_>,
        entry: &Tracked,
        pfn: Pfn,
        page: &mut Self::Page,
    ) -> Result<(), HookError<Self::Error>>;

    /// Unlinks the empty table under the entry and frees `page`, its twin.
    ///
    /// # Errors
    /// As [`HookError`] says; the table is then still linked, and blocked.
    fn free_external_spt(
        &self,
        ctx: &mut Self::Ctx,
        guard: &mut Exclusive<'_>,
        entry: &Tracked,
        page: &mut Self::Page,
    ) -> Result<(), HookError<Self::Error>>;

    /// Makes a blocked entry usable again.
    ///
    /// # Errors
    /// As [`HookError`] says. The caller tries a bounded number of times; after that this TD cannot continue.
    fn unblock(
        &self,
        ctx: &mut Self::Ctx,
        guard: &mut Exclusive<'_>,
        entry: &Tracked,
    ) -> Result<(), HookError<Self::Error>>;

    /// Allows writes again through the leaf that maps `pfn`, which was held for sending to another machine.
    ///
    /// An external side that nobody sends from never gets here; as it stands the hook does nothing.
    ///
    /// # Errors
    /// As [`HookError`] says; writes are then still not allowed.
    fn release_writes(
        &self,
        ctx: &mut Self::Ctx,
        guard: &Shared<'_>,
        at: Position,
        pfn: Pfn,
    ) -> Result<(), HookError<Self::Error>> {
        let _ = (ctx, guard, at, pfn);
        Ok(())
    }

    /// Drops every translation that any vCPU of this TD holds for `range` of the *direct* (shared) table.
    /// When it returns, none is in use.
    fn flush_direct(&self, range: GfnRange);
}
