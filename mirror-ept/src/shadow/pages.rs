//! Shadow pages: making, linking, dropping and freeing them.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::fmt;

use tdvisor_base::sync::{Mutex, Ordering};
use tdvisor_base::{Gfn, Level, Pfn};

use super::guest::{GuestEntry, GuestTables, Rights, decode};
use super::hash::{PageHash, Ready};
use super::{Role, ShadowError, ShadowOutcome, ShadowRoot, Source};
use crate::age::Age;
use crate::cache::TableCache;
use crate::external::External;
use crate::fault::goal_level;
use crate::lock::{Exclusive, Shared};
use crate::mmu::{Mmu, index};
use crate::range::{GfnRange, Position};
use crate::slab;
use crate::spte::{Access, AccessTracking, Spte};
use crate::table::{ENTRIES, Table, TablePages, TableRef};

/// The level of a root's entries.
const ROOT: Level = Level::L512G;

/// Where an entry is: page and index.
type Place = (u32, u16);

#[derive(Debug)]
struct ShadowPage {
    gfn: Gfn,
    role: Role,
    table: Pfn,
    generation: u64,
    /// Entries that point at this page.
    parents: Vec<Place>,
}

#[derive(Debug, Default)]
struct State {
    pages: Vec<Option<ShadowPage>>,
    free: Vec<u32>,
    /// Pages in the order in which they were made.
    active: VecDeque<u32>,
    /// Leaves by the first guest frame that they map.
    leaves: BTreeMap<Gfn, Vec<(Place, Level)>>,
    /// Which guest frame each leaf maps first.
    origins: BTreeMap<Place, Gfn>,
    /// Which page is in which table.
    tables: BTreeMap<Pfn, u32>,
    /// How many pages shadow each tracked guest table.
    tracked: BTreeMap<Gfn, u32>,
    generation: u64,
}

impl State {
    fn page(&self, id: u32) -> Option<&ShadowPage> {
        self.pages.get(id as usize)?.as_ref()
    }

    fn page_mut(&mut self, id: u32) -> Option<&mut ShadowPage> {
        self.pages.get_mut(id as usize)?.as_mut()
    }

    fn add_leaf(&mut self, place: Place, gfn: Gfn, level: Level) {
        self.leaves.entry(gfn).or_default().push((place, level));
        self.origins.insert(place, gfn);
    }

    fn remove_leaf(&mut self, place: Place) {
        if let Some(gfn) = self.origins.remove(&place)
            && let Some(places) = self.leaves.get_mut(&gfn)
        {
            places.retain(|(other, _)| *other != place);
            if places.is_empty() {
                self.leaves.remove(&gfn);
            }
        }
    }

    /// A place for one more page.
    fn new_id(&mut self) -> Result<u32, ShadowError> {
        self.active.try_reserve(1).map_err(|_| ShadowError::NoMemory)?;
        if let Some(id) = self.free.pop() {
            return Ok(id);
        }
        let id = u32::try_from(self.pages.len()).map_err(|_| ShadowError::NoMemory)?;
        self.pages.try_reserve(1).map_err(|_| ShadowError::NoMemory)?;
        self.free.try_reserve(self.pages.len() + 1).map_err(|_| ShadowError::NoMemory)?;
        self.pages.push(None);
        Ok(id)
    }

    fn is_valid(&self, id: u32) -> bool {
        self.page(id).is_some_and(|page| page.generation == self.generation)
    }
}

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

/// What an operation on shadow pages works with.
struct Work<'w, P: TablePages, X: External<Page = P::ExternalPage>, G> {
    mmu: &'w Mmu<P, X>,
    guest: &'w G,
    state: &'w mut State,
}

impl<P: TablePages, X: External<Page = P::ExternalPage>, G: GuestTables> Work<'_, P, X, G> {
    fn table(&self, id: u32) -> Option<&Table> {
        self.mmu.direct_table(TableRef::from_pfn(self.state.page(id)?.table))
    }

    fn value(&self, (id, i): Place) -> Spte {
        self.table(id)
            .and_then(|table| table.get(usize::from(i)))
            .map_or(Spte::ABSENT, |entry| Spte(entry.load(Ordering::Acquire)))
    }

    fn store(&self, (id, i): Place, value: Spte) -> Spte {
        let entry = self.table(id).and_then(|table| table.get(usize::from(i)));
        entry.map_or(Spte::ABSENT, |entry| Spte(entry.swap(value.0, Ordering::AcqRel)))
    }

    /// Empties an entry and forgets what it referred to. Whether there was anything: then flush.
    fn drop_entry(&mut self, place: Place) -> bool {
        let Some(level) = self.state.page(place.0).map(|page| page.role.level) else { return false };
        let old = self.store(place, Spte::ABSENT);
        if old.is_leaf(level) {
            self.state.remove_leaf(place);
        } else if old.is_table(level) {
            let child = self.state.tables.get(&old.table_ref().pfn()).copied();
            if let Some(page) = child.and_then(|id| self.state.page_mut(id)) {
                page.parents.retain(|other| *other != place);
            }
        }
        old.is_present()
    }

    /// The page that shadows `gfn` in this role: found, or made with a table from the cache.
    fn get_page(
        &mut self,
        hash: &PageHash,
        ready: Ready<'_>,
        guard: &mut Exclusive<'_>,
        cache: &mut TableCache<P::ExternalPage>,
        gfn: Gfn,
        role: Role,
    ) -> Result<Option<u32>, ShadowError> {
        let state = &*self.state;
        if let Some(id) = hash.find(guard, gfn, role, |id| state.is_valid(id)) {
            return Ok(Some(id));
        }
        if cache.direct.is_empty() {
            return Ok(None);
        }
        let id = self.state.new_id()?;
        let made = ready.insert(guard, gfn, role, id).map_err(ShadowError::from);
        let (Ok(()), Some(table)) = (made, cache.direct.pop()) else {
            self.state.free.push(id);
            return Err(ShadowError::NoMemory);
        };
        let entries = self.mmu.direct_table(TableRef::from_pfn(table)).ok_or(ShadowError::Corrupt)?;
        slab::fill(entries, Spte::ABSENT);
        let generation = self.state.generation;
        if let Some(place) = self.state.pages.get_mut(id as usize) {
            *place = Some(ShadowPage { gfn, role, table, generation, parents: Vec::new() });
        }
        self.state.tables.insert(table, id);
        self.state.active.push_back(id);
        if role.source == Source::GuestTable {
            self.track(gfn);
        }
        Ok(Some(id))
    }

    /// One more page shadows a table. The first makes its writes known: nothing maps it writable any more,
    /// neither for the guest nor, through a leaf of ours, for the guest's guest.
    fn track(&mut self, gfn: Gfn) {
        let count = self.state.tracked.entry(gfn).or_insert(0);
        *count += 1;
        if *count > 1 {
            return;
        }
        self.guest.track(gfn);
        let places = leaves_in(self.state, Position::of(gfn, Level::L4K).range());
        for (place, ..) in &places {
            self.drop_entry(*place);
        }
        if !places.is_empty() {
            self.guest.flush();
        }
    }

    /// Makes an entry point at a page, whatever it held.
    fn link(&mut self, place: Place, child: u32, rights: Rights) -> Result<(), ShadowError> {
        let table = self.state.page(child).ok_or(ShadowError::Corrupt)?.table;
        let wanted = Spte::shadow_table(TableRef::from_pfn(table), rights);
        if self.value(place) == wanted {
            return Ok(());
        }
        if self.drop_entry(place) {
            self.guest.flush();
        }
        if let Some(page) = self.state.page_mut(child) {
            page.parents.push(place);
        }
        self.store(place, wanted);
        Ok(())
    }

    /// Frees a page that nothing may use any more. Its entries and those that point at it are empty after.
    fn free_page(&mut self, ready: Ready<'_>, guard: &mut Exclusive<'_>, id: u32) {
        let Some(parents) = self.state.page(id).map(|page| page.parents.clone()) else { return };
        for place in parents {
            self.drop_entry(place);
        }
        for i in 0..ENTRIES as u16 {
            self.drop_entry((id, i));
        }
        let Some(page) = self.state.pages.get_mut(id as usize).and_then(Option::take) else { return };
        ready.remove(guard, page.gfn, id);
        self.state.tables.remove(&page.table);
        self.state.free.push(id);
        if page.role.source == Source::GuestTable
            && let Some(count) = self.state.tracked.get_mut(&page.gfn)
        {
            *count -= 1;
            if *count == 0 {
                self.state.tracked.remove(&page.gfn);
                self.guest.untrack(page.gfn);
            }
        }
        self.guest.flush();
        self.mmu.pages().free_direct(page.table);
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
            let place = (page, index(gfn, level) as u16);
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
        if writable && tracks_any(work.state, Position::of(leaf, goal).range()) {
            goal = Level::L4K;
        }
        // Below a huge leaf of the guest, pages of our own down to what the host's memory allows.
        while level > goal {
            let Some(below) = level.down() else { break };
            let place = (page, index(gfn, level) as u16);
            let base = Position::of(leaf, level).gfn();
            let role = Role { level: below, source: Source::HugeLeaf(own) };
            let Some(child) = work.get_page(&self.hash, ready, guard, cache, base, role)? else {
                return Ok(ShadowOutcome::NeedTables);
            };
            work.link(place, child, Rights::ALL)?;
            (page, level) = (child, below);
        }
        let place = (page, index(gfn, level) as u16);
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
            if shadows_it && index < ENTRIES {
                flush |= work.drop_entry((id, index as u16));
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
        let places = leaves_in(&state, range);
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
        for (place, first, level) in leaves_in(&state, range) {
            let Some(below) = level.down() else { continue };
            let mut work = Work { mmu, guest: &self.guest, state: &mut state };
            let old = work.value(place);
            let rights = Rights::of(old.restored().0);
            let role = Role { level: below, source: Source::HugeLeaf(rights) };
            let Some(child) = work.get_page(&self.hash, ready, guard, cache, first, role)? else {
                return Ok((done, ShadowOutcome::NeedTables));
            };
            for i in 0..ENTRIES as u16 {
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
        let places = leaves_in(&state, range);
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

/// The leaves that map a frame of a range: where they are, their first frame, their level.
fn leaves_in(state: &State, range: GfnRange) -> Vec<(Place, Gfn, Level)> {
    // A leaf that begins up to a gigabyte before the range may reach into it.
    let from = Gfn::new(range.start().get().saturating_sub(Level::L1G.frames() - 1));
    let near = state.leaves.range(from..range.end());
    near.flat_map(|(gfn, places)| places.iter().map(move |(place, level)| (*place, *gfn, *level)))
        .filter(|(_, gfn, level)| Position::of(*gfn, *level).range().overlaps(range))
        .collect()
}

/// Whether a table of the guest lies in a range.
fn tracks_any(state: &State, range: GfnRange) -> bool {
    state.tracked.range(range.start()..range.end()).next().is_some()
}
