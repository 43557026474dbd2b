//! Private memory: faults, removal, splits, and what is left of them when a step fails.

use crate::common::{Bench, Call};
use mirror_ept::{FaultOutcome, HookError, MmuError, Position, Retry, Step, Zapped};
use tdvisor_base::{Gfn, Level, Pfn};

fn at(gfn: u64, level: Level) -> Position {
    Position::of(Gfn::new(gfn), level)
}

const MIB2: u64 = 512;
const GIB: u64 = 512 * 512;

#[test]
fn inv_04_parents_are_linked_before_their_children_and_leaves_last() {
    let mut b = Bench::new();
    b.map(0x12345, 0x45, Level::L4K);
    assert_eq!(
        b.mmu.external().take_calls(),
        [
            Call::Link(at(0x12345, Level::L512G)),
            Call::Link(at(0x12345, Level::L1G)),
            Call::Link(at(0x12345, Level::L2M)),
            Call::Set(at(0x12345, Level::L4K), Pfn::new(0x45)),
        ]
    );
    b.audit();
}

#[test]
fn inv_26e_a_leaf_is_as_large_as_alignment_and_limits_allow_and_no_larger() {
    let mut b = Bench::new();
    b.map(GIB + 5, GIB + 5, Level::L1G);
    assert_eq!(b.mapping(GIB + 77), Some((Level::L1G, Pfn::new(GIB + 77))));
    b.map(2 * GIB + 5, MIB2 + 5, Level::L1G);
    assert_eq!(
        b.mapping(2 * GIB + 6),
        Some((Level::L2M, Pfn::new(MIB2 + 6))),
        "the pages are 2M-aligned alike"
    );
    b.map(3 * GIB, 1, Level::L1G);
    assert_eq!(b.mapping(3 * GIB), Some((Level::L4K, Pfn::new(1))));
    b.map(4 * GIB, 4 * GIB, Level::L2M);
    assert_eq!(b.mapping(4 * GIB), Some((Level::L2M, Pfn::new(4 * GIB))));
    b.audit();
    assert_eq!(b.mmu.statistics().mirror.leaves_2m, 2);
}

#[test]
fn inv_26e_a_huge_fault_never_replaces_a_table() {
    let mut b = Bench::new();
    b.map(3, MIB2 + 3, Level::L4K);
    b.map(4, MIB2 + 4, Level::L2M);
    assert_eq!(b.mapping(4), Some((Level::L4K, Pfn::new(MIB2 + 4))));
    b.audit();
}

#[test]
fn inv_32_a_fault_on_a_mapped_page_is_silent() {
    let mut b = Bench::new();
    b.map(0, MIB2, Level::L2M);
    b.mmu.external().take_calls();
    assert_eq!(b.fault(7, MIB2 + 7, Level::L2M), Ok(FaultOutcome::Spurious(Level::L2M)));
    assert_eq!(b.fault(7, MIB2 + 7, Level::L4K), Ok(FaultOutcome::NeedsSplit(Level::L2M)));
    assert_eq!(b.mmu.external().take_calls(), []);
}

#[test]
fn inv_29_a_mapped_page_is_never_swapped_for_another() {
    let mut b = Bench::new();
    b.map(5, 50, Level::L4K);
    let error = b.fault(5, 51, Level::L4K).unwrap_err();
    let (mapped, wanted) = (Pfn::new(50), Pfn::new(51));
    assert_eq!(error, MmuError::PfnMismatch { at: at(5, Level::L4K), mapped, wanted });
    assert_eq!(b.mapping(5), Some((Level::L4K, Pfn::new(50))));
}

#[test]
fn a_frame_outside_the_guest_is_the_callers_mistake() {
    let mut b = Bench::new();
    let end = b.mmu.config().end;
    assert_eq!(b.fault(end.get(), 0, Level::L4K), Err(MmuError::OutOfRange(end)));
    assert!(matches!(b.zap(0, end.get() + 1), Err(MmuError::OutOfRange(_))));
}

#[test]
fn a_guard_of_another_mmu_opens_nothing() {
    let (mut a, mut b) = (Bench::new(), Bench::new());
    let fault = mirror_ept::Fault {
        gfn: Gfn::new(0),
        access: mirror_ept::Access::Read,
        max_level: Level::L4K,
        snapshot: a.mmu.notifier().snapshot(),
        target: mirror_ept::Target::Private { pfn: Pfn::new(0), backing: Level::L4K },
    };
    let foreign = b.me.shared();
    assert_eq!(a.mmu.fault(&mut (), &foreign, &mut a.cache, &fault), Err(MmuError::ForeignGuard));
}

#[test]
fn inv_07_a_fault_whose_hook_fails_leaves_no_trace_and_succeeds_when_repeated() {
    let reasons = [HookError::Busy, HookError::Interrupted, HookError::NoMemory, HookError::Refused("no")];
    for why in reasons {
        for n in 1.. {
            let mut b = Bench::new();
            b.mmu.external().fail_at(n, why, 1);
            let outcome = b.fault(0x12345, 0x45, Level::L4K);
            if !b.mmu.external().fail_was_reached() {
                assert_eq!(n, 5, "three links and one set can fail");
                break;
            }
            match why {
                HookError::Refused(_) => {
                    assert!(matches!(outcome, Err(MmuError::Hook { .. })), "{outcome:?}")
                }
                HookError::NoMemory => {
                    assert_eq!(outcome, Ok(FaultOutcome::Retry(Retry::ExternalMemory)));
                }
                _ => assert_eq!(outcome, Ok(FaultOutcome::Retry(Retry::ExternalBusy))),
            }
            b.audit();
            assert_eq!(b.mmu.statistics().mirror.leaves_4k, 0);
            b.map(0x12345, 0x45, Level::L4K);
            b.audit();
            b.assert_nothing_lost();
        }
    }
}

#[test]
fn a_fault_that_contradicts_the_external_table_ends_the_td_and_only_it() {
    let mut b = Bench::new();
    b.mmu.external().fail_at(4, HookError::Fatal("gone"), 1);
    let error = b.fault(1, 1, Level::L4K).unwrap_err();
    assert!(error.is_fatal() && b.mmu.is_dead());
    assert!(matches!(b.fault(1, 1, Level::L4K), Err(MmuError::Dead(_))));
    let mut other = Bench::new();
    other.map(1, 1, Level::L4K);
}

#[test]
fn a_fault_without_tables_says_so_and_changes_nothing() {
    let mut b = Bench::new();
    b.mmu.pages().fail_at.store(2, tdvisor_base::sync::Ordering::Relaxed);
    assert_eq!(b.fault(1, 1, Level::L4K), Err(MmuError::NoMemory));
    b.audit();
    b.map(1, 1, Level::L4K);
    b.assert_nothing_lost();
}

#[test]
fn inv_11_a_removal_blocks_each_leaf_tracks_once_and_removes_each() {
    let mut b = Bench::new();
    for gfn in 0..20 {
        b.map(gfn, 100 + gfn, Level::L4K);
    }
    b.mmu.external().take_calls();
    let Ok(Zapped::Complete(count)) = b.zap(4, 14) else { panic!("not removed") };
    assert_eq!(count.mirror.leaves_4k, 10);
    let calls = b.mmu.external().take_calls();
    let expected: Vec<_> = (4..14)
        .map(|g| Call::Block(at(g, Level::L4K)))
        .chain([Call::Track(10)])
        .chain((4..14).map(|g| Call::Remove(at(g, Level::L4K))))
        .collect();
    assert_eq!(calls, expected);
    assert_eq!(b.mapping(3), Some((Level::L4K, Pfn::new(103))));
    assert_eq!(b.mapping(4), None);
    b.audit();
}

#[test]
fn inv_40_a_removal_splits_the_leaves_its_boundaries_cut_and_removes_exactly_the_range() {
    let mut b = Bench::new();
    b.map(GIB, GIB, Level::L1G);
    let Ok(Zapped::Complete(count)) = b.zap(GIB + 5, GIB + 3 * MIB2) else { panic!("not removed") };
    assert_eq!((count.mirror.leaves_4k, count.mirror.leaves_2m), (MIB2 - 5, 2));
    for (gfn, level) in [(0, Level::L4K), (4, Level::L4K), (3 * MIB2, Level::L2M), (GIB - 1, Level::L2M)] {
        assert_eq!(b.mapping(GIB + gfn), Some((level, Pfn::new(GIB + gfn))), "{gfn}");
    }
    assert_eq!(b.mapping(GIB + 5), None);
    assert_eq!(b.mapping(GIB + 3 * MIB2 - 1), None);
    b.audit();
    b.assert_nothing_lost();
}

#[test]
fn a_removal_inside_one_huge_leaf_splits_it_at_both_ends() {
    let mut b = Bench::new();
    b.map(GIB, GIB, Level::L1G);
    b.remove(GIB + 5, GIB + 9);
    assert_eq!(b.mapping(GIB + 4), Some((Level::L4K, Pfn::new(GIB + 4))));
    assert_eq!(b.mapping(GIB + 9), Some((Level::L4K, Pfn::new(GIB + 9))));
    assert_eq!(b.mmu.statistics().mirror.leaves_4k, MIB2 - 4);
    assert_eq!(b.mmu.statistics().mirror.leaves_2m, MIB2 - 1);
    b.audit();
}

/// Maps a 1G leaf and some small ones, runs an operation with its n-th hook refused, and audits.
fn sweep(
    why: HookError<&'static str>,
    operation: impl Fn(&mut Bench) -> Result<bool, MmuError<&'static str>>,
) {
    for n in 1..100_000 {
        let mut b = Bench::new();
        b.map(GIB, GIB, Level::L1G);
        for gfn in 0..8 {
            b.map(gfn, 100 + gfn, Level::L4K);
        }
        // An emptied table, so that the next removal takes it along.
        b.map(2 * GIB, 50, Level::L4K);
        b.remove(2 * GIB, 2 * GIB + 1);
        assert_eq!(b.mmu.emptied_tables(), 1);
        let before = b.mmu.statistics();
        b.mmu.external().fail_at(n, why, 1);
        let result = operation(&mut b);
        let reached = b.mmu.external().fail_was_reached();
        b.audit();
        if let Err(error) = &result {
            assert!(matches!(error, MmuError::Hook { .. }), "call {n}: {error}");
            let (now, was) = (b.mmu.statistics().mirror.frames(), before.mirror.frames());
            assert_eq!(now, was, "call {n}: an error means that nothing was removed");
        }
        if !reached {
            assert_eq!(result, Ok(true), "call {n}");
            return;
        }
        if result != Ok(true) {
            assert_eq!(operation(&mut b), Ok(true), "call {n}: repeating it must succeed");
            b.audit();
        }
        b.assert_nothing_lost();
    }
    panic!("the operation never ends");
}

const RETRYABLE: [HookError<&str>; 3] = [HookError::Busy, HookError::Interrupted, HookError::NoMemory];

#[test]
fn inv_26c_whatever_call_of_a_removal_fails_nothing_stays_blocked_and_repeating_it_succeeds() {
    for why in RETRYABLE {
        sweep(why, |b| b.zap(2, 6).map(|z| matches!(z, Zapped::Complete(_))));
    }
}

#[test]
fn inv_26b_whatever_call_of_a_boundary_split_fails_the_leaf_is_whole_and_usable() {
    for why in RETRYABLE {
        sweep(why, |b| b.zap(GIB + 5, GIB + 9).map(|z| matches!(z, Zapped::Complete(_))));
    }
}

#[test]
fn after_the_first_remove_a_removal_ends_as_partial_with_the_rest_usable() {
    let mut b = Bench::new();
    for gfn in 0..4 {
        b.map(gfn, 100 + gfn, Level::L4K);
    }
    // 4 BLOCK, 1 TRACK, 2 REMOVE, then the third fails.
    b.mmu.external().fail_at(8, HookError::Busy, 1);
    let Ok(Zapped::Partial { done, at: stopped, step, why }) = b.zap(0, 4) else { panic!("not partial") };
    assert_eq!(
        (done.mirror.leaves_4k, stopped, step, why),
        (2, at(2, Level::L4K), Step::Remove, HookError::Busy)
    );
    assert_eq!(b.mapping(1), None);
    assert_eq!(b.mapping(2), Some((Level::L4K, Pfn::new(102))));
    b.audit();
    assert!(matches!(b.zap(0, 4), Ok(Zapped::Complete(_))));
    b.audit();
}

#[test]
fn a_later_round_that_fails_before_its_first_remove_is_still_mapped_from_its_start() {
    let mut b = Bench::with(mirror_ept::Config { batch: 2, ..crate::common::config() });
    for gfn in 0..4 {
        b.map(gfn, 100 + gfn, Level::L4K);
    }
    // Round 1: 2 BLOCK, 1 TRACK, 2 REMOVE. Round 2: the second BLOCK fails, the first is undone.
    b.mmu.external().fail_at(7, HookError::Busy, 1);
    let Ok(Zapped::Partial { done, at: stopped, step, .. }) = b.zap(0, 4) else { panic!("not partial") };
    assert_eq!((done.mirror.leaves_4k, stopped, step), (2, at(2, Level::L4K), Step::Block));
    assert_eq!(b.mapping(1), None);
    for gfn in [2, 3] {
        assert_eq!(b.mapping(gfn), Some((Level::L4K, Pfn::new(100 + gfn))), "frame {gfn} is where it was");
    }
    b.audit();
    assert!(matches!(b.zap(0, 4), Ok(Zapped::Complete(_))));
}

#[test]
fn where_even_unblocking_runs_out_of_its_bound_only_this_td_dies() {
    let mut b = Bench::new();
    b.map(0, 100, Level::L4K);
    b.map(1, 101, Level::L4K);
    b.mmu.external().fail_at(4, HookError::Busy, u64::MAX);
    let error = b.zap(0, 2).unwrap_err();
    assert!(error.is_fatal() && b.mmu.is_dead(), "{error}");
    assert!(matches!(b.fault(9, 9, Level::L4K), Err(MmuError::Dead(_))));
    // Its pages can still be taken apart, each once.
    let mut pages = Vec::new();
    b.mmu.dismantle(&mut b.me.exclusive(), |part| {
        if let mirror_ept::Dismantled::Leaf { pfn, .. } = part {
            pages.push(pfn.get());
        }
    });
    assert_eq!(pages, [100, 101]);
}

#[test]
fn inv_18_undoing_is_tried_within_its_bound_and_no_longer() {
    let mut b = Bench::new();
    let bound = u64::from(b.mmu.config().undo_attempts);
    b.map(0, 100, Level::L4K);
    // BLOCK, TRACK succeed; REMOVE fails, and then UNBLOCK as often as it may without dying.
    b.mmu.external().fail_at(3, HookError::Busy, bound);
    assert!(matches!(b.zap(0, 1), Err(MmuError::Hook { step: Step::Remove, .. })));
    assert!(!b.mmu.is_dead());
    b.audit();
}

#[test]
fn inv_55_an_emptied_table_goes_with_the_next_removal_and_the_range_becomes_huge_again() {
    let mut b = Bench::new();
    for gfn in 0..MIB2 {
        b.map(gfn, MIB2 + gfn, Level::L4K);
    }
    b.map(9 * MIB2, 7, Level::L4K);
    b.remove(0, MIB2);
    assert_eq!(b.mmu.emptied_tables(), 1);
    b.mmu.external().take_calls();
    let Ok(Zapped::Complete(count)) = b.zap(9 * MIB2, 9 * MIB2 + 1) else { panic!("not removed") };
    assert_eq!((count.mirror.leaves_4k, count.mirror.tables), (1, 1));
    assert_eq!(
        b.mmu.external().take_calls(),
        [
            Call::Block(at(9 * MIB2, Level::L4K)),
            Call::Block(at(0, Level::L2M)),
            Call::Track(2),
            Call::Remove(at(9 * MIB2, Level::L4K)),
            Call::Free(at(0, Level::L2M)),
        ]
    );
    b.audit();
    b.map(5, MIB2 + 5, Level::L2M);
    assert_eq!(b.mapping(5), Some((Level::L2M, Pfn::new(MIB2 + 5))));
    b.audit();
    b.assert_nothing_lost();
}

#[test]
fn emptied_tables_can_be_reclaimed_on_their_own_up_to_the_root() {
    let mut b = Bench::new();
    b.map(0, 7, Level::L4K);
    b.remove(0, 1);
    let mut freed = Vec::new();
    loop {
        let count = b.mmu.reclaim_tables(&mut (), &mut b.me.exclusive()).unwrap();
        if count == 0 {
            break;
        }
        freed.push(count);
        b.audit();
    }
    assert_eq!(freed, [1, 1, 1], "2M, 1G and 512G entries, one after the other");
    assert!(b.mmu.external().is_empty());
    b.assert_nothing_lost();
}

#[test]
fn a_table_that_filled_up_again_is_not_reclaimed() {
    let mut b = Bench::new();
    b.map(0, 7, Level::L4K);
    b.remove(0, 1);
    b.map(1, 8, Level::L4K);
    assert_eq!(b.mmu.reclaim_tables(&mut (), &mut b.me.exclusive()), Ok(0));
    assert_eq!(b.mapping(1), Some((Level::L4K, Pfn::new(8))));
    b.audit();
}

#[test]
fn inv_16_dismantling_hands_out_children_before_their_table_and_loses_nothing() {
    let mut b = Bench::new();
    b.map(0, 7, Level::L4K);
    b.map(MIB2, MIB2, Level::L2M);
    b.map(GIB, GIB, Level::L1G);
    let mut order = Vec::new();
    let pages = b.mmu.pages();
    b.mmu.dismantle(&mut b.me.exclusive(), |part| match part {
        mirror_ept::Dismantled::Leaf { at, .. } => order.push(at),
        mirror_ept::Dismantled::Table { at, twin } => {
            order.push(at);
            mirror_ept::TablePages::return_external(pages, twin, mirror_ept::Returned::Removed);
        }
    });
    let expected = [
        at(0, Level::L4K),
        at(0, Level::L2M),
        at(MIB2, Level::L2M),
        at(0, Level::L1G),
        at(GIB, Level::L1G),
        at(0, Level::L512G),
    ];
    assert_eq!(order, expected);
    assert_eq!(b.mmu.statistics(), Default::default());
    b.assert_nothing_lost();
}

#[test]
fn a_range_longer_than_a_batch_is_removed_in_several_rounds() {
    let mut b = Bench::with(mirror_ept::Config { batch: 3, ..crate::common::config() });
    for gfn in 0..8 {
        b.map(gfn, 100 + gfn, Level::L4K);
    }
    b.mmu.external().take_calls();
    let Ok(Zapped::Complete(count)) = b.zap(0, 8) else { panic!("not removed") };
    assert_eq!(count.mirror.leaves_4k, 8);
    let tracks: Vec<_> =
        b.mmu.external().take_calls().into_iter().filter(|c| matches!(c, Call::Track(_))).collect();
    assert_eq!(tracks, [Call::Track(3), Call::Track(3), Call::Track(2)]);
    b.audit();
}
