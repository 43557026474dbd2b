//! Invariants that no other test is named after: that the audit finds what breaks them, and the rules that
//! hold by construction. And the list of all of them: which number is tested here in the crate, which where
//! the external side's own records, vCPUs or other guests are, and which cannot be tested.
#![cfg(not(any(loom, shuttle)))]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{Bench, Call};
use mirror_ept::{
    ExternalEntry, FaultOutcome, Filter, GfnRange, HookError, Position, Retry, TablePages, Zapped,
};
use tdvisor_base::sync::Ordering;
use tdvisor_base::{Gfn, Level, Pfn};

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
        mirror_ept::Config { direct_access: mirror_ept::AccessTracking::Hardware, ..common::config() };
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
    for seed in 1..=20u64 {
        let mut state = seed;
        let mut random = |bound: u64| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(seed);
            (state >> 33) % bound
        };
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

/// Invariants of the whole host: their tests run it on the emulated module, in the package `tdvisor-tests`.
const WITH_THE_EMULATED_MODULE: [(&str, &str); 18] = [
    ("12", "inv_12_no_processor_translates_a_removed_page_any_more"),
    ("13", "inv_13_a_second_track_waits_for_the_vcpus_of_the_epoch_before"),
    ("14", "inv_14_before_a_vcpu_ever_ran_nothing_is_tracked"),
    ("15", "inv_15_a_page_that_cannot_be_cleaned_is_never_handed_out_again"),
    ("19", "inv_19_a_td_is_taken_down_in_order_and_its_tdr_goes_last"),
    ("20", "inv_20_every_small_page_of_a_td_counts_once_in_its_range"),
    ("21", "inv_21_a_range_has_a_pamt_pair_exactly_while_something_counts_in_it"),
    ("22", "inv_22_a_demoted_page_counts_512_times_and_its_table_once"),
    ("23", "inv_23_a_call_that_fails_moves_no_count"),
    ("24", "inv_24_two_tds_in_one_range_never_change_its_pamt_at_once"),
    ("26g", "inv_26g_an_accept_at_any_level_ends_after_a_bounded_number_of_exits"),
    ("26h", "inv_26h_a_module_that_can_be_interrupted_is_asked_a_bounded_number_of_times"),
    ("40b", "inv_40b_no_page_is_ever_private_and_within_the_hosts_reach"),
    ("48", "inv_48_nothing_that_a_guest_does_panics_or_stalls_the_host"),
    ("49", "inv_49_a_dead_td_leaves_nothing_but_pages_that_failed_to_be_cleaned"),
    ("51", "inv_51_giving_up_leaves_no_mark_of_host_priority"),
    ("52", "inv_52_a_guest_is_never_starved_by_host_priority_until_the_timeout"),
    ("56", "inv_56_no_vcpu_is_entered_with_its_last_fault_unresolved"),
];

/// Invariants that no test can break, and why.
const WITHOUT_A_TEST: [(&str, &str); 2] = [
    (
        "25",
        "nothing is freed in a callback: whoever collects does so on its own stack, under no lock of the host",
    ),
    ("50", "needs hardware; what was recorded on it is replayed by the conformance tests of tdvisor-tests"),
];

/// The numbers in the names of the ordinary tests below a folder.
fn named(folder: &std::path::Path, numbers: &mut std::collections::BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() && name != "target" {
            named(&path, numbers);
        } else if path.extension().is_some_and(|e| e == "rs") && name != "loom.rs" && name != "shuttle.rs" {
            let text = std::fs::read_to_string(&path).unwrap();
            let names = text.split("fn inv_").skip(1).filter_map(|rest| rest.split_once('_'));
            numbers.extend(names.map(|(number, _)| number.trim_start_matches('0').to_owned()));
        }
    }
}

#[test]
fn every_invariant_from_1_to_57_has_an_ordinary_test_or_a_reason_for_having_none() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut numbers = std::collections::BTreeSet::new();
    for folder in ["mirror-ept", "vmm-core", "tests/tests"] {
        named(&root.join(folder), &mut numbers);
    }
    let listed = |number: &str| {
        WITH_THE_EMULATED_MODULE.iter().chain(&WITHOUT_A_TEST).any(|(other, _)| *other == number)
    };
    let missing: Vec<_> =
        (1..=57).map(|n| n.to_string()).filter(|n| !numbers.contains(n) && !listed(n)).collect();
    assert!(missing.is_empty(), "no ordinary test is named after {missing:?}");
    let to_come = WITH_THE_EMULATED_MODULE.iter().filter(|(number, _)| !numbers.contains(*number));
    for (number, name) in to_come {
        println!("not there yet: invariant {number}, {name}");
    }
}
