//! Walking a tree in address order, from outside a fault.
//!
//! # Protocol
//! A walk reads each entry once, and steps down only through the value it read (8, 27e). Under
//! [`crate::Exclusive`] entries do not change under it; under [`crate::Rcu`] they may, and then what it finds
//! in a table that was unlinked meanwhile is FROZEN, which it passes over.

use tdvisor_base::sync::{AtomicU64, Ordering};
use tdvisor_base::{Gfn, Level};

use crate::mmu::index;
use crate::range::{GfnRange, Position};
use crate::spte::Spte;
use crate::table::{ENTRIES, Table, TableRef};

/// An entry that a walk came across, and its value when it did.
pub(crate) struct Found<'m> {
    pub(crate) at: Position,
    pub(crate) entry: &'m AtomicU64,
    pub(crate) value: Spte,
}

/// Consecutive leaves of one table that a walk came across.
pub(crate) struct FoundLeaves<'m> {
    pub(crate) first: Position,
    pub(crate) entries: &'m [AtomicU64],
}

/// All leaves of a tree that overlap a range.
pub(crate) struct Walk<'m, F> {
    resolve: F,
    tables: [Option<&'m Table>; 5],
    root: Level,
    level: Level,
    next: Gfn,
    end: Gfn,
    /// Bits that hardware sees set in the addresses of this tree.
    bits: Gfn,
}

impl<'m, F: Fn(TableRef) -> Option<&'m Table>> Walk<'m, F> {
    pub(crate) fn new(resolve: F, root: TableRef, root_level: Level, bits: Gfn, range: GfnRange) -> Self {
        let mut tables = [None; 5];
        if let Some(place) = tables.get_mut(root_level as usize) {
            *place = resolve(root);
        }
        Self {
            resolve,
            tables,
            root: root_level,
            level: root_level,
            next: range.start(),
            end: range.end(),
            bits,
        }
    }

    /// Goes on after `gfn`, at the lowest level whose table still covers it.
    #[inline(always)]
    fn advance_to(&mut self, gfn: Gfn) {
        self.next = gfn;
        while self.level < self.root {
            let Some(up) = self.level.up() else { return };
            if !gfn.is_aligned(up) {
                return;
            }
            self.level = up;
        }
    }

    /// The next leaf of the range, with those that follow it in its table; at most `limit` in all, at least one.
    #[inline]
    pub(crate) fn next_leaves(&mut self, limit: usize) -> Option<Result<FoundLeaves<'m>, Position>> {
        let (first, table) = match self.next_where(Spte::is_leaf)? {
            Ok(found) => (found.at, self.tables.get(found.at.level() as usize).copied().flatten()?),
            Err(at) => return Some(Err(at)),
        };
        let level = first.level();
        let left = self.end.get().saturating_sub(first.gfn().get()).div_ceil(level.frames());
        let from = index(Gfn::new(first.gfn().get() | self.bits.get()), level);
        let entries = table.get(from..).unwrap_or_default();
        let most = limit.clamp(1, usize::try_from(left).unwrap_or(usize::MAX).max(1));
        let leaf = |entry: &&AtomicU64| Spte(entry.load(Ordering::Acquire)).is_leaf(level);
        let count = 1 + entries.iter().take(most).skip(1).take_while(leaf).count();
        self.level = level;
        self.advance_to(first.following(count as u64).gfn());
        Some(Ok(FoundLeaves { first, entries: entries.get(..count).unwrap_or(entries) }))
    }

    /// The next entry of the range that is no table and is chosen; the walk passes over the others.
    #[inline(always)]
    pub(crate) fn next_where(
        &mut self,
        chosen: impl Fn(Spte, Level) -> bool,
    ) -> Option<Result<Found<'m>, Position>> {
        while self.next < self.end {
            let at = Position::of(self.next, self.level);
            let Some(table) = self.tables.get(self.level as usize).copied().flatten() else {
                self.next = self.end;
                return Some(Err(at));
            };
            let seen = Gfn::new(self.next.get() | self.bits.get());
            let value = if cfg!(loom) && self.level.table_index(self.next) >= ENTRIES {
                // A model's tables are truncated.
                Spte::ABSENT
            } else {
                Spte(table[index(seen, self.level)].load(Ordering::Acquire))
            };
            if value.is_table(self.level)
                && let Some(below) = self.level.down()
            {
                self.level = below;
                if let Some(place) = self.tables.get_mut(below as usize) {
                    *place = (self.resolve)(value.table_ref());
                }
                continue;
            }
            let level = self.level;
            let past = match at.gfn().checked_add(level.frames()) {
                Some(past) => past,
                None => self.end,
            };
            self.advance_to(past);
            if chosen(value, level) {
                return Some(Ok(Found { at, entry: &table[index(seen, level)], value }));
            }
        }
        None
    }
}

impl<'m, F: Fn(TableRef) -> Option<&'m Table>> Iterator for Walk<'m, F> {
    /// `Err` names an entry that refers to a table that does not exist.
    type Item = Result<Found<'m>, Position>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.next_where(Spte::is_leaf)
    }
}
