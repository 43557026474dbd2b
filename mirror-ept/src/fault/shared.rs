//! Shared faults: every change of the direct tree is one compare-exchange.

use tdvisor_base::sync::{AtomicU64, Ordering};
use tdvisor_base::{Gfn, Level, Pfn};

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
    pub(super) fn fault_device(
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
