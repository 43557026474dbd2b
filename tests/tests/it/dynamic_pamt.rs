//! A module with dynamic PAMT (release 2.0): entries for 4 KiB pages exist only where there are such pages.

use crate::memory::{
    Belongings, EmulatedHost, EmulatedSeat, EmulatedTd, SEAT, calls_of, convert, frames, host_on,
    module_maps, td_with_vcpus, touch, try_td,
};
use seam_emu::ModuleProfile;
use seam_emu::inject::{Chaos, Effect, FaultPlan, Leaf, Rule, Target};
use td_host::Error;
use td_host::memory::{Converted, Reached, Resolution};
use td_host::retry::Bound;
use tdvisor_base::{Gfn, Level, Side};
use tdx_module_iface::{Operand, Status, StatusCode, TdhLeaf};

const MIB: u64 = 1 << 20;

fn gfn(frame: u64) -> Gfn {
    frames(frame, 1).start()
}

/// Pages that are counted, of all ranges together.
fn counted(host: &EmulatedHost) -> u64 {
    host.pamt_ranges().values().map(|pages| u64::from(*pages)).sum()
}

/// Every range that has entries has a page that needs them, and nothing else is in the way of huge pages.
fn pairs_are_where_pages_are(host: &EmulatedHost) {
    assert!(host.pamt_ranges().values().all(|pages| *pages > 0), "{:?}", host.pamt_ranges());
}

fn with_td(test: impl for<'h> FnOnce(&'h EmulatedHost, &EmulatedTd<'h>, &mut EmulatedSeat<'_, 'h>)) {
    let host = host_on(ModuleProfile::V2_0, 128 * MIB);
    let before = Belongings::of(&host);
    assert_eq!(counted(&host), 0, "a module without TDs needs no entries");
    let td = td_with_vcpus(&host, 16 * MIB, Level::L2M, 2);
    assert!(counted(&host) > 0, "control pages, tables and the image are there");
    let mut seat = td.memory().take_seat(SEAT).unwrap();
    test(&host, &td, &mut seat);
    drop(seat);
    td.audit().expect("mirror, Secure EPT and PAMT agree");
    assert_eq!(host.platform().machine().audit(), [], "the module's own records agree");
    pairs_are_where_pages_are(&host);
    assert!(td.teardown().is_clean());
    assert_eq!(host.pamt_ranges(), Default::default(), "the last page of each range took its entries along");
    assert_eq!(Belongings::of(&host), before, "pages were lost, of PAMTs or others");
    assert_eq!(host.platform().violations(), []);
}

#[test]
fn inv_20_a_range_counts_its_small_pages_and_a_huge_page_counts_nothing() {
    with_td(|host, td, seat| {
        let before = counted(host);
        // Its table is there already: the first 2 MiB of the tests' memory share theirs with the image's.
        touch(seat, gfn(0), Level::L2M);
        assert_eq!(counted(host), before);
        let tables = td.memory().statistics().mirror.tables;
        touch(seat, gfn(512), Level::L4K);
        let tables = td.memory().statistics().mirror.tables - tables;
        assert_eq!(counted(host), before + 1 + tables);
        convert(seat, frames(512, 1), Side::Shared);
        assert_eq!(counted(host), before + tables);
        convert(seat, frames(0, 512), Side::Shared);
        assert_eq!(td.memory().statistics().mirror.leaves_2m, 0);
        td.memory().reclaim_tables(seat).unwrap();
        assert_eq!(counted(host), before);
    });
}

#[test]
fn inv_21_entries_come_with_the_first_page_of_a_range_and_go_with_the_last() {
    with_td(|host, _, seat| {
        // Frames that lie in one folio, so that their pages lie in one range.
        let (calls, _) = calls_of(host, || {
            for i in 0..8 {
                touch(seat, gfn(512 + i), Level::L4K);
            }
        });
        assert!(calls.of("PHYMEM.PAMT.ADD") <= 2, "once for the folio, once at most for the table");
        assert!(calls.of("PHYMEM.PAMT.ADD") >= 1);
        let (calls, ()) = calls_of(host, || convert(seat, frames(512, 7), Side::Shared));
        assert_eq!(calls.of("PHYMEM.PAMT.REMOVE"), 0, "one page is left");
        let (calls, ()) = calls_of(host, || convert(seat, frames(519, 1), Side::Shared));
        assert_eq!(calls.of("PHYMEM.PAMT.REMOVE"), 1);
    });
}

#[test]
fn inv_22_a_demotion_counts_512_pages_and_a_promotion_takes_them_away() {
    with_td(|host, td, seat| {
        touch(seat, gfn(0), Level::L2M);
        let whole = host.pamt_ranges();
        let (calls, cut) = calls_of(host, || td.memory().convert(seat, frames(9, 1), Side::Shared));
        assert_eq!(cut, Ok(Converted::All));
        assert_eq!(calls.of("MEM.PAGE.DEMOTE"), 1);
        let total: u32 = whole.values().sum();
        assert_eq!(counted(host), u64::from(total) + 511 + 1, "511 pages and their table");
        convert(seat, frames(9, 1), Side::Private);
        touch(seat, gfn(9), Level::L4K);
        assert_eq!(td.memory().collapse(seat, frames(0, 512)).unwrap().merged, 1);
        assert_eq!(host.pamt_ranges(), whole);
        assert_eq!(module_maps(seat, td, gfn(0)), Some(Level::L2M));
    });
}

#[test]
fn inv_23_no_count_moves_when_a_call_fails() {
    with_td(|host, td, seat| {
        touch(seat, gfn(0), Level::L2M);
        let busy = Status::with_operand(StatusCode::OPERAND_BUSY, Operand::SEPT_TREE);
        let fail = |leaf, attempts: u64, status| {
            let target = Target { leaf: Some(Leaf::Host(leaf)), lp: None };
            let rule = Rule { target, nth: 1..=attempts, effect: Effect::Return(status) };
            host.platform().machine().faults().set_plan(FaultPlan::default().with(rule));
        };
        let long = 1 + u64::from(Bound::WITHOUT_VCPUS.0);
        // A table is at hand, so that only the page itself is in question.
        touch(seat, gfn(512), Level::L4K);
        let before = host.pamt_ranges();
        for leaf in [TdhLeaf::MEM_PAGE_AUG, TdhLeaf::MEM_SEPT_ADD] {
            let mut turns = 0;
            let once = || {
                turns += 1;
                turns > 1
            };
            fail(leaf, Bound::BESIDE_VCPUS.0.into(), busy);
            let at = if leaf == TdhLeaf::MEM_PAGE_AUG { gfn(513) } else { gfn(1024) };
            let got = td.memory().private_fault(seat, at, Level::L4K, once);
            assert_eq!(got, Ok(Resolution::Interrupted), "{leaf}");
            assert_eq!(host.pamt_ranges(), before, "{leaf}");
        }
        fail(TdhLeaf::MEM_PAGE_DEMOTE, long, busy);
        let cut = td.memory().convert(seat, frames(100, 1), Side::Shared);
        assert_eq!(cut, Ok(Converted::Upto(gfn(100))));
        assert_eq!(host.pamt_ranges(), before, "a demotion that failed");
        fail(TdhLeaf::MEM_PAGE_REMOVE, long, busy);
        let kept = td.memory().convert(seat, frames(512, 1), Side::Shared);
        assert_eq!(kept, Ok(Converted::Upto(gfn(512))));
        assert_eq!(host.pamt_ranges(), before, "a removal that failed");
        host.platform().machine().faults().set_plan(FaultPlan::default());
        td.audit().unwrap();
    });
}

#[test]
fn inv_24_two_tds_use_pages_of_one_range_at_once_and_neither_finds_its_entries_gone() {
    let host = host_on(ModuleProfile::V2_0, 192 * MIB);
    let before = Belongings::of(&host);
    // Small folios, which both TDs take from the same ranges in turn.
    let tds = [0, 1].map(|_| td_with_vcpus(&host, 8 * MIB, Level::L4K, 1));
    std::thread::scope(|scope| {
        for (td, lp) in tds.iter().zip([3, 4]) {
            scope.spawn(move || {
                let mut seat = td.memory().take_seat(td_host::platform::LpId(lp)).unwrap();
                for round in 0..60 {
                    for i in 0..8 {
                        touch(&mut seat, gfn(round * 8 + i), Level::L4K);
                    }
                    let hole = frames(round * 8, 8);
                    assert_eq!(td.memory().punch_hole(&mut seat, hole), Ok(Reached::All));
                }
            });
        }
    });
    pairs_are_where_pages_are(&host);
    for td in tds {
        td.audit().unwrap();
        assert!(td.teardown().is_clean());
    }
    assert_eq!(Belongings::of(&host), before);
    assert_eq!(host.platform().violations(), []);
}

#[test]
fn inv_25_the_locks_of_ranges_are_taken_last() {
    // A range's lock is taken inside a hook, under the MMU lock and the seat's; below it only the allocator is
    // used. So two threads that hold different MMU locks cannot wait for each other: the test before this one
    // would hang. Here: a range whose pages and tables are all in one place comes and goes under one seat.
    with_td(|host, td, seat| {
        for _ in 0..20 {
            touch(seat, gfn(1024), Level::L2M);
            assert_eq!(td.memory().punch_hole(seat, frames(1024 + 5, 3)), Ok(Reached::All));
            assert_eq!(td.memory().punch_hole(seat, frames(1024, 512)), Ok(Reached::All));
            td.memory().reclaim_tables(seat).unwrap();
        }
        pairs_are_where_pages_are(host);
    });
}

#[test]
fn a_build_whose_nth_allocation_fails_leaves_no_entries_behind() {
    let host = host_on(ModuleProfile::V2_0, 96 * MIB);
    let before = Belongings::of(&host);
    let mut nth = 1;
    loop {
        host.platform().fail_allocation(nth);
        let built = try_td(&host, 0, Level::L2M, 1);
        let failed = host.platform().end_failures();
        match built {
            Ok(td) => assert!(td.teardown().is_clean()),
            Err(error) => assert_eq!((error, failed), (Error::NoMemory, true), "allocation {nth}"),
        }
        assert_eq!(host.pamt_ranges(), Default::default(), "allocation {nth}");
        assert_eq!(Belongings::of(&host), before, "allocation {nth}");
        if !failed {
            break;
        }
        nth += 1;
    }
    assert!(nth > 20);
}

#[test]
fn transient_refusals_of_the_module_move_no_count() {
    with_td(|host, td, seat| {
        let chaos = Some(Chaos { seed: 9, one_in: 8 });
        host.platform().machine().faults().set_plan(FaultPlan { chaos, ..FaultPlan::default() });
        for i in 0..300u64 {
            touch(seat, gfn(i * 37 % 4096), if i % 3 == 0 { Level::L4K } else { Level::L2M });
            let to = if i % 2 == 0 { Side::Shared } else { Side::Private };
            convert(seat, frames(i * 91 % 4000, 1 + i % 90), to);
        }
        host.platform().machine().faults().set_plan(FaultPlan::default());
        td.audit().unwrap();
        pairs_are_where_pages_are(host);
    });
}
