//! Finding single mirror entries, with memory: the next one is usually in the same table.

use tdvisor_base::sync::{AtomicU64, Ordering};
use tdvisor_base::{Gfn, Level};

use crate::external::External;
use crate::mmu::{Mmu, index};
use crate::range::Position;
use crate::spte::Spte;
use crate::table::{Table, TablePages};

/// Looks up mirror entries under the exclusive guard.
pub(crate) struct Finder<'m, P: TablePages, X: External<Page = P::ExternalPage>> {
    mmu: &'m Mmu<P, X>,
    /// The table found last, and what it covers.
    last: Option<(Position, &'m Table)>,
}

impl<'m, P: TablePages, X: External<Page = P::ExternalPage>> Finder<'m, P, X> {
    pub(crate) fn new(mmu: &'m Mmu<P, X>) -> Self {
        Self { mmu, last: None }
    }

    /// The entry at a position; `None` where no table reaches down to it.
    #[inline(always)]
    pub(crate) fn entry(&mut self, at: Position) -> Option<(&'m AtomicU64, Spte)> {
        let entry = &self.table_of(at)?[index(at.gfn(), at.level())];
        Some((entry, Spte(entry.load(Ordering::Acquire))))
    }

    /// The `count` consecutive entries of one table from `first` on.
    pub(crate) fn entries(&mut self, first: Position, count: usize) -> Option<&'m [AtomicU64]> {
        let from = index(first.gfn(), first.level());
        self.table_of(first)?.get(from..from.checked_add(count)?)
    }

    #[inline(always)]
    fn table_of(&mut self, at: Position) -> Option<&'m Table> {
        match (self.last, at.level().up()) {
            (Some((covers, table)), Some(up)) if covers == Position::of(at.gfn(), up) => Some(table),
            _ => self.table(at),
        }
    }

    #[cold]
    fn table(&mut self, at: Position) -> Option<&'m Table> {
        let table = self.mmu.mirror_table_for(at.gfn(), at.level())?;
        self.last = at.level().up().map(|up| (Position::of(at.gfn(), up), table));
        Some(table)
    }
}

impl<P: TablePages, X: External<Page = P::ExternalPage>> Mmu<P, X> {
    /// The mirror table whose entries have `level` and that covers `gfn`.
    fn mirror_table_for(&self, gfn: Gfn, level: Level) -> Option<&Table> {
        let mut current = self.config.root_level;
        let mut table = self.mirror_table(self.mirror_root)?;
        while current > level {
            let value = Spte(table[index(gfn, current)].load(Ordering::Acquire));
            if !value.is_table(current) {
                return None;
            }
            table = self.mirror_table(value.table_ref())?;
            current = current.down()?;
        }
        (current == level).then_some(table)
    }

    /// The present mirror leaf that covers a frame.
    pub(crate) fn mirror_leaf(&self, gfn: Gfn) -> Option<(Position, &AtomicU64, Spte)> {
        let mut level = self.config.root_level;
        let mut table = self.mirror_table(self.mirror_root)?;
        loop {
            let entry = &table[index(gfn, level)];
            let value = Spte(entry.load(Ordering::Acquire));
            if value.is_leaf(level) {
                return Some((Position::of(gfn, level), entry, value));
            }
            if !value.is_table(level) {
                return None;
            }
            table = self.mirror_table(value.table_ref())?;
            level = level.down()?;
        }
    }
}
