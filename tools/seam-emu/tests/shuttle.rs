//! Random schedules of two hosts and a guest on one TD (run with `RUSTFLAGS="--cfg shuttle"`).
//!
//! Each schedule ends in an audit: no page is counted twice or lost, and every entry is in a state that some
//! order of the calls explains. A failing schedule prints the seed that replays it.

#![cfg(shuttle)]
#![expect(clippy::unwrap_used, reason = "a test stops where its host fails")]

use std::sync::Arc;

use seam_emu::guest::GuestRegisters;
use seam_emu::testing::{Host, Td, code, mem};
use seam_emu::{GuestEnv, GuestState, MachineConfig, ScriptedGuest, VmExit};
use tdx_module_iface::exit::ExitReason;
use tdx_module_iface::{Gprs, StatusCode, TdgLeaf, TdhLeaf};

const GPA: u64 = 0x8000_0000;
const CHLDCNT: u64 = 0x8010_0003_0000_0004;
const SCHEDULES: usize = 150;

fn child_count(host: &Host, td: &Td) -> u64 {
    host.ok(0, TdhLeaf::MNG_RD, Gprs { rcx: td.tdr, rdx: CHLDCNT, ..Gprs::ZERO }).r8
}

/// Leaf state of an entry: 0 free, 1 a table, else the state number.
fn state(host: &Host, td: &Td, gpa: u64, level: u64) -> (StatusCode, u64) {
    let out = host.call(0, TdhLeaf::MEM_SEPT_RD, mem(td, gpa, level, 0));
    (code(&out), out.rdx >> 8 & 0xff)
}

/// A guest that accepts what it can and is then interrupted.
fn guest_accepts(host: &Host, td: &Td, gpa_level: u64) {
    let mut tries = 0;
    let mut guest = ScriptedGuest(|state: &mut GuestState, _: &GuestEnv<'_>| {
        state.enter_64_bit_mode();
        tries += 1;
        if tries > 3 {
            return VmExit::plain(ExitReason::EXTERNAL_INTERRUPT);
        }
        state.set_gprs(Gprs { rax: u64::from(TdgLeaf::MEM_PAGE_ACCEPT.0), rcx: gpa_level, ..Gprs::ZERO });
        VmExit::tdcall()
    });
    let mut gprs = Gprs { rcx: td.vcpus[0], ..Gprs::ZERO };
    host.machine.lp(0).unwrap().seamcall_with(&mut gprs, &mut guest).unwrap();
}

fn explore(scenario: impl Fn(Arc<Host>, Td) + Send + Sync + 'static, level: u64) {
    shuttle::check_random(
        move || {
            let config = MachineConfig { lp_packages: vec![0; 3], ..MachineConfig::small() };
            let host = Arc::new(Host::with(config));
            let td = host.td(1);
            host.tables(&td, GPA, level);
            scenario(host, td);
        },
        SCHEDULES,
    );
}

#[test]
fn aug_accept_block_track_and_remove_lose_no_page() {
    explore(
        |host, td| {
            let before = child_count(&host, &td);
            let mapper = {
                let (host, td) = (host.clone(), td.clone());
                shuttle::thread::spawn(move || {
                    let aug = || host.call(1, TdhLeaf::MEM_PAGE_AUG, mem(&td, GPA, 0, host.page()));
                    (0..3).filter(|_| code(&aug()) == StatusCode::SUCCESS).count() as u64
                })
            };
            let remover = {
                let (host, td) = (host.clone(), td.clone());
                shuttle::thread::spawn(move || {
                    let mut removed = 0;
                    for _ in 0..3 {
                        host.call(2, TdhLeaf::MEM_RANGE_BLOCK, mem(&td, GPA, 0, 0));
                        host.call(2, TdhLeaf::MEM_TRACK, Gprs { rcx: td.tdr, ..Gprs::ZERO });
                        let out = host.call(2, TdhLeaf::MEM_PAGE_REMOVE, mem(&td, GPA, 0, 0));
                        removed += u64::from(code(&out) == StatusCode::SUCCESS);
                    }
                    removed
                })
            };
            let guest = {
                let (host, td) = (host.clone(), td.clone());
                shuttle::thread::spawn(move || guest_accepts(&host, &td, GPA))
            };
            let added = mapper.join().unwrap();
            let removed = remover.join().unwrap();
            guest.join().unwrap();
            let (status, entry) = state(&host, &td, GPA, 0);
            assert_eq!(status, StatusCode::SUCCESS);
            let mapped = u64::from(entry != 0);
            assert_eq!(added - removed, mapped, "entry state {entry:#x}");
            assert_eq!(child_count(&host, &td), before + mapped);
            assert_eq!(host.machine.violations(), []);
        },
        0,
    );
}

#[test]
fn a_split_and_an_accept_of_one_large_page_agree_about_its_pieces() {
    explore(
        |host, td| {
            let large = host.large_page();
            host.ok(0, TdhLeaf::MEM_PAGE_AUG, mem(&td, GPA, 1, large));
            let before = child_count(&host, &td);
            let table = host.page();
            let splitter = {
                let (host, td) = (host.clone(), td.clone());
                shuttle::thread::spawn(move || {
                    host.call(1, TdhLeaf::MEM_RANGE_BLOCK, mem(&td, GPA, 1, 0));
                    host.call(1, TdhLeaf::MEM_TRACK, Gprs { rcx: td.tdr, ..Gprs::ZERO });
                    code(&host.call(1, TdhLeaf::MEM_PAGE_DEMOTE, mem(&td, GPA, 1, table)))
                        == StatusCode::SUCCESS
                })
            };
            let guest = {
                let (host, td) = (host.clone(), td.clone());
                shuttle::thread::spawn(move || guest_accepts(&host, &td, GPA))
            };
            let split = splitter.join().unwrap();
            guest.join().unwrap();
            assert_eq!(child_count(&host, &td), before + u64::from(split));
            let (status, _) = state(&host, &td, GPA + 0x1f_f000, 0);
            let reached = status == StatusCode::SUCCESS;
            assert_eq!(reached, split, "pieces exist exactly if the split succeeded");
            assert_eq!(host.machine.violations(), []);
        },
        1,
    );
}
