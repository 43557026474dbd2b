//! Whom an exit of an L2 VM concerns.

use seam_emu::guest::reason;
use seam_emu::{Vm, VmExit};
use tdx_module_iface::exit::ExitReason;
use tdx_module_iface::metadata::{vmcs, vp};
use tdx_module_iface::{Status, StatusCode};
use x86_arch::{Gpr, cr0, efer};

use super::scene::*;

const EFER: u32 = 0xc000_0080;
const VMX_BASIC: u32 = 0x480;
const X2APIC_ID: u32 = 0x802;
/// An MSR that no TD has.
const UNKNOWN: u32 = 0x1234;
const GP: u8 = 13;
const L2: Vm = match Vm::l2(1) {
    Some(vm) => vm,
    None => panic!("there are three"),
};

#[test]
fn an_l2_vm_enters_long_mode_by_itself() {
    let scene = Scene::new().leaving_msrs(&[EFER]);
    let seen = scene.play([l1_enters(), writes_msr(EFER, efer::LME | efer::NXE)]);
    assert_eq!(seen[2].vm, L2);
    let before = seen[1].state.control.efer;
    assert_ne!(seen[2].state.control.efer, before, "it is written");
    assert_eq!(seen[2].state.control.efer & efer::LME, efer::LME);
    // And off again, which L1 itself may not.
    let seen = scene.play([writes_msr(EFER, efer::NXE)]);
    assert_eq!((seen[1].vm, seen[1].state.control.efer & efer::LME), (L2, 0));
}

#[test]
fn l1_answers_for_what_its_vm_reads_of_vmx_and_of_its_apic() {
    for index in [VMX_BASIC, X2APIC_ID] {
        let seen = Scene::new().leaving_msrs(&[index]).play([l1_enters(), reads_msr(index)]);
        assert_eq!(seen[2].reason(), ExitReason::RDMSR, "{index:#x}");
    }
}

#[test]
fn what_l1_may_not_reach_itself_is_a_fault_in_its_vm_too() {
    let seen = Scene::new().leaving_msrs(&[UNKNOWN]).play([l1_enters(), reads_msr(UNKNOWN)]);
    assert_eq!((seen[2].vm, seen[2].state.event.map(|event| event.vector)), (L2, Some(GP)));
}

#[test]
fn l1_gets_the_exceptions_that_it_asks_for_with_the_exit_that_led_to_them() {
    let acts = [l1_sets(of_vm(&vmcs::EXCEPTION_BITMAP), 1 << GP), l1_enters(), reads_msr(UNKNOWN)];
    let seen = Scene::new().leaving_msrs(&[UNKNOWN]).play(acts);
    assert_eq!(seen[1].status(), StatusCode::SUCCESS);
    assert_eq!(seen[3].reason(), ExitReason::RDMSR);
    assert_eq!(seen[3].state.regs[Gpr::R9] >> 32, 0, "the error code of the exception");
}

#[test]
fn an_l2_vm_turns_protection_on_and_off_unless_l1_owns_the_bit() {
    let seen = Scene::new().leaving_cr0().play([l1_enters(), writes_cr(0, cr0::NE)]);
    assert_eq!((seen[2].vm, seen[2].state.control.cr0 & cr0::PE), (L2, 0));
    let own = [(&vmcs::CR0_GUEST_HOST_MASK, cr0::PE), (&vmcs::CR0_READ_SHADOW, cr0::PE)];
    let mut acts: Vec<_> = own.map(|(field, bits)| l1_sets(of_vm(field), bits)).into();
    acts.extend([l1_enters(), writes_cr(0, cr0::NE)]);
    let seen = Scene::new().play(acts);
    assert_eq!(seen[4].reason(), ExitReason::CR_ACCESS);
}

#[test]
fn lmsw_turns_protection_on_and_never_off() {
    // MOV to CR0 apart, LMSW is access type 3 with its source in bits 31:16.
    let lmsw = |source: u64| exits(VmExit::instruction(ExitReason::CR_ACCESS, 3, 3 << 4 | source << 16));
    let seen = Scene::new().leaving_cr0().play([
        l1_enters(),
        writes_cr(0, cr0::NE),
        lmsw(cr0::PE | cr0::TS),
        lmsw(0),
    ]);
    let low = |at: usize| seen[at].state.control.cr0 & 0xf;
    assert!(seen[2..].iter().all(|seen| seen.vm == L2));
    assert_eq!([low(2), low(3), low(4)], [0, cr0::PE | cr0::TS, cr0::PE]);
}

#[test]
fn an_exit_that_no_table_knows_is_the_end_of_the_td() {
    let (seen, gprs) = Scene::new().play_to_exit([l1_enters(), exits(VmExit::plain(ExitReason(0x5a)))]);
    assert_eq!(seen.len(), 2, "neither VM goes on");
    assert_eq!(Status::from_raw(gprs.rax).code(), StatusCode::NON_RECOVERABLE_TD);
}

#[test]
fn exits_that_only_l2_vms_have_go_to_l1() {
    for reason in [reason::SGX_CONFLICT, reason::LDTR_TR_ACCESS, ExitReason::PAUSE, reason::INVLPG] {
        let seen = Scene::new().play([l1_enters(), exits(VmExit::instruction(reason, 2, 0x77))]);
        assert_eq!(seen[2].reason(), reason);
        assert_eq!(seen[2].state.regs[Gpr::Rcx], 0x77, "with its qualification");
    }
}

#[test]
fn what_would_be_a_virtualization_exception_in_l1_is_its_affair_in_its_vm() {
    let seen = Scene::new().leaving_msrs(&[EFER]).play([l1_enters(), writes_msr(EFER, 1 << 63)]);
    assert_eq!(seen[2].reason(), ExitReason::WRMSR);
}

#[test]
fn a_pause_loop_is_counted_in_the_processors_ticks() {
    let scene = Scene::new();
    let gap = of_vm(&vmcs::PLE_GAP);
    // The TD's clock began when the processor's had gone for a moment, and has another rate.
    let seen = scene.play([l1_writes(gap, 41)]);
    assert_eq!(seen[1].status(), StatusCode::SUCCESS);
    // Once the moment has more than 32 bits, the sum no longer fits the field. L1's value is kept all the same.
    let late = Scene::late(1 << 33);
    let read = tdx_module_iface::Gprs { rdx: gap, ..tdx_module_iface::Gprs::ZERO };
    let seen = late.play([l1_writes(gap, 41), tdcall(tdx_module_iface::TdgLeaf::VP_RD, read)]);
    assert_eq!(seen[1].status(), StatusCode::METADATA_FIELD_VALUE_NOT_VALID);
    assert_eq!(seen[2].state.regs[Gpr::R8], 41);
}

#[test]
fn l1_gets_its_vm_back_at_the_deadline_that_it_set() {
    let scene = Scene::late(1 << 20);
    let deadline = vp::TSC_DEADLINE.element_id(1).unwrap().0;
    // A moment that the processor's clock has passed.
    let seen = scene.play([l1_writes(deadline, 1), l1_enters()]);
    assert_eq!(seen[1].status(), StatusCode::SUCCESS);
    assert_eq!(seen[2].reason(), ExitReason::PREEMPTION_TIMER);
    // No deadline: the VM runs.
    let seen = scene.play([l1_writes(deadline, u64::MAX), l1_enters()]);
    assert_eq!((seen[1].status(), seen[2].vm), (StatusCode::SUCCESS, L2));
}
