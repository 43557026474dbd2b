//! The shadow MMU: what can be done with a guest's shadow.

use core::fmt;

use tdvisor_base::sync::{Mutex, Ordering};
use tdvisor_base::{Gfn, Level, Pfn};

use super::guest::{GuestEntry, GuestTables, Rights, decode};
use super::hash::PageHash;
use super::pages::Work;
use super::state::{ALL_ENTRIES, State, entry_index};
use super::{Role, ShadowError, ShadowOutcome, ShadowRoot, Source};
use crate::age::Age;
use crate::cache::TableCache;
use crate::external::External;
use crate::fault::goal_level;
use crate::lock::{Exclusive, Shared};
use crate::mmu::{Mmu, index};
use crate::range::{GfnRange, Position};
use crate::spte::{Access, AccessTracking, Spte};
use crate::table::{TablePages, TableRef};

/// The level of a root's entries.
const ROOT: Level = Level::L512G;

/// The shadow MMU of one guest.
pub struct ShadowMmu<G> {
    guest: G,
    hash: PageHash,
    state: Mutex<State>,
}

impl<G> fmt::Debug for ShadowMmu<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShadowMmu").field("allocated", &self.hash.is_allocated()).finish_non_exhaustive()
    }
}

impl<G: GuestTables> ShadowMmu<G> {
    /// A shadow MMU that has allocated nothing.
    pub fn new(guest: G) -> Self {
        Self { guest, hash: PageHash::new(), state: Mutex::new(State::default()) }
    }

    /// The guest behind it.
    pub const fn guest(&self) -> &G {
        &self.guest
    }

    /// Whether anything was ever shadowed.
    pub fn is_allocated(&self) -> bool {
        self.hash.is_allocated()
    }

    /// How many shadow pages there are, obsolete ones included.
    pub fn pages(&self) -> usize {
        self.state.lock().active.len()
    }

    /// Whether writes to a guest frame must be told.
    pub fn is_tracked(&self, gfn: Gfn) -> bool {
        self.state.lock().tracked.contains_key(&gfn)
    }

    /// The root that shadows the guest's root table in frame `gfn`; `None` where the cache has no table left.
    ///
    /// # Errors
    /// [`ShadowError`]; the guest goes on without nested paging.
    pub fn root<P: TablePages, X: External<Page = P::ExternalPage>>(
        &self,
        mmu: &Mmu<P, X>,
        guard: &mut Exclusive<'_>,
        cache: &mut TableCache<P::ExternalPage>,
        gfn: Gfn,
    ) -> Result<Option<ShadowRoot>, ShadowError> {
        check(mmu, guard)?;
        let ready = self.hash.allocate()?;
        let mut state = self.state.lock();
        let mut work = Work { mmu, guest: &self.guest, state: &mut state };
        let role = Role { level: ROOT, source: Source::GuestTable };
        let Some(page) = work.get_page(&self.hash, ready, guard, cache, gfn, role)? else { return Ok(None) };
        let table = work.state.page(page).ok_or(ShadowError::Corrupt)?.table;
        Ok(Some(ShadowRoot { page, table, generation: work.state.generation }))
    }

    /// Handles an access of the nested guest to its frame `gfn`.
    ///
    /// # Errors
    /// [`ShadowError`]. What the guest's table says wrong is an outcome, not an error.
    pub fn fault<P: TablePages, X: External<Page = P::ExternalPage>>(
        &self,
        mmu: &Mmu<P, X>,
        guard: &mut Exclusive<'_>,
        cache: &mut TableCache<P::ExternalPage>,
        root: ShadowRoot,
        gfn: Gfn,
        access: Access,
    ) -> Result<ShadowOutcome, ShadowError> {
        check(mmu, guard)?;
        let ready = self.hash.allocate()?;
        let mut state = self.state.lock();
        if root.generation != state.generation || !state.is_valid(root.page) {
            return Ok(ShadowOutcome::ObsoleteRoot);
        }
        let mut work = Work { mmu, guest: &self.guest, state: &mut state };
        let mut page = root.page;
        let mut level = ROOT;
        let mut rights = Rights::ALL;
        // The walk of the guest's table, each table tracked before it is read.
        let (leaf, own) = loop {
            let table = work.state.page(page).ok_or(ShadowError::Corrupt)?.gfn;
            let Some(entry) = self.guest.read(table, level.table_index(gfn)) else {
                return Ok(ShadowOutcome::GuestViolation(level));
            };
            let place = (page, entry_index(gfn, level));
            match (decode(entry, level), level.down()) {
                (GuestEntry::Absent, _) => return Ok(ShadowOutcome::GuestViolation(level)),
                (GuestEntry::Misconfigured, _) => return Ok(ShadowOutcome::GuestMisconfigured(level)),
                (GuestEntry::Leaf(first, own), _) => {
                    rights = rights.and(own);
                    break (first.wrapping_add(gfn.get() & (level.frames() - 1)), own);
                }
                (GuestEntry::Table(next, own), Some(below)) => {
                    rights = rights.and(own);
                    let role = Role { level: below, source: Source::GuestTable };
                    let Some(child) = work.get_page(&self.hash, ready, guard, cache, next, role)? else {
                        return Ok(ShadowOutcome::NeedTables);
                    };
                    work.link(place, child, own)?;
                    (page, level) = (child, below);
                }
                (GuestEntry::Table(..), None) => return Ok(ShadowOutcome::GuestMisconfigured(level)),
            }
        };
        if !rights.allow(access) {
            return Ok(ShadowOutcome::GuestViolation(level));
        }
        let Some(backed) = self.guest.resolve(leaf) else { return Ok(ShadowOutcome::NoMemoryBehind(leaf)) };
        // A tracked frame is a table of the guest: its writes go through us, not around us.
        let writable = backed.writable && !work.state.tracked.contains_key(&leaf);
        if access == Access::Write && !writable {
            return Ok(ShadowOutcome::NoMemoryBehind(leaf));
        }
        let mut goal = goal_level(gfn, backed.pfn, level.min(backed.level));
        if writable && work.state.tracks_any(Position::of(leaf, goal).range()) {
            goal = Level::L4K;
        }
        // Below a huge leaf of the guest, pages of our own down to what the host's memory allows.
        while level > goal {
            let Some(below) = level.down() else { break };
            let place = (page, entry_index(gfn, level));
            let base = Position::of(leaf, level).gfn();
            let role = Role { level: below, source: Source::HugeLeaf(own) };
            let Some(child) = work.get_page(&self.hash, ready, guard, cache, base, role)? else {
                return Ok(ShadowOutcome::NeedTables);
            };
            work.link(place, child, Rights::ALL)?;
            (page, level) = (child, below);
        }
        let place = (page, entry_index(gfn, level));
        // The leaf's own rights only: its table may be reached by another way with other rights.
        let own = if writable { own } else { own.without_write() };
        let wanted = Spte::shadow_leaf(backed.pfn.align_down(level), level, own);
        if work.value(place).restored() == wanted {
            let tracked = work.value(place).is_access_tracked();
            work.store(place, wanted);
            return Ok(if tracked { ShadowOutcome::Mapped(level) } else { ShadowOutcome::Spurious(level) });
        }
        if work.drop_entry(place) {
            self.guest.flush();
        }
        work.store(place, wanted);
        work.state.add_leaf(place, Position::of(leaf, level).gfn(), level);
        Ok(ShadowOutcome::Mapped(level))
    }

    /// The guest is about to write, or wrote, entry `index` of a tracked table: what was made of it goes.
    ///
    /// # Errors
    /// [`ShadowError::ForeignGuard`].
    pub fn guest_wrote<P: TablePages, X: External<Page = P::ExternalPage>>(
        &self,
        mmu: &Mmu<P, X>,
        guard: &mut Exclusive<'_>,
        table: Gfn,
        index: usize,
    ) -> Result<(), ShadowError> {
        check(mmu, guard)?;
        let ids = self.hash.all(guard, table);
        let mut state = self.state.lock();
        let mut work = Work { mmu, guest: &self.guest, state: &mut state };
        let mut flush = false;
        for id in ids {
            let shadows_it = work.state.page(id).is_some_and(|page| page.role.source == Source::GuestTable);
            if let Ok(entry) = u16::try_from(index)
                && shadows_it
                && entry < ALL_ENTRIES
            {
                flush |= work.drop_entry((id, entry));
            }
        }
        if flush {
            self.guest.flush();
        }
        Ok(())
    }

    /// Drops every leaf that maps a frame of the range: the host takes its pages away. Gives their number.
    ///
    /// # Errors
    /// [`ShadowError::ForeignGuard`].
    pub fn unmap<P: TablePages, X: External<Page = P::ExternalPage>>(
        &self,
        mmu: &Mmu<P, X>,
        guard: &mut Exclusive<'_>,
        range: GfnRange,
    ) -> Result<usize, ShadowError> {
        check(mmu, guard)?;
        let mut state = self.state.lock();
        let places = state.leaves_in(range);
        let mut work = Work { mmu, guest: &self.guest, state: &mut state };
        for (place, ..) in &places {
            work.drop_entry(*place);
        }
        if !places.is_empty() {
            self.guest.flush();
        }
        Ok(places.len())
    }

    /// Splits huge leaves that map frames of the range by one level, as far as the cache's tables go. No
    /// translation changes, so nothing is flushed. Gives how many were split, and whether all were.
    ///
    /// # Errors
    /// [`ShadowError`].
    pub fn split<P: TablePages, X: External<Page = P::ExternalPage>>(
        &self,
        mmu: &Mmu<P, X>,
        guard: &mut Exclusive<'_>,
        cache: &mut TableCache<P::ExternalPage>,
        range: GfnRange,
    ) -> Result<(usize, ShadowOutcome), ShadowError> {
        check(mmu, guard)?;
        let ready = self.hash.allocate()?;
        let mut state = self.state.lock();
        let mut done = 0;
        for (place, first, level) in state.leaves_in(range) {
            let Some(below) = level.down() else { continue };
            let mut work = Work { mmu, guest: &self.guest, state: &mut state };
            let old = work.value(place);
            let rights = Rights::of(old.restored().0);
            let role = Role { level: below, source: Source::HugeLeaf(rights) };
            let Some(child) = work.get_page(&self.hash, ready, guard, cache, first, role)? else {
                return Ok((done, ShadowOutcome::NeedTables));
            };
            for i in 0..ALL_ENTRIES {
                let value = old.split_child(level, u64::from(i));
                if !work.value((child, i)).is_present() {
                    work.store((child, i), value);
                    let gfn = first.wrapping_add(u64::from(i) * below.frames());
                    work.state.add_leaf((child, i), gfn, below);
                }
            }
            work.drop_entry(place);
            work.link(place, child, Rights::ALL)?;
            done += 1;
        }
        Ok((done, ShadowOutcome::Mapped(Level::L4K)))
    }

    /// Makes every shadow page obsolete. Take new roots, then free the old pages with [`Self::zap_obsolete`].
    ///
    /// # Errors
    /// [`ShadowError::ForeignGuard`].
    pub fn invalidate_all<P: TablePages, X: External<Page = P::ExternalPage>>(
        &self,
        mmu: &Mmu<P, X>,
        guard: &mut Exclusive<'_>,
    ) -> Result<(), ShadowError> {
        check(mmu, guard)?;
        self.state.lock().generation += 1;
        Ok(())
    }

    /// Frees up to `limit` obsolete pages, oldest first. Whether any are left. Every vCPU must have left the
    /// obsolete roots.
    ///
    /// # Errors
    /// [`ShadowError`].
    pub fn zap_obsolete<P: TablePages, X: External<Page = P::ExternalPage>>(
        &self,
        mmu: &Mmu<P, X>,
        guard: &mut Exclusive<'_>,
        limit: usize,
    ) -> Result<bool, ShadowError> {
        check(mmu, guard)?;
        let ready = self.hash.allocate()?;
        let mut state = self.state.lock();
        for _ in 0..limit {
            // Pages are made in order, so the first valid one ends the obsolete ones.
            let Some(&id) = state.active.front() else { return Ok(false) };
            if state.is_valid(id) {
                return Ok(false);
            }
            state.active.pop_front();
            Work { mmu, guest: &self.guest, state: &mut state }.free_page(ready, guard, id);
        }
        Ok(state.active.front().is_some_and(|id| !state.is_valid(*id)))
    }

    /// Whether the leaves that map frames of the range were used, making them old. Takes no MMU guard: the
    /// shadow pages' own lock keeps them in place.
    pub fn age<P: TablePages, X: External<Page = P::ExternalPage>>(
        &self,
        mmu: &Mmu<P, X>,
        range: GfnRange,
    ) -> Age {
        let mut state = self.state.lock();
        let places = state.leaves_in(range);
        let work = Work { mmu, guest: &self.guest, state: &mut state };
        let mut age = Age::Old;
        for (place, ..) in places {
            let value = work.value(place);
            if value.is_young(AccessTracking::Permissions) {
                work.store(place, value.aged(AccessTracking::Permissions));
                age = Age::Young;
            }
        }
        age
    }

    /// Translates as hardware would, from a root. For tests and for emulation.
    pub fn translate<P: TablePages, X: External<Page = P::ExternalPage>>(
        &self,
        mmu: &Mmu<P, X>,
        _guard: &Shared<'_>,
        root: ShadowRoot,
        gfn: Gfn,
        access: Access,
    ) -> Option<Pfn> {
        let mut table = root.table;
        let mut level = ROOT;
        loop {
            let entries = mmu.direct_table(TableRef::from_pfn(table))?;
            let value = Spte(entries[index(gfn, level)].load(Ordering::Acquire));
            if !value.is_present() || !value.allows(access) {
                return None;
            }
            if value.is_leaf(level) {
                return Some(value.pfn().wrapping_add(gfn.get() & (level.frames() - 1)));
            }
            table = value.table_ref().pfn();
            level = level.down()?;
        }
    }
}

fn check<P: TablePages, X: External<Page = P::ExternalPage>>(
    mmu: &Mmu<P, X>,
    guard: &Exclusive<'_>,
) -> Result<(), ShadowError> {
    if guard.is_of(&mmu.core) { Ok(()) } else { Err(ShadowError::ForeignGuard) }
}
