//! Two processors at once: locks are real, counts stay right.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use seam_emu::testing::{Host, Td, code, mem};
use seam_emu::{GuestEnv, GuestState, ScriptedGuest, VmExit};
use tdx_module_iface::exit::ExitReason;
use tdx_module_iface::{Gprs, Operand, Status, StatusCode, TdhLeaf};

const GPA: u64 = 0x8000_0000;
/// TD field CHLDCNT.
const CHLDCNT: u64 = 0x8010_0003_0000_0004;

fn child_count(host: &Host, td: &Td) -> u64 {
    host.ok(0, TdhLeaf::MNG_RD, Gprs { rcx: td.tdr, rdx: CHLDCNT, ..Gprs::ZERO }).r8
}

/// Repeats a call while it is busy.
fn patiently(host: &Host, lp: usize, leaf: TdhLeaf, gprs: Gprs) -> Gprs {
    loop {
        let out = host.call(lp, leaf, gprs);
        if code(&out) != StatusCode::OPERAND_BUSY {
            return out;
        }
        thread::yield_now();
    }
}

#[test]
fn while_a_vcpu_runs_exclusive_users_of_its_td_are_busy_and_shared_ones_are_not() {
    let host = Host::ready();
    let td = host.td(2);
    let entered = Barrier::new(2);
    let leave = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut guest = ScriptedGuest(|_: &mut GuestState, _: &GuestEnv<'_>| {
                entered.wait();
                while !leave.load(Ordering::Acquire) {
                    thread::yield_now();
                }
                VmExit::plain(ExitReason::EXTERNAL_INTERRUPT)
            });
            let mut gprs = Gprs { rcx: td.vcpus[0], ..Gprs::ZERO };
            host.machine.lp(0).unwrap().seamcall_with(&mut gprs, &mut guest).unwrap();
            assert_eq!(gprs.rax, 1);
        });
        entered.wait();
        let busy = Status::with_operand(StatusCode::OPERAND_BUSY, Operand::RCX);
        let flush = Gprs { rcx: td.vcpus[0], ..Gprs::ZERO };
        assert_eq!(host.status(1, TdhLeaf::VP_FLUSH, flush), busy);
        let tdr = Gprs { rcx: td.tdr, ..Gprs::ZERO };
        assert_eq!(host.status(1, TdhLeaf::MNG_VPFLUSHDONE, tdr), busy);
        assert_eq!(host.status(1, TdhLeaf::MEM_TRACK, tdr), Status::SUCCESS);
        let enter = host.call(1, TdhLeaf::VP_ENTER, Gprs { rcx: td.vcpus[0], ..Gprs::ZERO });
        assert_eq!(code(&enter), StatusCode::VCPU_STATE_INCORRECT);
        leave.store(true, Ordering::Release);
    });
    assert_eq!(host.machine.audit(), []);
}

#[test]
fn pages_mapped_and_removed_by_two_processors_are_all_counted() {
    const PAGES: u64 = 200;
    let host = Host::ready();
    let td = host.td(1);
    host.tables(&td, GPA, 0);
    let before = child_count(&host, &td);
    thread::scope(|scope| {
        for lp in 0..2u64 {
            let (host, td) = (&host, &td);
            scope.spawn(move || {
                for index in (lp..2 * PAGES).step_by(2) {
                    let gpa = GPA + index * 0x1000;
                    let page = host.page();
                    let out = patiently(host, lp as usize, TdhLeaf::MEM_PAGE_AUG, mem(td, gpa, 0, page));
                    assert_eq!(out.rax, 0);
                }
            });
        }
    });
    assert_eq!(child_count(&host, &td), before + 2 * PAGES);
    assert_eq!(host.machine.audit(), []);
    for index in 0..2 * PAGES {
        host.ok(0, TdhLeaf::MEM_RANGE_BLOCK, mem(&td, GPA + index * 0x1000, 0, 0));
    }
    host.ok(0, TdhLeaf::MEM_TRACK, Gprs { rcx: td.tdr, ..Gprs::ZERO });
    thread::scope(|scope| {
        for lp in 0..2u64 {
            let (host, td) = (&host, &td);
            scope.spawn(move || {
                for index in (lp..2 * PAGES).step_by(2) {
                    let gpa = GPA + index * 0x1000;
                    let out = patiently(host, lp as usize, TdhLeaf::MEM_PAGE_REMOVE, mem(td, gpa, 0, 0));
                    assert_eq!(out.rax, 0);
                }
            });
        }
    });
    assert_eq!(child_count(&host, &td), before);
    assert_eq!(host.machine.audit(), []);
}

#[test]
fn of_two_processors_that_map_one_entry_exactly_one_wins() {
    let host = Host::ready();
    let td = host.td(1);
    host.tables(&td, GPA, 0);
    for index in 0..100u64 {
        let gpa = GPA + index * 0x1000;
        let start = Barrier::new(2);
        let codes: Vec<_> = thread::scope(|scope| {
            let (host, td, start) = (&host, &td, &start);
            let race = |lp: usize| {
                let page = host.page();
                start.wait();
                code(&host.call(lp, TdhLeaf::MEM_PAGE_AUG, mem(td, gpa, 0, page)))
            };
            let other = scope.spawn(move || race(1));
            vec![race(0), other.join().unwrap()]
        });
        let wins = codes.iter().filter(|code| **code == StatusCode::SUCCESS).count();
        assert_eq!(wins, 1, "{codes:?}");
        let loss = [StatusCode::OPERAND_BUSY, StatusCode::EPT_ENTRY_STATE_INCORRECT];
        assert!(codes.iter().all(|code| *code == StatusCode::SUCCESS || loss.contains(code)), "{codes:?}");
    }
    assert_eq!(host.machine.audit(), []);
}
