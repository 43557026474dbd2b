//! Taking an MMU apart when its TD is gone, and looking single frames up.
//!
//! # Protocol
//! When the TD's key is gone no vCPU can run and the external table is only memory: its pages need no BLOCK,
//! TRACK or REMOVE, they are reclaimed one by one. [`Mmu::dismantle`] hands out every page, children before
//! the table that holds them (16), and leaves both trees empty. What cannot be reclaimed is for the
//! receiver to quarantine.

use tdvisor_base::sync::Ordering;
use tdvisor_base::{Gfn, Level, Pfn};

use crate::external::External;
use crate::find::Finder;
use crate::lock::{Exclusive, Shared, Tree};
use crate::mmu::Mmu;
use crate::range::Position;
use crate::spte::Spte;
use crate::table::{TablePages, TableRef};

/// A page that leaves the trees.
#[derive(Debug)]
pub enum Dismantled<Twin> {
    /// A private page.
    Leaf {
        /// Where the page was mapped.
        at: Position,
        /// The page.
        pfn: Pfn,
    },
    /// The twin of a mirror table, whose children have all been handed out.
    Table {
        /// The entry that pointed at it.
        at: Position,
        /// The twin. It was part of the external table.
        twin: Twin,
    },
}

impl<P: TablePages, X: External<Page = P::ExternalPage>> Mmu<P, X> {
    /// Empties both trees without calling a hook, and hands out what belonged to the external one. Works on
    /// a dead MMU too.
    ///
    /// The caller has made sure that no vCPU can run and that the external table is not in use any more.
    pub fn dismantle(&self, guard: &mut Exclusive<'_>, mut receive: impl FnMut(Dismantled<P::ExternalPage>)) {
        if !guard.is_of(&self.core) {
            return;
        }
        guard.forget_shortcuts();
        let root = Position::of(Gfn::new(0), self.config.root_level);
        self.dismantle_mirror(guard, self.mirror_root, root, &mut receive);
        self.emptied.lock().clear();
        self.dismantle_direct(guard, TableRef::from_pfn(self.direct_root()), self.config.root_level);
        self.limbo.collect(&self.core, |page| self.pages.free_direct(page));
    }

    fn dismantle_mirror(
        &self,
        guard: &Exclusive<'_>,
        table: TableRef,
        first: Position,
        receive: &mut impl FnMut(Dismantled<P::ExternalPage>),
    ) {
        let level = first.level();
        let Some(entries) = self.mirror_table(table) else { return };
        for (i, entry) in (0u64..).zip(entries) {
            let at = Position::of(first.gfn().wrapping_add(i * level.frames()), level);
            let value = Spte(entry.load(Ordering::Acquire));
            entry.store(Spte::ABSENT.0, Ordering::Release);
            if value.is_leaf(level) {
                guard.counters().sub_leaves(Tree::Mirror, level, 1);
                receive(Dismantled::Leaf { at, pfn: value.pfn() });
            } else if value.is_table(level)
                && let Some(below) = level.down()
            {
                let child = value.table_ref();
                self.dismantle_mirror(guard, child, Position::of(at.gfn(), below), receive);
                let twin = self.slab.twin(child).and_then(|home| home.lock().take());
                guard.counters().sub_table(Tree::Mirror);
                self.slab.free(child);
                if let Some(twin) = twin {
                    receive(Dismantled::Table { at, twin });
                }
            }
        }
    }

    /// Empties a direct table. Its pages wait for readers that may still be aging.
    fn dismantle_direct(&self, guard: &Exclusive<'_>, table: TableRef, level: Level) {
        let Some(entries) = self.direct_table(table) else { return };
        for entry in entries {
            let value = Spte(entry.swap(Spte::ABSENT.0, Ordering::AcqRel));
            if value.is_leaf(level) {
                guard.counters().sub_leaves(Tree::Direct, level, 1);
            } else if value.is_table(level)
                && let Some(below) = level.down()
            {
                self.dismantle_direct(guard, value.table_ref(), below);
                guard.counters().sub_table(Tree::Direct);
                self.retire_direct(value.table_ref());
            }
        }
    }

    /// Freezes an unlinked, empty direct table and lets it wait for its grace period.
    pub(crate) fn retire_direct(&self, table: TableRef) {
        if let Some(entries) = self.direct_table(table) {
            for entry in entries {
                entry.store(Spte::FROZEN.0, Ordering::Release);
            }
        }
        // Without room to wait in, the page stays out of use: it is lost, never reused too early.
        if self.limbo.make_room(1).is_ok() {
            self.limbo.retire(&self.core, table.pfn());
        }
    }

    /// Where a private frame is mapped: the leaf that covers it, and the frame's page.
    pub fn private_mapping(&self, _guard: &Shared<'_>, gfn: Gfn) -> Option<(Position, Pfn)> {
        self.check_gfn(gfn).ok()?;
        let (at, _, value) = self.mirror_leaf(gfn)?;
        Some((at, value.pfn().wrapping_add(gfn.get() - at.gfn().get())))
    }

    /// Where a shared frame is mapped.
    pub fn shared_mapping(&self, _guard: &Shared<'_>, gfn: Gfn) -> Option<(Position, Pfn)> {
        self.check_gfn(gfn).ok()?;
        let range = Position::of(gfn, Level::L4K).range();
        let found = self.direct_walk(range).next()?.ok()?;
        Some((found.at, found.value.pfn().wrapping_add(gfn.get() - found.at.gfn().get())))
    }

    /// Whether the private entry at a position points at a table.
    pub fn is_private_table(&self, _guard: &Shared<'_>, at: Position) -> bool {
        Finder::new(self).entry(at).is_some_and(|(_, value)| value.is_table(at.level()))
    }
}

impl<P: TablePages, X: External<Page = P::ExternalPage>> Mmu<P, X> {
    /// Gives back a direct table that nobody can reach or read any more, and those below it.
    fn free_direct_tree(&self, table: TableRef, level: Level) {
        if let (Some(entries), Some(below)) = (self.direct_table(table), level.down()) {
            for entry in entries {
                let value = Spte(entry.load(Ordering::Acquire));
                if value.is_table(level) {
                    self.free_direct_tree(value.table_ref(), below);
                }
            }
        }
        self.pages.free_direct(table.pfn());
    }
}

impl<P: TablePages, X: External<Page = P::ExternalPage>> Drop for Mmu<P, X> {
    /// Direct tables go back to where they came from: whoever reads them borrows the MMU. Twins that are
    /// still linked belong to the external table: dismantle first.
    fn drop(&mut self) {
        self.limbo.collect(&self.core, |page| self.pages.free_direct(page));
        self.free_direct_tree(TableRef::from_pfn(self.direct_root()), self.config.root_level);
    }
}
