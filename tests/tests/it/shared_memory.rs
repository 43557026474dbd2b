//! Dirty logging and aging of a TD's shared memory.

use crate::memory::guest::{Act, Did, Guest};
use crate::memory::{EmulatedHost, EmulatedSeat, EmulatedTd, SEAT, convert, frames, host, td};
use mirror_ept::{Access, Age};
use td_host::Error;
use td_host::memory::{HugeShared, Resolution};
use tdvisor_base::{Gfn, Gpa, Level, Side};

const MIB: u64 = 1 << 20;
const NONE: [u64; 0] = [];

fn with_td(test: impl for<'h> FnOnce(&EmulatedTd<'h>, &mut EmulatedSeat<'_, 'h>, &mut Guest<'h>)) {
    let host: EmulatedHost = host(128 * MIB);
    let td = td(&host, 16 * MIB, Level::L2M);
    let mut guest = Guest::all(&host, &td).remove(0);
    let mut seat = td.memory().take_seat(SEAT).expect("a processor is free");
    convert(&mut seat, frames(0, 4 * 512), Side::Shared);
    test(&td, &mut seat, &mut guest);
    drop(seat);
    td.audit().expect("mirror, Secure EPT and PAMT agree");
    assert!(td.teardown().is_clean());
    assert_eq!(host.platform().violations(), []);
}

fn shared(td: &EmulatedTd<'_>, frame: u64) -> Gpa {
    td.shared_bit().join(Side::Shared, frames(frame, 1).start().base())
}

fn write<'h>(td: &EmulatedTd<'h>, seat: &mut EmulatedSeat<'_, 'h>, guest: &mut Guest<'h>, frame: u64) {
    let act = Act::Write { gpa: shared(td, frame), value: frame };
    assert_eq!(guest.act(td, seat, act), Did::Word(0));
}

/// Frames that were written, by their number in the tests' memory.
fn harvest(seat: &mut EmulatedSeat<'_, '_>) -> Vec<u64> {
    let mut written = Vec::new();
    let first = frames(0, 1).start();
    let count = seat.memory().harvest_dirty(seat, first, |gfn: Gfn| written.push(gfn.get() - first.get()));
    assert_eq!(count, Ok(written.len() as u64));
    written
}

#[test]
fn inv_46_every_write_is_in_the_next_harvest_and_only_writes_are() {
    with_td(|td, seat, guest| {
        for frame in [3, 600] {
            write(td, seat, guest, frame);
        }
        let first = frames(0, 1).start();
        td.memory().start_dirty_log(seat, first, HugeShared::SplitOnWrite).unwrap();
        assert_eq!(harvest(seat), NONE, "what was written before does not count");
        for frame in [3, 4, 700, 3] {
            write(td, seat, guest, frame);
        }
        assert_eq!(guest.act(td, seat, Act::Read { gpa: shared(td, 9) }), Did::Word(0));
        td.memory().write_shared(frames(1100, 1).start().base(), &[1]).unwrap();
        assert_eq!(harvest(seat), [3, 4, 700, 1100]);
        assert_eq!(harvest(seat), NONE);
        write(td, seat, guest, 4);
        // Aging in between loses nothing.
        let _ = td.memory().age(seat, frames(0, 1024));
        write(td, seat, guest, 3);
        assert_eq!(harvest(seat), [3, 4]);
    });
}

#[test]
fn logging_cuts_huge_pages_and_its_end_makes_them_whole() {
    with_td(|td, seat, guest| {
        for page in 0..4 {
            write(td, seat, guest, page * 512);
        }
        assert_eq!(td.memory().statistics().direct.leaves_2m, 4);
        let first = frames(0, 1).start();
        td.memory().start_dirty_log(seat, first, HugeShared::SplitNow).unwrap();
        assert_eq!(td.memory().statistics().direct.leaves_2m, 0);
        assert_eq!(td.memory().statistics().direct.leaves_4k, 4 * 512);
        write(td, seat, guest, 77);
        assert_eq!(harvest(seat), [77]);
        // Logging left the leaves with different permissions; what is written again has them all.
        let mut merged = td.memory().stop_dirty_log(seat, first).unwrap();
        for frame in 0..512 {
            write(td, seat, guest, frame);
        }
        td.memory().start_dirty_log(seat, first, HugeShared::SplitOnWrite).unwrap();
        merged += td.memory().stop_dirty_log(seat, first).unwrap();
        assert!(merged >= 4, "{merged} huge pages came back");
        assert_eq!(td.memory().statistics().direct.leaves_2m, 4);
        assert_eq!(guest.act(td, seat, Act::Read { gpa: shared(td, 77) }), Did::Word(77));
    });
}

#[test]
fn logging_twice_or_harvesting_without_a_log_is_refused() {
    with_td(|td, seat, _| {
        let first = frames(0, 1).start();
        assert!(matches!(td.memory().harvest_dirty(seat, first, |_| {}), Err(Error::Caller(_))));
        assert!(matches!(td.memory().stop_dirty_log(seat, first), Err(Error::Caller(_))));
        td.memory().start_dirty_log(seat, first, HugeShared::SplitOnWrite).unwrap();
        let again = td.memory().start_dirty_log(seat, first, HugeShared::SplitOnWrite);
        assert!(matches!(again, Err(Error::Caller(_))));
        let nowhere = td.memory().start_dirty_log(seat, Gfn::new(1 << 30), HugeShared::SplitOnWrite);
        assert!(matches!(nowhere, Err(Error::NoSlot(_))));
    });
}

#[test]
fn aging_tells_what_was_used_since_the_last_time() {
    with_td(|td, seat, guest| {
        let (used, unused) = (frames(0, 512), frames(512, 512));
        write(td, seat, guest, 5);
        assert_eq!(td.memory().test_age(seat, used), Ok(Age::Young));
        assert_eq!(td.memory().age(seat, used), Ok(Age::Young));
        assert_eq!(td.memory().age(seat, used), Ok(Age::Old));
        assert_eq!(td.memory().age(seat, unused), Ok(Age::Old));
        // An access brings the permission back, and with it the youth.
        let mapped = td.memory().shared_fault(seat, frames(5, 1).start(), Access::Read, || false);
        assert_eq!(mapped, Ok(Resolution::Mapped(Level::L2M)));
        assert_eq!(td.memory().test_age(seat, used), Ok(Age::Young));
        assert_eq!(guest.act(td, seat, Act::Read { gpa: shared(td, 5) }), Did::Word(5));
    });
}
