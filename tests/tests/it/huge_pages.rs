//! A range that was cut becomes huge again, and a guest's ACCEPT at 4K inside a huge page is honoured.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;

use crate::memory::guest::{Act, Did, Guest};
use crate::memory::{EmulatedSeat, EmulatedTd, calls_of, convert, frames, module_maps, touch, with_td};
use mirror_ept::Collapsed;
use seam_emu::guest::GuestProgram;
use seam_emu::inject::{Effect, FaultPlan, Leaf, Rule, Target};
use td_host::memory::Resolution;
use td_host::platform::{Lp as _, Processors as _};
use tdvisor_base::{Gfn, Level, Side};
use tdx_module_iface::{Status, StatusCode, TdhLeaf};

fn accept(gfn: Gfn, level: Level) -> Act {
    Act::Accept { gpa: gfn.base(), level }
}

const SUCCESS: Did = Did::Status(Status::SUCCESS);
const MERGED: Collapsed = Collapsed { merged: 1, refused: 0, inhibited: 0 };

/// Cuts one frame out of a huge page, brings it back, and has the guest accept what is new.
fn cut_and_fill(td: &EmulatedTd<'_>, seat: &mut EmulatedSeat<'_, '_>, huge: Gfn) {
    assert_eq!(touch(seat, huge, Level::L2M), Resolution::Mapped(Level::L2M));
    let hole = frames(200, 1);
    convert(seat, hole, Side::Shared);
    convert(seat, hole, Side::Private);
    assert_eq!(module_maps(seat, td, huge), Some(Level::L4K));
}

#[test]
fn a_page_that_was_cut_for_a_conversion_is_merged_when_all_of_it_is_alike_again() {
    with_td(|host, td, seat| {
        let huge = frames(0, 512);
        cut_and_fill(td, seat, huge.start());
        assert_eq!(td.memory().collapse(seat, huge), Ok(Collapsed::default()), "a page of it is missing");
        touch(seat, frames(200, 1).start(), Level::L4K);
        let (calls, merged) = calls_of(host, || td.memory().collapse(seat, huge));
        assert_eq!(merged, Ok(MERGED));
        let expected = [("RANGE.BLOCK", 1), ("TRACK", 1), ("PAGE.PROMOTE", 1)];
        assert_eq!(calls.memory(), expected.into());
        assert_eq!(module_maps(seat, td, huge.start()), Some(Level::L2M));
        assert_eq!(td.memory().statistics().mirror.leaves_2m, 1);
    });
}

#[test]
fn an_interrupt_that_waits_for_the_next_entry_does_not_keep_a_page_from_being_cut() {
    with_td(|host, td, seat| {
        let huge = frames(0, 512).start();
        assert_eq!(touch(seat, huge, Level::L2M), Resolution::Mapped(Level::L2M));
        // DEMOTE can be interrupted: with the line up it would be, as often as it is called.
        host.platform().send_ipi(seat.lp().id());
        convert(seat, frames(200, 1), Side::Shared);
        assert_eq!(module_maps(seat, td, huge), Some(Level::L4K));
        assert!(seat.lp().acknowledge_events().ipi, "the interrupt is still to be answered");
    });
}

#[test]
fn what_the_guest_wrote_survives_cutting_and_merging() {
    with_td(|host, td, seat| {
        let mut guest = Guest::all(host, td).remove(0);
        let huge = frames(512, 512);
        assert_eq!(guest.act(td, seat, accept(huge.start(), Level::L2M)), SUCCESS);
        let at = frames(512 + 77, 1).start().base();
        guest.act(td, seat, Act::Write { gpa: at, value: 0x1234_5678 });
        let hole = frames(512 + 9, 1);
        convert(seat, hole, Side::Shared);
        convert(seat, hole, Side::Private);
        // The host cannot see what was accepted: the module refuses until all of it is.
        touch(seat, hole.start(), Level::L4K);
        assert_eq!(td.memory().collapse(seat, huge).unwrap().merged, 0, "one page waits to be accepted");
        td.audit().expect("a refusal leaves everything as it was");
        assert_eq!(guest.act(td, seat, accept(hole.start(), Level::L4K)), SUCCESS);
        assert_eq!(td.memory().collapse(seat, huge), Ok(MERGED));
        assert_eq!(guest.act(td, seat, Act::Read { gpa: at }), Did::Word(0x1234_5678));
        assert_eq!(guest.act(td, seat, Act::Read { gpa: hole.start().base() }), Did::Word(0));
    });
}

#[test]
fn later_conversions_bring_huge_pages_back_without_being_asked() {
    with_td(|_, td, seat| {
        cut_and_fill(td, seat, frames(0, 1).start());
        touch(seat, frames(200, 1).start(), Level::L4K);
        assert_eq!(module_maps(seat, td, frames(0, 1).start()), Some(Level::L4K));
        // Somewhere else entirely.
        convert(seat, frames(1024, 4), Side::Shared);
        convert(seat, frames(1024, 4), Side::Private);
        assert_eq!(module_maps(seat, td, frames(0, 1).start()), Some(Level::L2M));
    });
}

#[test]
fn a_huge_range_that_returns_to_private_loses_its_empty_table_at_once() {
    with_td(|host, td, seat| {
        let huge = frames(512, 512);
        for i in 0..3 {
            touch(seat, frames(512 + i, 1).start(), Level::L4K);
        }
        convert(seat, huge, Side::Shared);
        let (calls, ()) = calls_of(host, || convert(seat, huge, Side::Private));
        assert_eq!(calls.memory(), [("RANGE.BLOCK", 1), ("TRACK", 1), ("SEPT.REMOVE", 1)].into());
        assert_eq!(touch(seat, huge.start(), Level::L2M), Resolution::Mapped(Level::L2M));
        td.audit().unwrap();
    });
}

#[test]
fn reclaiming_frees_tables_level_by_level_with_one_track_for_each_level() {
    with_td(|host, td, seat| {
        for table in 0..4 {
            touch(seat, frames(table * 512, 1).start(), Level::L4K);
        }
        convert(seat, frames(0, 4 * 512), Side::Shared);
        let (calls, freed) = calls_of(host, || td.memory().reclaim_tables(seat));
        assert_eq!(freed, Ok(4));
        assert_eq!(calls.memory(), [("RANGE.BLOCK", 4), ("TRACK", 1), ("SEPT.REMOVE", 4)].into());
        assert_eq!(td.memory().reclaim_tables(seat), Ok(0));
    });
}

#[test]
fn accepting_a_small_page_inside_a_huge_one_splits_it_once_and_inhibits_the_range() {
    with_td(|host, td, seat| {
        let mut guest = Guest::all(host, td).remove(0);
        let huge = frames(0, 512);
        assert_eq!(touch(seat, huge.start(), Level::L2M), Resolution::Mapped(Level::L2M));
        assert_eq!(guest.act(td, seat, accept(frames(5, 1).start(), Level::L4K)), SUCCESS);
        assert_eq!(guest.exits, 2, "one exit for the split, then the ACCEPT goes through");
        assert_eq!(module_maps(seat, td, huge.start()), Some(Level::L4K));
        // Half accepted: nothing may make it huge behind the guest's back.
        assert_eq!(td.memory().collapse(seat, huge).unwrap().inhibited, 1);
        td.memory().recover_huge(seat).unwrap();
        assert_eq!(module_maps(seat, td, huge.start()), Some(Level::L4K));
        // A guest that asks for more than there is is told by the module itself.
        let mismatch = guest.act(td, seat, accept(huge.start(), Level::L2M));
        assert!(
            matches!(mismatch, Did::Status(status) if status.code() == StatusCode::PAGE_SIZE_MISMATCH),
            "{mismatch:?}"
        );
    });
}

#[test]
fn inv_26f_the_inhibit_ends_when_the_guest_has_accepted_all_of_the_range() {
    with_td(|host, td, seat| {
        let mut guest = Guest::all(host, td).remove(0);
        let huge = frames(0, 512);
        touch(seat, huge.start(), Level::L2M);
        for i in 0..512 {
            assert_eq!(guest.act(td, seat, accept(frames(i, 1).start(), Level::L4K)), SUCCESS);
            if i == 100 {
                assert_eq!(td.memory().recover_huge(seat).unwrap().merged, 0, "still mixed");
            }
        }
        assert_eq!(td.memory().recover_huge(seat), Ok(MERGED));
        assert_eq!(module_maps(seat, td, huge.start()), Some(Level::L2M));
        assert_eq!(td.memory().recover_huge(seat), Ok(Collapsed::default()), "nothing is left to do");
        let again = guest.act(td, seat, accept(frames(7, 1).start(), Level::L4K));
        assert!(
            matches!(again, Did::Status(status) if status.code() == StatusCode::PAGE_ALREADY_ACCEPTED),
            "{again:?}"
        );
    });
}

#[test]
fn the_inhibit_goes_with_the_mappings_of_its_range() {
    with_td(|_, td, seat| {
        let huge = frames(0, 512);
        touch(seat, huge.start(), Level::L2M);
        touch(seat, frames(5, 1).start(), Level::L4K);
        assert_eq!(module_maps(seat, td, huge.start()), Some(Level::L4K));
        convert(seat, huge, Side::Shared);
        convert(seat, huge, Side::Private);
        assert_eq!(touch(seat, huge.start(), Level::L2M), Resolution::Mapped(Level::L2M));
    });
}

#[test]
fn a_merge_that_fails_at_any_call_leaves_small_pages_that_can_be_merged_later() {
    with_td(|host, td, seat| {
        let huge = frames(0, 512);
        cut_and_fill(td, seat, huge.start());
        touch(seat, frames(200, 1).start(), Level::L4K);
        for (leaf, code) in [
            (TdhLeaf::MEM_RANGE_BLOCK, StatusCode::OPERAND_BUSY),
            (TdhLeaf::MEM_TRACK, StatusCode::PREVIOUS_TLB_EPOCH_BUSY),
            (TdhLeaf::MEM_PAGE_PROMOTE, StatusCode::OPERAND_BUSY),
            (TdhLeaf::MEM_PAGE_PROMOTE, StatusCode::INTERRUPTED_RESTARTABLE),
        ] {
            let target = Target { leaf: Some(Leaf::Host(leaf)), lp: None };
            let nth = 1..=20_000;
            let effect = Effect::Return(Status::new(code));
            // TRACK is needed to undo, so it recovers; the others stay busy for as long as it takes.
            let nth = if leaf == TdhLeaf::MEM_TRACK { 1..=10_001 } else { nth };
            host.platform().machine().faults().set_plan(FaultPlan::default().with(Rule {
                target,
                nth,
                effect,
            }));
            let done = td.memory().collapse(seat, huge);
            host.platform().machine().faults().set_plan(FaultPlan::default());
            assert_eq!(done.map(|done| done.merged), Ok(0), "{leaf} {code:?}");
            td.audit().unwrap_or_else(|error| panic!("audit after {leaf} {code:?}: {error}"));
            assert_eq!(module_maps(seat, td, huge.start()), Some(Level::L4K));
        }
        assert_eq!(td.memory().collapse(seat, huge), Ok(MERGED));
    });
}

#[test]
fn a_running_guest_does_not_notice_that_its_page_is_split_and_merged_beneath_it() {
    const ROUNDS: u64 = 60;
    with_td(|host, td, seat| {
        let huge = frames(0, 512);
        let done = Arc::new(AtomicBool::new(false));
        let (over, (sender, receiver)) = (done.clone(), channel());
        let program = GuestProgram::new(move |guest| {
            guest.mem_page_accept(huge.start().base(), Level::L2M).expect("a huge page is accepted");
            sender.send(0).expect("the test waits");
            let mut written = 0u64;
            while !over.load(Ordering::SeqCst) {
                written += 1;
                for frame in [0, 9, 255, 511] {
                    let gpa = huge.start().wrapping_add(frame).base();
                    guest.write(gpa, &written.to_le_bytes()).expect("a write");
                    assert_eq!(guest.read(gpa, 8).expect("a read"), written.to_le_bytes(), "frame {frame}");
                }
            }
            sender.send(written).expect("the test waits");
        });
        let lp = td.vcpus()[0].lp().0 as usize;
        host.platform().machine().set_guest_cpu(lp, Box::new(program));
        std::thread::scope(|scope| {
            scope.spawn(|| crate::memory::run(td));
            receiver.recv().expect("the guest begins");
            for round in 0..ROUNDS {
                // As if the guest wanted a small page: the host splits, and the range is inhibited.
                assert_eq!(touch(seat, frames(9, 1).start(), Level::L4K), Resolution::Mapped(Level::L4K));
                // All of it is accepted, so the inhibit ends.
                assert_eq!(td.memory().recover_huge(seat), Ok(MERGED), "round {round}");
            }
            done.store(true, Ordering::SeqCst);
            assert!(receiver.recv().expect("the guest ends") > 0);
            td.stop();
        });
        assert_eq!(module_maps(seat, td, huge.start()), Some(Level::L2M));
    });
}
