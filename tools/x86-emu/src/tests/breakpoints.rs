//! Hardware breakpoints: which accesses meet them, where the #DB arrives, and what it leaves in DR6.

use crate::exits::{Exit, InstructionExit, Io, IoDirection};
use crate::testing::{KERNEL_CODE, KERNEL_DATA, Machine, layout};
use x86_arch::{Gpr, cr4, flags};

const CODE: u64 = layout::CODE;
const DATA: u64 = layout::DATA;
const DB: u8 = 1;
/// DR7 for breakpoint 0, locally enabled.
const EXECUTE: u64 = 1;
const WRITE1: u64 = 0x1_0001;
const WRITE2: u64 = 0x5_0001;
const WRITE4: u64 = 0xD_0001;
const ACCESS1: u64 = 0x3_0001;
const ACCESS4: u64 = 0xF_0001;
const ACCESS8: u64 = 0xB_0001;
const PORT1: u64 = 0x2_0001;
const PORT4: u64 = 0xE_0001;
const GENERAL_DETECT: u64 = 1 << 13;
const B0: u64 = 1;
const B1: u64 = 2;
const BD: u64 = 1 << 13;
const BS: u64 = 1 << 14;
/// mov [DATA], eax
const STORE: [u8; 7] = [0x89, 0x04, 0x25, 0, 0, 4, 0];
/// mov eax, [DATA]
const LOAD: [u8; 7] = [0x8B, 0x04, 0x25, 0, 0, 4, 0];

fn machine(dr7: u64, dr0: u64, code: &[u8]) -> Machine {
    let mut m = Machine::long();
    m.gate(DB, 0);
    m.gate(6, 0);
    m.gate(14, 0);
    m.code(&[code, &[0xF4]].concat());
    m.cpu.state.debug.dr7 |= dr7;
    m.cpu.state.debug.address[0] = dr0;
    m
}

fn dr6(m: &Machine) -> u64 {
    m.cpu.state.debug.dr6 & 0xE00F
}

/// Where the handler of #DB returns to; `None` if the HLT behind the code is reached.
fn trap(m: &mut Machine) -> Option<u64> {
    m.run_to_hlt();
    let handler = m.cpu.state.rip() == layout::HANDLERS + 16 * u64::from(DB);
    handler.then(|| m.peek(m.cpu.state.gpr(Gpr::Rsp)))
}

fn pushed_flags(m: &Machine) -> u64 {
    m.peek(m.cpu.state.gpr(Gpr::Rsp) + 16)
}

#[test]
fn a_data_breakpoint_traps_behind_accesses_of_its_kind_that_touch_its_bytes() {
    let cases: &[(&str, u64, u64, &[u8], bool)] = &[
        ("a write to a written byte", WRITE1, DATA, &STORE, true),
        ("a write that ends before", WRITE1, DATA + 4, &STORE, false),
        ("a write whose last byte is watched", WRITE1, DATA + 3, &STORE, true),
        ("a write behind", WRITE1, DATA - 1, &STORE, false),
        ("a read of a byte watched for writes", WRITE1, DATA, &LOAD, false),
        ("a read of a byte watched for accesses", ACCESS1, DATA, &LOAD, true),
        ("a write to a byte watched for accesses", ACCESS1, DATA + 1, &STORE, true),
        ("two bytes, the address aligned down", WRITE2, DATA + 5, &STORE, false),
        ("two bytes that begin before the operand's end", WRITE2, DATA + 3, &STORE, true),
        ("four bytes, the address aligned down", WRITE4, DATA + 3, &STORE, true),
        ("four bytes next to the operand", ACCESS4, DATA + 4, &LOAD, false),
        ("eight bytes", ACCESS8, DATA + 7, &LOAD, true),
        ("eight bytes next to the operand", ACCESS8, DATA + 8, &LOAD, false),
        ("an update", WRITE1, DATA, &[0xFF, 0x04, 0x25, 0, 0, 4, 0], true),
        ("a locked update", WRITE1, DATA, &[0xF0, 0xFF, 0x04, 0x25, 0, 0, 4, 0], true),
        ("a comparison is a read", WRITE1, DATA, &[0x39, 0x04, 0x25, 0, 0, 4, 0], false),
        ("a store of 16 bytes", WRITE1, DATA + 15, &[0x0F, 0x11, 0x04, 0x25, 0, 0, 4, 0], true),
        ("FLD of 10 bytes", ACCESS1, DATA + 9, &[0xDB, 0x2C, 0x25, 0, 0, 4, 0], true),
        ("FXSAVE", WRITE1, DATA + 32, &[0x0F, 0xAE, 0x04, 0x25, 0, 0, 4, 0], true),
        ("PUSH", WRITE1, layout::STACK - 8, &[0x50], true),
        (
            "CLFLUSH reads nothing of another line",
            ACCESS1,
            DATA + 64,
            &[0x0F, 0xAE, 0x3C, 0x25, 0, 0, 4, 0],
            false,
        ),
        ("LEA reads nothing", ACCESS1, DATA, &[0x8D, 0x04, 0x25, 0, 0, 4, 0], false),
        ("code is not data", ACCESS1, CODE, &[0x90], false),
        ("enabled globally", WRITE1 ^ 3, DATA, &STORE, true),
        ("not enabled", WRITE1 ^ 1, DATA, &STORE, false),
        ("R/W 2 without CR4.DE", PORT1, DATA, &STORE, false),
    ];
    for (name, dr7, dr0, code, hit) in cases {
        let mut m = machine(*dr7, *dr0, code);
        let behind = CODE + code.len() as u64;
        assert_eq!(trap(&mut m), hit.then_some(behind), "{name}");
        assert_eq!(dr6(&m), if *hit { B0 } else { 0 }, "{name}");
        if *hit {
            assert_eq!(pushed_flags(&m) & flags::RF, 0, "{name}: a trap does not push RF");
        }
    }
}

#[test]
fn an_access_across_two_pages_meets_a_breakpoint_in_either() {
    // mov [DATA + 0xFFE], eax
    let code = [0x89, 0x04, 0x25, 0xFE, 0x0F, 4, 0];
    for (dr0, hit) in [(DATA + 0xFFF, true), (DATA + 0x1001, true), (DATA + 0x1002, false)] {
        assert_eq!(trap(&mut machine(WRITE1, dr0, &code)).is_some(), hit, "{dr0:#x}");
    }
}

#[test]
fn an_instruction_that_faults_meets_nothing() {
    // push dword [DATA], with a stack that is not there
    let mut m = machine(ACCESS1, DATA, &[0xFF, 0x34, 0x25, 0, 0, 4, 0]);
    m.cpu.state.set_gpr(Gpr::Rsp, 0x8000_0008);
    // The handler of #PF on a stack of its own.
    m.gate(14, 1 << 32);
    m.expect_handler(14);
    assert_eq!(dr6(&m), 0);
}

#[test]
fn a_step_and_a_breakpoint_are_one_exception() {
    let mut m = machine(WRITE1, DATA, &STORE);
    m.cpu.state.flags.set(flags::TF);
    assert_eq!(trap(&mut m), Some(CODE + 7));
    assert_eq!(dr6(&m), B0 | BS);
}

#[test]
fn two_breakpoints_are_told_apart_and_together() {
    let mut m = machine(WRITE1 | 0x10_0004, DATA, &STORE);
    m.cpu.state.debug.address[1] = DATA + 2;
    assert_eq!(trap(&mut m), Some(CODE + 7));
    assert_eq!(dr6(&m), B0 | B1);
}

#[test]
fn repeated_moves_trap_behind_the_iteration_that_met_the_breakpoint() {
    let mut m = machine(WRITE1, DATA + 0x103, &[0xF3, 0xA4]);
    m.cpu.state.set_gpr(Gpr::Rsi, DATA);
    m.cpu.state.set_gpr(Gpr::Rdi, DATA + 0x100);
    m.cpu.state.set_gpr(Gpr::Rcx, 64);
    assert_eq!(trap(&mut m), Some(CODE), "before the next iteration");
    assert_eq!(m.cpu.state.gpr(Gpr::Rcx), 60);
    assert_ne!(pushed_flags(&m) & flags::RF, 0, "the instruction has begun");
    // The last iteration.
    m.cpu.state.set_gpr(Gpr::Rcx, 4);
    m.cpu.state.set_gpr(Gpr::Rdi, DATA + 0x100);
    m.cpu.state.set_rip(CODE);
    assert_eq!(trap(&mut m), Some(CODE + 2));
    assert_eq!(pushed_flags(&m) & flags::RF, 0);
}

#[test]
fn a_load_of_ss_holds_the_trap_off_for_one_instruction() {
    // mov ss, [DATA]; nop; nop
    let mut m = machine(ACCESS1, DATA, &[0x8E, 0x14, 0x25, 0, 0, 4, 0, 0x90, 0x90]);
    m.poke(DATA, u64::from(KERNEL_DATA));
    assert_eq!(trap(&mut m), Some(CODE + 8));
    assert_eq!(dr6(&m), B0);
}

#[test]
fn what_the_processor_does_for_itself_meets_no_breakpoint() {
    // The frame of the handler of #UD.
    let mut m = machine(WRITE1, layout::STACK - 8, &[0x0F, 0x0B]);
    m.expect_handler(6);
    assert_eq!(dr6(&m), 0);
    // The descriptor that MOV DS reads.
    let mut m = machine(ACCESS8, layout::GDT + u64::from(KERNEL_DATA), &[0x8E, 0xD8]);
    m.cpu.state.set_gpr(Gpr::Rax, u64::from(KERNEL_DATA));
    assert_eq!(trap(&mut m), None);
}

#[test]
fn an_instruction_breakpoint_is_a_fault_that_rf_suppresses_for_one_instruction() {
    for before in [0usize, 1, 3, 40] {
        let at = CODE + before as u64;
        let mut m = machine(EXECUTE, at, &[0x90; 50]);
        assert_eq!(trap(&mut m), Some(at), "{before} instructions before");
        assert_eq!(m.cpu.retired(), before as u64);
        assert_eq!(pushed_flags(&m) & flags::RF, 0, "the handler sets RF itself");
        assert_eq!(dr6(&m), B0);
        // Return with RF, as a debugger does.
        let rsp = m.cpu.state.gpr(Gpr::Rsp);
        m.poke(rsp + 16, m.peek(rsp + 16) | flags::RF);
        m.write(layout::HANDLERS + 16, &[0x48, 0xCF]);
        m.cpu.state.set_rip(layout::HANDLERS + 16);
        m.run_to_hlt();
        assert_eq!(m.cpu.state.rip(), CODE + 50);
        assert_eq!(m.cpu.state.flags.get() & flags::RF, 0);
    }
}

#[test]
fn an_instruction_breakpoint_is_met_in_code_that_ran_before() {
    // jmp back and forth so that the block is known: nop; nop; dec ecx; jnz -5
    let code = [0x90, 0x90, 0xFF, 0xC9, 0x75, 0xFA];
    let mut m = machine(0, 0, &code);
    m.cpu.state.set_gpr(Gpr::Rcx, 3);
    m.run_to_hlt();
    m.cpu.state.debug.dr7 |= EXECUTE;
    m.cpu.state.debug.address[0] = CODE + 2;
    m.cpu.state.set_gpr(Gpr::Rcx, 3);
    m.cpu.state.set_rip(CODE);
    assert_eq!(trap(&mut m), Some(CODE + 2));
    m.cpu.state.debug.dr7 &= !0xFF;
    m.cpu.state.set_rip(CODE);
    assert_eq!(trap(&mut m), None, "it is gone with its enable bit");
}

#[test]
fn an_instruction_breakpoint_comes_before_the_faults_of_its_instruction() {
    let gone = 0x3_1000;
    let mut m = machine(EXECUTE, gone, &[0x90]);
    m.poke(layout::PT + 8 * 0x31, 0);
    m.cpu.state.set_rip(gone);
    assert_eq!(trap(&mut m), Some(gone));
    let mut m = machine(EXECUTE, CODE, &[0x0F, 0x0B]);
    assert_eq!(trap(&mut m), Some(CODE));
    // Only the first byte of an instruction counts.
    let mut m = machine(EXECUTE, CODE + 1, &STORE);
    assert_eq!(trap(&mut m), None);
}

#[test]
fn an_instruction_behind_a_load_of_ss_has_no_breakpoint() {
    let mut m = machine(EXECUTE, CODE + 2, &[0x8E, 0xD0, 0x90, 0x90]);
    m.cpu.state.set_gpr(Gpr::Rax, u64::from(KERNEL_DATA));
    assert_eq!(trap(&mut m), None);
}

#[test]
fn moves_to_debug_registers_take_effect_with_the_next_instruction() {
    // mov dr0, rbx; mov dr7, rax; mov [DATA], eax
    let code = [&[0x0F, 0x23, 0xC3, 0x0F, 0x23, 0xF8][..], &STORE].concat();
    let mut m = machine(0, 0, &[&STORE[..], &code].concat());
    m.cpu.state.set_gpr(Gpr::Rbx, DATA + 1);
    m.cpu.state.set_gpr(Gpr::Rax, WRITE1);
    assert_eq!(trap(&mut m), Some(CODE + 20));
    assert_eq!(m.cpu.state.debug.dr7, WRITE1 | 0x400);
}

#[test]
fn general_detect_faults_on_moves_to_and_from_debug_registers() {
    for code in [[0x0F, 0x21, 0xF0], [0x0F, 0x23, 0xC0]] {
        let mut m = machine(GENERAL_DETECT, 0, &code);
        assert_eq!(trap(&mut m), Some(CODE));
        assert_eq!(dr6(&m), BD);
        assert_eq!(m.cpu.state.debug.dr7 & GENERAL_DETECT, 0, "the handler may use them");
        assert_ne!(pushed_flags(&m) & flags::RF, 0);
    }
}

#[test]
fn a_port_breakpoint_traps_behind_the_access_that_the_owner_performs() {
    for (dr7, dr0, extensions, hit) in [
        (PORT1, 0x71, cr4::DE, true),
        (PORT1, 0x70, cr4::DE, false),
        (PORT4, 0x73, cr4::DE, true),
        (PORT1, 0x71, 0, false),
        (WRITE1, 0x71, cr4::DE, false),
    ] {
        let mut m = machine(dr7, dr0, &[0xE6, 0x71]);
        m.cpu.state.control.cr4 |= extensions;
        let io =
            Io { port: 0x71, size: 1, direction: IoDirection::Out, value: 0, immediate: true, string: None };
        assert_eq!(m.run(), Exit::Instruction { what: InstructionExit::Io(io), length: 2 });
        m.cpu.advance(2);
        assert_eq!(trap(&mut m), hit.then_some(CODE + 2), "{dr7:#x} at {dr0:#x}");
        assert_eq!(dr6(&m), if hit { B0 } else { 0 });
    }
}

#[test]
fn a_breakpoint_in_32_bit_code_is_a_linear_address() {
    let mut m = machine(EXECUTE, CODE + 1, &[0x90, 0x90]);
    let code = m.cpu.state.segment_mut(x86_arch::Seg::Cs);
    *code = x86_arch::Segment {
        base: 0x1000,
        ..x86_arch::Segment::flat(KERNEL_CODE + 16, x86_arch::Attributes::CODE32)
    };
    m.cpu.state.set_rip(CODE - 0x1000);
    assert_eq!(trap(&mut m), Some(CODE + 1 - 0x1000));
}

#[test]
fn a_debug_exception_replaces_the_breakpoints_of_the_last_one_and_nothing_else_in_dr6() {
    const ONE: [u8; 1] = [0x90];
    let cases: [(&str, u64, u64, &[u8], u64); 3] = [
        ("an instruction breakpoint", EXECUTE, CODE, &ONE, B0 | BS),
        ("a data breakpoint", WRITE4, DATA, &STORE, B0 | BS),
        ("general detect", GENERAL_DETECT, 0, &[0x0F, 0x21, 0xF8], BD | BS),
    ];
    for (name, dr7, dr0, code, expected) in cases {
        let mut m = machine(dr7, dr0, code);
        m.cpu.state.debug.dr6 |= B1 | BS;
        assert!(trap(&mut m).is_some(), "{name}");
        assert_eq!(dr6(&m), expected, "{name}: B1 is of an earlier exception, BS is software's to clear");
    }
    let mut m = machine(0, 0, &ONE);
    m.cpu.state.debug.dr6 |= B1;
    m.cpu.state.flags.set(flags::TF);
    assert_eq!(trap(&mut m), Some(CODE + 1));
    assert_eq!(dr6(&m), BS, "a single step");
    let mut m = machine(0, 0, &[0xF1]);
    m.cpu.state.debug.dr6 |= B1;
    assert_eq!(trap(&mut m), Some(CODE + 1));
    assert_eq!(dr6(&m), B1, "INT1 leaves DR6 as it is");
}

/// Kernels know it as the "MOV SS" problem (SDM vol. 3, "Masking Exceptions and Interrupts When Switching Stacks").
#[test]
fn a_trap_that_a_load_of_ss_held_off_comes_behind_the_entry_of_int_n() {
    const BP: u8 = 3;
    let entry = |vector: u8| layout::HANDLERS + 16 * u64::from(vector);
    // mov ss, [DATA], then the instruction.
    let mov_ss = [0x8E, 0x14, 0x25, 0, 0, 4, 0];
    let run = |next: &[u8]| {
        let mut m = machine(ACCESS4, DATA, &[&mov_ss, next].concat());
        m.gate(BP, 0);
        m.poke(DATA, u64::from(KERNEL_DATA));
        let first = trap(&mut m);
        (m, first)
    };
    for (name, next, inner) in [("INT3", &[0xCC][..], BP), ("INT 1", &[0xCD, 1], DB)] {
        let (m, at) = run(next);
        assert_eq!(
            (at, dr6(&m)),
            (Some(entry(inner)), B0),
            "{name}: the trap's frame names the handler's start"
        );
        let outer = m.peek(m.cpu.state.gpr(Gpr::Rsp) + 24);
        let after = CODE + (mov_ss.len() + next.len()) as u64;
        assert_eq!(m.peek(outer), after, "{name}: its own frame is beneath");
    }
    let (m, at) = run(&[0xF1]);
    assert_eq!((at, dr6(&m)), (Some(CODE + mov_ss.len() as u64 + 1), B0), "INT1: one exception for both");
    assert_eq!(m.peek(m.cpu.state.gpr(Gpr::Rsp) + 24), layout::STACK);
}
