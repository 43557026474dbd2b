//! Shadow pages: making, linking, dropping and freeing them.

use alloc::vec::Vec;

use tdvisor_base::sync::Ordering;
use tdvisor_base::{Gfn, Level};

use super::guest::{GuestTables, Rights};
use super::hash::{PageHash, Ready};
use super::state::{ALL_ENTRIES, Place, ShadowPage, State};
use super::{Role, ShadowError, Source};
use crate::cache::TableCache;
use crate::external::External;
use crate::lock::Exclusive;
use crate::mmu::Mmu;
use crate::range::Position;
use crate::slab;
use crate::spte::Spte;
use crate::table::{Table, TablePages, TableRef};

/// What an operation on shadow pages works with.
pub(super) struct Work<'w, P: TablePages, X: External<Page = P::ExternalPage>, G> {
    pub(super) mmu: &'w Mmu<P, X>,
    pub(super) guest: &'w G,
    pub(super) state: &'w mut State,
}

impl<P: TablePages, X: External<Page = P::ExternalPage>, G: GuestTables> Work<'_, P, X, G> {
    fn table(&self, id: u32) -> Option<&Table> {
        self.mmu.direct_table(TableRef::from_pfn(self.state.page(id)?.table))
    }

    pub(super) fn value(&self, (id, i): Place) -> Spte {
        self.table(id)
            .and_then(|table| table.get(usize::from(i)))
            .map_or(Spte::ABSENT, |entry| Spte(entry.load(Ordering::Acquire)))
    }

    pub(super) fn store(&self, (id, i): Place, value: Spte) -> Spte {
        let entry = self.table(id).and_then(|table| table.get(usize::from(i)));
        entry.map_or(Spte::ABSENT, |entry| Spte(entry.swap(value.0, Ordering::AcqRel)))
    }

    /// Empties an entry and forgets what it referred to. Whether there was anything: then flush.
    pub(super) fn drop_entry(&mut self, place: Place) -> bool {
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
    pub(super) fn get_page(
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
        let places = self.state.leaves_in(Position::of(gfn, Level::L4K).range());
        for (place, ..) in &places {
            self.drop_entry(*place);
        }
        if !places.is_empty() {
            self.guest.flush();
        }
    }

    /// Makes an entry point at a page, whatever it held.
    pub(super) fn link(&mut self, place: Place, child: u32, rights: Rights) -> Result<(), ShadowError> {
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
    pub(super) fn free_page(&mut self, ready: Ready<'_>, guard: &mut Exclusive<'_>, id: u32) {
        let Some(parents) = self.state.page(id).map(|page| page.parents.clone()) else { return };
        for place in parents {
            self.drop_entry(place);
        }
        for i in 0..ALL_ENTRIES {
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
