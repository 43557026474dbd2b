//! Private faults: freeze the mirror entry, call the hook, publish or put the old value back.

use tdvisor_base::sync::{AtomicU64, Ordering};
use tdvisor_base::{Gfn, Level, Pfn};

use super::{Fault, FaultOutcome, Retry, Stepped, freeze, goal_level, same_page};
use crate::cache::{MirrorTable, TableCache};
use crate::error::{MmuError, Step};
use crate::external::{External, HookError};
use crate::lock::{Shared, Tree};
use crate::mmu::{Mmu, index};
use crate::range::Position;
use crate::slab;
use crate::spte::Spte;
use crate::table::TablePages;

impl<P: TablePages, X: External<Page = P::ExternalPage>> Mmu<P, X> {
    /// Most faults find an absent 4K entry in a table that is there already, in the gigabyte of the participant's
    /// last one. That entry, FROZEN by us.
    #[inline(always)]
    pub(super) fn take_leaf_entry_near(&self, guard: &Shared<'_>, gfn: Gfn) -> Option<&AtomicU64> {
        let above = self.mirror_table(guard.shortcut().get(gfn)?)?;
        let value = Spte(above[index(gfn, Level::L2M)].load(Ordering::Acquire));
        if !value.is_table(Level::L2M) {
            return None;
        }
        let entry = &self.mirror_table(value.table_ref())?[index(gfn, Level::L4K)];
        // Asking for the entry by taking it moves its cache line once, where reading it first would move it
        // twice.
        freeze(entry, Spte::ABSENT).then_some(entry)
    }

    pub(super) fn fault_private(
        &self,
        ctx: &mut X::Ctx,
        guard: &Shared<'_>,
        cache: &mut TableCache<P::ExternalPage>,
        fault: &Fault<'_>,
        pfn: Pfn,
        backing: Level,
    ) -> Result<FaultOutcome, MmuError<X::Error>> {
        let gfn = fault.gfn;
        let goal = goal_level(gfn, pfn, fault.max_level.min(backing));
        let (mut table, mut level) = (self.mirror_root, self.config.root_level);
        loop {
            let at = Position::of(gfn, level);
            let entries = self.mirror_table(table).ok_or(MmuError::Corrupt(at))?;
            let entry = &entries[index(gfn, level)];
            let old = Spte(entry.load(Ordering::Acquire));
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
                if !old.allows(fault.access) {
                    return self.release_leaf(ctx, guard, entry, old, at);
                }
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
                return self.map_mirror_leaf(ctx, guard, entry, old, at, pfn.align_down(level));
            }
            match self.link_mirror_table(ctx, guard, cache, entry, old, at)? {
                Stepped::Down(child) => {
                    table = child;
                    level = level.down().ok_or(MmuError::Corrupt(at))?;
                }
                Stepped::Done(outcome) => return Ok(outcome),
            }
        }
    }

    /// Allows writes to a leaf that is held for sending: it has to be sent again.
    #[cold]
    fn release_leaf(
        &self,
        ctx: &mut X::Ctx,
        guard: &Shared<'_>,
        entry: &AtomicU64,
        old: Spte,
        at: Position,
    ) -> Result<FaultOutcome, MmuError<X::Error>> {
        if !freeze(entry, old) {
            return Ok(FaultOutcome::Retry(Retry::Contended));
        }
        match self.external.release_writes(ctx, guard, at, old.pfn()) {
            Ok(()) => {
                let written = old.standing().written();
                entry.store(old.with_standing(written).0, Ordering::Release);
                Ok(FaultOutcome::Restored(at.level()))
            }
            Err(why) => {
                entry.store(old.0, Ordering::Release);
                self.refused(at, Step::Release, why)
            }
        }
    }

    /// Links tables down to the one that maps 4 KiB pages around `gfn`, as a fault does, and maps nothing. `Ok(None)`
    /// when it is there.
    ///
    /// # Errors
    /// As [`MmuError`]; [`MmuError::NotApplicable`] where a huge page is mapped.
    pub fn link_down(
        &self,
        ctx: &mut X::Ctx,
        guard: &Shared<'_>,
        cache: &mut TableCache<P::ExternalPage>,
        gfn: Gfn,
    ) -> Result<Option<Retry>, MmuError<X::Error>> {
        if !guard.is_of(&self.core) {
            return Err(MmuError::ForeignGuard);
        }
        self.check_alive()?;
        self.check_gfn(gfn)?;
        let (mut table, mut level) = (self.mirror_root, self.config.root_level);
        while level > Level::L4K {
            let at = Position::of(gfn, level);
            let entries = self.mirror_table(table).ok_or(MmuError::Corrupt(at))?;
            let entry = &entries[index(gfn, level)];
            let old = Spte(entry.load(Ordering::Acquire));
            if old.is_frozen() {
                return Ok(Some(Retry::Contended));
            }
            table = if old.is_table(level) {
                old.table_ref()
            } else if old.is_present() {
                return Err(MmuError::NotApplicable(at));
            } else {
                match self.link_mirror_table(ctx, guard, cache, entry, old, at)? {
                    Stepped::Down(child) => child,
                    Stepped::Done(FaultOutcome::Retry(retry)) => return Ok(Some(retry)),
                    Stepped::Done(_) => return Err(MmuError::Corrupt(at)),
                }
            };
            level = level.down().ok_or(MmuError::Corrupt(at))?;
        }
        Ok(None)
    }

    #[inline(never)]
    fn map_mirror_leaf(
        &self,
        ctx: &mut X::Ctx,
        guard: &Shared<'_>,
        entry: &AtomicU64,
        old: Spte,
        at: Position,
        pfn: Pfn,
    ) -> Result<FaultOutcome, MmuError<X::Error>> {
        if !freeze(entry, old) {
            return Ok(FaultOutcome::Retry(Retry::Contended));
        }
        self.map_frozen_leaf(ctx, guard, entry, old, at, pfn)
    }

    /// Calls the hook for an entry that we froze, and publishes the leaf or puts the old value back.
    #[inline(always)]
    pub(super) fn map_frozen_leaf(
        &self,
        ctx: &mut X::Ctx,
        guard: &Shared<'_>,
        entry: &AtomicU64,
        old: Spte,
        at: Position,
        pfn: Pfn,
    ) -> Result<FaultOutcome, MmuError<X::Error>> {
        match self.external.set_external_spte(ctx, guard, at, pfn) {
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
        ctx: &mut X::Ctx,
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
        match self.external.link_external_spt(ctx, guard, at, &mut twin) {
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
}
