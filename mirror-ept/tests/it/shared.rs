//! Shared memory: the direct tree, aging, dirty logging, eager splitting, huge recovery, root replacement.

use crate::common::{Bench, Call};
use mirror_ept::{
    Access, AccessTracking, Age, Backing, Config, DirtyLog, EagerSplit, Fault, FaultOutcome, Filter,
    GfnRange, MmuError, Reserve, Retry, Target, Zapped,
};
use tdvisor_base::{Gfn, Level, Pfn};

const MIB2: u64 = 512;
const GIB: u64 = 512 * 512;

fn range(start: u64, end: u64) -> GfnRange {
    GfnRange::new(Gfn::new(start), Gfn::new(end))
}

struct Page<'a> {
    pfn: u64,
    backing: Level,
    writable: bool,
    log: Option<&'a DirtyLog>,
}

const SMALL: Page<'_> = Page { pfn: 0, backing: Level::L4K, writable: true, log: None };

fn fault(b: &mut Bench, gfn: u64, access: Access, page: &Page<'_>) -> FaultOutcome {
    b.mmu.top_up(&mut b.cache, Reserve::SHARED).unwrap();
    let fault = Fault {
        gfn: Gfn::new(gfn),
        access,
        max_level: Level::L1G,
        snapshot: b.mmu.notifier().snapshot(),
        target: Target::Shared {
            pfn: Pfn::new(page.pfn),
            backing: Backing::Folio(page.backing),
            writable: page.writable,
            log: page.log,
        },
    };
    let guard = b.me.shared();
    b.mmu.fault(&mut (), &guard, &mut b.cache, &fault).unwrap()
}

fn map(b: &mut Bench, gfn: u64, pfn: u64, backing: Level) {
    let page = Page { pfn, backing, ..SMALL };
    assert!(matches!(fault(b, gfn, Access::Write, &page), FaultOutcome::Mapped(_)));
}

fn mapping(b: &mut Bench, gfn: u64) -> Option<(Level, Pfn)> {
    let guard = b.me.shared();
    b.mmu.shared_mapping(&guard, Gfn::new(gfn)).map(|(at, pfn)| (at.level(), pfn))
}

/// Follows the tree as hardware would, with the SHARED bit set, and marks the page used where it may.
fn hardware(b: &Bench, gfn: u64, access: Access) -> Option<(Level, Pfn)> {
    let mut table = b.mmu.direct_root();
    let mut level = Level::L512G;
    let seen = Gfn::new(gfn | b.mmu.config().shared_bit.get());
    loop {
        let entries = mirror_ept::TablePages::direct_table(b.mmu.pages(), table).unwrap();
        let entry = &entries[level.table_index(seen)];
        let value = entry.load(tdvisor_base::sync::Ordering::Relaxed);
        let needed = match access {
            Access::Read => 1,
            Access::Write => 2,
            Access::Execute => 4,
        };
        if value & needed == 0 {
            return None;
        }
        let frame = Pfn::new(value >> 12 & ((1 << 40) - 1));
        if level == Level::L4K || value & 1 << 7 != 0 {
            if b.mmu.config().direct_access == AccessTracking::Hardware {
                entry.fetch_or(1 << 8, tdvisor_base::sync::Ordering::Relaxed);
            }
            return Some((level, frame.wrapping_add(gfn & (level.frames() - 1))));
        }
        table = frame;
        level = level.down().unwrap();
    }
}

#[test]
fn hardware_finds_a_shared_page_under_the_shared_bit_and_nothing_elsewhere() {
    let mut b = Bench::new();
    map(&mut b, 0x1234, 0x77, Level::L4K);
    assert_eq!(hardware(&b, 0x1234, Access::Write), Some((Level::L4K, Pfn::new(0x77))));
    assert_eq!(hardware(&b, 0x1235, Access::Read), None);
    map(&mut b, GIB + 9, GIB + 9, Level::L1G);
    assert_eq!(hardware(&b, GIB + 9, Access::Execute), Some((Level::L1G, Pfn::new(GIB + 9))));
    b.audit();
}

/// A fault in device space, from a snapshot taken before.
fn device_from(
    b: &mut Bench,
    gfn: u64,
    snapshot: mirror_ept::notifier::Snapshot,
) -> Result<FaultOutcome, MmuError<&'static str>> {
    b.mmu.top_up(&mut b.cache, Reserve::SHARED).unwrap();
    let (gfn, access, max_level) = (Gfn::new(gfn), Access::Read, Level::L4K);
    let fault = Fault { gfn, access, max_level, snapshot, target: Target::Device };
    b.mmu.fault(&mut (), &b.me.shared(), &mut b.cache, &fault)
}

fn device(b: &mut Bench, gfn: u64) -> Result<FaultOutcome, MmuError<&'static str>> {
    let now = b.mmu.notifier().snapshot();
    device_from(b, gfn, now)
}

/// Whether a touch of an absent frame would raise #VE in the guest.
fn raises_exception(b: &Bench, gfn: u64) -> bool {
    let seen = Gfn::new(gfn | b.mmu.config().shared_bit.get());
    let mut level = Level::L512G;
    let mut table = b.mmu.direct_root();
    loop {
        let entries = mirror_ept::TablePages::direct_table(b.mmu.pages(), table).unwrap();
        let value = entries[level.table_index(seen)].load(tdvisor_base::sync::Ordering::Relaxed);
        if value & 7 == 0 || level == Level::L4K {
            assert_eq!(value & 7, 0, "the frame is mapped");
            return value >> 63 == 0;
        }
        table = Pfn::new(value >> 12 & ((1 << 40) - 1));
        level = level.down().unwrap();
    }
}

#[test]
fn absent_entries_leave_the_guest_and_device_entries_raise_an_exception_in_it() {
    let mut b = Bench::new();
    assert_eq!(device(&mut b, 5), Ok(FaultOutcome::Mapped(Level::L4K)));
    assert_eq!(device(&mut b, 5), Ok(FaultOutcome::Spurious(Level::L4K)));
    assert_eq!([4, 5, 6, MIB2].map(|gfn| raises_exception(&b, gfn)), [false, true, false, false]);
    assert_eq!(mapping(&mut b, 5), None, "it is no mapping");
    assert_eq!(b.mmu.statistics().direct.leaves_4k, 0);
    b.audit();
}

#[test]
fn a_removal_takes_device_entries_too_and_flushes_nothing_for_them() {
    let mut b = Bench::new();
    for gfn in [1, 5, 9, MIB2 + 3] {
        assert_eq!(device(&mut b, gfn), Ok(FaultOutcome::Mapped(Level::L4K)));
    }
    b.mmu.external().take_calls();
    let zapped =
        b.mmu.zap_range(&mut (), &mut b.me.exclusive(), &mut b.cache, range(5, MIB2 + 4), Filter::Shared);
    assert!(matches!(zapped, Ok(Zapped::Complete(count)) if count.devices == 3), "{zapped:?}");
    assert_eq!(b.mmu.external().take_calls(), []);
    assert_eq!([1, 5, 9, MIB2 + 3].map(|gfn| raises_exception(&b, gfn)), [true, false, false, false]);
    b.audit();
}

#[test]
fn memory_that_appears_where_a_device_was_is_found_by_the_next_touch() {
    let mut b = Bench::new();
    assert_eq!(device(&mut b, 5), Ok(FaultOutcome::Mapped(Level::L4K)));
    // A vCPU resolves frame 6 as a device's while a slot is being added over both.
    let before = b.mmu.notifier().snapshot();
    let mut guard = b.me.exclusive();
    let window = b.mmu.notifier().begin(&mut guard, range(0, MIB2));
    let zapped = b.mmu.zap_range(&mut (), &mut guard, &mut b.cache, range(0, MIB2), Filter::Shared);
    assert!(matches!(zapped, Ok(Zapped::Complete(_))));
    drop(guard);
    assert_eq!(device(&mut b, 5), Ok(FaultOutcome::Retry(Retry::Invalidated)));
    b.mmu.notifier().end(&mut b.me.exclusive(), window);
    assert_eq!(device_from(&mut b, 6, before), Ok(FaultOutcome::Retry(Retry::Invalidated)));
    assert!(!raises_exception(&b, 5) && !raises_exception(&b, 6));
    map(&mut b, 5, 77, Level::L4K);
    assert_eq!(hardware(&b, 5, Access::Write), Some((Level::L4K, Pfn::new(77))));
    b.audit();
}

#[test]
fn a_page_can_be_mapped_over_a_device_entry_but_no_device_over_a_page() {
    let mut b = Bench::new();
    assert_eq!(device(&mut b, 5), Ok(FaultOutcome::Mapped(Level::L4K)));
    // The fault may have resolved a larger page: the table that is there makes it small.
    map(&mut b, 5, MIB2 + 5, Level::L2M);
    assert_eq!(mapping(&mut b, 5), Some((Level::L4K, Pfn::new(MIB2 + 5))));
    map(&mut b, 4 * MIB2, 4 * MIB2, Level::L2M);
    for gfn in [5, 4 * MIB2 + 9] {
        let refused = device(&mut b, gfn);
        assert!(matches!(refused, Err(MmuError::NotApplicable(at)) if at.range().contains(Gfn::new(gfn))));
    }
    assert_eq!(mapping(&mut b, 4 * MIB2 + 9), Some((Level::L2M, Pfn::new(4 * MIB2 + 9))));
    b.audit();
}

#[test]
fn a_guest_that_touches_device_space_everywhere_gets_a_bounded_number_of_tables() {
    let mut b = Bench::with(Config { device_tables: 5, ..crate::common::config() });
    for gfn in [0, MIB2, 2 * MIB2] {
        assert_eq!(device(&mut b, gfn), Ok(FaultOutcome::Mapped(Level::L4K)));
    }
    assert_eq!(b.mmu.statistics().direct.tables, 5);
    assert_eq!(device(&mut b, 3 * MIB2), Err(MmuError::TooManyDevices(Gfn::new(3 * MIB2))));
    assert_eq!(device(&mut b, MIB2 + 1), Ok(FaultOutcome::Mapped(Level::L4K)), "there is a table");
    map(&mut b, 3 * MIB2, 77, Level::L4K);
    assert_eq!(b.mmu.statistics().direct.tables, 6, "memory is not counted");
    let root = b.mmu.invalidate_direct_root(&mut b.me.exclusive(), &mut b.cache).unwrap();
    b.mmu.zap_invalid_root(&b.me.shared(), root).map_err(|e| e.1).unwrap();
    assert_eq!(device(&mut b, 9 * MIB2), Ok(FaultOutcome::Mapped(Level::L4K)), "the new root has none");
    b.audit();
}

#[test]
fn a_shared_removal_takes_every_leaf_and_flushes_once() {
    let mut b = Bench::new();
    for gfn in 0..10 {
        map(&mut b, gfn, 100 + gfn, Level::L4K);
    }
    map(&mut b, MIB2, MIB2, Level::L2M);
    b.mmu.external().take_calls();
    let mut guard = b.me.exclusive();
    let zapped = b.mmu.zap_range(&mut (), &mut guard, &mut b.cache, range(2, MIB2 + 1), Filter::Shared);
    drop(guard);
    let Ok(Zapped::Complete(count)) = zapped else { panic!("{zapped:?}") };
    assert_eq!((count.direct.leaves_4k, count.direct.leaves_2m), (8, 1));
    assert_eq!(b.mmu.external().take_calls(), [Call::Flush(range(2, 2 * MIB2))]);
    assert_eq!(mapping(&mut b, 1), Some((Level::L4K, Pfn::new(101))));
    assert_eq!(mapping(&mut b, 2), None);
    b.audit();
}

#[test]
fn inv_09_a_page_that_is_private_and_shared_at_once_is_found_by_the_audit() {
    let mut b = Bench::new();
    b.map(0, MIB2, Level::L2M);
    map(&mut b, 9, MIB2 + 3, Level::L4K);
    let mut guard = b.me.exclusive();
    let violation = b.mmu.audit(&mut guard, b.mmu.external()).unwrap_err();
    assert_eq!(violation.invariant, 9, "{violation}");
}

#[test]
fn a_write_to_a_page_that_may_not_be_written_is_reported_and_grants_nothing() {
    let mut b = Bench::new();
    let page = Page { pfn: 9, writable: false, ..SMALL };
    assert_eq!(fault(&mut b, 3, Access::Read, &page), FaultOutcome::Mapped(Level::L4K));
    assert_eq!(fault(&mut b, 3, Access::Write, &page), FaultOutcome::ReadOnly(Level::L4K));
    assert_eq!(hardware(&b, 3, Access::Write), None);
}

#[test]
fn inv_37_a_fault_during_an_invalidation_retries_and_succeeds_after_it() {
    let mut b = Bench::new();
    let window = b.mmu.notifier().begin(&mut b.me.exclusive(), range(0, 10));
    let page = Page { pfn: 9, ..SMALL };
    assert_eq!(fault(&mut b, 3, Access::Read, &page), FaultOutcome::Retry(Retry::Invalidated));
    assert_eq!(fault(&mut b, 10, Access::Read, &page), FaultOutcome::Mapped(Level::L4K));
    b.mmu.notifier().end(&mut b.me.exclusive(), window);
    assert_eq!(fault(&mut b, 3, Access::Read, &Page { pfn: 8, ..SMALL }), FaultOutcome::Mapped(Level::L4K));
}

#[test]
fn inv_34_a_slot_can_be_deleted_while_a_fault_in_it_retries() {
    // The fault's loop ends by its caller's condition; nothing in the invalidation waits for the fault.
    let mut b = Bench::new();
    let window = b.mmu.notifier().begin(&mut b.me.exclusive(), range(0, 10));
    let mut retries = 0;
    let mut slot_is_being_deleted = false;
    while fault(&mut b, 3, Access::Read, &SMALL) == FaultOutcome::Retry(Retry::Invalidated) {
        retries += 1;
        slot_is_being_deleted = retries == 3;
        if slot_is_being_deleted {
            break;
        }
    }
    assert!(slot_is_being_deleted);
    b.mmu.notifier().end(&mut b.me.exclusive(), window);
    assert_eq!(b.mmu.notifier().open_windows(), 0);
}

fn both_forms(test: impl Fn(&mut Bench, AccessTracking)) {
    for form in [AccessTracking::Permissions, AccessTracking::Hardware] {
        test(&mut Bench::with(Config { direct_access: form, ..crate::common::config() }), form);
    }
}

#[test]
fn inv_42_aging_reports_use_once_and_changes_no_page() {
    both_forms(|b, form| {
        for gfn in [0, 1, 511, 512, 600] {
            map(b, gfn, 1000 + gfn, Level::L4K);
        }
        map(b, GIB, GIB, Level::L1G);
        let all = range(0, 2 * GIB);
        let age = |b: &mut Bench| b.mmu.age_gfn(&b.me.rcu(), all).unwrap();
        assert_eq!(b.mmu.test_age_gfn(&b.me.rcu(), all), Ok(Age::Young), "{form:?}");
        assert_eq!(age(b), Age::Young, "testing changed nothing");
        assert_eq!(age(b), Age::Old);
        assert_eq!(mapping(b, 511), Some((Level::L4K, Pfn::new(1511))));
        b.audit();
        // Use one page again: with permissions put aside that takes a fault.
        if hardware(b, 600, Access::Write).is_none() {
            let page = Page { pfn: 1600, ..SMALL };
            assert_eq!(fault(b, 600, Access::Write, &page), FaultOutcome::Restored(Level::L4K));
            assert_eq!(hardware(b, 600, Access::Write), Some((Level::L4K, Pfn::new(1600))));
        }
        assert_eq!(b.mmu.age_gfn(&b.me.rcu(), range(0, 600)), Ok(Age::Old), "outside the range");
        assert_eq!(b.mmu.age_gfn(&b.me.rcu(), range(600, 601)), Ok(Age::Young));
        b.mmu.external().take_calls();
        assert_eq!(age(b), Age::Old);
        assert_eq!(b.mmu.external().take_calls(), [], "nothing is flushed");
    });
}

#[test]
fn inv_42_aging_never_visits_private_memory() {
    let mut b = Bench::new();
    b.map(0, MIB2, Level::L2M);
    assert_eq!(b.mmu.age_gfn(&b.me.rcu(), range(0, GIB)), Ok(Age::Old));
    b.audit();
}

fn harvest(b: &mut Bench, log: &DirtyLog) -> Vec<u64> {
    let mut written = Vec::new();
    let count = b.mmu.harvest_dirty(&mut b.me.exclusive(), log, |gfn| written.push(gfn.get())).unwrap();
    assert_eq!(count as usize, written.len());
    written
}

#[test]
fn inv_46_every_first_write_after_a_harvest_is_in_the_next_one() {
    both_forms(|b, _| {
        for gfn in 0..8 {
            map(b, gfn, 100 + gfn, Level::L4K);
        }
        let log = DirtyLog::new(range(0, 8)).unwrap();
        b.mmu.start_logging(&mut b.me.exclusive(), &log).unwrap();
        assert_eq!(harvest(b, &log), []);
        for round in 0..3 {
            for gfn in [2, 5] {
                assert_eq!(hardware(b, gfn, Access::Write), None, "round {round}: the write must be seen");
                let page = Page { pfn: 100 + gfn, log: Some(&log), ..SMALL };
                assert_eq!(fault(b, gfn, Access::Write, &page), FaultOutcome::Restored(Level::L4K));
                assert!(hardware(b, gfn, Access::Write).is_some());
            }
            assert_eq!(harvest(b, &log), [2, 5]);
        }
        b.audit();
    });
}

#[test]
fn inv_46_aging_does_not_hide_a_write() {
    let mut b = Bench::new();
    map(&mut b, 3, 103, Level::L4K);
    let log = DirtyLog::new(range(0, 8)).unwrap();
    // The write permission is put aside, then protection is asked for, then the page is used again.
    assert_eq!(b.mmu.age_gfn(&b.me.rcu(), range(0, 8)), Ok(Age::Young));
    b.mmu.start_logging(&mut b.me.exclusive(), &log).unwrap();
    let page = Page { pfn: 103, log: Some(&log), ..SMALL };
    assert_eq!(fault(&mut b, 3, Access::Read, &page), FaultOutcome::Restored(Level::L4K));
    assert_eq!(hardware(&b, 3, Access::Write), None);
    assert_eq!(fault(&mut b, 3, Access::Write, &page), FaultOutcome::Restored(Level::L4K));
    assert_eq!(harvest(&mut b, &log), [3]);
}

#[test]
fn a_write_to_a_huge_logged_page_splits_it_and_marks_one_frame() {
    let mut b = Bench::new();
    map(&mut b, MIB2, MIB2, Level::L2M);
    let log = DirtyLog::new(range(0, GIB)).unwrap();
    b.mmu.start_logging(&mut b.me.exclusive(), &log).unwrap();
    let page = Page { pfn: MIB2 + 7, backing: Level::L2M, log: Some(&log), ..SMALL };
    assert_eq!(fault(&mut b, MIB2 + 7, Access::Write, &page), FaultOutcome::Restored(Level::L4K));
    assert_eq!(b.mmu.statistics().direct.leaves_4k, 512);
    assert_eq!(harvest(&mut b, &log), [MIB2 + 7]);
    assert_eq!(mapping(&mut b, MIB2 + 9), Some((Level::L4K, Pfn::new(MIB2 + 9))));
    b.audit();
}

#[test]
fn inv_45_eager_splitting_changes_no_translation_and_flushes_nothing() {
    let mut b = Bench::new();
    map(&mut b, GIB, GIB, Level::L1G);
    map(&mut b, 0, MIB2, Level::L2M);
    b.mmu.external().take_calls();
    let (mut total, mut next) = (0, 0);
    loop {
        b.mmu.top_up(&mut b.cache, Reserve::Direct(20)).unwrap();
        let guard = b.me.shared();
        match b.mmu.split_direct_range(&guard, &mut b.cache, range(next, GIB + 8 * MIB2)).unwrap() {
            EagerSplit::Complete(done) => {
                total += done;
                break;
            }
            EagerSplit::NeedTables { done, next: from } => {
                total += done;
                next = from.get();
            }
        }
    }
    assert_eq!(total, 1 + 1 + 8, "one 2M leaf, the 1G leaf, and eight 2M leaves of it");
    assert_eq!(b.mmu.external().take_calls(), []);
    for gfn in [0, 511, GIB, GIB + 8 * MIB2 - 1, GIB + 8 * MIB2, 2 * GIB - 1] {
        let pfn = if gfn < GIB { MIB2 + gfn } else { gfn };
        assert_eq!(mapping(&mut b, gfn).map(|m| m.1), Some(Pfn::new(pfn)), "{gfn}");
    }
    b.audit();
}

#[test]
fn inv_45_eager_splitting_without_memory_stops_and_leaves_a_consistent_rest() {
    let mut b = Bench::new();
    map(&mut b, 0, MIB2, Level::L2M);
    map(&mut b, MIB2, 2 * MIB2, Level::L2M);
    b.mmu.release(&mut b.cache);
    b.mmu.top_up(&mut b.cache, Reserve::Direct(1)).unwrap();
    let guard = b.me.shared();
    let outcome = b.mmu.split_direct_range(&guard, &mut b.cache, range(0, GIB)).unwrap();
    assert_eq!(outcome, EagerSplit::NeedTables { done: 1, next: Gfn::new(MIB2) });
    drop(guard);
    b.audit();
    assert_eq!(mapping(&mut b, MIB2), Some((Level::L2M, Pfn::new(2 * MIB2))));
}

#[test]
fn after_dirty_logging_a_range_becomes_huge_again_in_place() {
    both_forms(|b, _| {
        map(b, MIB2, MIB2, Level::L2M);
        let log = DirtyLog::new(range(0, 2 * MIB2)).unwrap();
        b.mmu.start_logging(&mut b.me.exclusive(), &log).unwrap();
        let page = Page { pfn: MIB2 + 7, backing: Level::L2M, log: Some(&log), ..SMALL };
        let _ = fault(b, MIB2 + 7, Access::Write, &page);
        let _ = b.mmu.age_gfn(&b.me.rcu(), range(0, GIB)).unwrap();
        b.mmu.external().take_calls();
        assert_eq!(b.mmu.recover_huge(&mut b.me.exclusive(), range(0, 2 * MIB2), Level::L2M), Ok(1));
        assert_eq!(b.mmu.external().take_calls(), [Call::Flush(range(MIB2, 2 * MIB2))]);
        assert_eq!(mapping(b, MIB2 + 7), Some((Level::L2M, Pfn::new(MIB2 + 7))));
        b.audit();
        // Not every part was writable, so the whole is not; a write without a log makes it so.
        let page = Page { pfn: MIB2 + 9, backing: Level::L2M, ..SMALL };
        assert_eq!(fault(b, MIB2 + 9, Access::Write, &page), FaultOutcome::Restored(Level::L2M));
    });
}

#[test]
fn inv_27_a_table_unlinked_by_huge_recovery_is_freed_after_its_grace_period() {
    let mut b = Bench::new();
    let mut other = b.mmu.participant().unwrap();
    for gfn in 0..MIB2 {
        map(&mut b, gfn, MIB2 + gfn, Level::L4K);
    }
    b.mmu.release(&mut b.cache);
    let out = b.mmu.pages().direct_out();
    let reader = other.rcu();
    assert_eq!(b.mmu.recover_huge(&mut b.me.exclusive(), range(0, MIB2), Level::L2M), Ok(1));
    b.mmu.top_up(&mut b.cache, Reserve::Direct(0)).unwrap();
    assert_eq!((b.mmu.direct_tables_waiting(), b.mmu.pages().direct_out()), (1, out));
    drop(reader);
    b.mmu.top_up(&mut b.cache, Reserve::Direct(0)).unwrap();
    assert_eq!((b.mmu.direct_tables_waiting(), b.mmu.pages().direct_out()), (0, out - 1));
}

#[test]
fn inv_28_a_replaced_root_is_taken_apart_and_every_table_comes_back() {
    let mut b = Bench::new();
    for gfn in [0, 5, GIB, 9 * GIB] {
        map(&mut b, gfn, 100 + gfn, Level::L4K);
    }
    b.mmu.top_up(&mut b.cache, Reserve::SHARED).unwrap();
    let old = b.mmu.direct_root();
    let root = b.mmu.invalidate_direct_root(&mut b.me.exclusive(), &mut b.cache).unwrap();
    assert_ne!(b.mmu.direct_root(), old);
    assert_eq!(mapping(&mut b, 5), None);
    // Faults go on in the new tree while the old one is taken apart.
    map(&mut b, 5, 77, Level::L4K);
    b.mmu.zap_invalid_root(&b.me.shared(), root).map_err(|e| e.1).unwrap();
    b.audit();
    assert_eq!(b.mmu.statistics().direct.leaves_4k, 1);
    b.mmu.release(&mut b.cache);
    b.mmu.top_up(&mut b.cache, Reserve::Direct(0)).unwrap();
    assert_eq!(b.mmu.pages().direct_out() as u64, 1 + b.mmu.statistics().direct.tables);
}

#[test]
fn without_a_table_at_hand_the_root_stays() {
    let mut b = Bench::new();
    let old = b.mmu.direct_root();
    let result = b.mmu.invalidate_direct_root(&mut b.me.exclusive(), &mut b.cache);
    assert!(matches!(result, Err(MmuError::NoMemory)));
    assert_eq!(b.mmu.direct_root(), old);
}
