//! Leaves on their way to another machine, and leaves that arrive from one.

use crate::common::{Bench, Call};
use mirror_ept::{
    ArrivingLeaf, FaultOutcome, GfnRange, HookError, MmuError, Position, Reserve, Retry, Standing,
    StandingCounts,
};
use tdvisor_base::{Gfn, Level, Pfn};

fn at(gfn: u64) -> Position {
    Position::of(Gfn::new(gfn), Level::L4K)
}

fn range(start: u64, end: u64) -> GfnRange {
    GfnRange::new(Gfn::new(start), Gfn::new(end))
}

/// Has every leaf of a range that is wanted stand elsewhere, on both sides; gives the frames.
fn stand(
    b: &mut Bench,
    frames: GfnRange,
    wanted: impl Fn(Standing) -> bool + Copy,
    to: impl Fn(Standing) -> Standing,
) -> Vec<u64> {
    let mut seen = Vec::new();
    let mut from = frames.start();
    let mut guard = b.me.exclusive();
    let model = b.mmu.external();
    loop {
        let rest = GfnRange::new(from, frames.end());
        let step = b.mmu.change_standings(&mut guard, rest, 3, wanted, |leaves| {
            for leaf in leaves.iter_mut() {
                leaf.standing = to(leaf.standing);
                model.stand(at(leaf.gfn.get()), leaf.standing);
                seen.push(leaf.gfn.get());
            }
        });
        from = step.unwrap().next;
        if from >= frames.end() {
            return seen;
        }
    }
}

fn counts(b: &mut Bench) -> StandingCounts {
    let mut guard = b.me.exclusive();
    b.mmu.standings(&mut guard).unwrap()
}

/// Pages 100 to 107 are mapped, at the frames with the same numbers.
fn bench() -> Bench {
    let mut b = Bench::new();
    for frame in 100..108 {
        b.map(frame, frame, Level::L4K);
    }
    b.mmu.external().take_calls();
    b
}

#[test]
fn inv_58_what_is_due_is_what_was_written_and_nothing_is_forgotten() {
    let mut b = bench();
    let all = range(0, 1000);
    assert_eq!(stand(&mut b, all, Standing::may_change, Standing::held), (100..108).collect::<Vec<_>>());
    assert_eq!(counts(&mut b), StandingCounts { held: 8, ..StandingCounts::default() });
    b.audit();
    // One is written before it was sent, and is not held any more.
    assert_eq!(b.fault(103, 103, Level::L4K), Ok(FaultOutcome::Restored(Level::L4K)));
    assert_eq!(b.mmu.external().take_calls(), [Call::Release(at(103))]);
    let sent = stand(&mut b, all, |s| s == Standing::Held, |_| Standing::Sent);
    assert_eq!(sent, [100, 101, 102, 104, 105, 106, 107]);
    // Two are written after they were sent.
    for frame in [100, 107] {
        assert_eq!(b.fault(frame, frame, Level::L4K), Ok(FaultOutcome::Restored(Level::L4K)));
        assert_eq!(b.fault(frame, frame, Level::L4K), Ok(FaultOutcome::Spurious(Level::L4K)));
    }
    b.map(108, 108, Level::L4K);
    assert_eq!(counts(&mut b), StandingCounts { plain: 2, sent: 5, dirty: 2, held: 0 });
    let due = stand(&mut b, all, Standing::is_due, |_| Standing::Sent);
    assert_eq!(due, [100, 103, 107, 108]);
    assert_eq!(counts(&mut b).due(), 0);
    b.audit();
    let back = stand(&mut b, all, |s| s != Standing::Plain, |_| Standing::Plain);
    assert_eq!(back.len(), 9);
    b.audit();
    b.remove(100, 109);
    b.assert_nothing_lost();
}

#[test]
fn inv_58_a_release_that_fails_leaves_the_page_held_and_repeating_it_succeeds() {
    let mut b = bench();
    stand(&mut b, range(0, 1000), Standing::may_change, Standing::held);
    b.mmu.external().fail_at(1, HookError::Busy, 1);
    assert_eq!(b.fault(100, 100, Level::L4K), Ok(FaultOutcome::Retry(Retry::ExternalBusy)));
    assert_eq!(counts(&mut b).held, 8);
    b.audit();
    assert_eq!(b.fault(100, 100, Level::L4K), Ok(FaultOutcome::Restored(Level::L4K)));
    assert_eq!(counts(&mut b), StandingCounts { plain: 1, held: 7, ..StandingCounts::default() });
    b.audit();
}

#[test]
fn inv_58_a_leaf_that_stands_elsewhere_in_the_external_table_is_found() {
    let mut b = bench();
    b.mmu.external().stand(at(101), Standing::Sent);
    let mut guard = b.me.exclusive();
    let found = b.mmu.audit(&mut guard, b.mmu.external()).unwrap_err();
    assert_eq!((found.invariant, found.at), (58, Some(at(101))));
}

#[test]
fn pages_under_way_are_not_merged_until_they_are_back() {
    let mut b = Bench::new();
    for frame in 512..1024 {
        b.map(frame, frame, Level::L4K);
    }
    let table = range(512, 1024);
    stand(&mut b, range(700, 701), Standing::may_change, Standing::held);
    let merged = |b: &mut Bench| {
        let mut guard = b.me.exclusive();
        b.mmu.collapse_range(&mut (), &mut guard, table, Level::L2M).unwrap().merged
    };
    assert_eq!(merged(&mut b), 0);
    stand(&mut b, table, |s| s == Standing::Held, |_| Standing::Plain);
    assert_eq!(merged(&mut b), 1);
    let mut guard = b.me.exclusive();
    let huge = b.mmu.change_standings(&mut guard, table, 3, |_| true, |_| ());
    assert!(matches!(huge, Err(MmuError::NotApplicable(_))), "{huge:?}");
    drop(guard);
    b.audit();
}

fn new(gfn: u64) -> ArrivingLeaf {
    ArrivingLeaf { gfn: Gfn::new(gfn), new: Some(Pfn::new(gfn)), taken: false }
}

fn again(gfn: u64) -> ArrivingLeaf {
    ArrivingLeaf { gfn: Gfn::new(gfn), new: None, taken: false }
}

fn link(b: &mut Bench, gfn: u64) {
    b.mmu.top_up(&mut b.cache, Reserve::PRIVATE).unwrap();
    let linked = b.mmu.link_down(&mut (), &b.me.shared(), &mut b.cache, Gfn::new(gfn));
    assert_eq!(linked, Ok(None));
}

#[test]
fn what_arrives_is_mapped_exactly_if_the_external_side_took_it() {
    let mut b = bench();
    link(&mut b, 200);
    let mut list = [again(104), new(200), new(201), new(202)];
    let mut guard = b.me.exclusive();
    let model = b.mmu.external();
    // The third is refused, and with it the rest.
    b.mmu
        .arrive(&mut guard, &mut list, |list| {
            for leaf in &mut list[..2] {
                if let Some(pfn) = leaf.new {
                    model.take(at(leaf.gfn.get()), pfn);
                }
                leaf.taken = true;
            }
        })
        .unwrap();
    drop(guard);
    assert_eq!(b.mapping(200), Some((Level::L4K, Pfn::new(200))));
    assert_eq!((b.mapping(201), b.mapping(202)), (None, None));
    assert_eq!(b.mapping(104), Some((Level::L4K, Pfn::new(104))));
    b.audit();
    b.remove(100, 300);
    b.assert_nothing_lost();
}

#[test]
fn a_list_that_cannot_be_is_refused_before_anything_of_it_is_taken() {
    let mut b = bench();
    link(&mut b, 200);
    for list in [
        vec![new(200), new(200)],
        vec![new(200), new(104)],
        vec![new(200), again(201)],
        vec![new(200), again(100), again(100)],
        // No table reaches there.
        vec![new(200), new(512 * 512 * 3)],
        vec![new(200), new(u64::MAX >> 12)],
    ] {
        let mut guard = b.me.exclusive();
        let mut given = list.clone();
        let refused = b.mmu.arrive(&mut guard, &mut given, |_| panic!("the hook was called for {list:?}"));
        assert!(matches!(refused, Err(MmuError::NotApplicable(_) | MmuError::OutOfRange(_))), "{list:?}");
        drop(guard);
        b.audit();
        assert_eq!(b.mapping(200), None);
    }
}
