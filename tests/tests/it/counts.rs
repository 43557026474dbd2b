//! How many SEAMCALLs an operation on a TD's memory costs: exact numbers, of finalised TDs.
//!
//! Removal is batched: n leaves cost n BLOCK, one TRACK and n REMOVE, where KVM has n of each. Tables that a
//! removal emptied cannot go in the same round (below a blocked entry nothing can be removed); they ride on
//! the next removal for one BLOCK each, and its TRACK is theirs too. Each TRACK comes with one kick of the vCPUs
//! that are in the guest; here that is one, so that kicks are counted by their IPIs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::memory::{Calls, EmulatedHost, EmulatedTd, SEAT, calls_of, convert, frames, host, td, touch};
use seam_emu::guest::GuestRegisters;
use seam_emu::{GuestEnv, GuestState, ScriptedGuest, VmExit};
use td_host::memory::Resolution;
use tdvisor_base::{Level, Side};
use tdx_module_iface::exit::ExitReason;

const MIB: u64 = 1 << 20;

/// Runs a test on a fresh TD with 16 MiB for it, and takes the TD down again.
fn with_td(test: impl FnOnce(&EmulatedHost, &EmulatedTd<'_>)) {
    let host = host(128 * MIB);
    let td = td(&host, 16 * MIB, Level::L2M);
    test(&host, &td);
    td.audit().expect("mirror, Secure EPT and PAMT agree");
    assert!(td.teardown().is_clean());
    assert_eq!(host.platform().violations(), []);
}

/// Runs `work` while the TD's only vCPU is in the guest, and gives the calls and the kicks that it costs.
fn beside_a_running_vcpu<T>(
    host: &EmulatedHost,
    td: &EmulatedTd<'_>,
    work: impl FnOnce() -> T,
) -> (Calls, u64, T) {
    let inside = Arc::new(AtomicBool::new(false));
    let entered = inside.clone();
    let idle = ScriptedGuest(move |state: &mut GuestState, env: &GuestEnv<'_>| {
        state.enter_64_bit_mode();
        entered.store(true, Ordering::SeqCst);
        while !env.interrupt_pending() {
            std::thread::yield_now();
        }
        VmExit::plain(ExitReason::EXTERNAL_INTERRUPT)
    });
    let vcpu = &td.vcpus()[0];
    host.platform().machine().set_guest_cpu(vcpu.lp().0 as usize, Box::new(idle));
    std::thread::scope(|scope| {
        scope.spawn(|| crate::memory::run(td));
        while !inside.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        let before = host.platform().ipis();
        let (mut calls, result) = calls_of(host, work);
        let kicks = host.platform().ipis() - before;
        calls.forget("VP.ENTER");
        td.stop();
        (calls, kicks, result)
    })
}

#[test]
fn zapping_n_leaves_of_a_running_td_costs_one_kick() {
    with_td(|host, td| {
        const N: u64 = 37;
        let mut seat = td.memory().take_seat(SEAT).unwrap();
        for i in 0..N {
            touch(&mut seat, frames(i, 1).start(), Level::L4K);
        }
        let (calls, kicks, ()) =
            beside_a_running_vcpu(host, td, || convert(&mut seat, frames(0, N), Side::Shared));
        let expected = [("RANGE.BLOCK", N), ("TRACK", 1), ("PAGE.REMOVE", N)];
        assert_eq!((calls.memory(), kicks), (memory_calls(expected), 1));
    });
}

#[test]
fn emptied_tables_of_a_running_td_share_one_track_and_one_kick() {
    with_td(|host, td| {
        const TABLES: u64 = 5;
        let mut seat = td.memory().take_seat(SEAT).unwrap();
        for table in 0..TABLES {
            touch(&mut seat, frames(table * 512, 1).start(), Level::L4K);
        }
        convert(&mut seat, frames(0, TABLES * 512), Side::Shared);
        let (calls, kicks, freed) = beside_a_running_vcpu(host, td, || td.memory().reclaim_tables(&mut seat));
        assert_eq!(freed, Ok(TABLES));
        let expected = [("RANGE.BLOCK", TABLES), ("TRACK", 1), ("SEPT.REMOVE", TABLES)];
        assert_eq!((calls.memory(), kicks), (memory_calls(expected), 1));
    });
}

#[test]
fn converting_2m_of_a_running_td_costs_one_of_each() {
    with_td(|host, td| {
        let mut seat = td.memory().take_seat(SEAT).unwrap();
        let range = frames(1024, 512);
        touch(&mut seat, range.start(), Level::L2M);
        let (calls, kicks, ()) = beside_a_running_vcpu(host, td, || convert(&mut seat, range, Side::Shared));
        let expected = [("RANGE.BLOCK", 1), ("TRACK", 1), ("PAGE.REMOVE", 1)];
        assert_eq!((calls.memory(), kicks), (memory_calls(expected), 1));
    });
}

#[test]
fn faults_of_a_running_td_kick_nobody() {
    with_td(|host, td| {
        let mut seat = td.memory().take_seat(SEAT).unwrap();
        let (_, kicks, ()) = beside_a_running_vcpu(host, td, || {
            for i in 0..100 {
                touch(&mut seat, frames(i, 1).start(), Level::L4K);
            }
        });
        assert_eq!(kicks, 0);
    });
}

fn memory_calls<const N: usize>(expected: [(&str, u64); N]) -> BTreeMap<&str, u64> {
    BTreeMap::from(expected)
}

#[test]
fn zapping_n_leaves_costs_n_block_one_track_and_n_remove() {
    with_td(|host, td| {
        const N: u64 = 37;
        let mut seat = td.memory().take_seat(SEAT).unwrap();
        let range = frames(100, N);
        for i in 0..N {
            assert_eq!(
                touch(&mut seat, frames(100 + i, 1).start(), Level::L4K),
                Resolution::Mapped(Level::L4K)
            );
        }
        let (calls, ()) = calls_of(host, || convert(&mut seat, range, Side::Shared));
        let expected = [("RANGE.BLOCK", N), ("TRACK", 1), ("PAGE.REMOVE", N)];
        assert_eq!(calls.memory(), memory_calls(expected));
        assert_eq!(calls.of("PHYMEM.PAGE.WBINVD"), N, "each page is written back once");
    });
}

#[test]
fn one_track_serves_leaves_of_many_tables_and_their_emptied_tables_ride_on_the_next_removal() {
    with_td(|host, td| {
        const TABLES: u64 = 3;
        const LEAVES: u64 = 5;
        let mut seat = td.memory().take_seat(SEAT).unwrap();
        for table in 0..TABLES {
            for i in 0..LEAVES {
                touch(&mut seat, frames(table * 512 + 7 * i, 1).start(), Level::L4K);
            }
        }
        let elsewhere = frames(4 * 512 + 9, 1);
        let stays = frames(4 * 512 + 10, 1);
        touch(&mut seat, elsewhere.start(), Level::L4K);
        touch(&mut seat, stays.start(), Level::L4K);

        let all = frames(0, TABLES * 512);
        let (calls, ()) = calls_of(host, || convert(&mut seat, all, Side::Shared));
        let n = TABLES * LEAVES;
        let expected = [("RANGE.BLOCK", n), ("TRACK", 1), ("PAGE.REMOVE", n)];
        assert_eq!(calls.memory(), memory_calls(expected));

        let (calls, ()) = calls_of(host, || convert(&mut seat, elsewhere, Side::Shared));
        let expected =
            [("RANGE.BLOCK", 1 + TABLES), ("TRACK", 1), ("PAGE.REMOVE", 1), ("SEPT.REMOVE", TABLES)];
        assert_eq!(calls.memory(), memory_calls(expected));
    });
}

#[test]
fn a_range_whose_table_went_is_mapped_at_2m_again() {
    with_td(|host, td| {
        let mut seat = td.memory().take_seat(SEAT).unwrap();
        touch(&mut seat, frames(0, 1).start(), Level::L4K);
        touch(&mut seat, frames(512, 1).start(), Level::L4K);
        convert(&mut seat, frames(0, 512), Side::Shared);
        convert(&mut seat, frames(512, 1), Side::Shared);
        convert(&mut seat, frames(0, 512), Side::Private);
        let (calls, mapped) = calls_of(host, || touch(&mut seat, frames(77, 1).start(), Level::L2M));
        assert_eq!(mapped, Resolution::Mapped(Level::L2M));
        assert_eq!(calls.memory(), memory_calls([("PAGE.AUG", 1)]));
    });
}

#[test]
fn converting_2m_mapped_at_2m_costs_one_block_one_track_one_remove() {
    with_td(|host, td| {
        let mut seat = td.memory().take_seat(SEAT).unwrap();
        let range = frames(1024, 512);
        assert_eq!(touch(&mut seat, range.start(), Level::L2M), Resolution::Mapped(Level::L2M));
        let (calls, ()) = calls_of(host, || convert(&mut seat, range, Side::Shared));
        let expected = [("RANGE.BLOCK", 1), ("TRACK", 1), ("PAGE.REMOVE", 1)];
        assert_eq!(calls.memory(), memory_calls(expected));
        assert_eq!(calls.of("PHYMEM.PAGE.WBINVD"), 512, "the leaf writes back 4K at a time");

        let (calls, ()) = calls_of(host, || convert(&mut seat, range, Side::Private));
        assert_eq!(calls.memory(), BTreeMap::new(), "the way back has nothing of the module's to remove");
    });
}

#[test]
fn converting_4k_of_a_2m_page_costs_one_demotion_and_one_removal() {
    with_td(|host, td| {
        let mut seat = td.memory().take_seat(SEAT).unwrap();
        touch(&mut seat, frames(1024, 1).start(), Level::L2M);
        let (calls, ()) = calls_of(host, || convert(&mut seat, frames(1024 + 200, 1), Side::Shared));
        let expected = [("RANGE.BLOCK", 2), ("TRACK", 2), ("PAGE.DEMOTE", 1), ("PAGE.REMOVE", 1)];
        assert_eq!(calls.memory(), memory_calls(expected));
        let mirror = td.memory().statistics().mirror;
        assert_eq!(mirror.leaves_2m, 0);
    });
}

#[test]
fn mapping_1g_of_2m_capable_private_memory_issues_512_aug_at_2m() {
    const GIB: u64 = 1 << 30;
    let host = host(GIB + 256 * MIB);
    let before = crate::memory::Belongings::of(&host);
    let td = td(&host, GIB, Level::L2M);
    {
        let mut seat = td.memory().take_seat(SEAT).unwrap();
        let (calls, ()) = calls_of(&host, || {
            // Every frame that a guest would touch: 2 MiB apart is enough, and what lies between is there.
            for i in 0..512 {
                let first = frames(i * 512, 512);
                assert_eq!(touch(&mut seat, first.start(), Level::L2M), Resolution::Mapped(Level::L2M));
            }
        });
        // The memory begins at 64 MiB, so it takes one more table of 2M entries: the one of the second GiB.
        assert_eq!(calls.memory(), memory_calls([("PAGE.AUG", 512), ("SEPT.ADD", 1)]));
        let (calls, ()) = calls_of(&host, || {
            for i in (0..GIB / 4096).step_by(4099) {
                assert_eq!(
                    touch(&mut seat, frames(i, 1).start(), Level::L2M),
                    Resolution::Mapped(Level::L2M)
                );
            }
        });
        assert_eq!(calls.memory(), BTreeMap::new(), "what is mapped costs no call");
    }
    assert_eq!(td.memory().statistics().mirror.leaves_2m, 512);
    assert!(td.teardown().is_clean());
    assert_eq!(crate::memory::Belongings::of(&host), before);
    assert_eq!(host.platform().violations(), []);
}
