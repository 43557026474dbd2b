//! Devices answer where the bus says so: every access reaches them, once, as wide as the instruction makes it.

use tdvisor_base::Gpa;
use x86_arch::{Access, Gpr};

use crate::exits::{Exit, RefusedBy};
use crate::testing::{Machine, NotToday, layout};

/// Code with RBX at the device.
fn machine(code: &[u8]) -> Machine {
    let mut m = Machine::long();
    m.code(code);
    m.cpu.state.set_gpr(Gpr::Rbx, layout::DEVICE + 0x10);
    m
}

#[test]
fn a_load_asks_the_device_every_time() {
    // mov eax, [rbx]; movzx ecx, byte [rbx]; hlt
    let mut m = machine(&[0x8B, 0x03, 0x0F, 0xB6, 0x0B, 0xF4]);
    m.run_to_hlt();
    assert_eq!(m.cpu.state.gpr(Gpr::Rax), 0xD3D2_D1D0);
    assert_eq!(m.cpu.state.gpr(Gpr::Rcx), 0xD0);
    let at = Gpa::new(layout::DEVICE + 0x10);
    assert_eq!(m.bus.device, [(at, Access::Read, 4), (at, Access::Read, 1)]);
}

#[test]
fn stores_and_locked_updates_reach_the_device() {
    // mov [rbx], rax; lock inc dword [rbx]; lock cmpxchg [rbx], ecx; hlt
    let mut m = machine(&[0x48, 0x89, 0x03, 0xF0, 0xFF, 0x03, 0xF0, 0x0F, 0xB1, 0x0B, 0xF4]);
    m.run_to_hlt();
    let at = Gpa::new(layout::DEVICE + 0x10);
    let (load, store) = ((at, Access::Read, 4), (at, Access::Write, 4));
    assert_eq!(m.bus.device, [(at, Access::Write, 8), load, store, load, store]);
}

#[test]
fn an_access_across_two_pages_asks_each_side_for_its_part() {
    let mut m = machine(&[0x8B, 0x03, 0xF4]);
    m.cpu.state.set_gpr(Gpr::Rbx, layout::DEVICE - 2);
    m.poke(layout::DEVICE - 8, 0xAABB_0000_0000_0000);
    m.run_to_hlt();
    assert_eq!(m.cpu.state.gpr(Gpr::Rax), 0xD1D0_AABB);
    assert_eq!(m.bus.device, [(Gpa::new(layout::DEVICE), Access::Read, 2)]);
}

#[test]
fn a_repeated_store_reaches_the_device_element_by_element() {
    // rep stosd; hlt
    let mut m = machine(&[0xF3, 0xAB, 0xF4]);
    m.cpu.state.set_gpr(Gpr::Rdi, layout::DEVICE);
    m.cpu.state.set_gpr(Gpr::Rcx, 20);
    m.run_to_hlt();
    let expected: Vec<_> = (0..20).map(|n| (Gpa::new(layout::DEVICE + 4 * n), Access::Write, 4)).collect();
    assert_eq!(m.bus.device, expected);
}

#[test]
fn a_device_that_refuses_ends_the_run_with_its_reason_and_nothing_done() {
    let mut m = machine(&[0x90, 0x8B, 0x03]);
    m.bus.device_refuses = true;
    let Exit::Refused(access) = m.run() else { panic!("the device refuses") };
    assert_eq!(access.by, RefusedBy::Bus(NotToday));
    assert_eq!((access.gpa, access.access), (Gpa::new(layout::DEVICE + 0x10), Access::Read));
    assert_eq!(access.gla, layout::DEVICE + 0x10);
    assert_eq!(m.cpu.state.rip(), layout::CODE + 1);
}
