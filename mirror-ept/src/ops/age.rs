//! Aging: which shared pages were used since somebody last asked, without any lock.
//!
//! # Protocol
//! Under [`Rcu`] only, beside every other operation (43):
//! 1. Walk the *direct* tree from its current root. The mirror is never visited: private memory has no
//!    Accessed bit that anybody could see (42).
//! 2. Where hardware sets Accessed, clear it by one locked `and` on the live entry. Whatever the entry became
//!    since it was read loses at most an Accessed bit: absent entries and FROZEN have none (41).
//! 3. Where it does not, put the permissions aside by one compare-exchange from the value that was read. Who
//!    loses it leaves the entry alone and calls the page young: somebody is at it just now.
//! 4. Nothing is flushed. An access that hits a stale translation is missed, which is tolerated.
//!
//! Aging makes nothing absent, changes no page and no level (42). A table it stands in may be unlinked
//! meanwhile; then it finds FROZEN there, which is not young, and the page is not freed before it is done.
//!
//! Scanning is bound by memory: entries are tested a cache line at a time, and the first lines of the next
//! table are touched while the current one is scanned, because no prefetcher crosses a page on its own.

use tdvisor_base::sync::{AtomicU64, Ordering};
use tdvisor_base::{Gfn, Level, to_usize};

use crate::error::MmuError;
use crate::external::External;
use crate::lock::Rcu;
use crate::mmu::{Mmu, index};
use crate::range::{GfnRange, Position};
use crate::spte::Spte;
use crate::table::{ENTRIES, Table, TablePages, TableRef};

/// Entries in one cache line.
const LINE: usize = if ENTRIES < 8 { ENTRIES } else { 8 };

/// Whether a page was used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Age {
    /// Some page of the range was used since it was last aged.
    Young,
    /// None was.
    Old,
}

/// What to do with a young leaf.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Aging {
    /// Stop at the first.
    Test,
    /// Make it old, and go on.
    Clear,
}

impl<P: TablePages, X: External<Page = P::ExternalPage>> Mmu<P, X> {
    /// Whether a page of the range was used, making all of them old.
    ///
    /// # Errors
    /// [`MmuError::ForeignGuard`], [`MmuError::OutOfRange`].
    pub fn age_gfn(&self, guard: &Rcu<'_>, range: GfnRange) -> Result<Age, MmuError<X::Error>> {
        self.age(guard, range, Aging::Clear)
    }

    /// Whether a page of the range was used; changes nothing.
    ///
    /// # Errors
    /// [`MmuError::ForeignGuard`], [`MmuError::OutOfRange`].
    pub fn test_age_gfn(&self, guard: &Rcu<'_>, range: GfnRange) -> Result<Age, MmuError<X::Error>> {
        self.age(guard, range, Aging::Test)
    }

    fn age(&self, guard: &Rcu<'_>, range: GfnRange, aging: Aging) -> Result<Age, MmuError<X::Error>> {
        if !guard.is_of(&self.core) {
            return Err(MmuError::ForeignGuard);
        }
        self.check_range(range)?;
        let root = TableRef::from_pfn(self.direct_root());
        let young = match self.direct_table(root) {
            Some(table) => {
                let first = Position::of(Gfn::new(0), self.config.root_level);
                self.age_table(table, first, range, aging)
            }
            None => false,
        };
        Ok(if young { Age::Young } else { Age::Old })
    }

    /// Ages what a table above 4K covers of a range. `first` is the table's first entry.
    fn age_table(&self, table: &Table, first: Position, range: GfnRange, aging: Aging) -> bool {
        let level = first.level();
        let mut young = false;
        let mut gfn = range.start().max(first.gfn());
        let end = range.end().min(table_end(first));
        // The table that comes next, resolved one entry ahead.
        let mut ahead = self.child_at(table, gfn, level);
        while gfn < end {
            let at = Position::of(gfn, level);
            let past = at.range().end();
            let (value, child) = ahead;
            ahead = if past < end { self.child_at(table, past, level) } else { (Spte::ABSENT, None) };
            if let (Some(child), Some(below)) = (child, level.down()) {
                let inside = Position::of(at.gfn(), below);
                young |= if below == Level::L4K {
                    self.age_leaves(child, ahead.1, inside, range, aging)
                } else {
                    self.age_table(child, inside, range, aging)
                };
            } else if value.is_leaf(level) && value.is_young(self.config.direct_access) {
                let entry = &table[index(self.direct_gfn(gfn), level)];
                self.age_leaf(entry, value, aging);
                young = true;
            }
            if young && aging == Aging::Test {
                return true;
            }
            gfn = past;
        }
        young
    }

    /// Reads one entry and resolves the table it points at.
    fn child_at<'m>(&'m self, table: &Table, gfn: Gfn, level: Level) -> (Spte, Option<&'m Table>) {
        let value = if cfg!(loom) && level.table_index(gfn) >= ENTRIES {
            Spte::ABSENT
        } else {
            Spte(table[index(self.direct_gfn(gfn), level)].load(Ordering::Acquire))
        };
        let child = if value.is_table(level) { self.direct_table(value.table_ref()) } else { None };
        (value, child)
    }

    /// Ages the 4K leaves of one table. Only present leaves have any of the bits that mean young, so a line
    /// without them needs no second look.
    fn age_leaves(
        &self,
        table: &Table,
        next: Option<&Table>,
        first: Position,
        range: GfnRange,
        aging: Aging,
    ) -> bool {
        let form = self.config.direct_access;
        let mask = Spte::young_mask(form);
        if let Some(next) = next {
            touch(next);
        }
        let from = first_index(first, range);
        let to = past_index(first, range);
        let mut young = false;
        for (number, line) in table.chunks(LINE).enumerate() {
            let start = number * LINE;
            if start + LINE <= from || start >= to {
                continue;
            }
            let any = line.iter().fold(0, |any, entry| any | entry.load(Ordering::Relaxed));
            if any & mask == 0 {
                continue;
            }
            for (offset, entry) in line.iter().enumerate() {
                let value = Spte(entry.load(Ordering::Acquire));
                if (from..to).contains(&(start + offset)) && value.0 & mask != 0 {
                    young = true;
                    if aging == Aging::Test {
                        return true;
                    }
                    self.age_leaf(entry, value, aging);
                }
            }
        }
        young
    }

    /// Makes a young leaf old, unless somebody else changed it.
    #[inline(always)]
    fn age_leaf(&self, entry: &AtomicU64, seen: Spte, aging: Aging) {
        if aging == Aging::Test {
            return;
        }
        match self.config.direct_access {
            crate::AccessTracking::Hardware => {
                entry.fetch_and(!Spte::young_mask(crate::AccessTracking::Hardware), Ordering::AcqRel);
            }
            form @ crate::AccessTracking::Permissions => {
                let old = seen.aged(form);
                let _ = entry.compare_exchange(seen.0, old.0, Ordering::AcqRel, Ordering::Relaxed);
            }
        }
    }
}

/// The frame after the last that a table covers, as far as frames are counted.
fn table_end(first: Position) -> Gfn {
    first.gfn().checked_add(first.level().frames() * ENTRIES as u64).unwrap_or(Gfn::new(u64::MAX))
}

/// Index of the first 4K entry of a table that is in a range.
fn first_index(first: Position, range: GfnRange) -> usize {
    to_usize(range.start().get().saturating_sub(first.gfn().get())).min(ENTRIES)
}

/// Index after the last 4K entry of a table that is in a range.
fn past_index(first: Position, range: GfnRange) -> usize {
    to_usize(range.end().get().saturating_sub(first.gfn().get())).min(ENTRIES)
}

/// Reads a word of the first lines of a table, so that hardware starts to fetch it.
#[inline(always)]
fn touch(table: &Table) {
    for line in table.chunks(LINE).take(4) {
        if let [first, ..] = line {
            core::hint::black_box(first.load(Ordering::Relaxed));
        }
    }
}
