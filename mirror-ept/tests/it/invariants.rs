//! Invariants that no other test is named after: that the audit finds what breaks them, and the rules that
//! hold by construction. And the list of all of them: which number is tested here in the crate, which where
//! the external side's own records, vCPUs or other guests are, and which cannot be tested.

use crate::common::{Bench, Call};
use mirror_ept::{
    ExternalEntry, FaultOutcome, Filter, GfnRange, HookError, Position, Retry, TablePages, Zapped,
};
use tdvisor_base::sync::Ordering;
use tdvisor_base::{Gfn, Level, Pfn};
use tdvisor_test_data::chance::Chance;
use tdvisor_test_data::replay;

const MIB2: u64 = 512;

fn at(gfn: u64, level: Level) -> Position {
    Position::of(Gfn::new(gfn), level)
}

/// Maps one page, puts one external entry behind the protocol's back, and gives the number that is found.
fn found_after(position: Position, entry: ExternalEntry) -> u8 {
    let mut b = Bench::new();
    b.map(5, 77, Level::L4K);
    b.audit();
    b.mmu.external().tamper(position, entry);
    let mut guard = b.me.exclusive();
    let violation = b.mmu.audit(&mut guard, b.mmu.external()).unwrap_err();
    assert_eq!(violation.at, Some(position), "{violation}");
    violation.invariant
}

#[test]
fn inv_01_an_external_leaf_that_differs_from_the_mirrors_is_found() {
    assert_eq!(found_after(at(5, Level::L4K), ExternalEntry::Leaf(Pfn::new(78))), 1);
    assert_eq!(found_after(at(5, Level::L4K), ExternalEntry::Free), 1);
}

#[test]
fn inv_02_an_external_entry_left_over_is_found() {
    assert_eq!(found_after(at(6, Level::L4K), ExternalEntry::Leaf(Pfn::new(78))), 2);
    assert_eq!(found_after(at(9 * MIB2, Level::L2M), ExternalEntry::Table(Pfn::new(78))), 2);
}

#[test]
fn inv_03_a_table_that_is_not_the_mirrors_twin_is_found() {
    assert_eq!(found_after(at(0, Level::L1G), ExternalEntry::Table(Pfn::new(1))), 3);
}

#[test]
fn inv_26c_an_entry_that_is_still_blocked_is_found() {
    assert_eq!(found_after(at(5, Level::L4K), ExternalEntry::Blocked), 26);
}

#[test]
fn inv_05_an_entry_that_is_still_frozen_is_found() {
    let mut b = Bench::new();
    // A frozen direct entry, written as only a bug would.
    let root = b.mmu.pages().direct_table(b.mmu.direct_root()).unwrap();
    root[300].store(1 << 63 | 0x0d0, Ordering::Relaxed);
    let mut guard = b.me.exclusive();
    let violation = b.mmu.audit(&mut guard, b.mmu.external()).unwrap_err();
    assert_eq!(violation.invariant, 5, "{violation}");
}

#[test]
fn inv_08_a_fault_that_lost_a_race_sees_the_new_value_when_repeated() {
    // The same entry, changed between two faults: neither retries for ever on what it saw first.
    let mut b = Bench::new();
    b.map(5, 77, Level::L4K);
    assert_eq!(b.fault(5, 77, Level::L4K), Ok(FaultOutcome::Spurious(Level::L4K)));
    b.remove(5, 6);
    assert_eq!(b.fault(5, 78, Level::L4K), Ok(FaultOutcome::Mapped(Level::L4K)));
}

#[test]
fn inv_10_a_page_that_is_mapped_twice_is_found() {
    let mut b = Bench::new();
    b.map(5, MIB2 + 7, Level::L4K);
    b.map(4 * MIB2, MIB2, Level::L2M);
    let mut guard = b.me.exclusive();
    let violation = b.mmu.audit(&mut guard, b.mmu.external()).unwrap_err();
    assert_eq!(violation.invariant, 10, "{violation}");
}

#[test]
fn inv_30_what_hardware_set_just_before_a_removal_is_not_lost() {
    // Removal exchanges the entry: what hardware set in the meantime is in the value it takes out.
    let config =
        mirror_ept::Config { direct_access: mirror_ept::AccessTracking::Hardware, ..crate::common::config() };
    let mut b = Bench::with(config);
    b.mmu.top_up(&mut b.cache, mirror_ept::Reserve::SHARED).unwrap();
    let fault = mirror_ept::Fault {
        gfn: Gfn::new(3),
        access: mirror_ept::Access::Write,
        max_level: Level::L4K,
        snapshot: b.mmu.notifier().snapshot(),
        target: mirror_ept::Target::Shared {
            pfn: Pfn::new(9),
            backing: mirror_ept::Backing::Folio(Level::L4K),
            writable: true,
            log: None,
        },
    };
    let outcome = b.mmu.fault(&mut (), &b.me.shared(), &mut b.cache, &fault).unwrap();
    assert_eq!(outcome, FaultOutcome::Mapped(Level::L4K));
    // Hardware marks the page dirty.
    let mut table = b.mmu.direct_root();
    for level in [Level::L512G, Level::L1G, Level::L2M, Level::L4K] {
        let seen = Gfn::new(3 | b.mmu.config().shared_bit.get());
        let entry = &b.mmu.pages().direct_table(table).unwrap()[level.table_index(seen)];
        table = Pfn::new(entry.load(Ordering::Relaxed) >> 12 & ((1 << 40) - 1));
        if level == Level::L4K {
            entry.fetch_or(1 << 9, Ordering::Relaxed);
        }
    }
    let range = GfnRange::new(Gfn::new(0), Gfn::new(8));
    let zapped = b.mmu.zap_range(&mut (), &mut b.me.exclusive(), &mut b.cache, range, Filter::Shared);
    assert!(matches!(zapped, Ok(Zapped::Complete(count)) if count.dirty == 1), "{zapped:?}");
    assert_eq!(
        b.mmu.external().take_calls().last(),
        Some(&Call::Flush(GfnRange::new(Gfn::new(3), Gfn::new(4))))
    );
}

#[test]
fn inv_31_each_kind_of_transition_takes_the_guard_it_needs() {
    // The signatures are the rule; see the compile-fail examples of `external::phase`. Here: what a shared
    // guard allows never calls an exclusive hook.
    let mut b = Bench::new();
    b.map(0, MIB2, Level::L2M);
    let _ = b.fault(3, MIB2 + 3, Level::L4K);
    let calls = b.mmu.external().take_calls();
    assert!(calls.iter().all(|c| matches!(c, Call::Link(_) | Call::Set(..))), "{calls:?}");
}

#[test]
fn inv_33_a_fault_that_needs_tables_asks_for_them_instead_of_allocating_under_the_lock() {
    let mut b = Bench::new();
    let fault = mirror_ept::Fault {
        gfn: Gfn::new(3),
        access: mirror_ept::Access::Write,
        max_level: Level::L4K,
        snapshot: b.mmu.notifier().snapshot(),
        target: mirror_ept::Target::Private { pfn: Pfn::new(9), backing: Level::L4K },
    };
    let outcome = b.mmu.fault(&mut (), &b.me.shared(), &mut b.cache, &fault);
    assert_eq!(outcome, Ok(FaultOutcome::Retry(Retry::NeedTables)));
    b.audit();
}

#[test]
fn inv_35_after_yielding_the_lock_a_section_starts_from_what_is_there() {
    let mut b = Bench::new();
    b.map(5, 77, Level::L4K);
    let mut guard = b.me.exclusive();
    guard.yield_to_readers();
    let range = GfnRange::new(Gfn::new(0), Gfn::new(8));
    let zapped = b.mmu.zap_range(&mut (), &mut guard, &mut b.cache, range, Filter::Private);
    drop(guard);
    assert!(matches!(zapped, Ok(Zapped::Complete(_))));
    b.audit();
}

#[test]
fn inv_53_what_was_blocked_and_not_tracked_is_tracked_before_it_is_unblocked() {
    // The model asserts it at each call: UNBLOCK, REMOVE and SPLIT find their entry tracked.
    let mut b = Bench::new();
    for gfn in 0..3 {
        b.map(gfn, 100 + gfn, Level::L4K);
    }
    b.mmu.external().take_calls();
    b.mmu.external().fail_at(3, HookError::Busy, 1);
    assert!(b.zap(0, 3).is_err());
    let expected = [
        Call::Block(at(0, Level::L4K)),
        Call::Block(at(1, Level::L4K)),
        Call::Track(2),
        Call::Unblock(at(0, Level::L4K)),
        Call::Unblock(at(1, Level::L4K)),
    ];
    assert_eq!(b.mmu.external().take_calls(), expected);
    b.audit();
}

#[test]
fn inv_54_one_batch_leaves_the_same_external_table_as_one_removal_per_page() {
    for seed in replay::seeds(1..21) {
        let mut chance = Chance::new(seed);
        let mut random = |bound: u64| chance.below(bound);
        let (mut batched, mut single) = (Bench::new(), Bench::new());
        for _ in 0..40 {
            let gfn = random(3 * MIB2);
            for b in [&mut batched, &mut single] {
                let _ = b.fault(gfn, 8 * MIB2 + gfn, Level::L4K);
            }
        }
        let (start, end) = (random(MIB2), MIB2 + random(2 * MIB2));
        batched.remove(start, end);
        for gfn in start..end {
            single.remove(gfn, gfn + 1);
        }
        let leaves = |b: &Bench| {
            let all = b.mmu.external().contents();
            all.into_iter().filter(|(_, e)| matches!(e, ExternalEntry::Leaf(_))).collect::<Vec<_>>()
        };
        assert_eq!(leaves(&batched), leaves(&single), "seed {seed}");
        batched.audit();
        single.audit();
    }
}
