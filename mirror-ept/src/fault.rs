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
//! 6. A mirror leaf above the level the guest insists on is [`FaultOutcome::NeedsSplit`]: splitting it takes the
//!    exclusive side. A *direct* leaf above the wanted level is split on the spot.
//!
//! Whatever fails, fails without a trace: the entry has its old value, the tables are back in the cache,
//! statistics did not move (7).

use tdvisor_base::sync::{AtomicU64, Ordering};
use tdvisor_base::{Gfn, Level, Pfn};

use crate::cache::{MirrorTable, TableCache};
use crate::dirty::DirtyLog;
use crate::error::{MmuError, Step};
use crate::external::{External, HookError};
use crate::lock::{Counters, Shared, Tree};
use crate::mmu::{Mmu, index};
use crate::notifier::Snapshot;
use crate::range::Position;
use crate::slab;
use crate::spte::{Access, Spte, Writing};
use crate::stale::Stale;
use crate::table::{ENTRIES, Table, TablePages, TableRef};
use crate::walk::Found;

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
    /// An emulated device in shared space: the guest is to get a #VE.
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
    #[inline]
    pub fn fault(
        &self,
        guard: &Shared<'_>,
        cache: &mut TableCache<P::ExternalPage>,
        fault: &Fault<'_>,
    ) -> Result<FaultOutcome, MmuError<X::Error>> {
        if !guard.is_of(&self.core) {
            return Err(MmuError::ForeignGuard);
        }
        self.check_alive()?;
        self.check_gfn(fault.gfn)?;
        if !self.notifier.still_counts(guard, fault.snapshot, fault.gfn) {
            return Ok(FaultOutcome::Retry(Retry::Invalidated));
        }
        match fault.target {
            Target::Private { pfn, backing } => self.fault_private(guard, cache, fault, pfn, backing),
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

    #[inline(always)]
    fn fault_private(
        &self,
        guard: &Shared<'_>,
        cache: &mut TableCache<P::ExternalPage>,
        fault: &Fault<'_>,
        pfn: Pfn,
        backing: Level,
    ) -> Result<FaultOutcome, MmuError<X::Error>> {
        let gfn = fault.gfn;
        let goal = goal_level(gfn, pfn, fault.max_level.min(backing));
        let (mut table, mut level) = match guard.shortcut().get(gfn) {
            Some(table) if goal < Level::L1G => (table, Level::L2M),
            _ => (self.mirror_root, self.config.root_level),
        };
        loop {
            let at = Position::of(gfn, level);
            let entries = self.mirror_table(table).ok_or(MmuError::Corrupt(at))?;
            let entry = &entries[index(gfn, level)];
            let old = if level == Level::L4K {
                // Most faults find nothing here. Asking for the entry by taking it moves its cache line once,
                // where reading it first would move it twice.
                match entry.compare_exchange(
                    Spte::ABSENT.0,
                    Spte::FROZEN.0,
                    Ordering::AcqRel,
                    Ordering::Acquire,
                ) {
                    Ok(_) => return self.map_frozen_leaf(guard, entry, Spte::ABSENT, at, pfn),
                    Err(found) => Spte(found),
                }
            } else {
                Spte(entry.load(Ordering::Acquire))
            };
            if level == Level::L2M {
                guard.shortcut().remember(gfn, table);
            }
            if old.is_table(level) {
                table = old.table_ref();
                level = level.down().ok_or(MmuError::Corrupt(at))?;
                continue;
            }
            if old.is_present() {
                same_page(old, at, gfn, pfn)?;
                return Ok(if level > fault.max_level {
                    FaultOutcome::NeedsSplit(level)
                } else {
                    FaultOutcome::Spurious(level)
                });
            }
            if old.is_frozen() {
                return Ok(FaultOutcome::Retry(Retry::Contended));
            }
            if level <= goal {
                return self.map_mirror_leaf(guard, entry, old, at, pfn.align_down(level));
            }
            match self.link_mirror_table(guard, cache, entry, old, at)? {
                Stepped::Down(child) => {
                    table = child;
                    level = level.down().ok_or(MmuError::Corrupt(at))?;
                }
                Stepped::Done(outcome) => return Ok(outcome),
            }
        }
    }

    #[inline(never)]
    fn map_mirror_leaf(
        &self,
        guard: &Shared<'_>,
        entry: &AtomicU64,
        old: Spte,
        at: Position,
        pfn: Pfn,
    ) -> Result<FaultOutcome, MmuError<X::Error>> {
        if !freeze(entry, old) {
            return Ok(FaultOutcome::Retry(Retry::Contended));
        }
        self.map_frozen_leaf(guard, entry, old, at, pfn)
    }

    /// Calls the hook for an entry that we froze, and publishes the leaf or puts the old value back.
    #[inline(always)]
    fn map_frozen_leaf(
        &self,
        guard: &Shared<'_>,
        entry: &AtomicU64,
        old: Spte,
        at: Position,
        pfn: Pfn,
    ) -> Result<FaultOutcome, MmuError<X::Error>> {
        match self.external.set_external_spte(guard, at, pfn) {
            Ok(()) => {
                entry.store(Spte::mirror_leaf(pfn, at.level()).0, Ordering::Release);
                guard.counters().add_leaf(Tree::Mirror, at.level());
                Ok(FaultOutcome::Mapped(at.level()))
            }
            Err(why) => {
                entry.store(old.0, Ordering::Release);
                self.refused(at, Step::Set, why)
            }
        }
    }

    #[cold]
    fn link_mirror_table(
        &self,
        guard: &Shared<'_>,
        cache: &mut TableCache<P::ExternalPage>,
        entry: &AtomicU64,
        old: Spte,
        at: Position,
    ) -> Result<Stepped, MmuError<X::Error>> {
        let Some(MirrorTable { table, mut twin }) = cache.mirror.pop_front() else {
            return Ok(Stepped::Done(FaultOutcome::Retry(Retry::NeedTables)));
        };
        let (Some(place), Some(entries)) = (self.slab.twin(table), self.mirror_table(table)) else {
            return Err(MmuError::Corrupt(at));
        };
        slab::fill(entries, Spte::ABSENT);
        if !freeze(entry, old) {
            cache.mirror.push_front(MirrorTable { table, twin });
            return Ok(Stepped::Done(FaultOutcome::Retry(Retry::Contended)));
        }
        match self.external.link_external_spt(guard, at, &mut twin) {
            Ok(()) => {
                *place.lock() = Some(twin);
                entry.store(Spte::table(table).0, Ordering::Release);
                guard.counters().add_table(Tree::Mirror);
                Ok(Stepped::Down(table))
            }
            Err(why) => {
                entry.store(old.0, Ordering::Release);
                cache.mirror.push_front(MirrorTable { table, twin });
                self.refused(at, Step::Link, why).map(Stepped::Done)
            }
        }
    }

    /// A hook under the shared guard failed, and the entry has its old value again.
    #[cold]
    fn refused(
        &self,
        at: Position,
        step: Step,
        why: HookError<X::Error>,
    ) -> Result<FaultOutcome, MmuError<X::Error>> {
        match why {
            HookError::Busy | HookError::Interrupted => Ok(FaultOutcome::Retry(Retry::ExternalBusy)),
            HookError::NoMemory => Ok(FaultOutcome::Retry(Retry::ExternalMemory)),
            HookError::Refused(_) => Err(MmuError::Hook { at, step, why }),
            HookError::Fatal(_) => {
                self.mark_dead();
                Err(MmuError::Hook { at, step, why })
            }
        }
    }

    #[inline(never)]
    fn fault_shared(
        &self,
        guard: &Shared<'_>,
        cache: &mut TableCache<P::ExternalPage>,
        fault: &Fault<'_>,
        page: DirectPage<'_>,
    ) -> Result<FaultOutcome, MmuError<X::Error>> {
        let gfn = fault.gfn;
        let logged = page.log.is_some_and(|log| log.range().contains(gfn));
        let limit = if logged && page.writable { Level::L4K } else { fault.max_level.min(page.backing) };
        let goal = goal_level(gfn, page.pfn, limit);
        let mut level = self.config.root_level;
        let mut table = TableRef::from_pfn(self.direct_root());
        let seen = self.direct_gfn(gfn);
        loop {
            let at = Position::of(gfn, level);
            let entries = self.direct_table(table).ok_or(MmuError::Corrupt(at))?;
            let entry = &entries[index(seen, level)];
            let old = Spte(entry.load(Ordering::Acquire));
            let step = if old.is_table(level) {
                Stepped::Down(old.table_ref())
            } else if old.is_frozen() {
                Stepped::Done(FaultOutcome::Retry(Retry::Contended))
            } else if old.is_present() {
                same_page(old, at, gfn, page.pfn)?;
                if level > goal {
                    self.split_direct_leaf(guard, cache, entry, old, at)?
                } else {
                    Stepped::Done(self.permit(fault, &page, entry, old, at))
                }
            } else if level <= goal {
                Stepped::Done(self.map_direct_leaf(guard, fault, &page, entry, old, at))
            } else {
                self.link_direct_table(guard, cache, entry, old, at)?
            };
            match step {
                Stepped::Down(child) => {
                    table = child;
                    level = level.down().ok_or(MmuError::Corrupt(at))?;
                }
                Stepped::Done(outcome) => return Ok(outcome),
            }
        }
    }

    fn map_direct_leaf(
        &self,
        guard: &Shared<'_>,
        fault: &Fault<'_>,
        page: &DirectPage<'_>,
        entry: &AtomicU64,
        old: Spte,
        at: Position,
    ) -> FaultOutcome {
        let logged = page.log.is_some_and(|log| log.range().contains(fault.gfn));
        let writing = match (page.writable, logged, fault.access) {
            (false, _, _) => Writing::Never,
            (true, true, Access::Read | Access::Execute) => Writing::OnFault,
            (true, _, _) => Writing::Now,
        };
        let pfn = page.pfn.align_down(at.level());
        let new = Spte::direct_leaf(pfn, at.level(), writing, self.config.direct_access);
        if !replace(entry, old, new) {
            return FaultOutcome::Retry(Retry::Contended);
        }
        guard.counters().add_leaf(Tree::Direct, at.level());
        if writing == Writing::Now
            && let Some(log) = page.log
        {
            log.mark(fault.gfn);
        }
        FaultOutcome::Mapped(at.level())
    }

    /// Gives the permission that the access lacks to a leaf that maps the right page.
    fn permit(
        &self,
        fault: &Fault<'_>,
        page: &DirectPage<'_>,
        entry: &AtomicU64,
        old: Spte,
        at: Position,
    ) -> FaultOutcome {
        if fault.access == Access::Write && !(page.writable && old.may_write()) {
            return FaultOutcome::ReadOnly(at.level());
        }
        if old.allows(fault.access) {
            return FaultOutcome::Spurious(at.level());
        }
        let new = if fault.access == Access::Write { old.with_write() } else { old.restored() };
        if !replace(entry, old, new) {
            return FaultOutcome::Retry(Retry::Contended);
        }
        if new.may_be_dirtied()
            && let Some(log) = page.log
        {
            log.mark(fault.gfn);
        }
        FaultOutcome::Restored(at.level())
    }

    #[cold]
    fn fault_device(
        &self,
        guard: &Shared<'_>,
        cache: &mut TableCache<P::ExternalPage>,
        fault: &Fault<'_>,
    ) -> Result<FaultOutcome, MmuError<X::Error>> {
        let seen = self.direct_gfn(fault.gfn);
        let mut level = self.config.root_level;
        let mut table = TableRef::from_pfn(self.direct_root());
        loop {
            let at = Position::of(fault.gfn, level);
            let entries = self.direct_table(table).ok_or(MmuError::Corrupt(at))?;
            let entry = &entries[index(seen, level)];
            let old = Spte(entry.load(Ordering::Acquire));
            let step = if old.is_table(level) {
                Stepped::Down(old.table_ref())
            } else if old.is_frozen() {
                Stepped::Done(FaultOutcome::Retry(Retry::Contended))
            } else if old.is_present() {
                let (mapped, wanted) = (old.pfn(), Pfn::new(0));
                return Err(MmuError::PfnMismatch { at, mapped, wanted });
            } else if level > Level::L4K {
                self.link_direct_table(guard, cache, entry, old, at)?
            } else if old.is_device() {
                Stepped::Done(FaultOutcome::Spurious(level))
            } else if replace(entry, old, Spte::DEVICE) {
                Stepped::Done(FaultOutcome::Mapped(level))
            } else {
                Stepped::Done(FaultOutcome::Retry(Retry::Contended))
            };
            match step {
                Stepped::Down(child) => {
                    table = child;
                    level = level.down().ok_or(MmuError::Corrupt(at))?;
                }
                Stepped::Done(outcome) => return Ok(outcome),
            }
        }
    }

    #[cold]
    fn link_direct_table(
        &self,
        guard: &Shared<'_>,
        cache: &mut TableCache<P::ExternalPage>,
        entry: &AtomicU64,
        old: Spte,
        at: Position,
    ) -> Result<Stepped, MmuError<X::Error>> {
        let Some(page) = cache.direct.pop() else {
            return Ok(Stepped::Done(FaultOutcome::Retry(Retry::NeedTables)));
        };
        let table = TableRef::from_pfn(page);
        slab::fill(self.direct_table(table).ok_or(MmuError::Corrupt(at))?, Spte::ABSENT);
        if !replace(entry, old, Spte::table(table)) {
            cache.direct.push(page);
            return Ok(Stepped::Done(FaultOutcome::Retry(Retry::Contended)));
        }
        guard.counters().add_table(Tree::Direct);
        Ok(Stepped::Down(table))
    }

    /// Replaces a direct leaf by a table of the same pages. Nothing needs to be flushed: every translation
    /// stays what it was (45).
    #[cold]
    fn split_direct_leaf(
        &self,
        guard: &Shared<'_>,
        cache: &mut TableCache<P::ExternalPage>,
        entry: &AtomicU64,
        old: Spte,
        at: Position,
    ) -> Result<Stepped, MmuError<X::Error>> {
        let Some(page) = cache.direct.pop() else {
            return Ok(Stepped::Done(FaultOutcome::Retry(Retry::NeedTables)));
        };
        let table = TableRef::from_pfn(page);
        let children = self.direct_table(table).ok_or(MmuError::Corrupt(at))?;
        fill_children(children, old, at.level());
        if !replace(entry, old, Spte::table(table)) {
            cache.direct.push(page);
            return Ok(Stepped::Done(FaultOutcome::Retry(Retry::Contended)));
        }
        count_split(guard.counters(), Tree::Direct, at.level());
        Ok(Stepped::Down(table))
    }

    /// Splits one direct leaf that a walk found. `false` where somebody else changed it, or no table is left.
    pub(crate) fn split_direct(
        &self,
        guard: &Shared<'_>,
        cache: &mut TableCache<P::ExternalPage>,
        found: &Found<'_>,
    ) -> Result<bool, MmuError<X::Error>> {
        let step = self.split_direct_leaf(guard, cache, found.entry, found.value, found.at)?;
        Ok(matches!(step, Stepped::Down(_)))
    }

    /// The frame as hardware sees it in the direct tree.
    #[inline(always)]
    pub(crate) fn direct_gfn(&self, gfn: Gfn) -> Gfn {
        Gfn::new(gfn.get() | self.config.shared_bit.get())
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
    let first = leaf.split_child(level, 0).0;
    let step = level.down().map_or(0, Level::bytes);
    let mut child = first;
    for entry in table {
        entry.store(child, Ordering::Relaxed);
        child = child.wrapping_add(step);
    }
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
