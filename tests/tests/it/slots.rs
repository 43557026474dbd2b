//! Memory that comes and goes while a TD runs: holes, slots, prefaulting, devices.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::memory::guest::{Act, Did, Guest};
use crate::memory::{
    EmulatedSeat, EmulatedTd, SEAT, TEST_MEMORY, calls_of, convert, frames, host, module_maps, td, touch,
    with_td,
};
use mirror_ept::{Access, GfnRange};
use seam_emu::inject::{Effect, FaultPlan, Leaf, Rule, Target};
use td_host::memory::{Prefaulted, Reached, Resolution};
use td_host::platform::{Frames, LpId};
use td_host::retry::Bound;
use td_host::{Blame, Error};
use tdvisor_base::{Gfn, Level, Side};
use tdx_module_iface::{Operand, Status, StatusCode, TdhLeaf, tdh};

const MIB: u64 = 1 << 20;

fn slot_of(td: &EmulatedTd<'_>, gfn: Gfn) -> GfnRange {
    td.memory().ranges().find(|range| range.contains(gfn)).expect("memory is there")
}

#[test]
fn a_hole_gives_back_exactly_its_pages_and_leaves_the_rest_of_a_huge_page() {
    with_td(|host, td, seat| {
        let huge = frames(0, 512);
        touch(seat, huge.start(), Level::L2M);
        let free = host.platform().free_frames();
        let hole = frames(100, 5);
        assert_eq!(td.memory().punch_hole(seat, hole), Ok(Reached::All));
        // Five pages came back; one table is needed for what is left, and the seat keeps some at hand.
        let tables = 4;
        assert!((5 - tables..=5).contains(&(host.platform().free_frames() as i64 - free as i64)));
        for i in 0..512 {
            let gfn = frames(i, 1).start();
            let mapped = (!hole.contains(gfn)).then_some(Level::L4K);
            assert_eq!(module_maps(seat, td, gfn), mapped, "frame {i}");
        }
        assert_eq!(td.memory().attribute(hole.start()), Some(Side::Private), "attributes stay");
        assert_eq!(touch(seat, hole.start(), Level::L2M), Resolution::Mapped(Level::L4K));
        td.audit().unwrap();
    });
}

#[test]
fn what_a_guest_finds_in_a_hole_is_a_fresh_page() {
    with_td(|host, td, seat| {
        let mut guest = Guest::all(host, td).remove(0);
        let gfn = frames(7, 1).start();
        let accept = Act::Accept { gpa: gfn.base(), level: Level::L4K };
        let read = Act::Read { gpa: gfn.base() };
        assert_eq!(guest.act(td, seat, accept), Did::Status(Status::SUCCESS));
        guest.act(td, seat, Act::Write { gpa: gfn.base(), value: 42 });
        assert_eq!(guest.act(td, seat, read), Did::Word(42));
        assert_eq!(td.memory().punch_hole(seat, frames(7, 1)), Ok(Reached::All));
        touch(seat, gfn, Level::L4K);
        assert_eq!(guest.act(td, seat, read), Did::NotAccepted);
        assert_eq!(guest.act(td, seat, accept), Did::Status(Status::SUCCESS));
        assert_eq!(guest.act(td, seat, read), Did::Word(0));
    });
}

#[test]
fn a_hole_in_shared_memory_loses_its_contents_too() {
    with_td(|host, td, seat| {
        let mut guest = Guest::all(host, td).remove(0);
        convert(seat, frames(0, 512), Side::Shared);
        let gfn = frames(3, 1).start();
        let gpa = td.shared_bit().join(Side::Shared, gfn.base());
        assert_eq!(guest.act(td, seat, Act::Write { gpa, value: 99 }), Did::Word(0));
        assert_eq!(td.memory().punch_hole(seat, frames(0, 64)), Ok(Reached::All));
        assert_eq!(guest.act(td, seat, Act::Read { gpa }), Did::Word(0));
        let mut word = [1; 8];
        td.memory().read_shared(gfn.base(), &mut word).unwrap();
        assert_eq!(word, [0; 8]);
    });
}

#[test]
fn a_page_that_is_shared_before_it_was_ever_used_is_clean() {
    let host = host(128 * MIB);
    for round in 0..2u64 {
        let td = td(&host, 16 * MIB, Level::L2M);
        let mut seat = td.memory().take_seat(SEAT).unwrap();
        convert(&mut seat, frames(0, 8 * 512), Side::Shared);
        for i in (0..8 * 512).step_by(97) {
            let gpa = frames(i, 1).start().base();
            let mut word = [1; 8];
            td.memory().read_shared(gpa, &mut word).unwrap();
            assert_eq!(word, [0; 8], "frame {i} of TD {round} shows what somebody else left there");
            td.memory().write_shared(gpa, &[0xaa; 8]).unwrap();
        }
        drop(seat);
        assert!(td.teardown().is_clean());
    }
}

#[test]
fn a_hole_that_stays_busy_says_so_and_is_punched_when_asked_again() {
    with_td(|host, td, seat| {
        let range = frames(0, 3 * 512);
        for i in 0..3 {
            touch(seat, frames(i * 512, 1).start(), Level::L2M);
        }
        let target = Target { leaf: Some(Leaf::Host(TdhLeaf::MEM_PAGE_REMOVE)), lp: None };
        let busy = Effect::Return(Status::with_operand(StatusCode::OPERAND_BUSY, Operand::SEPT_TREE));
        let nth = 2..=2 + u64::from(Bound::WITHOUT_VCPUS.0);
        host.platform().machine().faults().set_plan(FaultPlan::default().with(Rule {
            target,
            nth,
            effect: busy,
        }));
        let first = td.memory().punch_hole(seat, range);
        host.platform().machine().faults().set_plan(FaultPlan::default());
        assert_eq!(first, Ok(Reached::Upto(frames(512, 1).start())));
        td.audit().unwrap();
        assert_eq!(module_maps(seat, td, frames(512, 1).start()), Some(Level::L2M));
        assert_eq!(td.memory().punch_hole(seat, frames(512, 2 * 512)), Ok(Reached::All));
        assert_eq!(module_maps(seat, td, frames(512, 1).start()), None);
    });
}

#[test]
fn a_slot_goes_with_its_mappings_and_pages_and_can_come_back() {
    with_td(|host, td, seat| {
        let slot = slot_of(td, TEST_MEMORY);
        let free = host.platform().free_frames();
        touch(seat, frames(0, 1).start(), Level::L2M);
        touch(seat, frames(512, 1).start(), Level::L4K);
        convert(seat, frames(1024, 512), Side::Shared);
        td.memory().shared_fault(seat, frames(1030, 1).start(), Access::Write, || false).unwrap();
        assert_eq!(td.memory().remove_slot(seat, slot), Ok(Reached::All));
        assert!(host.platform().free_frames() > free, "pages of the image came back as well");
        assert!(!td.memory().has(TEST_MEMORY));
        assert_eq!(touch(seat, frames(0, 1).start(), Level::L2M), Resolution::NoMemoryThere);
        assert!(td.memory().read_shared(frames(1030, 1).start().base(), &mut [0]).is_err());
        td.audit().unwrap();

        // Something else stood there meanwhile.
        let gfn = frames(2, 1).start();
        assert_eq!(td.memory().map_device(seat, gfn), Ok(Resolution::Mapped(Level::L4K)));
        assert_eq!(td.memory().add_slot(seat, slot), Ok(()));
        assert_eq!(td.memory().map_device(seat, gfn), Ok(Resolution::WrongSide(Side::Private)));
        assert_eq!(touch(seat, frames(0, 1).start(), Level::L2M), Resolution::Mapped(Level::L2M));
        convert(seat, frames(0, 512), Side::Shared);
        let mapped = td.memory().shared_fault(seat, gfn, Access::Read, || false);
        assert_eq!(mapped, Ok(Resolution::Mapped(Level::L4K)), "a page where the device entry was");
    });
}

#[test]
fn slots_that_overlap_or_do_not_exist_are_refused() {
    with_td(|_, td, seat| {
        let slot = slot_of(td, TEST_MEMORY);
        let empty = GfnRange::new(slot.end(), slot.end());
        for wrong in [slot, frames(3, 1), empty] {
            assert!(matches!(td.memory().add_slot(seat, wrong), Err(Error::Caller(_))), "{wrong:?}");
        }
        for wrong in [frames(3, 1), empty] {
            assert!(matches!(td.memory().remove_slot(seat, wrong), Err(Error::Caller(_))), "{wrong:?}");
        }
        let beyond = GfnRange::at(Gfn::new(1 << 30), 16).unwrap();
        assert_eq!(td.memory().add_slot(seat, beyond), Ok(()));
        assert_eq!(touch(seat, beyond.start(), Level::L2M), Resolution::Mapped(Level::L4K));
        assert_eq!(td.memory().remove_slot(seat, beyond), Ok(Reached::All));
    });
}

#[test]
fn inv_34_a_slot_is_removed_while_faults_on_it_retry_and_both_come_to_an_end() {
    for round in 0..8u64 {
        with_td(|_, td, seat| {
            let slot = slot_of(td, TEST_MEMORY);
            let started = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let faulting = scope.spawn(|| {
                    let mut seat = td.memory().take_seat(LpId(4)).expect("a processor is free");
                    let mut mapped = 0u64;
                    // Faults all over the slot until it is gone.
                    for i in (0..u64::MAX).map(|i| (i * 7 + round) % (16 * MIB / 4096)) {
                        match touch(&mut seat, frames(i, 1).start(), Level::L4K) {
                            Resolution::Mapped(_) => mapped += 1,
                            gone => return (mapped, gone),
                        }
                        started.store(mapped > 40 * round, Ordering::Release);
                    }
                    unreachable!("the slot is never gone")
                });
                while !started.load(Ordering::Acquire) && !faulting.is_finished() {
                    std::thread::yield_now();
                }
                assert_eq!(td.memory().remove_slot(seat, slot), Ok(Reached::All));
                let (mapped, gone) = faulting.join().expect("faults end");
                assert!(mapped > 0);
                assert_eq!(gone, Resolution::NoMemoryThere);
            });
            td.audit().unwrap();
        });
    }
}

#[test]
fn a_slot_whose_removal_stays_busy_is_gone_for_faults_and_removed_when_asked_again() {
    with_td(|host, td, seat| {
        let slot = slot_of(td, TEST_MEMORY);
        touch(seat, frames(0, 1).start(), Level::L2M);
        touch(seat, frames(512, 1).start(), Level::L2M);
        let target = Target { leaf: Some(Leaf::Host(TdhLeaf::MEM_RANGE_BLOCK)), lp: None };
        let busy = Effect::Return(Status::with_operand(StatusCode::OPERAND_BUSY, Operand::SEPT_TREE));
        let nth = 1..=1 + u64::from(Bound::WITHOUT_VCPUS.0);
        host.platform().machine().faults().set_plan(FaultPlan::default().with(Rule {
            target,
            nth,
            effect: busy,
        }));
        let first = td.memory().remove_slot(seat, slot);
        host.platform().machine().faults().set_plan(FaultPlan::default());
        assert!(matches!(first, Ok(Reached::Upto(_))), "{first:?}");
        assert_eq!(touch(seat, frames(0, 1).start(), Level::L2M), Resolution::NoMemoryThere);
        assert!(matches!(td.memory().add_slot(seat, frames(3, 1)), Err(Error::Caller(_))));
        td.audit().unwrap();
        assert_eq!(td.memory().remove_slot(seat, slot), Ok(Reached::All));
    });
}

#[test]
fn prefaulting_maps_ahead_what_the_guest_then_accepts_without_leaving() {
    with_td(|host, td, seat| {
        let mut guest = Guest::all(host, td).remove(0);
        convert(seat, frames(600, 3), Side::Shared);
        let range = frames(0, 1024);
        let (calls, done) = calls_of(host, || td.memory().prefault(seat, range, Level::L2M, || false));
        assert_eq!(done, Ok(Prefaulted::All { pages: 1 + 509 }));
        assert_eq!(calls.memory().get("PAGE.AUG"), Some(&(1 + 509)));
        let again = calls_of(host, || td.memory().prefault(seat, range, Level::L2M, || false));
        assert_eq!(again.0.memory(), [].into(), "what is mapped costs no call");
        for (i, level) in [(0, Level::L2M), (512, Level::L4K), (1023, Level::L4K)] {
            let act = Act::Accept { gpa: frames(i, 1).start().base(), level };
            assert_eq!(guest.act(td, seat, act), Did::Status(Status::SUCCESS));
            assert_eq!(guest.exits, 1, "the guest leaves only when it is done");
        }
    });
}

#[test]
fn prefaulting_says_where_to_go_on() {
    with_td(|_, td, seat| {
        let slot = slot_of(td, TEST_MEMORY);
        let mut turns = 0;
        let interrupted = td.memory().prefault(seat, frames(0, 4 * 512), Level::L2M, || {
            turns += 1;
            turns > 2
        });
        let next = frames(1024, 1).start();
        assert_eq!(interrupted, Ok(Prefaulted::Upto { next, why: Resolution::Interrupted }));
        let beyond = GfnRange::new(slot.end().align_down(Level::L2M), slot.end().wrapping_add(5));
        let beyond = GfnRange::new(Gfn::new(beyond.start().get() - 512), beyond.end());
        let got = td.memory().prefault(seat, beyond, Level::L2M, || false);
        assert_eq!(got, Ok(Prefaulted::Upto { next: slot.end(), why: Resolution::NoMemoryThere }));
    });
}

#[test]
fn a_hook_that_the_module_refuses_blames_the_module_and_carries_its_status() {
    type Work = for<'t, 'h> fn(&'t EmulatedTd<'h>, &mut EmulatedSeat<'t, 'h>) -> Result<(), Error>;
    let fault: Work = |td, seat| {
        let at = frames(600, 1).start();
        td.memory().private_fault(seat, at, Level::L4K, || false).map(drop)
    };
    let cut: Work = |td, seat| td.memory().convert(seat, frames(5, 1), Side::Shared).map(drop);
    let remove: Work = |td, seat| td.memory().punch_hole(seat, frames(0, 512)).map(drop);
    for (leaf, work) in [
        (TdhLeaf::MEM_SEPT_ADD, fault),
        (TdhLeaf::MEM_PAGE_AUG, fault),
        (TdhLeaf::MEM_RANGE_BLOCK, remove),
        (TdhLeaf::MEM_TRACK, remove),
        (TdhLeaf::MEM_PAGE_REMOVE, remove),
        (TdhLeaf::MEM_PAGE_DEMOTE, cut),
    ] {
        let host = host(128 * MIB);
        let td = td(&host, 8 * MIB, Level::L2M);
        let mut seat = td.memory().take_seat(SEAT).expect("a processor is free");
        touch(&mut seat, frames(0, 1).start(), Level::L2M);
        let refusal = Status::with_operand(StatusCode::OPERAND_INVALID, Operand::RCX);
        let rule = Rule {
            target: Target { leaf: Some(Leaf::Host(leaf)), lp: None },
            nth: 1..=1,
            effect: Effect::Return(refusal),
        };
        host.platform().machine().faults().set_plan(FaultPlan::default().with(rule));
        let error = work(&td, &mut seat).expect_err("the module refused");
        assert_eq!((error.blame(), error.status()), (Blame::Module, Some(refusal)), "{leaf}: {error}");
        let text = error.to_string();
        assert!(text.contains(&leaf.to_string()), "{leaf} is not named: {text}");
        host.platform().machine().faults().set_plan(FaultPlan::default());
        drop(seat);
        td.teardown();
    }
}

#[test]
fn inv_36_contents_are_added_only_before_the_td_is_finalised() {
    with_td(|_, td, seat| {
        let (page, source) = (tdvisor_base::Hpa::new(0x10_0000), tdvisor_base::Hpa::new(0x20_0000));
        let refused = tdh::tdh_mem_page_add(seat.lp(), td.tdr(), TEST_MEMORY.base(), page, source);
        let code = refused.expect_err("the TD is finalised").code();
        assert_eq!(code, Some(StatusCode::OP_STATE_INCORRECT));
    });
}
