//! What both trees hold, entry by entry, for whoever shows it.

use tdvisor_base::sync::Ordering;
use tdvisor_base::{Gfn, Pfn};

use crate::external::External;
use crate::lock::Exclusive;
use crate::mmu::{Mmu, index};
use crate::range::Position;
use crate::spte::Spte;
use crate::table::{ENTRIES, ExternalPage, TablePages, TableRef};

/// Which tree an entry is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tree {
    /// The mirror of the external table: private memory.
    Mirror,
    /// The table that hardware walks: shared memory.
    Direct,
}

/// What an entry is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ListedKind {
    /// A table. Of the mirror its twin, the page of the external table; `None` where it has none, which is a fault.
    Table(Option<Pfn>),
    /// The entry is a leaf that maps this page.
    Leaf(Pfn),
    /// Absent for the guest, and more than nothing: a device, or an entry that somebody holds.
    Other,
}

/// An entry that is not absent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listed {
    /// Whose it is.
    pub tree: Tree,
    /// Where the entry stands. A direct entry stands at the frame without the SHARED bit.
    pub at: Position,
    /// The 64 bits of the entry.
    pub raw: u64,
    /// What the 64 bits mean.
    pub kind: ListedKind,
}

impl<P: TablePages, X: External<Page = P::ExternalPage>> Mmu<P, X> {
    /// Shows every entry of both trees that is not absent, tables before what is in them.
    pub fn list(&self, guard: &mut Exclusive<'_>, visit: &mut dyn FnMut(Listed)) {
        if !guard.is_of(&self.core) {
            return;
        }
        let root = Position::of(Gfn::new(0), self.config.root_level);
        self.list_table(Tree::Mirror, self.mirror_root, root, visit);
        self.list_table(Tree::Direct, TableRef::from_pfn(self.direct_root()), root, visit);
    }

    fn list_table(&self, tree: Tree, table: TableRef, first: Position, visit: &mut dyn FnMut(Listed)) {
        let level = first.level();
        let entries = match tree {
            Tree::Mirror => self.mirror_table(table),
            Tree::Direct => self.direct_table(table),
        };
        let Some(entries) = entries else { return };
        let places = first.and_following().take(ENTRIES).take_while(|at| at.gfn() < self.config.end);
        for at in places {
            let gfn = match tree {
                Tree::Mirror => at.gfn(),
                Tree::Direct => self.direct_gfn(at.gfn()),
            };
            let Some(entry) = entries.get(index(gfn, level)) else { continue };
            let value = Spte(entry.load(Ordering::Acquire));
            if value == Spte::ABSENT {
                continue;
            }
            let kind = if value.is_frozen() {
                ListedKind::Other
            } else if value.is_table(level) {
                ListedKind::Table(self.page_of_table(tree, value.table_ref()))
            } else if value.is_present() {
                ListedKind::Leaf(value.pfn())
            } else {
                ListedKind::Other
            };
            visit(Listed { tree, at, raw: value.0, kind });
            if let (ListedKind::Table(_), Some(below)) = (kind, level.down()) {
                self.list_table(tree, value.table_ref(), Position::of(at.gfn(), below), visit);
            }
        }
    }

    fn page_of_table(&self, tree: Tree, table: TableRef) -> Option<Pfn> {
        match tree {
            Tree::Direct => Some(table.pfn()),
            Tree::Mirror => self.slab.twin(table)?.lock().as_ref().map(ExternalPage::pfn),
        }
    }
}
