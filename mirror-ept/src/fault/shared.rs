//! Shared faults: every change of the direct tree is one compare-exchange.
//!
//! # Devices
//! A frame of shared space without memory behind it is an emulated device's. The first touch leaves the guest,
//! and the fault for it, with [`super::Target::Device`], makes the 4K entry *device*: absent with
//! suppress-#VE clear, so that from now on a touch raises #VE in the guest, which asks the host for the access
//! by TDVMCALL. Such an entry is not a leaf: it is neither counted nor aged, and since hardware keeps no
//! translation of an absent entry, nothing is flushed when it changes.
//!
//! The guest chooses what it touches, and its whole address space has more tables than a host has memory: so
//! the tables that device faults make are counted and bounded (48).
//!
//! Hardware reports no touch of a device entry to the host any more, so memory that appears there later must make it
//! absent: whoever adds a slot opens a [`crate::notifier::Window`] over it and removes the range, which takes
//! device entries with it ([`crate::Mmu::zap_range`]); a device fault from before the window is retried.

use tdvisor_base::sync::{AtomicU64, Ordering};
use tdvisor_base::{Gfn, Level};

use super::{
    DirectPage, Fault, FaultOutcome, Retry, Stepped, count_split, fill_children, goal_level, replace,
    same_page,
};
use crate::cache::TableCache;
use crate::error::MmuError;
use crate::external::External;
use crate::lock::{Shared, Tree};
use crate::mmu::{Mmu, index};
use crate::range::Position;
use crate::slab;
use crate::spte::{Access, Spte, Writing};
use crate::table::{TablePages, TableRef};
use crate::walk::Found;

impl<P: TablePages, X: External<Page = P::ExternalPage>> Mmu<P, X> {
    #[inline(never)]
    pub(super) fn fault_shared(
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
        self.descend(guard, cache, gfn, goal, |cache, found| {
            if !found.value.is_present() {
                return Ok(Stepped::Done(self.map_direct_leaf(guard, fault, &page, found)));
            }
            same_page(found.value, found.at, gfn, page.pfn)?;
            if found.at.level() > goal {
                self.split_direct_leaf(guard, cache, found)
            } else {
                Ok(Stepped::Done(permit(fault, &page, found)))
            }
        })
    }

    #[cold]
    pub(super) fn fault_device(
        &self,
        guard: &Shared<'_>,
        cache: &mut TableCache<P::ExternalPage>,
        fault: &Fault<'_>,
    ) -> Result<FaultOutcome, MmuError<X::Error>> {
        // Once the guest has had its tables, none are offered; entries in those that exist can still be had.
        let full = self.device_tables.load(Ordering::Relaxed) >= self.config.device_tables as u64;
        let mut none = TableCache::new();
        let tables = if full { &mut none } else { cache };
        let before = tables.direct.len();
        let outcome = self.descend(guard, tables, fault.gfn, Level::L4K, |_, found| {
            if found.value.is_present() {
                return Err(MmuError::NotApplicable(found.at));
            }
            Ok(Stepped::Done(if found.value.is_device() {
                FaultOutcome::Spurious(found.at.level())
            } else if replace(found.entry, found.value, Spte::DEVICE) {
                FaultOutcome::Mapped(found.at.level())
            } else {
                FaultOutcome::Retry(Retry::Contended)
            }))
        });
        self.device_tables.fetch_add((before - tables.direct.len()) as u64, Ordering::Relaxed);
        match outcome {
            Ok(FaultOutcome::Retry(Retry::NeedTables)) if full => Err(MmuError::TooManyDevices(fault.gfn)),
            outcome => outcome,
        }
    }

    /// Goes down the direct tree, linking tables where there are none, and leaves to `finish` the leaf that
    /// covers the frame, or the entry of the wanted level where nothing is mapped.
    #[inline(always)]
    fn descend<'m>(
        &'m self,
        guard: &Shared<'_>,
        cache: &mut TableCache<P::ExternalPage>,
        gfn: Gfn,
        goal: Level,
        finish: impl Fn(&mut TableCache<P::ExternalPage>, &Found<'m>) -> Result<Stepped, MmuError<X::Error>>,
    ) -> Result<FaultOutcome, MmuError<X::Error>> {
        let seen = self.direct_gfn(gfn);
        let mut level = self.config.root_level;
        let mut table = TableRef::from_pfn(self.direct_root());
        loop {
            let at = Position::of(gfn, level);
            let entries = self.direct_table(table).ok_or(MmuError::Corrupt(at))?;
            let entry = &entries[index(seen, level)];
            let value = Spte(entry.load(Ordering::Acquire));
            let step = if value.is_table(level) {
                Stepped::Down(value.table_ref())
            } else if value.is_frozen() {
                Stepped::Done(FaultOutcome::Retry(Retry::Contended))
            } else if value.is_present() || level <= goal {
                finish(cache, &Found { at, entry, value })?
            } else {
                self.link_direct_table(guard, cache, entry, value, at)?
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
        found: &Found<'_>,
    ) -> FaultOutcome {
        let at = found.at;
        let logged = page.log.is_some_and(|log| log.range().contains(fault.gfn));
        let writing = match (page.writable, logged, fault.access) {
            (false, _, _) => Writing::Never,
            (true, true, Access::Read | Access::Execute) => Writing::OnFault,
            (true, _, _) => Writing::Now,
        };
        let pfn = page.pfn.align_down(at.level());
        let new = Spte::direct_leaf(pfn, at.level(), writing, self.config.direct_access);
        if !replace(found.entry, found.value, new) {
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
        found: &Found<'_>,
    ) -> Result<Stepped, MmuError<X::Error>> {
        let at = found.at;
        let Some(page) = cache.direct.pop() else {
            return Ok(Stepped::Done(FaultOutcome::Retry(Retry::NeedTables)));
        };
        let table = TableRef::from_pfn(page);
        let children = self.direct_table(table).ok_or(MmuError::Corrupt(at))?;
        fill_children(children, found.value, at.level());
        if !replace(found.entry, found.value, Spte::table(table)) {
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
        let step = self.split_direct_leaf(guard, cache, found)?;
        Ok(matches!(step, Stepped::Down(_)))
    }

    /// The frame as hardware sees it in the direct tree.
    #[inline(always)]
    pub(crate) fn direct_gfn(&self, gfn: Gfn) -> Gfn {
        Gfn::new(gfn.get() | self.config.shared_bit.get())
    }
}

/// Gives the permission that the access lacks to a leaf that maps the right page.
fn permit(fault: &Fault<'_>, page: &DirectPage<'_>, found: &Found<'_>) -> FaultOutcome {
    let (old, level) = (found.value, found.at.level());
    if fault.access == Access::Write && !(page.writable && old.may_write()) {
        return FaultOutcome::ReadOnly(level);
    }
    if old.allows(fault.access) {
        return FaultOutcome::Spurious(level);
    }
    let new = if fault.access == Access::Write { old.with_write() } else { old.restored() };
    if !replace(found.entry, old, new) {
        return FaultOutcome::Retry(Retry::Contended);
    }
    if new.may_be_dirtied()
        && let Some(log) = page.log
    {
        log.mark(fault.gfn);
    }
    FaultOutcome::Restored(level)
}
