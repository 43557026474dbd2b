//! The audit: does what must hold at rest hold?
//!
//! # Protocol
//! Under [`Exclusive`] nobody else is in a hook or holds an entry, so the state invariants of sections A, D
//! and E must hold. The audit walks the mirror beside an [`ExternalView`] — what the external table really
//! holds — and the direct tree on its own, and stops at the first difference, which it names by the number
//! of the invariant. It changes nothing and may be called in production.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::fmt;

use tdvisor_base::sync::Ordering;
use tdvisor_base::{Gfn, Level, Pfn};

use crate::external::External;
use crate::lock::{Exclusive, Statistics};
use crate::mmu::{Mmu, index};
use crate::range::Position;
use crate::spte::Spte;
use crate::table::{ENTRIES, ExternalPage, TablePages, TableRef};
use crate::transfer::Standing;

/// What one entry of the external table holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExternalEntry {
    /// Nothing.
    Free,
    /// A leaf that maps this page, usable (accepted or pending).
    Leaf(Pfn),
    /// A leaf that maps this page, usable at least for reading, and on its way to another machine.
    Moving(Pfn, Standing),
    /// A table in this page, usable.
    Table(Pfn),
    /// A table, usable, whose page the reader cannot see; [`ExternalView::holds`] has to judge it.
    HiddenTable,
    /// Something that is blocked.
    Blocked,
}

/// Reads the external table, which this crate cannot. Reading may take what the reader owns (a processor to ask on).
pub trait ExternalView {
    /// The entry at a position whose ancestors are all tables.
    fn entry(&mut self, at: Position) -> ExternalEntry;

    /// Whether the records that the external side keeps of its pages say that it holds this page, in this
    /// role and size (10). A view without such records believes it.
    fn holds(&mut self, page: Pfn, at: Position, role: Role) -> bool {
        let _ = (page, at, role);
        true
    }
}

/// What a page of the external table is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// The page is mapped by the entry.
    Leaf,
    /// The page is the table that the entry points at.
    Table,
}

/// What the audit saw when all was well.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AuditReport {
    /// What both trees hold, counted entry by entry.
    pub counted: Statistics,
    /// Entries compared with the external table.
    pub compared: u64,
}

/// What is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The number of the invariant.
    pub invariant: u8,
    /// Where.
    pub at: Option<Position>,
    /// In which words.
    pub what: &'static str,
    /// What the external table holds there, if that is the matter.
    pub external: Option<ExternalEntry>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invariant {}: {}", self.invariant, self.what)?;
        if let Some(at) = self.at {
            write!(f, " at {at}")?;
        }
        if let Some(external) = self.external {
            write!(f, " (external: {external:?})")?;
        }
        Ok(())
    }
}

impl core::error::Error for Violation {}

const fn violated(invariant: u8, at: Position, what: &'static str) -> Violation {
    Violation { invariant, at: Some(at), what, external: None }
}

/// What is collected on the way.
#[derive(Default)]
struct Seen {
    report: AuditReport,
    twins: BTreeSet<Pfn>,
    tables: BTreeSet<TableRef>,
    private: Vec<(Pfn, Level)>,
    shared: Vec<(Pfn, Level)>,
}

impl<P: TablePages, X: External<Page = P::ExternalPage>> Mmu<P, X> {
    /// Checks every state invariant that this crate can see.
    ///
    /// # Errors
    /// The first [`Violation`].
    pub fn audit(
        &self,
        guard: &mut Exclusive<'_>,
        mut view: impl ExternalView,
    ) -> Result<AuditReport, Violation> {
        let root = Position::of(Gfn::new(0), self.config.root_level);
        if !guard.is_of(&self.core) {
            return Err(violated(31, root, "audited under the guard of another MMU"));
        }
        let mut seen = Seen::default();
        self.audit_mirror(&mut view, self.mirror_root, root, &mut seen)?;
        seen.tables.clear();
        self.audit_direct(TableRef::from_pfn(self.direct_root()), root, &mut seen)?;
        let counted = seen.report.counted;
        let kept = self.statistics();
        if kept != counted {
            return Err(violated(7, root, "statistics differ from what is mapped"));
        }
        no_overlap(&mut seen.private, root, "a page is mapped privately twice")?;
        seen.shared.sort_unstable_by_key(|page| page.0);
        if seen.private.iter().any(|&(pfn, level)| overlaps_any(&seen.shared, pfn, level)) {
            return Err(violated(9, root, "a page is mapped both privately and shared"));
        }
        Ok(seen.report)
    }

    fn audit_mirror(
        &self,
        view: &mut impl ExternalView,
        table: TableRef,
        first: Position,
        seen: &mut Seen,
    ) -> Result<(), Violation> {
        let level = first.level();
        if !seen.tables.insert(table) {
            return Err(violated(3, first, "a mirror table is linked twice"));
        }
        let entries = self.mirror_table(table).ok_or(violated(3, first, "a table that does not exist"))?;
        for position in positions(first, self.config.end) {
            let value = Spte(entries[index(position.gfn(), level)].load(Ordering::Acquire));
            let external = view.entry(position);
            seen.report.compared += 1;
            let fail = |invariant, what| {
                Err(Violation { invariant, at: Some(position), what, external: Some(external) })
            };
            if value.is_frozen() {
                return fail(5, "a mirror entry is frozen at rest");
            }
            if external == ExternalEntry::Blocked {
                return fail(26, "an external entry is still blocked");
            }
            if value.is_table(level) {
                let below = level.down().ok_or(violated(3, position, "a table below 4K"))?;
                let home = self.slab.twin(value.table_ref());
                let twin = home.and_then(|home| home.lock().as_ref().map(ExternalPage::pfn));
                let Some(twin) = twin else { return fail(3, "a linked mirror table has no twin") };
                if external != ExternalEntry::Table(twin) && external != ExternalEntry::HiddenTable {
                    return fail(3, "the external table is not the twin of the mirror's");
                }
                if !view.holds(twin, position, Role::Table) {
                    return fail(10, "the external side does not hold the twin as a table of this guest");
                }
                if !seen.twins.insert(twin) {
                    return fail(3, "two mirror tables have the same twin");
                }
                seen.report.counted.mirror.tables += 1;
                let child = Position::of(position.gfn(), below);
                self.audit_mirror(view, value.table_ref(), child, seen)?;
            } else if value.is_present() {
                if level > Level::L1G || !value.pfn().is_aligned(level) {
                    return fail(26, "a leaf larger than its alignment");
                }
                let (mapped, standing) = match external {
                    ExternalEntry::Leaf(pfn) => (Some(pfn), Standing::Plain),
                    ExternalEntry::Moving(pfn, standing) => (Some(pfn), standing),
                    _ => (None, Standing::Plain),
                };
                if mapped != Some(value.pfn()) {
                    return fail(1, "the external entry does not map what the mirror maps");
                }
                if standing != value.standing() {
                    return fail(58, "a leaf does not stand in the transfer where the external entry does");
                }
                if !view.holds(value.pfn(), position, Role::Leaf) {
                    return fail(10, "the external side does not hold the page as this guest's");
                }
                seen.report.counted.mirror.count_leaf(level);
                seen.private.push((value.pfn(), level));
            } else if external != ExternalEntry::Free {
                return fail(2, "the external entry is in use and the mirror's is absent");
            }
        }
        Ok(())
    }

    fn audit_direct(&self, table: TableRef, first: Position, seen: &mut Seen) -> Result<(), Violation> {
        let level = first.level();
        if !seen.tables.insert(table) {
            return Err(violated(3, first, "a direct table is linked twice"));
        }
        let entries = self.direct_table(table).ok_or(violated(3, first, "a table that does not exist"))?;
        for position in positions(first, self.config.end) {
            let gfn = self.direct_gfn(position.gfn());
            let value = Spte(entries[index(gfn, level)].load(Ordering::Acquire));
            if value.is_frozen() {
                return Err(violated(5, position, "a direct entry is frozen at rest"));
            }
            if value.is_table(level) {
                let below = level.down().ok_or(violated(3, position, "a table below 4K"))?;
                seen.report.counted.direct.tables += 1;
                self.audit_direct(value.table_ref(), Position::of(position.gfn(), below), seen)?;
            } else if value.is_present() {
                if level > Level::L1G || !value.pfn().is_aligned(level) {
                    return Err(violated(26, position, "a leaf larger than its alignment"));
                }
                seen.report.counted.direct.count_leaf(level);
                seen.shared.push((value.pfn(), level));
            } else if value != Spte::ABSENT && !(value.is_device() && level == Level::L4K) {
                return Err(violated(5, position, "an absent direct entry holds something"));
            }
        }
        Ok(())
    }
}

/// The positions of a table's entries, as far as frames may be mapped.
fn positions(first: Position, end: Gfn) -> impl Iterator<Item = Position> {
    let frames = first.level().frames();
    (0..ENTRIES as u64)
        .map(move |i| Position::of(first.gfn().wrapping_add(i.wrapping_mul(frames)), first.level()))
        .take_while(move |at| at.gfn() < end)
}

/// Sorts pages and looks for two that share a frame (10, within one guest).
fn no_overlap(pages: &mut [(Pfn, Level)], at: Position, what: &'static str) -> Result<(), Violation> {
    pages.sort_unstable_by_key(|page| page.0);
    let overlap = pages.windows(2).any(|pair| match pair {
        [(pfn, level), (next, _)] => pfn.wrapping_add(level.frames()) > *next,
        _ => false,
    });
    if overlap { Err(violated(10, at, what)) } else { Ok(()) }
}

/// Whether a page shares a frame with one of a sorted list.
fn overlaps_any(sorted: &[(Pfn, Level)], pfn: Pfn, level: Level) -> bool {
    let end = pfn.wrapping_add(level.frames());
    let after = sorted.partition_point(|page| page.0 < end);
    // A shared page may be mapped at several places, and a long one may begin before shorter ones.
    sorted
        .iter()
        .take(after)
        .rev()
        .take_while(|p| p.0.wrapping_add(Level::L1G.frames()) > pfn)
        .any(|(start, level)| start.wrapping_add(level.frames()) > pfn)
}
