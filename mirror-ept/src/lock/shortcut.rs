//! Where a participant's last fault walked, so that the next one nearby need not start at the root.
//!
//! # Protocol
//! A participant remembers the mirror table of 2M entries that its last fault came through, with the gigabyte
//! that it covers. Only the owner of the slot writes it, under [`crate::Shared`]. A mirror table is unlinked
//! only under [`crate::Exclusive`], when no walk is under way, and whoever unlinks one makes every participant
//! forget first. So what is remembered is linked, as long as a guard is held.

use tdvisor_base::sync::{AtomicU64, Ordering};
use tdvisor_base::{Gfn, Level};

use crate::table::TableRef;

/// The table a walk may start in.
#[derive(Debug)]
pub(crate) struct Shortcut {
    /// Number of the gigabyte, plus one; 0 where nothing is remembered.
    gigabyte: AtomicU64,
    table: AtomicU64,
}

/// Which gigabyte a frame is in, plus one.
#[inline(always)]
const fn tag(gfn: Gfn) -> u64 {
    gfn.get() / Level::L1G.frames() + 1
}

impl Shortcut {
    pub(crate) fn new() -> Self {
        Self { gigabyte: AtomicU64::new(0), table: AtomicU64::new(0) }
    }

    /// The table of 2M entries for a frame.
    #[inline(always)]
    pub(crate) fn get(&self, gfn: Gfn) -> Option<TableRef> {
        let known = self.gigabyte.load(Ordering::Relaxed) == tag(gfn);
        known.then(|| TableRef::new(self.table.load(Ordering::Relaxed)))
    }

    /// Remembers the table of 2M entries for a frame.
    #[inline(always)]
    pub(crate) fn remember(&self, gfn: Gfn, table: TableRef) {
        self.table.store(table.get(), Ordering::Relaxed);
        self.gigabyte.store(tag(gfn), Ordering::Relaxed);
    }

    pub(crate) fn forget(&self) {
        self.gigabyte.store(0, Ordering::Relaxed);
    }
}
