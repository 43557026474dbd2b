//! Invariants that need the module's own records, vCPUs, or more than one TD: the numbers that the tests of
//! `mirror-ept` leave to the emulated machine. What is only named here is held by other tests of this folder.
//!
//! Numbers 20 to 25 are also tested with dynamic PAMT, in `dynamic_pamt.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::memory::guest::{Act, Did, Guest};
use crate::memory::machine::TestMachine;
use crate::memory::{
    Belongings, EmulatedHost, EmulatedSeat, EmulatedTd, SEAT, calls_of, convert, frames, host, module_maps,
    td, td_with_vcpus, touch, with_td,
};
use machine_emu::EmulatedMachine;
use machine_emu::trace::Trace;
use mirror_ept::{Access, GfnRange};
use seam_emu::guest::GuestProgram;
use seam_emu::guest::GuestRegisters;
use seam_emu::inject::{Effect, FaultPlan, Leaf, Rule, Target};
use seam_emu::{GuestEnv, GuestState, ScriptedGuest, VmExit};
use td_host::Host;
use td_host::memory::{Converted, Reached, Resolution};
use td_host::platform::{Frames, LpId, Processors};
use td_host::retry::Bound;
use td_host::td::Ending;
use td_host::vcpu::ExitKind;
use tdvisor_base::{Gfn, Gpa, Hpa, Level, Side};
use tdvisor_test_data::chance::Chance;
use tdx_module_iface::exit::ExitReason;
use tdx_module_iface::handles::GpaLevel;
use tdx_module_iface::tdmr::PageType;
use tdx_module_iface::{Operand, Status, StatusCode, TdhLeaf, tdh};

const MIB: u64 = 1 << 20;

fn gfn(frame: u64) -> Gfn {
    frames(frame, 1).start()
}

fn busy() -> Status {
    Status::with_operand(StatusCode::OPERAND_BUSY, Operand::SEPT_TREE)
}

fn fail(host: &EmulatedHost, leaf: TdhLeaf, nth: std::ops::RangeInclusive<u64>, status: Status) {
    let target = Target { leaf: Some(Leaf::Host(leaf)), lp: None };
    let plan = FaultPlan::default().with(Rule { target, nth, effect: Effect::Return(status) });
    host.platform().machine().faults().set_plan(plan);
}

fn fail_no_more(host: &EmulatedHost) {
    host.platform().machine().faults().set_plan(FaultPlan::default());
}

/// Has the TD's first vCPU run `guest`, one step after the other, while `work` is done beside it.
fn beside<T>(
    host: &EmulatedHost,
    td: &EmulatedTd<'_>,
    guest: impl FnMut(&mut GuestState, &GuestEnv<'_>) -> VmExit + Send + 'static,
    work: impl FnOnce() -> T,
) -> T {
    let lp = td.vcpus()[0].lp().0 as usize;
    host.platform().machine().set_guest_cpu(lp, Box::new(ScriptedGuest(guest)));
    std::thread::scope(|scope| {
        scope.spawn(|| crate::memory::run(td));
        let result = work();
        td.stop();
        result
    })
}

fn interrupted() -> VmExit {
    VmExit::plain(ExitReason::EXTERNAL_INTERRUPT)
}

/// A guest that reads a word over and over until it is interrupted or cannot, and counts.
fn reader(gpa: Gpa, reads: Arc<AtomicU64>) -> impl FnMut(&mut GuestState, &GuestEnv<'_>) -> VmExit {
    move |state, env| {
        state.enter_64_bit_mode();
        loop {
            if env.interrupt_pending() {
                return interrupted();
            }
            match env.read(gpa, &mut [0; 8]) {
                Ok(()) => {
                    state.set_rip(state.rip().wrapping_add(4));
                    reads.fetch_add(1, Ordering::SeqCst);
                }
                Err(seam_emu::machine::GuestMemoryError::Exit(exit)) => return exit,
                Err(seam_emu::machine::GuestMemoryError::Memory(fault)) => panic!("{fault:?}"),
            }
            std::thread::yield_now();
        }
    }
}

fn wait_for_more(count: &AtomicU64) {
    let seen = count.load(Ordering::SeqCst);
    while count.load(Ordering::SeqCst) < seen + 3 {
        std::thread::yield_now();
    }
}

#[test]
fn inv_12_a_page_that_a_running_vcpu_reads_is_not_removed_under_its_translation() {
    // The machine keeps every translation until something drops it, and reports one that outlives its page.
    with_td(|host, td, seat| {
        let mut guest = Guest::all(host, td).remove(0);
        let accept = Act::Accept { gpa: gfn(3).base(), level: Level::L4K };
        assert_eq!(guest.act(td, seat, accept), Did::Status(Status::SUCCESS));
        let reads = Arc::new(AtomicU64::new(0));
        beside(host, td, reader(gfn(3).base(), reads.clone()), || {
            wait_for_more(&reads);
            convert(seat, frames(3, 1), Side::Shared);
        });
        // Its next read left the guest, as private memory that is shared now.
        let ending = td.ending();
        assert!(matches!(&ending, Some(Ending::Stopped | Ending::Died(_))), "{ending:?}");
        assert_eq!(module_maps(seat, td, gfn(3)), None);
    });
}

#[test]
fn inv_13_each_track_finds_nobody_left_in_the_epoch_before() {
    with_td(|host, td, seat| {
        const TIMES: u64 = 50;
        let mut guest = Guest::all(host, td).remove(0);
        let accept = Act::Accept { gpa: gfn(1000).base(), level: Level::L4K };
        assert_eq!(guest.act(td, seat, accept), Did::Status(Status::SUCCESS));
        for i in 0..TIMES {
            touch(seat, gfn(i), Level::L4K);
        }
        let reads = Arc::new(AtomicU64::new(0));
        let tracks = beside(host, td, reader(gfn(1000).base(), reads.clone()), || {
            wait_for_more(&reads);
            let (calls, ()) = calls_of(host, || {
                for i in 0..TIMES {
                    convert(seat, frames(i, 1), Side::Shared);
                }
            });
            calls.of("MEM.TRACK")
        });
        assert_eq!(tracks, TIMES, "no TRACK had to be repeated");
    });
}

#[test]
fn inv_14_nothing_is_tracked_before_the_td_can_run() {
    let host = host(96 * MIB);
    let (calls, built) = calls_of(&host, || td(&host, 0, Level::L2M));
    assert_eq!(calls.of("MEM.TRACK"), 0);
    assert!(calls.of("MEM.PAGE.ADD") > 0);
    assert!(built.teardown().is_clean());
}

#[test]
fn inv_15_a_page_whose_cache_lines_could_not_be_written_back_is_never_used_again() {
    let host = host(128 * MIB);
    let before = host.platform().free_frames();
    let td = td(&host, 16 * MIB, Level::L4K);
    let mut seat = td.memory().take_seat(SEAT).unwrap();
    for i in 0..4 {
        touch(&mut seat, gfn(i), Level::L4K);
    }
    // The second of four.
    let long = u64::from(Bound::WITHOUT_VCPUS.0);
    fail(
        &host,
        TdhLeaf::PHYMEM_PAGE_WBINVD,
        2..=1 + long,
        Status::with_operand(StatusCode::OPERAND_BUSY, Operand::RCX),
    );
    let converted = td.memory().convert(&mut seat, frames(0, 4), Side::Shared);
    fail_no_more(&host);
    assert_eq!(converted, Ok(Converted::All), "the page has left the TD: there is no way back");
    td.audit().unwrap();
    assert_eq!(td.memory().quarantined_frames(), 1);
    // The frame gets another page.
    td.memory().write_shared(gfn(1).base(), &[1; 8]).unwrap();
    convert(&mut seat, frames(0, 4), Side::Private);
    for i in 0..4 {
        assert_eq!(touch(&mut seat, gfn(i), Level::L4K), Resolution::Mapped(Level::L4K));
    }
    drop(seat);
    td.audit().unwrap();
    assert!(td.teardown().is_clean());
    assert_eq!(host.platform().free_frames(), before - 1, "all but that one came back");
}

#[test]
fn a_teardown_that_cannot_release_the_key_names_every_frame_that_it_keeps() {
    let host = host(128 * MIB);
    let before = host.platform().free_frames();
    let td = td_with_vcpus(&host, 16 * MIB, Level::L4K, 2);
    fail(
        &host,
        TdhLeaf::MNG_KEY_FREEID,
        1..=u64::MAX,
        Status::with_operand(StatusCode::OPERAND_INVALID, Operand::RCX),
    );
    let report = td.teardown();
    fail_no_more(&host);
    assert!(!report.is_clean());
    assert_eq!(before - host.platform().free_frames(), report.quarantined_frames);
}

#[test]
fn inv_19_a_teardown_keeps_its_order_and_the_tdr_goes_last() {
    let path = std::env::temp_dir().join(format!("tdvisor-inv-19-{}.jsonl", std::process::id()));
    let trace = Trace::to_file(std::fs::File::create(&path).expect("a file for the trace"));
    let machine = TestMachine::new(EmulatedMachine::for_td(96 * MIB, 4, trace));
    let host = Host::bring_up(machine, |_| {}).unwrap();
    let td = td_with_vcpus(&host, 0, Level::L2M, 2);
    let tdr = format!("{:#x}", td.tdr().hpa().get());
    host.platform().trace().finish();
    let built = std::fs::read_to_string(&path).unwrap().lines().count();
    assert!(td.teardown().is_clean());
    host.platform().trace().finish();
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let calls: Vec<serde_json::Value> =
        text.lines().skip(built).map(|line| serde_json::from_str(line).unwrap()).collect();
    let leaves: Vec<&str> = calls.iter().map(|call| call["leaf"].as_str().unwrap()).collect();
    let order = [
        "TDH.VP.FLUSH",
        "TDH.MNG.VPFLUSHDONE",
        "TDH.PHYMEM.CACHE.WB",
        "TDH.MNG.KEY.FREEID",
        "TDH.PHYMEM.PAGE.RECLAIM",
    ];
    for pair in order.windows(2) {
        let last = leaves.iter().rposition(|leaf| *leaf == pair[0]).expect(pair[0]);
        let first = leaves.iter().position(|leaf| *leaf == pair[1]).expect(pair[1]);
        assert!(last < first, "{} after {}", pair[0], pair[1]);
    }
    let last = calls.iter().rfind(|call| call["leaf"] == "TDH.PHYMEM.PAGE.RECLAIM").unwrap();
    assert_eq!(last["in"]["rcx"].as_str().unwrap(), tdr, "the last page that is reclaimed");
}

/// Pages of a TD by type and size, as the PAMT has them.
fn pages_of(host: &EmulatedHost, td: &EmulatedTd<'_>) -> BTreeMap<(u8, Level), u64> {
    let mut lp = host.platform().take_lp(LpId(0)).unwrap();
    let mut pages = BTreeMap::new();
    for tdmr in host.tdmrs() {
        let mut at = tdmr.range.base.get();
        while at < tdmr.range.end() {
            let page = tdh::tdh_phymem_page_rdmd(&mut lp, Hpa::new(at)).map(|(page, _)| page);
            let size = match page {
                Ok(page) if page.owner == td.tdr().hpa() && page.page_type != PageType::NDA => {
                    let size = page.size.expect("a size");
                    *pages.entry((page.page_type.0, size)).or_default() += 1;
                    size
                }
                _ => Level::L4K,
            };
            at = (at & !(size.bytes() - 1)) + size.bytes();
        }
    }
    pages
}

fn count(pages: &BTreeMap<(u8, Level), u64>, kind: PageType, size: Level) -> u64 {
    pages.get(&(kind.0, size)).copied().unwrap_or_default()
}

fn pamt_agrees(host: &EmulatedHost, td: &EmulatedTd<'_>) {
    let mirror = td.memory().statistics().mirror;
    let pages = pages_of(host, td);
    assert_eq!(count(&pages, PageType::REG, Level::L4K), mirror.leaves_4k, "small pages");
    assert_eq!(count(&pages, PageType::REG, Level::L2M), mirror.leaves_2m, "huge pages");
    assert_eq!(count(&pages, PageType::EPT, Level::L4K), mirror.tables, "tables");
}

#[test]
fn inv_20_the_pamt_counts_exactly_the_pages_that_the_td_has() {
    with_td(|host, td, seat| {
        pamt_agrees(host, td);
        touch(seat, gfn(0), Level::L2M);
        touch(seat, gfn(512), Level::L4K);
        pamt_agrees(host, td);
        convert(seat, frames(0, 100), Side::Shared);
        pamt_agrees(host, td);
        convert(seat, frames(0, 1024), Side::Shared);
        td.memory().reclaim_tables(seat).unwrap();
        pamt_agrees(host, td);
    });
}

#[test]
fn inv_22_a_demotion_moves_one_huge_page_to_512_small_ones_and_back() {
    with_td(|host, td, seat| {
        touch(seat, gfn(0), Level::L2M);
        let whole = pages_of(host, td);
        touch(seat, gfn(9), Level::L4K);
        let cut = pages_of(host, td);
        for (kind, size, change) in [
            (PageType::REG, Level::L2M, -1),
            (PageType::REG, Level::L4K, 512),
            (PageType::EPT, Level::L4K, 1),
        ] {
            assert_eq!(
                count(&cut, kind, size) as i64 - count(&whole, kind, size) as i64,
                change,
                "{kind} {size}"
            );
        }
        // Uniformly accepted, it may be merged.
        let mut guest = Guest::all(host, td).remove(0);
        for i in 0..512 {
            let act = Act::Accept { gpa: gfn(i).base(), level: Level::L4K };
            assert_eq!(guest.act(td, seat, act), Did::Status(Status::SUCCESS));
        }
        assert_eq!(td.memory().collapse(seat, frames(0, 512)).unwrap().merged, 1);
        assert_eq!(pages_of(host, td), whole);
    });
}

#[test]
fn inv_23_a_refused_call_moves_no_page() {
    with_td(|host, td, seat| {
        touch(seat, gfn(0), Level::L2M);
        let before = pages_of(host, td);
        let once = || {
            let mut turns = 0;
            move || {
                turns += 1;
                turns > 1
            }
        };
        for leaf in [TdhLeaf::MEM_SEPT_ADD, TdhLeaf::MEM_PAGE_AUG] {
            fail(host, leaf, 1..=u64::from(Bound::BESIDE_VCPUS.0), busy());
            let got = td.memory().private_fault(seat, gfn(512 + 7), Level::L4K, once());
            fail_no_more(host);
            assert_eq!(got, Ok(Resolution::Interrupted), "{leaf}");
            let added = u64::from(leaf == TdhLeaf::MEM_PAGE_AUG);
            let after = pages_of(host, td);
            assert_eq!(count(&after, PageType::REG, Level::L4K), count(&before, PageType::REG, Level::L4K));
            // The table that was linked before the page was refused stays, in both trees.
            assert_eq!(
                count(&after, PageType::EPT, Level::L4K),
                count(&before, PageType::EPT, Level::L4K) + added
            );
            pamt_agrees(host, td);
        }
        let before = pages_of(host, td);
        fail(host, TdhLeaf::MEM_PAGE_DEMOTE, 1..=1 + u64::from(Bound::WITHOUT_VCPUS.0), busy());
        let cut = td.memory().convert(seat, frames(100, 1), Side::Shared);
        fail_no_more(host);
        assert_eq!(cut, Ok(Converted::Upto(gfn(100))), "nothing was converted");
        assert_eq!(pages_of(host, td), before);
    });
}

/// The page that the module has for a frame.
fn module_page(seat: &mut EmulatedSeat<'_, '_>, td: &EmulatedTd<'_>, gfn: Gfn, level: Level) -> u64 {
    let entry = GpaLevel::of_gfn(gfn, level);
    let info = tdh::tdh_mem_sept_rd(seat.lp(), td.tdr(), entry).unwrap();
    info.entry & 0x000f_ffff_ffff_f000
}

#[test]
fn inv_26d_the_children_of_a_split_are_the_pieces_of_the_page_in_order() {
    with_td(|_, td, seat| {
        touch(seat, gfn(0), Level::L2M);
        let large = module_page(seat, td, gfn(0), Level::L2M);
        touch(seat, gfn(3), Level::L4K);
        for i in 0..512 {
            assert_eq!(module_page(seat, td, gfn(i), Level::L4K), large + i * 4096, "frame {i}");
        }
        // And a fault on any of them finds it there.
        assert_eq!(touch(seat, gfn(511), Level::L4K), Resolution::Mapped(Level::L4K));
    });
}

#[test]
fn inv_26g_a_guest_that_repeats_its_accept_gets_an_answer_whatever_is_mapped() {
    with_td(|host, td, seat| {
        let mut guest = Guest::all(host, td).remove(0);
        let code = |did| match did {
            Did::Status(status) => status.code(),
            other => panic!("{other:?}"),
        };
        let mut huge = 0;
        for mapped in [None, Some(Level::L2M), Some(Level::L4K)] {
            for asked in [Level::L2M, Level::L4K] {
                let at = gfn(huge * 512);
                huge += 1;
                if let Some(level) = mapped {
                    touch(seat, at, level);
                }
                let act = Act::Accept { gpa: at.base(), level: asked };
                let expected = match (mapped, asked) {
                    (Some(Level::L4K), Level::L2M) => StatusCode::PAGE_SIZE_MISMATCH,
                    _ => StatusCode::SUCCESS,
                };
                assert_eq!(code(guest.act(td, seat, act)), expected, "mapped {mapped:?}, asked for {asked}");
                assert!(guest.exits <= 2, "{} exits for one ACCEPT", guest.exits);
                let again = code(guest.act(td, seat, act));
                let already = if expected == StatusCode::SUCCESS {
                    StatusCode::PAGE_ALREADY_ACCEPTED
                } else {
                    expected
                };
                assert_eq!((again, guest.exits), (already, 1));
            }
        }
    });
}

#[test]
fn inv_26h_a_module_that_interrupts_every_demotion_is_asked_a_bounded_number_of_times() {
    with_td(|host, td, seat| {
        touch(seat, gfn(0), Level::L2M);
        fail(host, TdhLeaf::MEM_PAGE_DEMOTE, 1..=u64::MAX, Status::new(StatusCode::INTERRUPTED_RESTARTABLE));
        let (calls, cut) = calls_of(host, || td.memory().convert(seat, frames(100, 1), Side::Shared));
        fail_no_more(host);
        assert_eq!(cut, Ok(Converted::Upto(gfn(100))));
        assert!(calls.of("MEM.PAGE.DEMOTE") <= 1 + u64::from(Bound::WITHOUT_VCPUS.0));
        assert_eq!(module_maps(seat, td, gfn(0)), Some(Level::L2M), "whole and usable (26b)");
        td.audit().unwrap();
    });
}

#[test]
fn inv_40b_a_page_is_never_private_and_within_the_hosts_reach() {
    with_td(|host, td, seat| {
        let mut guest = Guest::all(host, td).remove(0);
        let shared = td.shared_bit().join(Side::Shared, gfn(5).base());
        let reachable = |td: &EmulatedTd<'_>| td.memory().read_shared(gfn(5).base(), &mut [0; 8]).is_ok();
        for _ in 0..3 {
            touch(seat, gfn(5), Level::L4K);
            assert!(!reachable(td), "the host reads private memory");
            let stuck = guest.act(td, seat, Act::Read { gpa: shared });
            assert_eq!(stuck, Did::Stuck(Resolution::WrongSide(Side::Private)));
            td.audit().unwrap();
            // A conversion that cannot remove the page leaves it private, and out of reach.
            fail(host, TdhLeaf::MEM_PAGE_REMOVE, 1..=1 + u64::from(Bound::WITHOUT_VCPUS.0), busy());
            let failed = td.memory().convert(seat, frames(5, 1), Side::Shared);
            fail_no_more(host);
            assert_eq!(failed, Ok(Converted::Upto(gfn(5))));
            assert!(!reachable(td));
            convert(seat, frames(5, 1), Side::Shared);
            assert_eq!(module_maps(seat, td, gfn(5)), None);
            assert!(reachable(td));
            assert!(matches!(guest.act(td, seat, Act::Read { gpa: shared }), Did::Word(_)));
            convert(seat, frames(5, 1), Side::Private);
        }
    });
}

#[test]
fn inv_48_no_schedule_of_a_guest_alone_reaches_a_panic_or_an_endless_loop() {
    let host = host(192 * MIB);
    let td = td_with_vcpus(&host, 16 * MIB, Level::L2M, 2);
    let mut guests = Guest::all(&host, &td);
    let mut seat = td.memory().take_seat(SEAT).unwrap();
    let mut chance = Chance::new(1);
    for step in 0..4_000 {
        let random = chance.next();
        // Inside the tests' memory, at its edges, and where there is none.
        let frame = random % (5 * 512);
        let at = match random >> 16 & 7 {
            0 => Gpa::new(random << 12 & 0x3fff_ffff_f000),
            1 => gfn(4095 + (random >> 8 & 3)).base(),
            _ => gfn(frame).base(),
        };
        let level = if random >> 24 & 1 == 0 { Level::L4K } else { Level::L2M };
        let guest = &mut guests[(random >> 25 & 1) as usize];
        let shared = td.shared_bit().join(Side::Shared, at);
        match random >> 28 & 15 {
            0..6 => drop(guest.act(&td, &mut seat, Act::Accept { gpa: at.align_down(level.bytes()), level })),
            6..8 => drop(guest.act(&td, &mut seat, Act::Write { gpa: at, value: random })),
            8..10 => drop(guest.act(&td, &mut seat, Act::Write { gpa: shared, value: random })),
            10 => drop(guest.act(&td, &mut seat, Act::Accept { gpa: shared, level })),
            // What MapGPA does with a range of the guest's choice.
            kind => {
                let to = if kind < 13 { Side::Shared } else { Side::Private };
                let range = GfnRange::new(at.frame(), at.frame().wrapping_add(1 + (random >> 33 & 1023)));
                let answer = td.memory().convert(&mut seat, range, to);
                assert!(matches!(answer, Ok(_) | Err(td_host::Error::NoSlot(_))), "step {step}: {answer:?}");
            }
        }
    }
    drop(seat);
    td.audit().unwrap();
    assert_eq!(host.platform().machine().audit(), []);
    assert!(td.teardown().is_clean());
    assert_eq!(host.platform().violations(), []);
}

#[test]
fn inv_49_a_td_that_cannot_be_repaired_dies_alone_and_is_taken_down_cleanly() {
    let host = host(256 * MIB);
    let before = Belongings::of(&host);
    let (doomed, other) = (td(&host, 16 * MIB, Level::L2M), td(&host, 16 * MIB, Level::L2M));
    let mut seat = doomed.memory().take_seat(SEAT).unwrap();
    for i in 0..3 {
        touch(&mut seat, gfn(i), Level::L4K);
    }
    let forever = 1..=u64::MAX;
    let rule = |leaf| Rule {
        target: Target { leaf: Some(Leaf::Host(leaf)), lp: None },
        nth: forever.clone(),
        effect: Effect::Return(busy()),
    };
    let plan =
        FaultPlan::default().with(rule(TdhLeaf::MEM_PAGE_REMOVE)).with(rule(TdhLeaf::MEM_RANGE_UNBLOCK));
    host.platform().machine().faults().set_plan(plan);
    let dead = doomed.memory().convert(&mut seat, frames(0, 3), Side::Shared);
    fail_no_more(&host);
    assert!(dead.is_err(), "{dead:?}");
    assert!(doomed.memory().private_fault(&mut seat, gfn(9), Level::L4K, || false).is_err(), "it stays dead");
    drop(seat);
    let mut seat = other.memory().take_seat(SEAT).unwrap();
    assert_eq!(touch(&mut seat, gfn(0), Level::L2M), Resolution::Mapped(Level::L2M));
    convert(&mut seat, frames(0, 512), Side::Shared);
    drop(seat);
    other.audit().expect("the other TD lives on");
    assert!(doomed.teardown().is_clean(), "the key goes first, so blocked pages come back too");
    assert!(other.teardown().is_clean());
    assert_eq!(Belongings::of(&host), before);
    assert_eq!(host.platform().violations(), []);
}

#[test]
fn inv_50_the_same_operations_make_the_same_calls() {
    let run = || {
        let host = host(128 * MIB);
        let td = td(&host, 16 * MIB, Level::L2M);
        let mut seat = td.memory().take_seat(SEAT).unwrap();
        for i in 0..200 {
            touch(&mut seat, gfn(i * 37 % 4096), if i % 3 == 0 { Level::L4K } else { Level::L2M });
            let to = if i % 2 == 0 { Side::Shared } else { Side::Private };
            convert(&mut seat, frames(i * 91 % 4000, 1 + i % 90), to);
        }
        drop(seat);
        assert!(td.teardown().is_clean());
        host.platform().trace().calls()
    };
    assert_eq!(run(), run());
}

/// A guest accepts pages over and over while the host takes them away: both want the locks of the same entries,
/// and whoever loses tries again. Then `check` looks at what is left.
fn accept_beside_removals(check: impl FnOnce(&EmulatedTd<'_>, &mut EmulatedSeat<'_, '_>, u64)) {
    with_td(|host, td, seat| {
        let (done, accepted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (over, count) = (done.clone(), accepted.clone());
        let (sender, receiver) = std::sync::mpsc::channel();
        let program = GuestProgram::new(move |guest| {
            for i in (0..64).cycle() {
                if over.load(Ordering::SeqCst) {
                    break;
                }
                // A page that is still there was accepted before, one whose entry the host has is busy.
                if guest.mem_page_accept(gfn(i).base(), Level::L4K).is_ok() {
                    count.fetch_add(1, Ordering::SeqCst);
                }
            }
            sender.send(()).expect("the test waits");
        });
        let lp = td.vcpus()[0].lp().0 as usize;
        host.platform().machine().set_guest_cpu(lp, Box::new(program));
        std::thread::scope(|scope| {
            scope.spawn(|| crate::memory::run(td));
            for round in 0..200 {
                assert_eq!(td.memory().punch_hole(seat, frames(round * 5 % 60, 4)), Ok(Reached::All));
            }
            wait_for_more(&accepted);
            done.store(true, Ordering::SeqCst);
            receiver.recv().expect("the guest comes to its end");
            td.stop();
        });
        assert_eq!(td.ending(), Some(Ending::Stopped));
        check(td, seat, accepted.load(Ordering::SeqCst));
        assert_eq!(td.memory().punch_hole(seat, frames(0, 64)), Ok(Reached::All));
    });
}

#[test]
fn inv_51_at_rest_no_entry_carries_the_hosts_priority_mark() {
    accept_beside_removals(|td, seat, _| {
        for i in 0..64 {
            if module_maps(seat, td, gfn(i)).is_none() {
                continue;
            }
            let entry = GpaLevel::of_gfn(gfn(i), Level::L4K);
            let info = tdh::tdh_mem_sept_rd(seat.lp(), td.tdr(), entry).unwrap();
            // Bit 52 of an entry is the host's mark.
            assert_eq!(info.entry >> 52 & 1, 0, "frame {i}");
        }
    });
}

#[test]
fn inv_52_a_guest_that_accepts_while_the_host_removes_is_never_starved() {
    accept_beside_removals(|td, _, accepted| {
        assert!(accepted > 0);
        let exits = td.vcpus()[0].exits();
        let expected = [ExitReason::EPT_VIOLATION, ExitReason::EXTERNAL_INTERRUPT].map(ExitKind::Exit);
        assert!(exits.keys().all(|kind| expected.contains(kind)), "it waited too long: {exits:?}");
    });
}

#[test]
fn inv_56_the_run_loop_enters_again_only_when_the_fault_is_resolved() {
    with_td(|host, td, seat| {
        const PAGES: u64 = 40;
        let shared_bit = td.shared_bit();
        let (sender, receiver) = std::sync::mpsc::channel();
        convert(seat, frames(512, PAGES), Side::Shared);
        let program = GuestProgram::new(move |guest| {
            for i in 0..PAGES {
                guest.mem_page_accept(gfn(i).base(), Level::L4K).expect("a page is accepted");
                let shared = shared_bit.join(Side::Shared, gfn(512 + i).base());
                guest.write(shared, &[7]).expect("shared memory is there");
            }
            sender.send(()).expect("the test waits");
        });
        let lp = td.vcpus()[0].lp().0 as usize;
        host.platform().machine().set_guest_cpu(lp, Box::new(program));
        std::thread::scope(|scope| {
            scope.spawn(|| crate::memory::run(td));
            receiver.recv().expect("the guest comes to its end");
            td.stop();
        });
        let exits = td.vcpus()[0].exits();
        let violations = exits.get(&ExitKind::Exit(ExitReason::EPT_VIOLATION)).copied().unwrap_or_default();
        assert_eq!(violations, 2 * PAGES, "one exit for each page, and none twice: {exits:?}");
        let mapped = td.memory().shared_fault(seat, gfn(512), Access::Read, || false);
        assert!(matches!(mapped, Ok(Resolution::Mapped(_))));
    });
}
