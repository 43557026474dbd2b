//! Faults: how a page gets mapped.
//!
//! # Protocol
//! Before any lock: take a [`crate::notifier::Snapshot`], resolve the page, top up a [`TableCache`]. Then,
//! under [`Shared`]:
//! 1. If the snapshot no longer counts, retry.
//! 2. Walk from the root. A FROZEN entry means that somebody else is at it: retry.
//! 3. An absent entry above the wanted level gets a table; the absent entry at the wanted level gets the leaf.
//!    In the *mirror* each of the two is freeze → hook → publish, or the old value back; in the *direct* tree
//!    it is one compare-exchange.
//! 4. A present table at the wanted level lowers the level: nothing huge ever replaces a table here (26e).
//! 5. A leaf that maps the page already is [`FaultOutcome::Spurious`] and calls no hook (32). A leaf that maps
//!    another page is an error (29).
//!    A mirror leaf that does not allow the access is held for sending to another machine ([`crate::transfer`]): freeze →
//!    hook → the same leaf with write.
//! 6. A mirror leaf above the level the guest insists on is [`FaultOutcome::NeedsSplit`]: splitting it takes the
//!    exclusive side. A *direct* leaf above the wanted level is split on the spot.
//!
//! Whatever fails, fails without a trace: the entry has its old value, the tables are back in the cache,
//! statistics did not move (7).

mod private;
mod shared;

use tdvisor_base::sync::{AtomicU64, Ordering};
use tdvisor_base::{Gfn, Level, Pfn};

use crate::cache::TableCache;
use crate::dirty::DirtyLog;
use crate::error::MmuError;
use crate::external::External;
use crate::lock::{Counters, Shared, Tree};
use crate::mmu::Mmu;
use crate::notifier::Snapshot;
use crate::range::Position;
use crate::slab;
use crate::spte::{Access, Spte};
use crate::stale::Stale;
use crate::table::{ENTRIES, Table, TablePages, TableRef};

/// What a fault wants.
#[derive(Clone, Copy, Debug)]
pub struct Fault<'a> {
    /// The frame, without the SHARED bit.
    pub gfn: Gfn,
    /// What the guest tried.
    pub access: Access,
    /// The largest level allowed: by attributes, alignment of the slot, the guest's ACCEPT, the TD's state.
    pub max_level: Level,
    /// Taken before the page was resolved.
    pub snapshot: Snapshot,
    /// The page.
    pub target: Target<'a>,
}

/// The page that a fault resolved to.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// Private memory, in the mirror.
    Private {
        /// The host frame of the guest frame.
        pfn: Pfn,
        /// The largest level at which the memory behind it is contiguous and aligned.
        backing: Level,
    },
    /// Shared memory, in the direct tree.
    Shared {
        /// The host frame of the guest frame.
        pfn: Pfn,
        /// How large the memory behind it is.
        backing: Backing,
        /// Whether the guest may write at all.
        writable: bool,
        /// Where writes are logged, if they are.
        log: Option<&'a DirtyLog>,
    },
    /// An emulated device in shared space, 4 KiB of it: the next touch is to raise #VE in the guest instead
    /// of leaving it. Removing the range, or mapping a page there, ends that. Where a page is mapped the fault
    /// is [`MmuError::NotApplicable`].
    Device,
}

/// How large the host memory behind a shared page is.
#[derive(Clone, Copy, Debug)]
pub enum Backing {
    /// The owner of the memory says so, and would open an invalidation window before changing it.
    Folio(Level),
    /// What the host's page table said at some time after the snapshot.
    HostMapping(Stale<Level>),
}

/// What became of a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum FaultOutcome {
    /// The page is mapped, by this fault, at this level.
    Mapped(Level),
    /// A permission was given (back) to a page that was mapped.
    Restored(Level),
    /// The page was mapped and accessible before: nothing was done, no hook was called.
    Spurious(Level),
    /// A write to a shared page that is mapped and may not be written.
    ReadOnly(Level),
    /// A private leaf of this level covers the frame, above the level asked for: split it, then repeat.
    NeedsSplit(Level),
    /// Nothing changed: repeat.
    Retry(Retry),
}

/// Why a fault must be repeated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retry {
    /// Somebody else was changing the same entry.
    Contended,
    /// The page was taken away since it was resolved: resolve it again.
    Invalidated,
    /// The external table was busy, or the operation was interrupted.
    ExternalBusy,
    /// The hooks lacked memory.
    ExternalMemory,
    /// The cache has too few tables: top it up.
    NeedTables,
}

/// How one step of a walk ended.
enum Stepped {
    /// The entry now points at this table.
    Down(TableRef),
    Done(FaultOutcome),
}

impl<P: TablePages, X: External<Page = P::ExternalPage>> Mmu<P, X> {
    /// Maps the page of a fault, or says why not.
    ///
    /// # Errors
    /// As [`MmuError`]; nothing changed then. After an error that is fatal the TD must end.
    #[inline(always)]
    pub fn fault(
        &self,
        ctx: &mut X::Ctx,
        guard: &Shared<'_>,
        cache: &mut TableCache<P::ExternalPage>,
        fault: &Fault<'_>,
    ) -> Result<FaultOutcome, MmuError<X::Error>> {
        if let Target::Private { pfn, .. } = fault.target
            && self.admits(guard, fault).is_ok()
            && let Some(entry) = self.take_leaf_entry_near(guard, fault.gfn)
        {
            let at = Position::of(fault.gfn, Level::L4K);
            return self.map_frozen_leaf(ctx, guard, entry, Spte::ABSENT, at, pfn);
        }
        // A copy, so that the fault is in registers on the way above.
        let fault = *fault;
        self.fault_from_root(ctx, guard, cache, &fault)
    }

    /// Whether a fault may be handled under a guard. `Err` is what its caller gets otherwise.
    #[inline(always)]
    fn admits(
        &self,
        guard: &Shared<'_>,
        fault: &Fault<'_>,
    ) -> Result<(), Result<FaultOutcome, MmuError<X::Error>>> {
        if !guard.is_of(&self.core) {
            return Err(Err(MmuError::ForeignGuard));
        }
        self.check_alive().map_err(Err)?;
        self.check_gfn(fault.gfn).map_err(Err)?;
        if !self.notifier.still_counts(guard, fault.snapshot, fault.gfn) {
            return Err(Ok(FaultOutcome::Retry(Retry::Invalidated)));
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn fault_from_root(
        &self,
        ctx: &mut X::Ctx,
        guard: &Shared<'_>,
        cache: &mut TableCache<P::ExternalPage>,
        fault: &Fault<'_>,
    ) -> Result<FaultOutcome, MmuError<X::Error>> {
        if let Err(other) = self.admits(guard, fault) {
            return other;
        }
        match fault.target {
            Target::Private { pfn, backing } => self.fault_private(ctx, guard, cache, fault, pfn, backing),
            Target::Shared { pfn, backing, writable, log } => {
                let backing = match backing {
                    Backing::Folio(level) => level,
                    // The check above is the one that makes the level usable, under the same guard.
                    Backing::HostMapping(level) => {
                        match level.confirm(guard, &self.notifier, fault.snapshot, fault.gfn) {
                            Some(level) => level,
                            None => return Ok(FaultOutcome::Retry(Retry::Invalidated)),
                        }
                    }
                };
                self.fault_shared(guard, cache, fault, DirectPage { pfn, backing, writable, log })
            }
            Target::Device => self.fault_device(guard, cache, fault),
        }
    }
}

/// What a shared fault resolved to.
struct DirectPage<'a> {
    pfn: Pfn,
    backing: Level,
    writable: bool,
    log: Option<&'a DirtyLog>,
}

/// Takes an entry for ourselves, from the value we saw. Whoever loses changed nothing (6).
#[inline(always)]
pub(crate) fn freeze(entry: &AtomicU64, seen: Spte) -> bool {
    replace(entry, seen, Spte::FROZEN)
}

#[inline(always)]
pub(crate) fn replace(entry: &AtomicU64, seen: Spte, new: Spte) -> bool {
    entry.compare_exchange(seen.0, new.0, Ordering::AcqRel, Ordering::Acquire).is_ok()
}

/// Writes the children of a leaf into a table that nobody can reach yet (26d).
pub(crate) fn fill_children(table: &Table, leaf: Spte, level: Level) {
    slab::fill_steps(table, leaf.split_child(level, 0), level.down().map_or(0, Level::bytes));
}

/// One leaf became a table of leaves.
pub(crate) fn count_split(counters: &Counters, tree: Tree, level: Level) {
    if let Some(below) = level.down() {
        counters.sub_leaves(tree, level, 1);
        counters.add_leaves(tree, below, ENTRIES as u64);
        counters.add_table(tree);
    }
}

/// The largest level at which the frame and its page are aligned alike, up to a limit and to 1G.
#[inline(always)]
pub(crate) const fn goal_level(gfn: Gfn, pfn: Pfn, limit: Level) -> Level {
    let apart = gfn.get() ^ pfn.get();
    match limit {
        Level::L4K => Level::L4K,
        Level::L2M if apart & (Level::L2M.frames() - 1) == 0 => Level::L2M,
        Level::L2M => Level::L4K,
        _ if apart & (Level::L1G.frames() - 1) == 0 => Level::L1G,
        _ if apart & (Level::L2M.frames() - 1) == 0 => Level::L2M,
        _ => Level::L4K,
    }
}

/// A leaf must map the page that was resolved, or somebody missed an invalidation (29).
#[inline(always)]
fn same_page<E>(leaf: Spte, at: Position, gfn: Gfn, wanted: Pfn) -> Result<(), MmuError<E>> {
    let mapped = leaf.pfn().wrapping_add(gfn.get().wrapping_sub(at.gfn().get()));
    if mapped == wanted { Ok(()) } else { Err(MmuError::PfnMismatch { at, mapped, wanted }) }
}
