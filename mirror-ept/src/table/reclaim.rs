//! Grace periods: when a direct table that was unlinked may be freed.
//!
//! # Protocol
//! 1. Unlink: the parent entry no longer points at the table, and its own entries are all FROZEN.
//! 2. [`Limbo::retire`]: advance the epoch, stamp the table with the new one.
//! 3. [`Limbo::collect`]: free what is stamped with an epoch that no reader is older than.
//!
//! A reader publishes the epoch it read with a full barrier before its walk. If the scan misses it, the
//! walk began after the unlink was visible; if it read the new epoch, the same. So a reader that can see
//! the table always shows an older epoch (27a, b). A late walker in the table finds only FROZEN (27d).

use alloc::collections::VecDeque;

use tdvisor_base::Pfn;
use tdvisor_base::sync::Mutex;

use crate::lock::Core;
use crate::table::NoMemory;

#[derive(Debug)]
pub(crate) struct Limbo {
    waiting: Mutex<VecDeque<(u64, Pfn)>>,
}

impl Limbo {
    pub(crate) fn new() -> Self {
        Self { waiting: Mutex::new(VecDeque::new()) }
    }

    /// Makes room, so that unlinking `tables` tables cannot fail half-way.
    pub(crate) fn make_room(&self, tables: usize) -> Result<(), NoMemory> {
        self.waiting.lock().try_reserve(tables).map_err(|_| NoMemory)
    }

    /// A table that is unlinked and frozen.
    pub(crate) fn retire(&self, core: &Core, page: Pfn) {
        let stamp = core.advance_epoch();
        self.waiting.lock().push_back((stamp, page));
    }

    /// Hands out the tables whose grace period is over.
    pub(crate) fn collect(&self, core: &Core, mut free: impl FnMut(Pfn)) {
        let mut waiting = self.waiting.lock();
        if waiting.is_empty() {
            return;
        }
        let oldest = core.oldest_reader();
        while let Some(&(stamp, page)) = waiting.front() {
            if oldest < stamp {
                return;
            }
            waiting.pop_front();
            free(page);
        }
    }

    /// The tables that wait, in order.
    pub(crate) fn pages(&self) -> alloc::vec::Vec<Pfn> {
        self.waiting.lock().iter().map(|(_, page)| *page).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.lock().len()
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::lock::Participant;
    use tdvisor_base::sync::Arc;

    #[test]
    fn inv_27_a_table_is_freed_only_after_every_reader_that_could_see_it() {
        let core = Arc::new(Core::new(2).unwrap());
        let limbo = Limbo::new();
        let (mut old, mut late) = (Participant::join(&core).unwrap(), Participant::join(&core).unwrap());
        let section = old.rcu();
        limbo.retire(&core, Pfn::new(1));
        let after = late.rcu();
        let freed = |limbo: &Limbo| {
            let mut pages = std::vec::Vec::new();
            limbo.collect(&core, |page| pages.push(page));
            pages
        };
        assert!(freed(&limbo).is_empty());
        drop(section);
        assert_eq!(freed(&limbo), [Pfn::new(1)], "the later reader does not hold it back");
        drop(after);
    }
}
