//! Small protocols, every interleaving (up to a number of preemptions).
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p mirror-ept --test loom --release`. Tables have 4 entries here. With
//! `--cfg frozen_has_accessed` as well, FROZEN contains an Accessed bit, and the test that must notice does.
#![cfg(loom)]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[expect(dead_code, reason = "the tests that explore nothing use the rest")]
mod common;

use std::sync::Arc;

use common::{Bench, Call, Model, Pages, TestMmu, Twin};
use loom::thread;
use mirror_ept::shadow::{PageHash, Role, Source};
use mirror_ept::{
    Access, AccessTracking, Age, Backing, Config, DirtyLog, Fault, FaultOutcome, Filter, GfnRange, HookError,
    Mmu, Participant, Reserve, TableCache, TablePages, Target,
};
use tdvisor_base::sync::{AtomicU64, Ordering};
use tdvisor_base::{Gfn, Level, Pfn};

fn explore(preemptions: usize, test: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 100_000;
    builder.check(test);
}

fn range(start: u64, end: u64) -> GfnRange {
    GfnRange::new(Gfn::new(start), Gfn::new(end))
}

/// An MMU, two participants who have joined, and what the first thread needs.
struct Two {
    mmu: Arc<TestMmu>,
    a: (Participant, TableCache<Twin>),
    b: (Participant, TableCache<Twin>),
}

fn two(config: Config) -> Two {
    let mmu = Arc::new(Mmu::new(config, Pages::new(6), Model::new()).unwrap());
    let join = || (mmu.participant().unwrap(), TableCache::new());
    let (a, b) = (join(), join());
    Two { mmu, a, b }
}

fn private(mmu: &TestMmu, me: &mut (Participant, TableCache<Twin>), gfn: u64) -> FaultOutcome {
    mmu.top_up(&mut me.1, Reserve::Mirror(3)).unwrap();
    private_with_what_is_there(mmu, me, gfn)
}

fn private_with_what_is_there(
    mmu: &TestMmu,
    me: &mut (Participant, TableCache<Twin>),
    gfn: u64,
) -> FaultOutcome {
    let fault = Fault {
        gfn: Gfn::new(gfn),
        access: Access::Write,
        max_level: Level::L4K,
        snapshot: mmu.notifier().snapshot(),
        target: Target::Private { pfn: Pfn::new(100 + gfn), backing: Level::L4K },
    };
    let guard = me.0.shared();
    mmu.fault(&mut (), &guard, &mut me.1, &fault).unwrap()
}

fn shared(
    mmu: &TestMmu,
    me: &mut (Participant, TableCache<Twin>),
    gfn: u64,
    access: Access,
    log: Option<&DirtyLog>,
) -> FaultOutcome {
    let fault = Fault {
        gfn: Gfn::new(gfn),
        access,
        max_level: Level::L4K,
        snapshot: mmu.notifier().snapshot(),
        target: Target::Shared {
            pfn: Pfn::new(512 + gfn),
            backing: Backing::Folio(Level::L4K),
            writable: true,
            log,
        },
    };
    let guard = me.0.shared();
    mmu.fault(&mut (), &guard, &mut me.1, &fault).unwrap()
}

fn map_shared(two: &mut Two, frames: u64) {
    two.mmu.top_up(&mut two.a.1, Reserve::Direct(3)).unwrap();
    for gfn in 0..frames {
        assert!(matches!(shared(&two.mmu, &mut two.a, gfn, Access::Write, None), FaultOutcome::Mapped(_)));
    }
    two.mmu.release(&mut two.a.1);
}

fn mmu_age(mmu: &TestMmu, me: &mut Participant) {
    let _ = mmu.age_gfn(&me.rcu(), range(0, 4)).unwrap();
}

fn audit(mmu: &TestMmu, me: &mut Participant) {
    let mut guard = me.exclusive();
    if let Err(violation) = mmu.audit(&mut guard, mmu.external()) {
        panic!("{violation}");
    }
}

/// The entries of the direct 4K table of the first frames.
fn leaf_table(mmu: &TestMmu) -> Pfn {
    let mut table = mmu.direct_root();
    for level in [Level::L512G, Level::L1G, Level::L2M] {
        let seen = Gfn::new(mmu.config().shared_bit.get());
        let entry = &mmu.pages().direct_table(table).unwrap()[level.table_index(seen) & 3];
        table = Pfn::new(entry.load(Ordering::Relaxed) >> 12 & ((1 << 40) - 1));
    }
    table
}

fn direct_values(mmu: &TestMmu, table: Pfn) -> Vec<u64> {
    mmu.pages().direct_table(table).unwrap().iter().map(|e| e.load(Ordering::Relaxed)).collect()
}

#[test]
fn what_is_written_exclusively_is_whole_for_every_reader() {
    explore(3, || {
        let Two { mmu: _mmu, mut a, mut b } = two(common::config());
        let words = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let theirs = words.clone();
        let writer = thread::spawn(move || {
            let _guard = b.0.exclusive();
            theirs[0].store(1, Ordering::Relaxed);
            theirs[1].store(1, Ordering::Relaxed);
        });
        {
            let _guard = a.0.shared();
            let first = words[0].load(Ordering::Relaxed);
            assert_eq!(first, words[1].load(Ordering::Relaxed));
        }
        writer.join().unwrap();
    });
}

#[test]
fn two_exclusive_sections_do_not_overlap() {
    explore(3, || {
        let Two { mmu: _mmu, mut a, mut b } = two(common::config());
        let word = Arc::new(AtomicU64::new(0));
        let add = |me: &mut Participant, word: &AtomicU64| {
            let _guard = me.exclusive();
            word.store(word.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        };
        let theirs = word.clone();
        let other = thread::spawn(move || add(&mut b.0, &theirs));
        add(&mut a.0, &word);
        other.join().unwrap();
        let _guard = a.0.shared();
        assert_eq!(word.load(Ordering::Relaxed), 2);
    });
}

#[test]
fn inv_06_two_faults_on_one_frame_call_the_hook_once_and_both_end_mapped() {
    explore(2, || {
        let mut t = two(common::config());
        assert_eq!(private(&t.mmu, &mut t.a, 0), FaultOutcome::Mapped(Level::L4K));
        t.mmu.release(&mut t.a.1);
        t.mmu.external().take_calls();
        let (mmu, mut b) = (t.mmu.clone(), t.b);
        let other = thread::spawn(move || private_with_what_is_there(&mmu, &mut b, 1));
        let mine = private_with_what_is_there(&t.mmu, &mut t.a, 1);
        let theirs = other.join().unwrap();
        let mapped = [mine, theirs].iter().filter(|o| matches!(o, FaultOutcome::Mapped(_))).count();
        assert_eq!(mapped, 1, "{mine:?} {theirs:?}");
        let sets = t.mmu.external().take_calls().iter().filter(|c| matches!(c, Call::Set(..))).count();
        assert_eq!(sets, 1);
        audit(&t.mmu, &mut t.a.0);
    });
}

#[test]
fn inv_07_a_fault_whose_hook_fails_is_invisible_to_the_other() {
    explore(2, || {
        let mut t = two(common::config());
        assert_eq!(private(&t.mmu, &mut t.a, 0), FaultOutcome::Mapped(Level::L4K));
        t.mmu.release(&mut t.a.1);
        t.mmu.external().fail_at(1, HookError::Busy, 1);
        let (mmu, mut b) = (t.mmu.clone(), t.b);
        let other = thread::spawn(move || private_with_what_is_there(&mmu, &mut b, 1));
        let mine = private_with_what_is_there(&t.mmu, &mut t.a, 1);
        let theirs = other.join().unwrap();
        let mapped = [mine, theirs].iter().filter(|o| matches!(o, FaultOutcome::Mapped(_))).count();
        assert!(mapped <= 1, "{mine:?} {theirs:?}");
        assert_eq!(t.mmu.statistics().mirror.leaves_4k, 1 + mapped as u64);
        audit(&t.mmu, &mut t.a.0);
        // Whoever repeats it succeeds, or finds it done.
        let again = private_with_what_is_there(&t.mmu, &mut t.a, 1);
        assert!(matches!(again, FaultOutcome::Mapped(_) | FaultOutcome::Spurious(_)), "{again:?}");
    });
}

#[test]
fn inv_04_a_child_is_never_installed_before_its_parent_even_in_a_race() {
    // The external table asserts it at each call.
    explore(2, || {
        let mut t = two(common::config());
        t.mmu.top_up(&mut t.a.1, Reserve::Mirror(3)).unwrap();
        t.mmu.top_up(&mut t.b.1, Reserve::Mirror(3)).unwrap();
        let (mmu, mut b) = (t.mmu.clone(), t.b);
        let other = thread::spawn(move || {
            let outcome = private_with_what_is_there(&mmu, &mut b, 1);
            mmu.release(&mut b.1);
            outcome
        });
        let mine = private_with_what_is_there(&t.mmu, &mut t.a, 0);
        t.mmu.release(&mut t.a.1);
        let theirs = other.join().unwrap();
        assert!([mine, theirs].iter().any(|o| matches!(o, FaultOutcome::Mapped(_))), "{mine:?} {theirs:?}");
        audit(&t.mmu, &mut t.a.0);
        assert_eq!(t.mmu.pages().twins_out(), t.mmu.statistics().mirror.tables);
    });
}

#[test]
fn a_fault_beside_a_removal_of_its_table_finds_it_whole_or_gone() {
    explore(2, || {
        let mut t = two(common::config());
        assert_eq!(private(&t.mmu, &mut t.a, 0), FaultOutcome::Mapped(Level::L4K));
        t.mmu.top_up(&mut t.b.1, Reserve::Mirror(2)).unwrap();
        let (mmu, mut b) = (t.mmu.clone(), t.b);
        let other = thread::spawn(move || {
            let mut guard = b.0.exclusive();
            let done = mmu.zap_range(&mut (), &mut guard, &mut b.1, range(0, 4), Filter::Private);
            mmu.reclaim_tables(&mut (), &mut guard).unwrap();
            drop(guard);
            mmu.release(&mut b.1);
            done.is_ok()
        });
        // Its walk may begin in the table that it remembers.
        let mine = private(&t.mmu, &mut t.a, 1);
        assert!(other.join().unwrap());
        assert_eq!(mine, FaultOutcome::Mapped(Level::L4K));
        t.mmu.release(&mut t.a.1);
        audit(&t.mmu, &mut t.a.0);
    });
}

fn aging_beside_unlinking() {
    let form = AccessTracking::Hardware;
    let mut t = two(Config { direct_access: form, ..common::config() });
    map_shared(&mut t, 4);
    let table = leaf_table(&t.mmu);
    let (mmu, mut b) = (t.mmu.clone(), t.b);
    // The ager may have read a young leaf just before the table is frozen.
    let ager = thread::spawn(move || mmu_age(&mmu, &mut b.0));
    assert_eq!(t.mmu.recover_huge(&mut t.a.0.exclusive(), range(0, 512), Level::L2M), Ok(1));
    ager.join().unwrap();
    let values = direct_values(&t.mmu, table);
    let frozen = values[0];
    assert!(frozen & 1 << 11 == 0, "an unlinked table holds no mapping");
    assert!(values.iter().all(|v| *v == frozen) && frozen & 0x1d0 == FROZEN_MARK, "{values:x?}");
    audit(&t.mmu, &mut t.a.0);
}

#[cfg(not(frozen_has_accessed))]
const FROZEN_MARK: u64 = 0x0d0;
#[cfg(frozen_has_accessed)]
const FROZEN_MARK: u64 = 0x1d0;

#[cfg(not(frozen_has_accessed))]
#[test]
fn inv_41_frozen_survives_an_ager_that_lost_the_race() {
    explore(2, aging_beside_unlinking);
}

#[cfg(frozen_has_accessed)]
#[test]
#[should_panic]
fn inv_41_giving_frozen_an_accessed_bit_is_caught() {
    explore(2, aging_beside_unlinking);
}

#[test]
fn inv_42_aging_never_brings_a_removed_page_back() {
    for form in [AccessTracking::Hardware, AccessTracking::Permissions] {
        explore(2, move || {
            let mut t = two(Config { direct_access: form, ..common::config() });
            map_shared(&mut t, 2);
            let table = leaf_table(&t.mmu);
            let (mmu, mut b) = (t.mmu.clone(), t.b);
            let ager = thread::spawn(move || mmu_age(&mmu, &mut b.0));
            let mut cache = TableCache::new();
            let done =
                t.mmu.zap_range(&mut (), &mut t.a.0.exclusive(), &mut cache, range(0, 2), Filter::Shared);
            assert!(done.is_ok());
            ager.join().unwrap();
            assert!(direct_values(&t.mmu, table).iter().all(|value| *value == 1 << 63));
            audit(&t.mmu, &mut t.a.0);
        });
    }
}

#[test]
fn inv_43_aging_beside_a_fault_loses_neither_the_page_nor_the_permission_for_good() {
    explore(3, || {
        let mut t = two(common::config());
        map_shared(&mut t, 1);
        mmu_age(&t.mmu, &mut t.a.0);
        let (mmu, mut b) = (t.mmu.clone(), t.b);
        let ager = thread::spawn(move || mmu_age(&mmu, &mut b.0));
        let outcome = shared(&t.mmu, &mut t.a, 0, Access::Write, None);
        assert_eq!(outcome, FaultOutcome::Restored(Level::L4K));
        ager.join().unwrap();
        let again = shared(&t.mmu, &mut t.a, 0, Access::Write, None);
        assert!(matches!(again, FaultOutcome::Restored(_) | FaultOutcome::Spurious(_)), "{again:?}");
        audit(&t.mmu, &mut t.a.0);
    });
}

#[test]
fn inv_27_a_reader_never_sees_a_freed_table() {
    explore(3, || {
        let mut t = two(common::config());
        map_shared(&mut t, 4);
        // Nothing is young any more; a freed table, which holds poison, would be.
        mmu_age(&t.mmu, &mut t.a.0);
        let (mmu, mut b) = (t.mmu.clone(), t.b);
        let reader = thread::spawn(move || mmu.test_age_gfn(&b.0.rcu(), range(0, 4)).unwrap());
        let root = {
            t.mmu.top_up(&mut t.a.1, Reserve::Direct(1)).unwrap();
            t.mmu.invalidate_direct_root(&mut t.a.0.exclusive(), &mut t.a.1).unwrap()
        };
        t.mmu.zap_invalid_root(&t.a.0.shared(), root).map_err(|e| e.1).unwrap();
        // Frees what may be freed.
        t.mmu.top_up(&mut t.a.1, Reserve::Direct(0)).unwrap();
        assert_eq!(reader.join().unwrap(), Age::Old);
        t.mmu.release(&mut t.a.1);
        t.mmu.top_up(&mut t.a.1, Reserve::Direct(0)).unwrap();
        assert_eq!(t.mmu.direct_tables_waiting(), 0, "with the reader gone everything comes back");
    });
}

#[test]
fn inv_46_a_write_beside_a_harvest_is_in_it_or_in_the_next() {
    explore(2, || {
        let mut t = two(common::config());
        map_shared(&mut t, 1);
        let log = Arc::new(DirtyLog::new(range(0, 4)).unwrap());
        t.mmu.start_logging(&mut t.a.0.exclusive(), &log).unwrap();
        let (mmu, mut b, theirs) = (t.mmu.clone(), t.b, log.clone());
        let writer = thread::spawn(move || shared(&mmu, &mut b, 0, Access::Write, Some(&theirs)));
        let mut seen = 0;
        t.mmu.harvest_dirty(&mut t.a.0.exclusive(), &log, |_| seen += 1).unwrap();
        assert_eq!(writer.join().unwrap(), FaultOutcome::Restored(Level::L4K));
        t.mmu.harvest_dirty(&mut t.a.0.exclusive(), &log, |_| seen += 1).unwrap();
        assert_eq!(seen, 1, "the write is seen exactly once");
    });
}

#[test]
fn inv_44_within_one_section_the_shadow_hash_never_starts_to_hold_something() {
    explore(3, || {
        let Two { mmu: _mmu, mut a, mut b } = two(common::config());
        let hash = Arc::new(PageHash::new());
        let role = Role { level: Level::L4K, source: Source::GuestTable };
        let theirs = hash.clone();
        let creator = thread::spawn(move || {
            // Publication needs no MMU guard; the first page does.
            let ready = theirs.allocate().unwrap();
            ready.insert(&mut b.0.exclusive(), Gfn::new(7), role, 1).unwrap();
        });
        {
            let guard = a.0.shared();
            let first = hash.find(&guard, Gfn::new(7), role, |_| true);
            let second = hash.find(&guard, Gfn::new(7), role, |_| true);
            assert_eq!(first, second, "a page appeared while nobody may add one");
        }
        creator.join().unwrap();
        assert_eq!(hash.find(&a.0.shared(), Gfn::new(7), role, |_| true), Some(1));
    });
}

#[test]
fn inv_44_two_creators_get_the_same_table() {
    explore(3, || {
        let Two { mmu: _mmu, mut a, mut b } = two(common::config());
        let hash = Arc::new(PageHash::new());
        let role = Role { level: Level::L4K, source: Source::GuestTable };
        let theirs = hash.clone();
        let other = thread::spawn(move || {
            let ready = theirs.allocate().unwrap();
            ready.insert(&mut b.0.exclusive(), Gfn::new(7), role, 1).unwrap();
        });
        hash.allocate().unwrap().insert(&mut a.0.exclusive(), Gfn::new(7), role, 2).unwrap();
        other.join().unwrap();
        let mut all = hash.all(&a.0.shared(), Gfn::new(7));
        all.sort_unstable();
        assert_eq!(all, [1, 2]);
    });
}

/// Keeps the helper type of the sequential tests in use under loom.
#[test]
fn a_sequential_fault_works_in_the_truncated_model() {
    explore(0, || {
        let mut b = Bench::new();
        b.map(0, 100, Level::L4K);
        b.audit();
        b.mmu.release(&mut b.cache);
    });
}
