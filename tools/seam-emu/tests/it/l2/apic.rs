//! Virtual interrupts of an L2 VM.

use seam_emu::Vm;
use seam_emu::guest::reason;
use tdx_module_iface::StatusCode;
use tdx_module_iface::exit::ExitReason;
use tdx_module_iface::metadata::vmcs;
use x86_arch::Gpr;

use super::scene::*;

const DELIVERY: u64 = 1 << 9;
const TPR: u32 = 0x808;
const EOI: u32 = 0x80b;
const SELF_IPI: u32 = 0x83f;
/// Where the APIC page has its interrupt request register.
const IRR: u64 = 0x200;

/// The word and the bit of a vector in a register of 256 bits.
fn bit(vector: u8) -> (u64, u32) {
    (u64::from(vector / 32) * 0x10, 1 << (vector % 32))
}

/// L1 asks for delivery of interrupts and lets its VM reach its APIC.
fn delivering() -> Scene {
    let delivery = l1_sets(of_vm(&vmcs::PROCBASED_CONTROLS2), DELIVERY);
    Scene::new().leaving_msrs(&[TPR, EOI, SELF_IPI]).told(vec![delivery])
}

/// L1 requests an interrupt.
fn l1_requests(vector: u8) -> Act {
    let (word, bit) = bit(vector);
    l1_stores(APIC + IRR + word, bit.to_le_bytes())
}

fn delivered(seen: &Seen) -> Option<u8> {
    assert_ne!(seen.vm, Vm::L1);
    seen.state.event.map(|event| event.vector)
}

#[test]
fn the_interrupt_that_l1_requests_is_delivered_and_ended_without_an_exit() {
    let scene = delivering();
    let acts = [l1_requests(0x51), l1_requests(0x81), l1_enters_with(0x81), writes_msr(EOI, 0)];
    let seen = scene.play(acts);
    assert_eq!(delivered(&seen[3]), Some(0x81), "the higher first");
    assert_eq!(delivered(&seen[4]), Some(0x51), "the lower once the higher has ended");
}

#[test]
fn a_vm_without_delivery_gets_none() {
    let seen = Scene::new().play([l1_requests(0x51), l1_enters_with(0x51)]);
    assert_eq!(delivered(&seen[2]), None);
}

#[test]
fn the_task_priority_holds_interrupts_back() {
    let scene = delivering();
    let acts = [l1_enters(), writes_msr(TPR, 0x60), writes_msr(SELF_IPI, 0x51), writes_msr(TPR, 0x40)];
    let seen = scene.play(acts);
    let events: Vec<_> = seen[1..].iter().map(delivered).collect();
    assert_eq!(events, [None, None, None, Some(0x51)]);
}

#[test]
fn l1_learns_of_the_end_of_interrupts_that_it_asks_about() {
    let scene = delivering();
    let eoi_exits = of_vm(&vmcs::EOI_EXIT_BITMAP) + 2;
    let acts =
        [l1_sets(eoi_exits, 1 << (0x51 - 64)), l1_requests(0x51), l1_enters_with(0x51), writes_msr(EOI, 0)];
    let seen = scene.play(acts);
    assert_eq!(seen[1].status(), StatusCode::SUCCESS);
    assert_eq!(delivered(&seen[3]), Some(0x51));
    assert_eq!(seen[4].reason(), ExitReason::VIRTUALIZED_EOI);
    assert_eq!(seen[4].state.regs[Gpr::Rcx], 0x51);
}

#[test]
fn l1_learns_of_a_task_priority_below_its_threshold() {
    let scene = Scene::new();
    let acts = [l1_writes(of_vm(&vmcs::TPR_THRESHOLD), 5), l1_enters()];
    let seen = scene.play(acts);
    assert_eq!(seen[1].status(), StatusCode::SUCCESS);
    assert_eq!(seen[2].reason(), reason::TPR_BELOW_THRESHOLD);
}
