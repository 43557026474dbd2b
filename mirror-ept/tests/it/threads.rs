//! Two threads on one MMU, on the processor as it is. loom and shuttle explore the same protocols step by step;
//! here they meet real caches, and run with every `cargo test`.
//!
//! No test waits for a particular interleaving: each holds whatever the threads happen to do.

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::sync::atomic::AtomicBool;

use crate::common::{Bench, Call, Model, Pages};
use mirror_ept::{
    Access, Backing, EagerSplit, Fault, FaultOutcome, GfnRange, Mmu, Participant, Reserve, Retry,
    SplitOutcome, TableCache, TablePages, Target,
};
use tdvisor_base::sync::Ordering;
use tdvisor_base::{Gfn, Level, Pfn};
use tdvisor_test_data::chance::Chance;
use tdvisor_test_data::replay;

const MIB2: u64 = 512;

fn range(start: u64, end: u64) -> GfnRange {
    GfnRange::new(Gfn::new(start), Gfn::new(end))
}

/// A vCPU beside the one that every bench has.
struct Vcpu<'m> {
    mmu: &'m Mmu<Pages, Model>,
    me: Participant,
    cache: TableCache<crate::common::Twin>,
}

impl<'m> Vcpu<'m> {
    fn join(mmu: &'m Mmu<Pages, Model>) -> Self {
        Self { mmu, me: mmu.participant().unwrap(), cache: TableCache::new() }
    }

    /// Tables that were unlinked come back when the ager's section ends.
    fn top_up(&mut self, reserve: Reserve) {
        while self.mmu.top_up(&mut self.cache, reserve).is_err() {
            std::thread::yield_now();
        }
    }

    /// Faults until nothing is left to be retried.
    fn fault(&mut self, gfn: u64, target: Target<'_>, reserve: Reserve) -> FaultOutcome {
        loop {
            self.top_up(reserve);
            let fault = Fault {
                gfn: Gfn::new(gfn),
                access: Access::Write,
                max_level: Level::L2M,
                snapshot: self.mmu.notifier().snapshot(),
                target,
            };
            match self.mmu.fault(&mut (), &self.me.shared(), &mut self.cache, &fault).unwrap() {
                FaultOutcome::Retry(Retry::Contended) => std::thread::yield_now(),
                outcome => return outcome,
            }
        }
    }

    fn private(&mut self, gfn: u64) -> FaultOutcome {
        let target = Target::Private { pfn: Pfn::new(64 * MIB2 + gfn), backing: Level::L4K };
        self.fault(gfn, target, Reserve::PRIVATE)
    }

    fn shared(&mut self, gfn: u64, backing: Level) -> FaultOutcome {
        let (pfn, backing) = (Pfn::new(128 * MIB2 + gfn), Backing::Folio(backing));
        let target = Target::Shared { pfn, backing, writable: true, log: None };
        self.fault(gfn, target, Reserve::SHARED)
    }
}

impl Drop for Vcpu<'_> {
    fn drop(&mut self) {
        self.mmu.release(&mut self.cache);
    }
}

/// Tells the other thread that this one is done, however it ends.
struct Done<'d>(&'d AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Runs two vCPUs at once, each in a thread of its own, and gives what they found.
fn both<R: Send>(b: &Bench, work: impl Fn(&mut Vcpu<'_>, usize) -> R + Sync) -> [R; 2] {
    let start = Barrier::new(2);
    std::thread::scope(|scope| {
        [0, 1]
            .map(|which| {
                let (start, work, mut vcpu) = (&start, &work, Vcpu::join(&b.mmu));
                scope.spawn(move || {
                    start.wait();
                    work(&mut vcpu, which)
                })
            })
            .map(|thread| thread.join().unwrap())
    })
}

#[test]
fn inv_06_of_two_vcpus_that_fault_on_the_same_frames_one_each_maps_it() {
    let mut b = Bench::new();
    let frames = 2 * MIB2;
    let mapped = both(&b, |vcpu, which| {
        let mut mapped = 0;
        for n in 0..frames {
            // They start at opposite ends and meet in the middle, then repeat what the other did.
            let gfn = if which == 0 { n } else { frames - 1 - n };
            match vcpu.private(gfn) {
                FaultOutcome::Mapped(Level::L4K) => mapped += 1,
                FaultOutcome::Spurious(Level::L4K) => {}
                other => panic!("frame {gfn}: {other:?}"),
            }
        }
        mapped
    });
    assert_eq!(mapped[0] + mapped[1], frames, "each frame is mapped by exactly one of them");
    let calls = b.mmu.external().take_calls();
    let sets = calls.iter().filter(|call| matches!(call, Call::Set(..))).count();
    assert_eq!(sets as u64, frames, "and its hook is called exactly once");
    b.audit();
    b.assert_nothing_lost();
}

#[test]
fn inv_43_faults_splits_and_merges_beside_an_ager_keep_every_page() {
    const ROUNDS: u64 = 300;
    let mut b = Bench::new();
    let done = AtomicBool::new(false);
    let [sightings, _] = both(&b, |vcpu, which| {
        let mut sightings = 0;
        if which == 0 {
            // No lock: only its read-side section.
            while !done.load(Ordering::Acquire) {
                sightings += u64::from(
                    vcpu.mmu.age_gfn(&vcpu.me.rcu(), range(0, 4 * MIB2)).unwrap() == mirror_ept::Age::Young,
                );
            }
            return sightings;
        }
        let _done = Done(&done);
        for round in 0..ROUNDS {
            for gfn in [0, 1, MIB2 - 1, 3 * MIB2 + round % MIB2] {
                let _ = vcpu.shared(gfn, Level::L2M);
            }
            vcpu.top_up(Reserve::Direct(4));
            let split = vcpu.mmu.split_direct_range(&vcpu.me.shared(), &mut vcpu.cache, range(0, MIB2));
            assert!(matches!(split, Ok(EagerSplit::Complete(0..=1))), "{split:?}");
            let merged = vcpu.mmu.recover_huge(&mut vcpu.me.exclusive(), range(0, MIB2), Level::L2M);
            assert!(matches!(merged, Ok(0..=1)), "{merged:?}");
        }
        0
    });
    let _ = sightings;
    let mut vcpu = Vcpu::join(&b.mmu);
    for gfn in [0, MIB2 - 1, 3 * MIB2] {
        let (at, pfn) = vcpu.mmu.shared_mapping(&vcpu.me.shared(), Gfn::new(gfn)).unwrap();
        assert!(at.range().contains(Gfn::new(gfn)));
        assert_eq!(pfn, Pfn::new(128 * MIB2 + gfn));
    }
    drop(vcpu);
    b.audit();
}

/// What hardware finds for a shared frame, reading each entry once.
fn hardware(mmu: &Mmu<Pages, Model>, gfn: u64) -> Option<Pfn> {
    let mut table = mmu.direct_root();
    let mut level = Level::L512G;
    let seen = Gfn::new(gfn | mmu.config().shared_bit.get());
    loop {
        let value = mmu.pages().direct_table(table)?[level.table_index(seen)].load(Ordering::Acquire);
        if value & 1 == 0 {
            return None;
        }
        table = Pfn::new(value >> 12 & ((1 << 40) - 1));
        if level == Level::L4K || value & 1 << 7 != 0 {
            return Some(table.wrapping_add(gfn & (level.frames() - 1)));
        }
        level = level.down()?;
    }
}

#[test]
fn inv_26d_hardware_finds_every_page_at_every_moment_of_a_split() {
    const LEAVES: u64 = 40;
    let mut b = Bench::new();
    let mut vcpu = Vcpu::join(&b.mmu);
    for leaf in 0..LEAVES {
        assert_eq!(vcpu.shared(leaf * MIB2, Level::L2M), FaultOutcome::Mapped(Level::L2M));
    }
    drop(vcpu);
    let done = AtomicBool::new(false);
    both(&b, |vcpu, which| {
        if which == 0 {
            let _done = Done(&done);
            for leaf in 0..LEAVES {
                vcpu.top_up(Reserve::Direct(1));
                let all = range(leaf * MIB2, (leaf + 1) * MIB2);
                let split = vcpu.mmu.split_direct_range(&vcpu.me.shared(), &mut vcpu.cache, all);
                assert_eq!(split, Ok(EagerSplit::Complete(1)));
            }
            return;
        }
        loop {
            let last = done.load(Ordering::Acquire);
            for gfn in (0..LEAVES).map(|leaf| leaf * MIB2 + 7 * leaf % MIB2) {
                assert_eq!(hardware(vcpu.mmu, gfn), Some(Pfn::new(128 * MIB2 + gfn)), "frame {gfn}");
            }
            if last {
                return;
            }
        }
    });
    b.audit();
}

#[test]
fn inv_47_private_memory_follows_a_flat_map_under_any_order_of_operations() {
    for seed in replay::seeds(1..13) {
        let mut b = Bench::new();
        let mut flat: BTreeMap<u64, u64> = BTreeMap::new();
        let mut chance = Chance::new(seed);
        let mut random = |bound: u64| chance.below(bound);
        for step in 0..120 {
            let (start, length) = (random(3 * MIB2), 1 + random(MIB2));
            let some = range(start, (start + length).min(4 * MIB2));
            match random(6) {
                0..=2 => {
                    let max = if random(2) == 0 { Level::L4K } else { Level::L2M };
                    if let Ok(FaultOutcome::Mapped(level)) = b.fault(start, 64 * MIB2 + start, max) {
                        let first = start & !(level.frames() - 1);
                        flat.extend((first..first + level.frames()).map(|gfn| (gfn, 64 * MIB2 + gfn)));
                    }
                }
                3 => {
                    b.remove(some.start().get(), some.end().get());
                    flat.retain(|gfn, _| !some.contains(Gfn::new(*gfn)));
                }
                4 => {
                    b.mmu.top_up(&mut b.cache, Reserve::Mirror(8)).unwrap();
                    let split =
                        b.mmu.split_range(&mut (), &mut b.me.exclusive(), &mut b.cache, some, Level::L4K);
                    assert!(
                        matches!(split, Ok(SplitOutcome::Complete(_))),
                        "seed {seed} step {step}: {split:?}"
                    );
                }
                _ => {
                    let _ = b.mmu.reclaim_tables(&mut (), &mut b.me.exclusive()).unwrap();
                    let all = range(0, 4 * MIB2);
                    let _ = b.mmu.collapse_range(&mut (), &mut b.me.exclusive(), all, Level::L2M).unwrap();
                }
            }
            b.audit();
            for probe in [start, some.end().get(), start ^ 1, random(4 * MIB2)] {
                let found = b.mapping(probe).map(|(_, pfn)| pfn.get());
                assert_eq!(found, flat.get(&probe).copied(), "seed {seed} step {step}: frame {probe}");
            }
        }
        for gfn in 0..4 * MIB2 {
            let found = b.mapping(gfn).map(|(_, pfn)| pfn.get());
            assert_eq!(found, flat.get(&gfn).copied(), "seed {seed}: frame {gfn}");
        }
        b.assert_nothing_lost();
    }
}
