//! Tables reserved before a lock is taken.
//!
//! # Protocol
//! Whoever may need tables fills a [`TableCache`] with [`crate::Mmu::top_up`], outside every guard, and
//! passes it in. An operation that runs out says so and has changed nothing; what it took and did not link
//! is back in the cache. A cache is emptied with [`crate::Mmu::release`]: it does not know its MMU, so
//! dropping a full one would lose pages.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::fmt;

use tdvisor_base::Pfn;

use crate::table::{NoMemory, TableRef};

/// A mirror table that is not linked yet, with its twin.
pub(crate) struct MirrorTable<Twin> {
    pub(crate) table: TableRef,
    pub(crate) twin: Twin,
}

/// Which tables an operation may need.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reserve {
    /// This number of mirror tables, with their twins.
    Mirror(usize),
    /// This number of direct tables.
    Direct(usize),
}

impl Reserve {
    /// What one private fault, or one removal with its boundary splits, needs at most.
    pub const PRIVATE: Self = Self::Mirror(4);
    /// What one shared fault needs at most.
    pub const SHARED: Self = Self::Direct(4);

    /// How many tables a cache that has too few is filled up to: some more than asked for, where that is little,
    /// so that not every new table is a visit to the allocators, which all vCPUs share.
    pub(crate) const fn refill_to(self) -> usize {
        match self {
            Self::Mirror(n) if n > 0 && n < AHEAD => AHEAD,
            Self::Mirror(n) | Self::Direct(n) => n,
        }
    }
}

/// Mirror tables that a cache is filled up to. In a model, none that are not asked for.
const AHEAD: usize = if cfg!(any(loom, shuttle)) { 0 } else { 8 };

/// Tables that wait to be linked. One per vCPU, and one per thread that splits.
pub struct TableCache<Twin> {
    /// In the order of their addresses, where several came at once.
    pub(crate) mirror: VecDeque<MirrorTable<Twin>>,
    pub(crate) direct: Vec<Pfn>,
}

impl<Twin> TableCache<Twin> {
    /// An empty cache. It allocates nothing.
    pub const fn new() -> Self {
        Self { mirror: VecDeque::new(), direct: Vec::new() }
    }

    /// Tables in it: mirror, direct.
    pub fn len(&self) -> (usize, usize) {
        (self.mirror.len(), self.direct.len())
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.mirror.is_empty() && self.direct.is_empty()
    }

    /// Puts the mirror tables in the order of their addresses. Tables that are filled one after the other, upwards
    /// in memory, are fetched ahead by the processor; downwards they cost three times as much when they are cold.
    pub(crate) fn in_order(&mut self) {
        self.mirror.make_contiguous().sort_unstable_by_key(|reserved| reserved.table);
    }

    /// Room for the tables, so that putting one back never allocates.
    pub(crate) fn make_room(&mut self, reserve: Reserve) -> Result<(), NoMemory> {
        match reserve {
            Reserve::Mirror(_) => {
                self.mirror.try_reserve(reserve.refill_to().saturating_sub(self.mirror.len()))
            }
            Reserve::Direct(n) => self.direct.try_reserve(n.saturating_sub(self.direct.len())),
        }
        .map_err(|_| NoMemory)
    }
}

impl<Twin> Default for TableCache<Twin> {
    fn default() -> Self {
        Self::new()
    }
}

impl<Twin> fmt::Debug for TableCache<Twin> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableCache")
            .field("mirror", &self.mirror.len())
            .field("direct", &self.direct.len())
            .finish()
    }
}
