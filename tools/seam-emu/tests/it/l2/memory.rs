//! Pages of an L2 VM, and what is kept of its translations.

use seam_emu::testing::{code, mem};
use tdx_module_iface::{Gprs, SeamCall, Status, StatusCode, TdgLeaf, TdhLeaf};
use x86_arch::Gpr;

use super::scene::*;

/// Attributes of VM 1: meant, and readable.
const VALID: u64 = 1 << 15;
const READ: u64 = 1;
/// Not a right to use the page: suppress #VE.
const SUPPRESS_VE: u64 = 1 << 8;
const fn of_vm_1(bits: u64) -> u64 {
    bits << 16
}

/// The host brings the L2 tables of a page; gives what it got back.
fn tables(scene: &Scene) {
    for level in [3, 2, 1] {
        let at = STATE & !((1u64 << (12 + 9 * level)) - 1);
        let page = scene.host.page();
        let got = sept_add(scene, at | level, page);
        assert_eq!(Status::from_raw(got.rax).code(), StatusCode::SUCCESS, "level {level}: {got:?}");
    }
}

/// TDH.MEM.SEPT.ADD, version 1: a page for VM 1, and none for L1, which has its own.
fn sept_add(scene: &Scene, entry: u64, page: u64) -> Gprs {
    let mut gprs = Gprs {
        rax: u64::from(TdhLeaf::MEM_SEPT_ADD.0) | 1 << 16,
        r8: u64::MAX,
        r9: page,
        r10: u64::MAX,
        r11: u64::MAX,
        ..mem(&scene.td, entry, 0, 0)
    };
    scene.host.machine.lp(0).unwrap().seamcall(&mut gprs).unwrap();
    gprs
}

fn writes_attributes(attributes: u64, mask: u64) -> Act {
    tdcall(TdgLeaf::MEM_PAGE_ATTR_WR, Gprs { rcx: PAGE, rdx: attributes, r8: mask, ..Gprs::ZERO })
}

fn reads_attributes() -> Act {
    tdcall(TdgLeaf::MEM_PAGE_ATTR_RD, Gprs { rcx: PAGE, ..Gprs::ZERO })
}

#[test]
fn a_page_without_any_right_left_is_no_longer_the_vms_whatever_else_is_asked() {
    let scene = Scene::new();
    tables(&scene);
    let acts = [
        writes_attributes(of_vm_1(VALID | READ), of_vm_1(READ)),
        reads_attributes(),
        writes_attributes(of_vm_1(VALID | SUPPRESS_VE), of_vm_1(READ | SUPPRESS_VE)),
        reads_attributes(),
    ];
    let seen = scene.play(acts);
    let answer = |at: usize| (seen[at].status(), seen[at].state.regs[Gpr::Rdx] >> 16 & 0xffff);
    assert_eq!(answer(2), (StatusCode::SUCCESS, VALID | READ));
    assert_eq!(answer(3), (StatusCode::SUCCESS, VALID));
    assert_eq!(answer(4), (StatusCode::SUCCESS, 0), "it is no longer the VM's");
}

#[test]
fn bit_63_of_a_supplied_table_is_no_part_of_its_address() {
    let scene = Scene::new();
    let at = STATE & !((1u64 << 39) - 1);
    let page = scene.host.page();
    let got = sept_add(&scene, at | 3, page | 1 << 63);
    assert_eq!(code(&got), StatusCode::SUCCESS);
    // L1's table was there: its place says so. The VM's page is taken.
    let again = sept_add(&scene, at | 3, page);
    assert_ne!(code(&again), StatusCode::SUCCESS);
}

#[test]
fn a_list_of_addresses_that_is_interrupted_goes_on_behind_the_last_entry_done() {
    let scene = Scene::new();
    let host = &scene.host;
    // Three entries from the first on.
    let list = PAGE | 3 << 52;
    let interrupted = |pending: bool| -> Act {
        Box::new(move |state, env| {
            env.machine().set_interrupt_pending(0, pending);
            if state.regs[Gpr::Rdx] & PAGE != PAGE || state.regs[Gpr::Rcx] != VM | 1 {
                state.regs[Gpr::Rdx] = list;
            }
            state.regs[Gpr::Rax] = u64::from(TdgLeaf::VP_INVVPID.0);
            state.regs[Gpr::Rcx] = VM | 1;
            seam_emu::VmExit::tdcall()
        })
    };
    let seen = scene.play([interrupted(true), interrupted(true), interrupted(true), interrupted(false)]);
    let rdx: Vec<_> = seen[1..].iter().map(|seen| seen.state.regs[Gpr::Rdx]).collect();
    let after = |done: u64| PAGE | done | (3 - done) << 52;
    assert_eq!(rdx, [after(1), after(2), after(3), after(3)]);
    assert_eq!(seen[4].status(), StatusCode::SUCCESS, "nothing is left, and it says so");
    host.machine.set_interrupt_pending(0, false);
}

#[test]
fn a_large_page_is_cut_with_a_table_that_was_given_back_before_and_waits_for_interrupts_first() {
    const LARGE: u64 = 0xc000_0000;
    let scene = Scene::new();
    let (host, td) = (&scene.host, &scene.td);
    host.tables(td, LARGE, 1);
    host.ok(0, TdhLeaf::MEM_PAGE_AUG, mem(td, LARGE, 1, host.large_page()));
    host.ok(0, TdhLeaf::MEM_RANGE_BLOCK, mem(td, LARGE, 1, 0));
    host.ok(0, TdhLeaf::MEM_TRACK, Gprs { rcx: td.tdr, ..Gprs::ZERO });
    let table = host.page();
    let demote = Gprs { r9: host.page() | 1 << 63, r10: u64::MAX, r11: u64::MAX, ..mem(td, LARGE, 1, table) };
    // The VM has no tables there, which is found behind the interrupt.
    host.machine.set_interrupt_pending(0, true);
    assert_eq!(code(&host.call(0, TdhLeaf::MEM_PAGE_DEMOTE, demote)), StatusCode::INTERRUPTED_RESTARTABLE);
    host.machine.set_interrupt_pending(0, false);
    assert_eq!(code(&host.call(0, TdhLeaf::MEM_PAGE_DEMOTE, demote)), StatusCode::L2_SEPT_WALK_FAILED);
}
