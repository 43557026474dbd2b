//! Making ranges huge again.
//!
//! # Protocol
//! *Private* ([`Mmu::collapse_range`]), under [`Exclusive`], for a batch of tables whose 512 leaves map one
//! contiguous, aligned page between them:
//! 1. BLOCK the entry of every such table; one TRACK with one kick.
//! 2. The hook merges the external table into a leaf; then the mirror entry becomes that leaf, and the table
//!    and its twin go back.
//!
//! Whether the children are uniform (all accepted, or none) only the external side knows: when it refuses,
//! the table is unblocked and skipped. Any other failure unblocks the rest as a split does. A table whose
//! guest wished small pages is left alone. The other way back to huge pages, through an empty table, is in
//! [`crate::zap`].
//!
//! *Shared* ([`Mmu::recover_huge`]), after dirty logging ended: freeze the parent entry, flush, exchange every
//! child for FROZEN folding in what hardware set meanwhile (30), publish the leaf, and let the table wait for
//! its grace period (27).

use heapless::Vec as Bounded;
use tdvisor_base::sync::{AtomicU64, Ordering};
use tdvisor_base::{Gfn, Level, Pfn};

use crate::error::{MmuError, Step};
use crate::external::phase::{Batch, Section};
use crate::external::{Blocking, External, HookError};
use crate::find::Finder;
use crate::lock::{Counters, Exclusive, Tree};
use crate::mmu::{Mmu, index};
use crate::range::{GfnRange, Position};
use crate::spte::Spte;
use crate::table::{ENTRIES, Returned, Table, TablePages, TableRef};
use crate::transfer::Standing;

/// Tables merged in one batch.
const BATCH: usize = 128;

/// What became of a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Collapsed {
    /// Tables that became a leaf.
    pub merged: u64,
    /// Tables of contiguous leaves that the external side declined to merge.
    pub refused: u64,
    /// Tables of contiguous leaves whose guest wished small pages.
    pub inhibited: u64,
}

impl<P: TablePages, X: External<Page = P::ExternalPage>> Mmu<P, X> {
    /// Merges every table inside the range that can become a leaf of `level`, which is 2M or 1G.
    ///
    /// # Errors
    /// As [`MmuError`]. Tables merged before the failure stay merged, which changes no translation.
    pub fn collapse_range(
        &self,
        ctx: &mut X::Ctx,
        guard: &mut Exclusive<'_>,
        range: GfnRange,
        level: Level,
    ) -> Result<Collapsed, MmuError<X::Error>> {
        if !guard.is_of(&self.core) {
            return Err(MmuError::ForeignGuard);
        }
        self.check_alive()?;
        self.check_range(range)?;
        if !matches!(level, Level::L2M | Level::L1G) {
            return Err(MmuError::NotApplicable(Position::of(range.start(), level)));
        }
        let mut result = Collapsed::default();
        let Some(mut gfn) = first_inside(range, level) else { return Ok(result) };
        loop {
            let mut tables = Bounded::<(Position, Pfn), BATCH>::new();
            let mut finder = Finder::new(self);
            while gfn < range.end() && !tables.is_full() {
                let at = Position::of(gfn, level);
                let past = at.range().end();
                if past > range.end() {
                    gfn = range.end();
                    break;
                }
                match self.mergeable(&mut finder, at) {
                    Some((_, true)) => result.inhibited += 1,
                    Some((pfn, false)) => {
                        let _ = tables.push((at, pfn));
                    }
                    None => {}
                }
                gfn = past;
            }
            if tables.is_empty() {
                return Ok(result);
            }
            self.merge(ctx, guard, &tables, &mut result)?;
        }
    }

    /// The page that the leaves under an entry map between them, and whether the guest wants it small.
    fn mergeable(&self, finder: &mut Finder<'_, P, X>, at: Position) -> Option<(Pfn, bool)> {
        let (_, value) = finder.entry(at)?;
        if !value.is_table(at.level()) {
            return None;
        }
        let below = at.level().down()?;
        let table = self.mirror_table(value.table_ref())?;
        let pfn = contiguous(table, below)?.pfn();
        // What is on its way to another machine stays small until it is back.
        let plain = |entry: &AtomicU64| Spte(entry.load(Ordering::Acquire)).standing() == Standing::Plain;
        (pfn.is_aligned(at.level()) && table.iter().all(plain)).then_some((pfn, value.is_inhibited()))
    }

    fn merge(
        &self,
        ctx: &mut X::Ctx,
        guard: &mut Exclusive<'_>,
        tables: &[(Position, Pfn)],
        result: &mut Collapsed,
    ) -> Result<(), MmuError<X::Error>> {
        let counters = guard.counters();
        let mut batch = Batch::new();
        batch.make_room(tables.len())?;
        let mut section = Section::new(&self.external, ctx, guard);
        for &(at, _) in tables {
            match section.block(at, Blocking::Table) {
                Ok(blocked) => batch.push(blocked),
                Err(why) => {
                    self.undo_blocked(&mut section, batch, at)?;
                    return Err(self.undone(at, Step::Block, why));
                }
            }
        }
        let first = tables.first().map_or(Position::of(Gfn::new(0), Level::L2M), |t| t.0);
        let mut tracked = match section.track(batch) {
            Ok(tracked) => tracked,
            Err((batch, why)) => {
                self.undo_blocked(&mut section, batch, first)?;
                return Err(self.undone(first, Step::Track, why));
            }
        };
        section.guard().forget_shortcuts();
        let mut finder = Finder::new(self);
        for &(at, pfn) in tables {
            let Some(entry) = tracked.take() else { break };
            let (place, value) = finder.entry(at).ok_or(MmuError::Corrupt(at))?;
            let table = value.table_ref();
            let home = self.slab.twin(table).ok_or(MmuError::Corrupt(at))?;
            let mut twin = home.lock().take().ok_or(MmuError::Corrupt(at))?;
            match section.promote(entry, pfn, &mut twin) {
                Ok(()) => {
                    place.store(Spte::mirror_leaf(pfn, at.level()).0, Ordering::Release);
                    self.slab.free(table);
                    self.pages.return_external(twin, Returned::Removed);
                    count_merge(counters, Tree::Mirror, at.level());
                    result.merged += 1;
                }
                Err((entry, why)) => {
                    *home.lock() = Some(twin);
                    if let HookError::Fatal(_) = why {
                        return Err(self.die(at, Step::Promote, why));
                    }
                    self.undo(&mut section, entry)?;
                    if let HookError::Refused(_) = why {
                        result.refused += 1;
                        continue;
                    }
                    self.undo_tracked(&mut section, &mut tracked)?;
                    return Err(MmuError::Hook { at, step: Step::Promote, why });
                }
            }
        }
        Ok(())
    }

    /// Merges the direct tables inside the range whose leaves map one contiguous, aligned page with the same
    /// permissions. The owner of the memory says up to which level its backing allows that. Gives the number
    /// of tables merged.
    ///
    /// # Errors
    /// [`MmuError::NoMemory`], [`MmuError::ForeignGuard`], [`MmuError::OutOfRange`].
    pub fn recover_huge(
        &self,
        guard: &mut Exclusive<'_>,
        range: GfnRange,
        backing: Level,
    ) -> Result<u64, MmuError<X::Error>> {
        if !guard.is_of(&self.core) {
            return Err(MmuError::ForeignGuard);
        }
        self.check_range(range)?;
        let mut merged = 0;
        for level in [Level::L2M, Level::L1G].into_iter().filter(|level| *level <= backing) {
            let Some(mut gfn) = first_inside(range, level) else { continue };
            while Position::of(gfn, level).range().end() <= range.end() && gfn < range.end() {
                if self.recover_one(guard, Position::of(gfn, level))? {
                    merged += 1;
                }
                gfn = Position::of(gfn, level).range().end();
            }
        }
        Ok(merged)
    }

    fn recover_one(&self, guard: &mut Exclusive<'_>, at: Position) -> Result<bool, MmuError<X::Error>> {
        let Some(entries) = self.direct_table_for(at) else { return Ok(false) };
        let place = &entries[index(self.direct_gfn(at.gfn()), at.level())];
        let value = Spte(place.load(Ordering::Acquire));
        let (true, Some(below)) = (value.is_table(at.level()), at.level().down()) else { return Ok(false) };
        let table = value.table_ref();
        let children = self.direct_table(table).ok_or(MmuError::Corrupt(at))?;
        match contiguous(children, below) {
            Some(first) if first.pfn().is_aligned(at.level()) => {}
            _ => return Ok(false),
        }
        self.limbo.make_room(1)?;
        place.store(Spte::FROZEN.0, Ordering::Release);
        self.external.flush_direct(at.range());
        // Nobody sets bits in the children any more, except an ager, who takes away what may be lost.
        let mut leaf = Spte::ABSENT;
        for (i, child) in children.iter().enumerate() {
            let last = Spte(child.swap(Spte::FROZEN.0, Ordering::AcqRel));
            leaf = if i == 0 { last.restored().merged(at.level()) } else { leaf.folded(last) };
        }
        place.store(leaf.0, Ordering::Release);
        self.limbo.retire(&self.core, table.pfn());
        count_merge(guard.counters(), Tree::Direct, at.level());
        Ok(true)
    }

    /// The direct table that holds the entry at a position.
    pub(crate) fn direct_table_for(&self, at: Position) -> Option<&Table> {
        let seen = self.direct_gfn(at.gfn());
        let mut level = self.config.root_level;
        let mut table = self.direct_table(TableRef::from_pfn(self.direct_root()))?;
        while level > at.level() {
            let value = Spte(table[index(seen, level)].load(Ordering::Acquire));
            if !value.is_table(level) {
                return None;
            }
            table = self.direct_table(value.table_ref())?;
            level = level.down()?;
        }
        Some(table)
    }
}

/// The first leaf of a table of leaves that map contiguous pages with equal permissions.
fn contiguous(table: &Table, level: Level) -> Option<Spte> {
    let first = Spte(table.first()?.load(Ordering::Acquire));
    let mut expected = first.timeless().0;
    let step = level.bytes();
    for entry in table {
        let value = Spte(entry.load(Ordering::Acquire));
        if !value.is_leaf(level) || value.timeless().0 != expected {
            return None;
        }
        expected = expected.wrapping_add(step);
    }
    Some(first)
}

/// The first frame of a range that begins a page of a level.
fn first_inside(range: GfnRange, level: Level) -> Option<Gfn> {
    let start = range.start().get().checked_next_multiple_of(level.frames())?;
    (start < range.end().get()).then_some(Gfn::new(start))
}

/// A table of leaves became one leaf.
fn count_merge(counters: &Counters, tree: Tree, level: Level) {
    if let Some(below) = level.down() {
        counters.sub_leaves(tree, below, ENTRIES as u64);
        counters.add_leaves(tree, level, 1);
        counters.sub_table(tree);
    }
}
