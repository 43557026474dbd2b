//! Splitting and collapsing private ranges.

use crate::common::{Bench, Call};
use mirror_ept::{
    Collapsed, FaultOutcome, GfnRange, HookError, MappedRange, MmuError, Position, Reserve, SplitOutcome,
    Step,
};
use tdvisor_base::sync::Ordering;
use tdvisor_base::{Gfn, Level, Pfn};

const MIB2: u64 = 512;
const GIB: u64 = 512 * 512;

fn range(start: u64, end: u64) -> GfnRange {
    GfnRange::new(Gfn::new(start), Gfn::new(end))
}

fn split(
    b: &mut Bench,
    of: GfnRange,
    tables: usize,
) -> Result<SplitOutcome<&'static str>, MmuError<&'static str>> {
    b.mmu.top_up(&mut b.cache, Reserve::Mirror(tables))?;
    b.mmu.split_range(&mut (), &mut b.me.exclusive(), &mut b.cache, of, Level::L4K)
}

fn collapse(b: &mut Bench, of: GfnRange, level: Level) -> Result<Collapsed, MmuError<&'static str>> {
    b.mmu.collapse_range(&mut (), &mut b.me.exclusive(), of, level)
}

#[test]
fn inv_26_a_split_keeps_every_translation_and_tracks_once_for_all_leaves() {
    let mut b = Bench::new();
    for i in 0..4 {
        b.map(i * MIB2, GIB + i * MIB2, Level::L2M);
    }
    b.mmu.external().take_calls();
    assert_eq!(split(&mut b, range(0, 3 * MIB2), 3), Ok(SplitOutcome::Complete(3)));
    let calls = b.mmu.external().take_calls();
    let count = |f: fn(&Call) -> bool| calls.iter().filter(|c| f(c)).count();
    assert_eq!(count(|c| matches!(c, Call::Block(_))), 3);
    assert_eq!(count(|c| matches!(c, Call::Track(3))), 1);
    assert_eq!(count(|c| matches!(c, Call::Split(_))), 3);
    assert_eq!(calls.len(), 7);
    for gfn in 0..4 * MIB2 {
        let level = if gfn < 3 * MIB2 { Level::L4K } else { Level::L2M };
        assert_eq!(b.mapping(gfn), Some((level, Pfn::new(GIB + gfn))));
    }
    b.audit();
    b.assert_nothing_lost();
}

#[test]
fn a_split_goes_from_1g_through_2m_to_4k() {
    let mut b = Bench::new();
    b.map(GIB, GIB, Level::L1G);
    assert_eq!(split(&mut b, range(GIB + 3, GIB + 4), 2), Ok(SplitOutcome::Complete(2)));
    assert_eq!(b.mapping(GIB + 3), Some((Level::L4K, Pfn::new(GIB + 3))));
    assert_eq!(b.mapping(GIB + MIB2), Some((Level::L2M, Pfn::new(GIB + MIB2))));
    b.audit();
}

#[test]
fn a_split_that_runs_out_of_tables_says_how_far_it_came_and_goes_on_when_repeated() {
    let mut b = Bench::new();
    for i in 0..12 {
        b.map(i * MIB2, GIB + i * MIB2, Level::L2M);
    }
    b.mmu.release(&mut b.cache);
    assert_eq!(split(&mut b, range(0, 12 * MIB2), 9), Ok(SplitOutcome::NeedTables(9)));
    b.audit();
    assert_eq!(split(&mut b, range(0, 12 * MIB2), 9), Ok(SplitOutcome::Complete(3)));
    b.audit();
    b.assert_nothing_lost();
}

#[test]
fn inv_57_a_twin_that_a_failed_split_may_have_scribbled_on_goes_back_as_such() {
    let mut b = Bench::new();
    b.map(0, MIB2, Level::L2M);
    b.mmu.external().fail_at(3, HookError::Interrupted, 1);
    let error = split(&mut b, range(0, MIB2), 1).unwrap_err();
    assert!(matches!(error, MmuError::Hook { step: Step::Split, why: HookError::Interrupted, .. }));
    assert_eq!(b.mmu.pages().scribbled.load(Ordering::Relaxed), 1);
    assert_eq!(b.mapping(9), Some((Level::L2M, Pfn::new(MIB2 + 9))));
    b.audit();
    assert_eq!(split(&mut b, range(0, MIB2), 1), Ok(SplitOutcome::Complete(1)));
    b.audit();
    b.assert_nothing_lost();
}

#[test]
fn inv_26b_whatever_call_of_a_split_or_collapse_fails_every_leaf_is_usable_and_repeating_succeeds() {
    for why in [HookError::Busy, HookError::Interrupted, HookError::NoMemory] {
        for n in 1.. {
            let mut b = Bench::new();
            for i in 0..3 {
                b.map(i * MIB2, GIB + i * MIB2, Level::L2M);
            }
            b.mmu.external().fail_at(n, why, 1);
            let first = split(&mut b, range(0, 3 * MIB2), 3);
            b.audit();
            if !matches!(first, Ok(SplitOutcome::Complete(_))) {
                let again = split(&mut b, range(0, 3 * MIB2), 3);
                assert!(matches!(again, Ok(SplitOutcome::Complete(_))), "call {n}: {again:?}");
            }
            b.audit();
            if collapse(&mut b, range(0, 3 * MIB2), Level::L2M).is_err() {
                b.audit();
                collapse(&mut b, range(0, 3 * MIB2), Level::L2M).expect("repeating it must succeed");
            }
            b.audit();
            assert_eq!(b.mmu.statistics().mirror.leaves_2m, 3, "call {n}");
            b.assert_nothing_lost();
            if !b.mmu.external().fail_was_reached() {
                break;
            }
        }
    }
}

#[test]
fn a_uniform_range_collapses_with_one_track_for_all_tables() {
    let mut b = Bench::new();
    for gfn in 0..2 * MIB2 {
        b.map(gfn, GIB + gfn, Level::L4K);
    }
    b.mmu.external().take_calls();
    assert_eq!(
        collapse(&mut b, range(0, 3 * MIB2), Level::L2M),
        Ok(Collapsed { merged: 2, ..Default::default() })
    );
    let at = |gfn| Position::of(Gfn::new(gfn), Level::L2M);
    assert_eq!(
        b.mmu.external().take_calls(),
        [
            Call::Block(at(0)),
            Call::Block(at(MIB2)),
            Call::Track(2),
            Call::Promote(at(0)),
            Call::Promote(at(MIB2))
        ]
    );
    assert_eq!(b.mapping(MIB2 + 3), Some((Level::L2M, Pfn::new(GIB + MIB2 + 3))));
    b.audit();
    b.assert_nothing_lost();
}

#[test]
fn a_whole_gigabyte_collapses_in_two_steps() {
    let mut b = Bench::new();
    b.map(GIB, GIB, Level::L1G);
    assert_eq!(split(&mut b, range(GIB, GIB + 1), 2), Ok(SplitOutcome::Complete(2)));
    assert_eq!(collapse(&mut b, range(GIB, 2 * GIB), Level::L1G).unwrap().merged, 0, "one part is still 4K");
    assert_eq!(collapse(&mut b, range(GIB, 2 * GIB), Level::L2M).unwrap().merged, 1);
    assert_eq!(collapse(&mut b, range(GIB, 2 * GIB), Level::L1G).unwrap().merged, 1);
    assert_eq!(b.mapping(2 * GIB - 1), Some((Level::L1G, Pfn::new(2 * GIB - 1))));
    b.audit();
    b.assert_nothing_lost();
}

#[test]
fn what_is_not_contiguous_aligned_or_complete_is_left_alone_without_a_hook() {
    let mut b = Bench::new();
    for gfn in 0..MIB2 {
        b.map(gfn, GIB + 1 + gfn, Level::L4K);
    }
    for gfn in 0..MIB2 - 1 {
        b.map(MIB2 + gfn, 3 * GIB + gfn, Level::L4K);
    }
    b.mmu.external().take_calls();
    assert_eq!(collapse(&mut b, range(0, 4 * MIB2), Level::L2M), Ok(Collapsed::default()));
    assert_eq!(collapse(&mut b, range(1, MIB2), Level::L2M), Ok(Collapsed::default()));
    assert_eq!(b.mmu.external().take_calls(), []);
    let level = Level::L4K;
    assert!(matches!(collapse(&mut b, range(0, 1), level), Err(MmuError::NotApplicable(_))));
}

#[test]
fn children_the_external_side_finds_not_uniform_stay_small_and_usable() {
    let mut b = Bench::new();
    for gfn in 0..2 * MIB2 {
        b.map(gfn, GIB + gfn, Level::L4K);
    }
    // 2 BLOCK, 1 TRACK, then the first PROMOTE is refused.
    b.mmu.external().fail_at(4, HookError::Refused("mixed"), 1);
    let result = collapse(&mut b, range(0, 2 * MIB2), Level::L2M).unwrap();
    assert_eq!((result.merged, result.refused), (1, 1));
    assert_eq!(b.mapping(0), Some((Level::L4K, Pfn::new(GIB))));
    b.audit();
    b.assert_nothing_lost();
}

#[test]
fn inv_26f_the_guests_wish_for_small_pages_holds_until_it_is_taken_back() {
    let mut b = Bench::new();
    b.map(0, GIB, Level::L2M);
    let gfn = Gfn::new(5);
    assert_eq!(b.mmu.inhibit_huge(&mut b.me.exclusive(), gfn, Level::L2M), Ok(false), "a 2M leaf is there");
    assert_eq!(b.fault(5, GIB + 5, Level::L4K), Ok(FaultOutcome::NeedsSplit(Level::L2M)));
    assert_eq!(split(&mut b, range(5, 6), 1), Ok(SplitOutcome::Complete(1)));
    assert_eq!(b.mmu.inhibit_huge(&mut b.me.exclusive(), gfn, Level::L2M), Ok(true));
    assert!(b.mmu.is_inhibited(&b.me.shared(), gfn, Level::L2M));
    assert_eq!(collapse(&mut b, range(0, MIB2), Level::L2M).unwrap().inhibited, 1);
    b.audit();
    assert_eq!(b.mmu.allow_huge(&mut b.me.exclusive(), gfn, Level::L2M), Ok(true));
    assert_eq!(collapse(&mut b, range(0, MIB2), Level::L2M).unwrap().merged, 1);
    b.audit();
}

fn map_range(
    b: &mut Bench,
    of: GfnRange,
    pfn: u64,
    tables: usize,
) -> Result<MappedRange<&'static str>, MmuError<&'static str>> {
    b.mmu.top_up(&mut b.cache, Reserve::Mirror(tables))?;
    b.mmu.map_private_range(&mut (), &mut b.me.exclusive(), &mut b.cache, of, Pfn::new(pfn), Level::L2M)
}

#[test]
fn a_range_is_mapped_with_the_largest_leaves_that_fit_and_skips_what_is_mapped() {
    let mut b = Bench::new();
    b.map(MIB2 + 3, GIB + MIB2 + 3, Level::L4K);
    let leaves = 510 + 511 + 2 + 7;
    assert_eq!(map_range(&mut b, range(2, 4 * MIB2 + 7), GIB + 2, 8), Ok(MappedRange::Complete(leaves)));
    for (gfn, level) in
        [(2, Level::L4K), (MIB2, Level::L4K), (2 * MIB2, Level::L2M), (4 * MIB2 + 6, Level::L4K)]
    {
        assert_eq!(b.mapping(gfn), Some((level, Pfn::new(GIB + gfn))), "{gfn}");
    }
    assert_eq!((b.mapping(1), b.mapping(4 * MIB2 + 7)), (None, None));
    b.audit();
    b.assert_nothing_lost();
}

#[test]
fn a_range_mapping_that_meets_another_page_stops_there() {
    let mut b = Bench::new();
    b.map(5, 7, Level::L4K);
    let (mapped, wanted) = (Pfn::new(7), Pfn::new(GIB + 5));
    let at = Position::of(Gfn::new(5), Level::L4K);
    let error = map_range(&mut b, range(0, 10), GIB, 4).unwrap_err();
    assert_eq!(error, MmuError::PfnMismatch { at, mapped, wanted });
    assert_eq!(b.mapping(4), Some((Level::L4K, Pfn::new(GIB + 4))));
    b.audit();
}

#[test]
fn inv_07_whatever_call_of_a_range_mapping_fails_both_tables_agree_and_it_can_go_on() {
    for why in [HookError::Busy, HookError::Interrupted, HookError::NoMemory] {
        for n in 1.. {
            let mut b = Bench::new();
            b.mmu.external().fail_at(n, why, 1);
            let (mut next, mut leaves) = (510, 0);
            loop {
                let all = range(next, 2 * MIB2 + 3);
                match map_range(&mut b, all, GIB + next, 5).unwrap() {
                    MappedRange::Complete(more) => {
                        leaves += more;
                        break;
                    }
                    MappedRange::NeedTables { leaves: more, next: from }
                    | MappedRange::Stopped { leaves: more, next: from, .. } => {
                        leaves += more;
                        next = from.get();
                        b.audit();
                    }
                }
            }
            assert_eq!(leaves, 2 + 1 + 3, "call {n}");
            b.audit();
            b.assert_nothing_lost();
            if !b.mmu.external().fail_was_reached() {
                break;
            }
        }
    }
}
