//! Statistics: one set of counters per participant, summed when somebody asks.
//!
//! # Protocol
//! Only the owner of a slot changes its counters, while it holds a guard, so a change is a load and a store.
//! A page mapped by one participant may be unmapped by another: single counters wrap, their sum does not.
//! Counters change after the transition that they count has succeeded, never before (7).

use tdvisor_base::Level;
use tdvisor_base::sync::{AtomicU64, Ordering};

/// Which tree a counter belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tree {
    Mirror,
    Direct,
}

#[derive(Debug)]
pub(crate) struct Counters {
    mirror: [AtomicU64; 4],
    direct: [AtomicU64; 4],
}

const TABLES: usize = 3;

/// Counters of both trees.
pub(crate) const COUNTERS: usize = 8;

/// Which counter a leaf of a level has; leaves are at most 1G.
const fn leaf_index(level: Level) -> usize {
    match level {
        Level::L4K => 0,
        Level::L2M => 1,
        _ => 2,
    }
}

impl Counters {
    pub(super) fn new() -> Self {
        Self {
            mirror: core::array::from_fn(|_| AtomicU64::new(0)),
            direct: core::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Gives all counters a value.
    pub(super) fn set(&self, values: [u64; COUNTERS]) {
        for (counter, value) in self.mirror.iter().chain(&self.direct).zip(values) {
            counter.store(value, Ordering::Relaxed);
        }
    }

    #[inline(always)]
    fn add(&self, tree: Tree, index: usize, delta: u64) {
        let set = match tree {
            Tree::Mirror => &self.mirror,
            Tree::Direct => &self.direct,
        };
        if let Some(counter) = set.get(index) {
            counter.store(counter.load(Ordering::Relaxed).wrapping_add(delta), Ordering::Relaxed);
        }
    }

    #[inline(always)]
    pub(crate) fn add_leaf(&self, tree: Tree, level: Level) {
        self.add(tree, leaf_index(level), 1);
    }

    pub(crate) fn add_leaves(&self, tree: Tree, level: Level, leaves: u64) {
        self.add(tree, leaf_index(level), leaves);
    }

    pub(crate) fn sub_leaves(&self, tree: Tree, level: Level, leaves: u64) {
        self.add(tree, leaf_index(level), leaves.wrapping_neg());
    }

    pub(crate) fn add_table(&self, tree: Tree) {
        self.add(tree, TABLES, 1);
    }

    pub(crate) fn sub_table(&self, tree: Tree) {
        self.add(tree, TABLES, u64::MAX);
    }
}

/// What one tree holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LevelCounts {
    /// Leaves of 4 KiB.
    pub leaves_4k: u64,
    /// Leaves of 2 MiB.
    pub leaves_2m: u64,
    /// Leaves of 1 GiB.
    pub leaves_1g: u64,
    /// Tables below the root.
    pub tables: u64,
}

impl LevelCounts {
    /// The leaves of one level; there are none above 1G.
    pub const fn leaves(&self, level: Level) -> u64 {
        match level {
            Level::L4K => self.leaves_4k,
            Level::L2M => self.leaves_2m,
            Level::L1G => self.leaves_1g,
            Level::L512G | Level::L256T => 0,
        }
    }

    /// 4 KiB frames mapped.
    pub const fn frames(&self) -> u64 {
        self.leaves_4k + self.leaves_2m * Level::L2M.frames() + self.leaves_1g * Level::L1G.frames()
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.leaves_4k += other.leaves_4k;
        self.leaves_2m += other.leaves_2m;
        self.leaves_1g += other.leaves_1g;
        self.tables += other.tables;
    }

    pub(crate) fn count_leaf(&mut self, level: Level) {
        self.count_leaves(level, 1);
    }

    pub(crate) fn count_leaves(&mut self, level: Level, leaves: u64) {
        match level {
            Level::L4K => self.leaves_4k += leaves,
            Level::L2M => self.leaves_2m += leaves,
            _ => self.leaves_1g += leaves,
        }
    }

    fn sum<'a>(sets: impl Iterator<Item = &'a [AtomicU64; 4]>) -> Self {
        let mut sums = [0u64; 4];
        for set in sets {
            for (sum, counter) in sums.iter_mut().zip(set) {
                *sum = sum.wrapping_add(counter.load(Ordering::Relaxed));
            }
        }
        let [leaves_4k, leaves_2m, leaves_1g, tables] = sums;
        Self { leaves_4k, leaves_2m, leaves_1g, tables }
    }
}

/// What an MMU maps, by tree and level. Exact while nobody changes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Statistics {
    /// The private tree.
    pub mirror: LevelCounts,
    /// The shared tree.
    pub direct: LevelCounts,
}

impl Statistics {
    /// The counters, those of the mirror first.
    pub(crate) fn counters(&self) -> [u64; COUNTERS] {
        let of = |counts: LevelCounts| [counts.leaves_4k, counts.leaves_2m, counts.leaves_1g, counts.tables];
        let ([a, b, c, d], [e, f, g, h]) = (of(self.mirror), of(self.direct));
        [a, b, c, d, e, f, g, h]
    }

    pub(crate) fn of(core: &super::Core) -> Self {
        Self {
            mirror: LevelCounts::sum(core.slots().map(|slot| &slot.counters.mirror)),
            direct: LevelCounts::sum(core.slots().map(|slot| &slot.counters.direct)),
        }
    }
}
