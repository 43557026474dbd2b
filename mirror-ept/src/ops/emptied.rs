//! Mirror tables that removals emptied.
//!
//! # Protocol
//! An empty table keeps its range from being mapped huge again, so it goes too; but not in the round that
//! emptied it, because below a blocked entry nothing can be removed. It is noted, and rides on the next
//! removal's round: BLOCK with that round's leaves, the same TRACK and kick, and it is freed when they are
//! removed. What is noted is a candidate: a fault may have filled it again, so it is looked at before it is
//! blocked. One that cannot go now is noted again; losing a note loses no memory, only the huge page.

use tdvisor_base::sync::Ordering;

use crate::error::{MmuError, Step};
use crate::external::phase::{Batch, Blocked, Section, Tracked};
use crate::external::{Blocking, External, HookError};
use crate::find::Finder;
use crate::lock::{Counters, LevelCounts, Tree};
use crate::mmu::Mmu;
use crate::range::Position;
use crate::spte::Spte;
use crate::table::{ENTRIES, Returned, TablePages};

impl<P: TablePages, X: External<Page = P::ExternalPage>> Mmu<P, X> {
    /// Tables known to be empty, which the next removal takes along.
    pub fn emptied_tables(&self) -> usize {
        self.emptied.lock().len()
    }

    /// Blocks the tables that are known to be empty, and still are. One that cannot be blocked now stays a
    /// candidate: it must not keep a removal from happening.
    pub(crate) fn block_emptied(
        &self,
        section: &mut Section<'_, '_, X>,
        batch: &mut Batch<Blocked>,
    ) -> Result<(), MmuError<X::Error>> {
        let mut list = core::mem::take(&mut *self.emptied.lock());
        list.sort_unstable();
        list.dedup();
        let mut failed = None;
        // Without room for them they all wait for the next removal.
        let room = batch.make_room(list.len());
        list.retain(|&at| {
            if failed.is_some() || room.is_err() || !self.is_empty_table(at) {
                return failed.is_some() || room.is_err();
            }
            match section.block(at, Blocking::Table) {
                Ok(blocked) => {
                    batch.push(blocked);
                    false
                }
                Err(why) => {
                    if let HookError::Fatal(_) = why {
                        failed = Some((at, why));
                    }
                    true
                }
            }
        });
        // What is kept came out of this list, so it has the room; nobody else adds under our guard.
        *self.emptied.lock() = list;
        match failed {
            Some((at, why)) => Err(self.die(at, Step::Block, why)),
            None => Ok(()),
        }
    }

    /// Frees the tracked tables that are left in a batch. One that stays becomes a candidate again.
    pub(crate) fn free_tables(
        &self,
        section: &mut Section<'_, '_, X>,
        batch: &mut Batch<Tracked>,
        counters: &Counters,
        done: &mut LevelCounts,
    ) -> Result<(), MmuError<X::Error>> {
        if batch.is_empty() {
            return Ok(());
        }
        section.guard().forget_shortcuts();
        let mut finder = Finder::new(self);
        let mut parents = Emptying::new(self);
        while let Some(entry) = batch.take() {
            let at = entry.at();
            let (place, value) = finder.entry(at).ok_or(MmuError::Corrupt(at))?;
            let table = value.table_ref();
            let home = self.slab.twin(table).ok_or(MmuError::Corrupt(at))?;
            let mut twin = home.lock().take().ok_or(MmuError::Corrupt(at))?;
            match section.free(entry, &mut twin) {
                Ok(()) => {
                    place.store(Spte::ABSENT.0, Ordering::Release);
                    self.slab.free(table);
                    self.pages.return_external(twin, Returned::Removed);
                    counters.sub_table(Tree::Mirror);
                    done.tables += 1;
                    parents.removed(at, 1);
                }
                Err((entry, why)) => {
                    *home.lock() = Some(twin);
                    if let HookError::Fatal(_) = why {
                        return Err(self.die(at, Step::Free, why));
                    }
                    self.undo(section, entry)?;
                    self.note_emptied(at);
                }
            }
        }
        parents.finish();
        Ok(())
    }

    /// Remembers a table that may be empty. One that finds no room on the list is only forgotten: it stays
    /// linked, empty, and takes 4K leaves.
    pub(crate) fn note_emptied(&self, at: Position) {
        let mut list = self.emptied.lock();
        if list.try_reserve(1).is_ok() {
            list.push(at);
        }
    }

    /// Whether the entry points at a table without a present entry.
    pub(crate) fn is_empty_table(&self, at: Position) -> bool {
        let Some((_, value)) = Finder::new(self).entry(at) else { return false };
        value.is_table(at.level())
            && self
                .mirror_table(value.table_ref())
                .is_some_and(|table| table.iter().all(|e| !Spte(e.load(Ordering::Relaxed)).is_present()))
    }
}

/// Notices tables that become empty while entries are removed in address order.
pub(crate) struct Emptying<'m, P: TablePages, X: External<Page = P::ExternalPage>> {
    mmu: &'m Mmu<P, X>,
    /// The table that the last entries were in, by the entry that points at it, and how many they were.
    last: Option<(Position, usize)>,
}

impl<'m, P: TablePages, X: External<Page = P::ExternalPage>> Emptying<'m, P, X> {
    pub(crate) fn new(mmu: &'m Mmu<P, X>) -> Self {
        Self { mmu, last: None }
    }

    /// Notes that `entries` consecutive entries of one table, from `first` on, were removed.
    pub(crate) fn removed(&mut self, first: Position, entries: usize) {
        let parent = match first.level().up() {
            Some(up) if up <= self.mmu.config.root_level => Position::of(first.gfn(), up),
            _ => return self.finish(),
        };
        match &mut self.last {
            _ if entries == 0 => {}
            Some((at, before)) if *at == parent => *before += entries,
            _ => {
                self.finish();
                self.last = Some((parent, entries));
            }
        }
    }

    pub(crate) fn finish(&mut self) {
        if let Some((at, removed)) = self.last.take()
            && (removed == ENTRIES || self.mmu.is_empty_table(at))
        {
            self.mmu.note_emptied(at);
        }
    }
}
