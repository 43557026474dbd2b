//! Every SEAMCALL of a fault, a conversion and a build fails once, and so does every allocation: the 1st, the
//! 2nd, ... the n-th.
//!
//! A call stays busy beyond the bound of its retries, so the hook reports a failure. After each the audit holds,
//! what is mapped agrees with the attributes, and the operation succeeds when it is repeated.

use mirror_ept::{Access, GfnRange};
use seam_emu::inject::{Effect, FaultPlan, Leaf, Rule, Target};
use td_host::Error;
use td_host::memory::{Converted, HugeShared, Resolution};
use td_host::retry::Bound;
use tdvisor_base::{Gfn, Level, Side};
use tdx_module_iface::{Operand, Status, StatusCode, TdhLeaf};

use crate::memory::{
    Belongings, EmulatedSeat, EmulatedTd, SEAT, calls_of, convert, frames, host, module_maps, td, touch,
    try_td,
};

/// Cuts two huge pages, takes one whole, takes small ones, and frees a table that was emptied before.
fn range() -> GfnRange {
    frames(504, 2 * 512 + 16)
}

fn conversion_survives(leaf: TdhLeaf, status: Status) {
    let host = host(192 << 20);
    let before = Belongings::of(&host);
    let faults = |plan| host.platform().machine().faults().set_plan(plan);
    let mut nth = 1;
    loop {
        let td = td(&host, 16 << 20, Level::L2M);
        let mut seat = td.memory().take_seat(SEAT).expect("a processor is free");
        // A table to ride along.
        touch(&mut seat, frames(6 * 512, 1).start(), Level::L4K);
        convert(&mut seat, frames(6 * 512, 1), Side::Shared);
        for huge in [0, 512, 3 * 512] {
            touch(&mut seat, frames(huge, 1).start(), Level::L2M);
        }
        for small in 0..3 {
            touch(&mut seat, frames(2 * 512 + small, 1).start(), Level::L4K);
        }
        // The call and all that follow it in its hook.
        let calls = nth..=nth + u64::from(Bound::WITHOUT_VCPUS.0);
        let target = Target { leaf: Some(Leaf::Host(leaf)), lp: None };
        faults(FaultPlan::default().with(Rule { target, nth: calls, effect: Effect::Return(status) }));
        let (calls, first) = calls_of(&host, || td.memory().convert(&mut seat, range(), Side::Shared));
        faults(FaultPlan::default());
        let first = first.unwrap_or_else(|error| panic!("failure {nth} of {leaf} ended the TD: {error}"));
        td.audit().unwrap_or_else(|error| panic!("audit after failure {nth} of {leaf}: {error}"));
        let name = leaf.to_string();
        let failed = calls.of(name.trim_start_matches("TDH.")) > u64::from(Bound::WITHOUT_VCPUS.0);
        for i in 0..4 * 512 {
            let gfn = frames(i, 1).start();
            let private = td.memory().attribute(gfn) == Some(Side::Private);
            let touched = i / 512 != 2 || i % 512 < 3;
            let mapped = module_maps(&mut seat, &td, gfn).is_some();
            assert_eq!(mapped, private && touched, "frame {gfn} after failure {nth} of {leaf}: {first:?}");
        }
        if first != Converted::All {
            convert(&mut seat, range(), Side::Shared);
            td.audit().unwrap_or_else(|error| panic!("audit of the repeated conversion: {error}"));
        }
        drop(seat);
        assert!(td.teardown().is_clean());
        if !failed {
            break;
        }
        nth += 1;
    }
    assert!(nth > 1, "the conversion never calls {leaf}");
    assert_eq!(Belongings::of(&host), before);
    assert_eq!(host.platform().violations(), []);
}

fn busy() -> Status {
    Status::with_operand(StatusCode::OPERAND_BUSY, Operand::SEPT_TREE)
}

#[test]
fn a_conversion_survives_each_block_staying_busy() {
    conversion_survives(TdhLeaf::MEM_RANGE_BLOCK, busy());
}

#[test]
fn a_conversion_survives_each_track_staying_busy() {
    conversion_survives(TdhLeaf::MEM_TRACK, Status::new(StatusCode::PREVIOUS_TLB_EPOCH_BUSY));
}

#[test]
fn a_conversion_survives_each_removal_staying_busy() {
    conversion_survives(TdhLeaf::MEM_PAGE_REMOVE, busy());
    conversion_survives(TdhLeaf::MEM_SEPT_REMOVE, busy());
}

#[test]
fn a_conversion_survives_each_demotion_being_interrupted_or_busy() {
    conversion_survives(TdhLeaf::MEM_PAGE_DEMOTE, Status::new(StatusCode::INTERRUPTED_RESTARTABLE));
    conversion_survives(TdhLeaf::MEM_PAGE_DEMOTE, busy());
}

/// A call that stays busy for longer than a hook tries beside running vCPUs.
fn busy_beside_vcpus(leaf: TdhLeaf, nth: u64) -> FaultPlan {
    let target = Target { leaf: Some(Leaf::Host(leaf)), lp: None };
    let calls = nth..=nth - 1 + u64::from(Bound::BESIDE_VCPUS.0);
    FaultPlan::default().with(Rule { target, nth: calls, effect: Effect::Return(busy()) })
}

fn fault_survives(leaf: TdhLeaf, least: u64) {
    let host = host(192 << 20);
    let before = Belongings::of(&host);
    let faults = |plan| host.platform().machine().faults().set_plan(plan);
    let mut nth = 1;
    loop {
        let td = td(&host, 16 << 20, Level::L2M);
        let mut seat = td.memory().take_seat(SEAT).expect("a processor is free");
        // Far away, so that tables are needed at every level.
        let slot = GfnRange::at(Gfn::new(1 << 30), 512).expect("an address");
        td.memory().add_slot(&mut seat, slot).expect("a slot is added");
        let mapped = td.memory().statistics();
        faults(busy_beside_vcpus(leaf, nth));
        let mut turns = 0;
        let once = || {
            turns += 1;
            turns > 1
        };
        let got = td.memory().private_fault(&mut seat, slot.start(), Level::L4K, once);
        faults(FaultPlan::default());
        let failed = got == Ok(Resolution::Interrupted);
        td.audit().unwrap_or_else(|error| panic!("audit after failure {nth} of {leaf}: {error}"));
        if failed {
            assert_eq!(module_maps(&mut seat, &td, slot.start()), None);
            assert_eq!(td.memory().statistics().mirror.leaves_4k, mapped.mirror.leaves_4k);
        }
        assert_eq!(touch(&mut seat, slot.start(), Level::L4K), Resolution::Mapped(Level::L4K));
        td.audit().unwrap_or_else(|error| panic!("audit of the repeated fault: {error}"));
        drop(seat);
        assert!(td.teardown().is_clean());
        if !failed {
            break;
        }
        nth += 1;
    }
    assert_eq!(nth, least + 1, "the fault calls {leaf} another number of times");
    assert_eq!(Belongings::of(&host), before);
    assert_eq!(host.platform().violations(), []);
}

#[test]
fn a_fault_survives_each_table_and_the_page_staying_busy() {
    fault_survives(TdhLeaf::MEM_SEPT_ADD, 3);
    fault_survives(TdhLeaf::MEM_PAGE_AUG, 1);
}

#[test]
fn a_build_survives_each_page_and_each_table_being_busy_and_leaves_nothing_when_one_is_refused() {
    let host = host(96 << 20);
    let before = Belongings::of(&host);
    for leaf in [TdhLeaf::MEM_PAGE_ADD, TdhLeaf::MEM_SEPT_ADD, TdhLeaf::MR_EXTEND] {
        let (calls, built) = calls_of(&host, || td(&host, 0, Level::L2M));
        assert!(built.teardown().is_clean());
        let all = calls.of(leaf.to_string().trim_start_matches("TDH."));
        assert!(all > 0, "a build never calls {leaf}");
        // The first, the last, and some between.
        for nth in (1..=all).step_by((all as usize / 12).max(1)).chain([all]) {
            host.platform().machine().faults().set_plan(busy_beside_vcpus(leaf, nth));
            let built = td(&host, 0, Level::L2M);
            built.audit().unwrap_or_else(|error| panic!("audit after call {nth} of {leaf}: {error}"));
            assert!(built.teardown().is_clean());
            let target = Target { leaf: Some(Leaf::Host(leaf)), lp: None };
            let effect = Effect::Return(Status::with_operand(StatusCode::OPERAND_INVALID, Operand::R8));
            let plan = FaultPlan::default().with(Rule { target, nth: nth..=nth, effect });
            host.platform().machine().faults().set_plan(plan);
            assert!(try_td(&host, 0, Level::L2M, 1).is_err(), "call {nth} of {leaf} was refused");
            host.platform().machine().faults().set_plan(FaultPlan::default());
            assert_eq!(Belongings::of(&host), before, "call {nth} of {leaf} left something behind");
        }
    }
    assert_eq!(host.platform().violations(), []);
}

#[test]
fn what_is_blocked_is_unblocked_even_if_that_takes_several_attempts() {
    let host = host(128 << 20);
    let before = Belongings::of(&host);
    for attempts in 1..4 {
        let td = td(&host, 16 << 20, Level::L2M);
        let mut seat = td.memory().take_seat(SEAT).expect("a processor is free");
        for i in 0..3 {
            touch(&mut seat, frames(i, 1).start(), Level::L4K);
        }
        // The second removal fails, and so does undoing the third block, a few times.
        let long = u64::from(Bound::WITHOUT_VCPUS.0) + 1;
        let rule = |leaf, nth| Rule {
            target: Target { leaf: Some(Leaf::Host(leaf)), lp: None },
            nth,
            effect: Effect::Return(busy()),
        };
        let plan = FaultPlan::default()
            .with(rule(TdhLeaf::MEM_PAGE_REMOVE, 2..=1 + long))
            .with(rule(TdhLeaf::MEM_RANGE_UNBLOCK, 1..=attempts * long));
        host.platform().machine().faults().set_plan(plan);
        let first = td.memory().convert(&mut seat, frames(0, 3), Side::Shared);
        host.platform().machine().faults().set_plan(FaultPlan::default());
        assert_eq!(first, Ok(Converted::Upto(frames(1, 1).start())));
        td.audit().unwrap_or_else(|error| panic!("audit after {attempts} failed attempts: {error}"));
        convert(&mut seat, frames(0, 3), Side::Shared);
        drop(seat);
        assert!(td.teardown().is_clean());
    }
    assert_eq!(Belongings::of(&host), before);
}

/// Operations that allocate, each on a TD of its own that [`prepared`] has set up. All may be repeated.
const OPERATIONS: [(&str, Work); 9] = [
    ("a fault at 2M", |td, seat| {
        td.memory().private_fault(seat, at(6 * 512), Level::L2M, || false).map(drop)
    }),
    ("a fault at 4K", |td, seat| {
        td.memory().private_fault(seat, at(7 * 512), Level::L4K, || false).map(drop)
    }),
    ("a smaller ACCEPT", |td, seat| td.memory().private_fault(seat, at(5), Level::L4K, || false).map(drop)),
    ("a shared fault", |td, seat| {
        td.memory().shared_fault(seat, at(4 * 512), Access::Write, || false).map(drop)
    }),
    ("a device", |td, seat| td.memory().map_device(seat, Gfn::new(1 << 30)).map(drop)),
    ("a conversion that cuts", |td, seat| {
        td.memory().convert(seat, frames(100, 700), Side::Shared).map(drop)
    }),
    ("a hole that cuts", |td, seat| td.memory().punch_hole(seat, frames(100, 700)).map(drop)),
    ("prefaulting", |td, seat| {
        td.memory().prefault(seat, frames(0, 3 * 512), Level::L4K, || false).map(drop)
    }),
    ("splitting for a log", |td, seat| {
        let started = td.memory().start_dirty_log(seat, at(4 * 512), HugeShared::SplitNow);
        // Repeating it when it worked is the caller's mistake, and says so.
        started.or_else(|error| if matches!(error, Error::Caller(_)) { Ok(()) } else { Err(error) })
    }),
];

type Work = for<'t, 'h> fn(&'t EmulatedTd<'h>, &mut EmulatedSeat<'t, 'h>) -> Result<(), Error>;

fn at(frame: u64) -> Gfn {
    frames(frame, 1).start()
}

/// Two huge private pages, and a huge shared one; and a seat with no table reserved.
fn prepared<'t, 'h>(td: &'t EmulatedTd<'h>) -> EmulatedSeat<'t, 'h> {
    let mut seat = td.memory().take_seat(SEAT).expect("a processor is free");
    touch(&mut seat, at(0), Level::L2M);
    touch(&mut seat, at(512), Level::L2M);
    convert(&mut seat, frames(3 * 512, 1024), Side::Shared);
    td.memory().shared_fault(&mut seat, at(3 * 512), Access::Write, || false).expect("it is mapped");
    drop(seat);
    td.memory().take_seat(SEAT).expect("a processor is free")
}

#[test]
fn each_operation_survives_each_of_its_allocations_failing() {
    let host = host(192 << 20);
    let before = Belongings::of(&host);
    for (name, work) in OPERATIONS {
        let mut nth = 1;
        loop {
            let td = td(&host, 16 << 20, Level::L2M);
            let mut seat = prepared(&td);
            host.platform().fail_allocation(nth);
            let result = work(&td, &mut seat);
            let failed = host.platform().end_failures();
            assert!(result.is_ok() || failed, "{name} failed by itself: {result:?}");
            assert!(result.is_ok() || result == Err(Error::NoMemory), "{name}: {result:?}");
            td.audit().unwrap_or_else(|error| panic!("audit of {name}, allocation {nth}: {error}"));
            work(&td, &mut seat)
                .unwrap_or_else(|error| panic!("{name}, allocation {nth}, repeated: {error}"));
            td.audit().unwrap_or_else(|error| panic!("audit of {name} repeated: {error}"));
            drop(seat);
            assert!(td.teardown().is_clean());
            if !failed {
                break;
            }
            nth += 1;
        }
        assert!(nth > 1, "{name} allocates nothing");
    }
    assert_eq!(Belongings::of(&host), before);
    assert_eq!(host.platform().violations(), []);
}

#[test]
fn a_build_whose_nth_allocation_fails_leaves_nothing_behind() {
    let host = host(96 << 20);
    let before = Belongings::of(&host);
    let mut nth = 1;
    loop {
        host.platform().fail_allocation(nth);
        let built = try_td(&host, 0, Level::L2M, 2);
        let failed = host.platform().end_failures();
        match built {
            // A huge page that is not to be had becomes small ones.
            Ok(td) => assert!(td.teardown().is_clean()),
            Err(error) => assert_eq!((error, failed), (Error::NoMemory, true), "allocation {nth}"),
        }
        assert_eq!(Belongings::of(&host), before, "allocation {nth}");
        if !failed {
            break;
        }
        nth += 1;
    }
    assert!(nth > 20, "a build allocates control pages, tables and memory");
}
