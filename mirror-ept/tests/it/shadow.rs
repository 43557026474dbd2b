//! Nested paging: the shadow gives the translation that walking both tables by hand gives.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use crate::common::Bench;
use mirror_ept::shadow::{Backed, GuestTables, ShadowMmu, ShadowOutcome, ShadowRoot};
use mirror_ept::{Access, Age, GfnRange, Reserve};
use tdvisor_base::{Gfn, Level, Pfn};
use tdvisor_test_data::chance::Chance;
use tdvisor_test_data::replay;

const MIB2: u64 = 512;
const RWX: u64 = 7;
const READ: u64 = 1;
const WB: u64 = 6 << 3;
const LEAF: u64 = 1 << 7;
const ACCESSES: [Access; 3] = [Access::Read, Access::Write, Access::Execute];

/// The guest's memory: its tables by frame, and where the host keeps each frame.
#[derive(Default)]
struct Guest {
    tables: RefCell<BTreeMap<u64, Vec<u64>>>,
    tracked: RefCell<BTreeSet<u64>>,
    /// Added to a frame to give its page; changes when the host moves memory.
    offset: Cell<u64>,
    backing: Cell<Option<Level>>,
    flushes: Cell<u32>,
}

const MEMORY: u64 = 64 * MIB2;

impl GuestTables for Guest {
    fn read(&self, table: Gfn, index: usize) -> Option<u64> {
        assert!(self.tracked.borrow().contains(&table.get()), "an entry is read before its table is tracked");
        self.tables.borrow().get(&table.get()).map(|entries| entries[index])
    }

    fn resolve(&self, gfn: Gfn) -> Option<Backed> {
        let pfn = Pfn::new(gfn.get() + self.offset.get());
        let level = self.backing.get().unwrap_or(Level::L4K);
        (gfn.get() < MEMORY).then_some(Backed { pfn, level, writable: true })
    }

    fn track(&self, table: Gfn) {
        assert!(self.tracked.borrow_mut().insert(table.get()), "tracked twice");
    }

    fn untrack(&self, table: Gfn) {
        assert!(self.tracked.borrow_mut().remove(&table.get()), "untracked without being tracked");
    }

    fn flush(&self) {
        self.flushes.set(self.flushes.get() + 1);
    }
}

struct Nested {
    b: Bench,
    shadow: ShadowMmu<Guest>,
    root: Option<ShadowRoot>,
}

/// The guest's root table is in this frame.
const ROOT: u64 = 1000;

impl Nested {
    fn new() -> Self {
        let guest = Guest::default();
        guest.offset.set(1 << 20);
        for table in ROOT..ROOT + 8 {
            guest.tables.borrow_mut().insert(table, vec![0; 512]);
        }
        Self { b: Bench::new(), shadow: ShadowMmu::new(guest), root: None }
    }

    fn guest(&self) -> &Guest {
        self.shadow.guest()
    }

    /// The guest writes an entry; a tracked table makes that known first.
    fn write(&mut self, table: u64, index: usize, entry: u64) {
        if self.shadow.is_tracked(Gfn::new(table)) {
            let mut guard = self.b.me.exclusive();
            self.shadow.guest_wrote(&self.b.mmu, &mut guard, Gfn::new(table), index).unwrap();
        }
        self.guest().tables.borrow_mut().get_mut(&table).unwrap()[index] = entry;
    }

    /// A chain of tables to `ROOT + 3`, whose entries map 4K.
    fn chain(&mut self) {
        for table in ROOT..ROOT + 3 {
            self.write(table, 0, (table + 1) << 12 | RWX);
        }
    }

    fn access(&mut self, gfn: u64, access: Access) -> ShadowOutcome {
        loop {
            self.b.mmu.top_up(&mut self.b.cache, Reserve::Direct(6)).unwrap();
            let mut guard = self.b.me.exclusive();
            let root = match self.root {
                Some(root) => root,
                None => {
                    let root =
                        self.shadow.root(&self.b.mmu, &mut guard, &mut self.b.cache, Gfn::new(ROOT)).unwrap();
                    root.expect("a table for the root")
                }
            };
            self.root = Some(root);
            let (mmu, cache) = (&self.b.mmu, &mut self.b.cache);
            let outcome = self.shadow.fault(mmu, &mut guard, cache, root, Gfn::new(gfn), access).unwrap();
            drop(guard);
            match outcome {
                ShadowOutcome::ObsoleteRoot => self.root = None,
                ShadowOutcome::NeedTables => {}
                outcome => return outcome,
            }
        }
    }

    fn translate(&mut self, gfn: u64, access: Access) -> Option<Pfn> {
        let root = self.root?;
        self.shadow.translate(&self.b.mmu, &self.b.me.shared(), root, Gfn::new(gfn), access)
    }

    /// The guest's table and the host's walked by hand: the page, if both allow the access.
    fn by_hand(&self, gfn: u64, access: Access) -> Option<Pfn> {
        let needed = match access {
            Access::Read => 1,
            Access::Write => 2,
            Access::Execute => 4,
        };
        let tables = self.guest().tables.borrow();
        let mut table = ROOT;
        for level in [Level::L512G, Level::L1G, Level::L2M, Level::L4K] {
            let entry = tables.get(&table)?[level.table_index(Gfn::new(gfn))];
            if entry & needed == 0 {
                return None;
            }
            let frame = entry >> 12 & ((1 << 40) - 1);
            let leaf = level == Level::L4K || entry & LEAF != 0;
            let misconfigured = match leaf {
                true => level == Level::L512G || !Gfn::new(frame).is_aligned(level),
                false => entry & 0xf8 != 0,
            };
            if misconfigured {
                return None;
            }
            if leaf {
                let frame = frame + (gfn & (level.frames() - 1));
                let tracked = self.guest().tracked.borrow().contains(&frame);
                let allowed = frame < MEMORY && !(access == Access::Write && tracked);
                return allowed.then(|| Pfn::new(frame + self.guest().offset.get()));
            }
            table = frame;
        }
        None
    }

    /// Every access of some frames ends as walking by hand says, and nothing else is reachable.
    fn check(&mut self, frames: &[u64]) {
        for &gfn in frames {
            for access in ACCESSES {
                let outcome = self.access(gfn, access);
                let by_hand = self.by_hand(gfn, access);
                assert_eq!(self.translate(gfn, access), by_hand, "{gfn:#x} {access:?} {outcome:?}");
            }
        }
    }
}

#[test]
fn inv_44_nothing_is_allocated_before_the_first_shadow_root() {
    let mut n = Nested::new();
    assert!(!n.shadow.is_allocated());
    let mut guard = n.b.me.exclusive();
    assert_eq!(n.shadow.unmap(&n.b.mmu, &mut guard, GfnRange::new(Gfn::new(0), Gfn::new(9))), Ok(0));
    n.shadow.guest_wrote(&n.b.mmu, &mut guard, Gfn::new(ROOT), 0).unwrap();
    drop(guard);
    assert!(!n.shadow.is_allocated());
    n.chain();
    let _ = n.access(0, Access::Read);
    assert!(n.shadow.is_allocated());
}

#[test]
fn a_nested_page_is_mapped_with_the_rights_of_the_guests_table() {
    let mut n = Nested::new();
    n.chain();
    n.write(ROOT + 3, 5, 77 << 12 | RWX | WB);
    n.write(ROOT + 3, 6, 78 << 12 | READ | WB);
    assert_eq!(n.access(5, Access::Write), ShadowOutcome::Mapped(Level::L4K));
    assert_eq!(n.access(5, Access::Write), ShadowOutcome::Spurious(Level::L4K));
    assert_eq!(n.access(6, Access::Write), ShadowOutcome::GuestViolation(Level::L4K));
    assert_eq!(n.access(7, Access::Read), ShadowOutcome::GuestViolation(Level::L4K));
    n.check(&[5, 6, 7]);
}

#[test]
fn what_the_guest_got_wrong_is_the_guests_to_handle() {
    let mut n = Nested::new();
    n.chain();
    n.write(ROOT + 3, 1, 77 << 12 | 2 | WB);
    n.write(ROOT + 3, 2, 77 << 12 | RWX | 7 << 3);
    n.write(ROOT + 2, 1, 77 << 12 | RWX | WB | LEAF);
    n.write(ROOT + 2, 2, MEMORY << 12 | RWX);
    n.write(ROOT + 3, 3, MEMORY << 12 | RWX | WB);
    assert_eq!(n.access(1, Access::Read), ShadowOutcome::GuestMisconfigured(Level::L4K));
    assert_eq!(n.access(2, Access::Read), ShadowOutcome::GuestMisconfigured(Level::L4K));
    assert_eq!(n.access(MIB2, Access::Read), ShadowOutcome::GuestMisconfigured(Level::L2M), "not aligned");
    assert_eq!(n.access(2 * MIB2, Access::Read), ShadowOutcome::GuestViolation(Level::L4K), "no such table");
    assert_eq!(n.access(3, Access::Read), ShadowOutcome::NoMemoryBehind(Gfn::new(MEMORY)));
}

#[test]
fn a_huge_leaf_of_the_guest_is_mapped_as_large_as_the_hosts_memory_allows() {
    for (backing, mapped) in [(Level::L2M, Level::L2M), (Level::L4K, Level::L4K)] {
        let mut n = Nested::new();
        n.chain();
        n.guest().backing.set(Some(backing));
        n.write(ROOT + 2, 3, (4 * MIB2) << 12 | RWX | WB | LEAF);
        assert_eq!(n.access(3 * MIB2 + 9, Access::Write), ShadowOutcome::Mapped(mapped));
        n.check(&[3 * MIB2, 3 * MIB2 + 9, 4 * MIB2 - 1]);
    }
}

#[test]
fn a_table_reached_by_two_ways_with_different_rights_keeps_them_apart() {
    let mut n = Nested::new();
    n.chain();
    n.write(ROOT + 3, 0, 77 << 12 | RWX | WB);
    n.write(ROOT + 2, 1, (ROOT + 3) << 12 | READ);
    // The restricted way is walked first: its restriction must not stick to the shared table.
    n.check(&[MIB2, 0, MIB2]);
    assert!(n.translate(0, Access::Write).is_some() && n.translate(MIB2, Access::Write).is_none());
}

#[test]
fn a_write_to_a_tracked_table_drops_what_was_made_of_it() {
    let mut n = Nested::new();
    n.chain();
    n.write(ROOT + 3, 5, 77 << 12 | RWX | WB);
    n.check(&[5]);
    let flushes = n.guest().flushes.get();
    n.write(ROOT + 3, 5, 99 << 12 | RWX | WB);
    assert_eq!(n.translate(5, Access::Read), None);
    assert!(n.guest().flushes.get() > flushes);
    n.check(&[5]);
    n.write(ROOT + 1, 0, 0);
    assert_eq!(n.translate(5, Access::Read), None);
}

#[test]
fn the_nested_guest_cannot_write_to_the_tables_it_is_mapped_by() {
    let mut n = Nested::new();
    n.chain();
    // The frame of a table that is shadowed later is mapped first, writable.
    n.write(ROOT + 3, 5, (ROOT + 4) << 12 | RWX | WB);
    assert_eq!(n.access(5, Access::Write), ShadowOutcome::Mapped(Level::L4K));
    n.write(ROOT + 2, 1, (ROOT + 4) << 12 | RWX);
    n.write(ROOT + 4, 0, 77 << 12 | RWX | WB);
    assert_eq!(n.access(MIB2, Access::Read), ShadowOutcome::Mapped(Level::L4K));
    assert_eq!(n.translate(5, Access::Write), None, "it is a table now");
    assert_eq!(n.access(5, Access::Write), ShadowOutcome::NoMemoryBehind(Gfn::new(ROOT + 4)));
    n.check(&[5, MIB2]);
}

#[test]
fn when_the_host_takes_memory_away_every_leaf_that_maps_it_goes() {
    let mut n = Nested::new();
    n.chain();
    n.write(ROOT + 3, 5, 77 << 12 | RWX | WB);
    n.write(ROOT + 3, 6, 77 << 12 | READ | WB);
    n.write(ROOT + 3, 7, 78 << 12 | READ | WB);
    n.check(&[5, 6, 7]);
    let range = GfnRange::new(Gfn::new(77), Gfn::new(78));
    assert_eq!(n.shadow.unmap(&n.b.mmu, &mut n.b.me.exclusive(), range), Ok(2));
    assert_eq!([5, 6].map(|gfn| n.translate(gfn, Access::Read)), [None, None]);
    assert!(n.translate(7, Access::Read).is_some());
}

#[test]
fn obsolete_pages_are_not_found_and_are_freed_in_portions() {
    let mut n = Nested::new();
    n.chain();
    n.write(ROOT + 3, 5, 77 << 12 | RWX | WB);
    n.check(&[5]);
    let old = n.root.unwrap();
    n.shadow.invalidate_all(&n.b.mmu, &mut n.b.me.exclusive()).unwrap();
    n.check(&[5]);
    assert_ne!(n.root.unwrap().pfn(), old.pfn());
    assert_eq!(n.shadow.pages(), 8);
    assert_eq!(n.shadow.zap_obsolete(&n.b.mmu, &mut n.b.me.exclusive(), 3), Ok(true));
    assert_eq!(n.shadow.zap_obsolete(&n.b.mmu, &mut n.b.me.exclusive(), 3), Ok(false));
    assert_eq!(n.shadow.pages(), 4);
    n.check(&[5]);
    // With everything obsolete every table comes back and nothing is tracked.
    n.shadow.invalidate_all(&n.b.mmu, &mut n.b.me.exclusive()).unwrap();
    assert_eq!(n.shadow.zap_obsolete(&n.b.mmu, &mut n.b.me.exclusive(), 100), Ok(false));
    n.b.mmu.release(&mut n.b.cache);
    assert_eq!(n.b.mmu.pages().direct_out(), 1, "the MMU's own root");
    assert!(n.guest().tracked.borrow().is_empty());
}

#[test]
fn splitting_a_shadow_leaf_changes_no_translation_and_flushes_nothing() {
    let mut n = Nested::new();
    n.chain();
    n.guest().backing.set(Some(Level::L2M));
    n.write(ROOT + 2, 3, (4 * MIB2) << 12 | RWX | WB | LEAF);
    assert_eq!(n.access(3 * MIB2, Access::Write), ShadowOutcome::Mapped(Level::L2M));
    let flushes = n.guest().flushes.get();
    let all = GfnRange::new(Gfn::new(0), Gfn::new(MEMORY));
    n.b.mmu.top_up(&mut n.b.cache, Reserve::Direct(1)).unwrap();
    let mut guard = n.b.me.exclusive();
    let split = n.shadow.split(&n.b.mmu, &mut guard, &mut n.b.cache, all).unwrap();
    drop(guard);
    assert_eq!((split.0, n.guest().flushes.get()), (1, flushes));
    for gfn in [3 * MIB2, 3 * MIB2 + 100, 4 * MIB2 - 1] {
        assert_eq!(n.translate(gfn, Access::Write), n.by_hand(gfn, Access::Write));
    }
}

#[test]
fn shadow_pages_age_under_their_own_lock() {
    let mut n = Nested::new();
    n.chain();
    n.write(ROOT + 3, 5, 77 << 12 | RWX | WB);
    n.check(&[5]);
    let range = GfnRange::new(Gfn::new(77), Gfn::new(78));
    assert_eq!(n.shadow.age(&n.b.mmu, range), Age::Young);
    assert_eq!(n.shadow.age(&n.b.mmu, range), Age::Old);
    assert_eq!(n.access(5, Access::Write), ShadowOutcome::Mapped(Level::L4K), "the next use is seen");
    assert_eq!(n.shadow.age(&n.b.mmu, range), Age::Young);
}

#[test]
fn whatever_the_guest_and_the_host_do_the_shadow_is_what_walking_by_hand_gives() {
    for seed in replay::seeds(1..41) {
        let mut chance = Chance::new(seed);
        let mut random = |bound: u64| chance.below(bound);
        let mut n = Nested::new();
        n.chain();
        for step in 0..120 {
            let (table, index) = (ROOT + random(8), random(4) as usize);
            let rights = [0, RWX, READ, RWX, 5][random(5) as usize];
            match random(10) {
                0..=3 => {
                    n.write(table, index, random(2000) << 12 | rights | if random(2) == 0 { WB } else { 0 })
                }
                4 => n.write(table, index, (ROOT + random(8)) << 12 | rights),
                5 => n.write(table, index, (random(8) * MIB2) << 12 | rights | WB | LEAF),
                6 => {
                    // The host moves its memory: all of it goes first.
                    let all = GfnRange::new(Gfn::new(0), Gfn::new(MEMORY));
                    n.shadow.unmap(&n.b.mmu, &mut n.b.me.exclusive(), all).unwrap();
                    n.guest().offset.set((1 + random(4)) << 20);
                    n.guest().backing.set([None, Some(Level::L2M), Some(Level::L1G)][random(3) as usize]);
                }
                7 if random(4) == 0 => {
                    n.shadow.invalidate_all(&n.b.mmu, &mut n.b.me.exclusive()).unwrap();
                    n.root = None;
                    n.shadow.zap_obsolete(&n.b.mmu, &mut n.b.me.exclusive(), 100).unwrap();
                }
                8 => {
                    let all = GfnRange::new(Gfn::new(0), Gfn::new(MEMORY));
                    let _ = n.shadow.age(&n.b.mmu, all);
                }
                _ => {}
            }
            if n.shadow.pages() > 40 {
                n.shadow.invalidate_all(&n.b.mmu, &mut n.b.me.exclusive()).unwrap();
                n.root = None;
                n.shadow.zap_obsolete(&n.b.mmu, &mut n.b.me.exclusive(), 100).unwrap();
            }
            let frames: Vec<u64> = (0..3).map(|_| random(4) * MIB2 + random(4)).collect();
            n.check(&frames);
            assert!(n.shadow.pages() < 60, "seed {seed}, step {step}: pages without bound");
        }
    }
}
