//! The first things that a guest does.

use crate::exits::{Exit, InstructionExit};
use crate::testing::{KERNEL_CODE, Machine, layout};
use x86_arch::{Gpr, cr0, efer};

#[test]
fn a_loop_sums_what_it_should() {
    let mut m = Machine::long();
    // xor eax,eax; mov ecx,1000; l: add rax,rcx; dec ecx; jnz l; hlt
    m.code(&[0x31, 0xC0, 0xB9, 0xE8, 3, 0, 0, 0x48, 0x01, 0xC8, 0xFF, 0xC9, 0x75, 0xF9, 0xF4]);
    m.run_to_hlt();
    assert_eq!(m.cpu.state.gpr(Gpr::Rax), 500_500);
    assert_eq!(m.cpu.retired(), 2 + 3 * 1000);
}

#[test]
fn calls_and_returns_keep_the_stack() {
    let mut m = Machine::long();
    // call +1; hlt; push rax; pop rbx; ret
    m.code(&[0xE8, 1, 0, 0, 0, 0xF4, 0x50, 0x5B, 0xC3]);
    m.cpu.state.set_gpr(Gpr::Rax, 0x1234);
    m.run_to_hlt();
    assert_eq!(m.cpu.state.gpr(Gpr::Rbx), 0x1234);
    assert_eq!(m.cpu.state.gpr(Gpr::Rsp), layout::STACK);
    assert_eq!(m.peek(layout::STACK - 8), layout::CODE + 5);
}

#[test]
fn a_reset_stub_reaches_long_mode() {
    let mut m = Machine::protected();
    m.cpu.state.control.efer = efer::LME | efer::NXE;
    m.cpu.state.control.cr4 = 0x40;
    m.code(&[
        0xB8,
        0x60,
        0,
        0,
        0, // mov eax, PAE | MCE
        0x0F,
        0x22,
        0xE0, // mov cr4, eax
        0xB8,
        0x00,
        0x10,
        0,
        0, // mov eax, PML4
        0x0F,
        0x22,
        0xD8, // mov cr3, eax
        0x0F,
        0x20,
        0xC0, // mov eax, cr0
        0x0D,
        0,
        0,
        0,
        0x80, // or eax, PG
        0x0F,
        0x22,
        0xC0, // mov cr0, eax
        0xEA,
        0x40,
        0x00,
        0x01,
        0x00,
        KERNEL_CODE as u8,
        0, // jmp far 8:0x10040
    ]);
    m.write(layout::CODE + 0x40, &[0x49, 0xB8, 1, 2, 3, 4, 5, 6, 7, 8, 0xF4]); // mov r8, imm64; hlt
    m.run_to_hlt();
    assert_eq!(m.cpu.state.gpr(Gpr::R8), 0x0807_0605_0403_0201);
    assert_ne!(m.cpu.state.control.efer & efer::LMA, 0);
    assert_ne!(m.cpu.state.control.cr0 & cr0::PG, 0);
}

#[test]
fn code_that_rewrites_itself_runs_as_rewritten() {
    let mut m = Machine::long();
    // mov byte [rip+2], 0x22 ; then mov al, 0x11 whose immediate was rewritten; hlt
    m.code(&[0xC6, 0x05, 0x01, 0, 0, 0, 0x22, 0xB0, 0x11, 0xF4]);
    m.run_to_hlt();
    assert_eq!(m.cpu.state.gpr(Gpr::Rax) & 0xFF, 0x22);
}

#[test]
fn an_instruction_across_two_pages_runs() {
    let mut m = Machine::long();
    let start = layout::CODE + 0xFFC;
    m.write(start, &[0x48, 0xB8, 1, 2, 3, 4, 5, 6, 7, 8, 0xF4]);
    m.cpu.state.set_rip(start);
    m.run_to_hlt();
    assert_eq!(m.cpu.state.gpr(Gpr::Rax), 0x0807_0605_0403_0201);
    m.write(start + 4, &[0xFF]);
    m.cpu.state.set_rip(start);
    m.run_to_hlt();
    assert_eq!(m.cpu.state.gpr(Gpr::Rax), 0x0807_0605_04FF_0201);
}

#[test]
fn what_is_not_implemented_is_named() {
    let mut m = Machine::protected();
    m.code(&[0x90, 0xCF]); // nop; iret, to virtual-8086 mode
    m.write(layout::STACK + 8, &[0, 0, 2, 0]);
    let Exit::Unimplemented(report) = m.run() else { panic!("virtual-8086 mode is not implemented") };
    assert_eq!(report.bytes, [0xCF]);
    assert_eq!(report.address, layout::CODE + 1);
    assert_eq!(report.mnemonic().as_deref(), Some("iretd"), "{report}");
    assert_eq!(report.missing, "virtual-8086 mode");
}

#[test]
fn instruction_exits_leave_rip_and_say_the_length() {
    let mut m = Machine::long();
    m.code(&[0x90, 0x66, 0x0F, 0x01, 0xCC, 0xF4]); // nop; tdcall; hlt
    assert_eq!(m.run(), Exit::Instruction { what: InstructionExit::Tdcall, length: 4 });
    assert_eq!(m.cpu.state.rip(), layout::CODE + 1);
    m.cpu.advance(4);
    m.run_to_hlt();
}
