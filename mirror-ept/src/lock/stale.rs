//! The level at which the *host* maps a page, and the only two things that may be done with it.
//!
//! # Protocol
//! The host's page table changes under the reader's feet, so what a walk of it says may be wrong by the time
//! it is known. A [`Stale`] value can therefore only be
//! 1. *confirmed*: checked against the invalidation sequence under [`Shared`], with a snapshot taken before
//!    the walk — then it is the level, for as long as the guard is held; or
//! 2. used to *decide to remove* a mapping, which is never wrong, only sometimes needless.
//!
//! Whoever holds only a table entry, not a leaf, has no claim that the level is right: the host may promote
//! in place. There is no way here to express that use. The walk reads each entry once: a second read could
//! see the entry promoted and step into the page as if it were a table (39). It must not be used for private
//! memory, whose backing is not in the host's page table.
//!
//! Taking the level out unchecked does not compile:
//! ```compile_fail
//! use mirror_ept::stale::Stale;
//! use tdvisor_base::Level;
//! fn wrong(level: Stale<Level>) -> Level {
//!     level.0
//! }
//! ```
//! Nor does confirming it without a guard:
//! ```compile_fail
//! use mirror_ept::{notifier::{Notifier, Snapshot}, stale::Stale};
//! use tdvisor_base::{Gfn, Level};
//! fn wrong(level: Stale<Level>, notifier: &Notifier, before: Snapshot) -> Option<Level> {
//!     level.confirm(notifier, before, Gfn::new(0))
//! }
//! ```
//! Nor keeping it after the guard:
//! ```compile_fail
//! use mirror_ept::{Participant, notifier::{Notifier, Snapshot}, stale::Stale};
//! use tdvisor_base::{Gfn, Level};
//! fn wrong(me: &mut Participant, level: Stale<Level>, notifier: &Notifier, before: Snapshot) -> bool {
//!     let confirmed = level.confirm_for(&me.shared(), notifier, before, Gfn::new(0));
//!     confirmed.is_some_and(|fresh| fresh.get() == Level::L2M)
//! }
//! ```
//! This does:
//! ```
//! use mirror_ept::{Participant, notifier::{Notifier, Snapshot}, stale::Stale};
//! use tdvisor_base::{Gfn, Level};
//! fn right(me: &mut Participant, level: Stale<Level>, notifier: &Notifier, before: Snapshot) -> bool {
//!     let guard = me.shared();
//!     let confirmed = level.confirm_for(&guard, notifier, before, Gfn::new(0));
//!     confirmed.is_some_and(|fresh| fresh.get() == Level::L2M)
//! }
//! ```

use core::marker::PhantomData;

use tdvisor_base::{Gfn, Level};

use crate::lock::Shared;
use crate::notifier::{Notifier, Snapshot};

/// A fact about the host that may be out of date.
#[derive(Clone, Copy, Debug)]
pub struct Stale<T>(T);

/// A fact that is true while the guard is held.
#[derive(Clone, Copy, Debug)]
pub struct Fresh<'g, T>(T, PhantomData<&'g ()>);

impl<T: Copy> Fresh<'_, T> {
    /// The fact.
    pub const fn get(&self) -> T {
        self.0
    }
}

/// What to do with an existing mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Advice {
    /// Keep the mapping.
    Keep,
    /// Remove the mapping; the next fault makes it anew.
    Remove,
}

impl<T: Copy> Stale<T> {
    /// The fact, if nothing was invalidated since `before`, which must have been taken before the fact was
    /// looked up.
    pub fn confirm_for<'g>(
        self,
        guard: &'g Shared<'_>,
        notifier: &Notifier,
        before: Snapshot,
        gfn: Gfn,
    ) -> Option<Fresh<'g, T>> {
        notifier.still_counts(guard, before, gfn).then_some(Fresh(self.0, PhantomData))
    }

    /// What was read, if it still holds under the guard, for use inside the crate, where the guard outlives the use.
    pub(crate) fn confirm(
        self,
        guard: &Shared<'_>,
        notifier: &Notifier,
        before: Snapshot,
        gfn: Gfn,
    ) -> Option<T> {
        self.confirm_for(guard, notifier, before, gfn).map(|fresh| fresh.get())
    }
}

impl Stale<Level> {
    /// Whether a mapping of level `mapped` should be removed because the host could map it larger now. May
    /// be wrong, harmlessly.
    pub fn advise(self, mapped: Level) -> Advice {
        if self.0 > mapped { Advice::Remove } else { Advice::Keep }
    }
}

/// The page table by which the host maps its own memory.
pub trait HostTables {
    /// A table of the host's.
    type Table: Copy;

    /// The root of the host's tables, whose entries have level [`Level::L512G`].
    fn root(&self) -> Self::Table;

    /// Reads one entry, once.
    fn read(&self, table: Self::Table, index: usize) -> HostEntry<Self::Table>;
}

/// What one entry of the host's page table says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HostEntry<T> {
    /// Nothing is mapped.
    Absent,
    /// A page is mapped.
    Leaf,
    /// The next table.
    Table(T),
}

/// The level at which the host maps the frame `host_frame` of its own address space: [`Level::L4K`] where it
/// maps nothing, which is always a safe answer.
pub fn host_pfn_mapping_level<H: HostTables>(host: &H, host_frame: Gfn) -> Stale<Level> {
    let mut table = host.root();
    let mut level = Level::L512G;
    loop {
        match host.read(table, level.table_index(host_frame)) {
            HostEntry::Absent => return Stale(Level::L4K),
            HostEntry::Leaf => return Stale(level.min(Level::L1G)),
            HostEntry::Table(next) => match level.down() {
                Some(below) => (table, level) = (next, below),
                None => return Stale(Level::L4K),
            },
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::lock::{Core, Participant};
    use crate::range::GfnRange;
    use core::cell::Cell;
    use tdvisor_base::sync::Arc;

    /// A host whose 2M entry is promoted to a leaf as soon as somebody has read it once.
    struct Promoting {
        reads: Cell<[u32; 4]>,
    }

    impl HostTables for Promoting {
        type Table = usize;

        fn root(&self) -> usize {
            3
        }

        fn read(&self, table: usize, _index: usize) -> HostEntry<usize> {
            let mut reads = self.reads.get();
            reads[table] += 1;
            self.reads.set(reads);
            match table {
                0 => HostEntry::Leaf,
                1 if reads[1] > 1 => HostEntry::Leaf,
                _ => HostEntry::Table(table - 1),
            }
        }
    }

    #[test]
    fn inv_39_each_host_entry_is_read_once() {
        let host = Promoting { reads: Cell::new([0; 4]) };
        let level = host_pfn_mapping_level(&host, Gfn::new(0x1234));
        assert_eq!(host.reads.get(), [1, 1, 1, 1]);
        assert_eq!(level.advise(Level::L4K), Advice::Keep, "the walk saw the table, and stayed with it");
    }

    #[test]
    fn inv_39_a_level_looked_up_before_an_invalidation_is_not_confirmed_after_it() {
        let core = Arc::new(Core::new(1).unwrap());
        let mut me = Participant::join(&core).unwrap();
        let notifier = Notifier::new();
        let before = notifier.snapshot();
        let level = Stale(Level::L2M);
        assert!(level.confirm(&me.shared(), &notifier, before, Gfn::new(0)).is_some());
        let window = notifier.begin(&mut me.exclusive(), GfnRange::at(Gfn::new(0), 512).unwrap());
        notifier.end(&mut me.exclusive(), window);
        assert!(level.confirm(&me.shared(), &notifier, before, Gfn::new(0)).is_none());
        assert_eq!(level.advise(Level::L4K), Advice::Remove, "to remove, it may be used all the same");
    }
}
