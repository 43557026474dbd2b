//! Direct stores and hints, which the development machine may not have.

use crate::testing::{Machine, layout};
use x86_arch::{Gpr, vector};

fn with_code(code: &[u8]) -> Machine {
    let mut m = Machine::long();
    m.gate(vector::GP, 0);
    m.gate(vector::PF, 0);
    m.cpu.state.set_gpr(Gpr::Rbx, layout::DATA);
    m.code(&[code, &[0xF4]].concat());
    m
}

#[test]
fn movdiri_stores_a_register() {
    // movdiri [rbx], eax and [rbx], rax
    for (code, stored) in [
        (&[0x0F, 0x38, 0xF9, 0x03][..], 0x5566_7788),
        (&[0x48, 0x0F, 0x38, 0xF9, 0x03], 0x1122_3344_5566_7788),
    ] {
        let mut m = with_code(code);
        m.cpu.state.set_gpr(Gpr::Rax, 0x1122_3344_5566_7788);
        m.run_to_hlt();
        assert_eq!(m.peek(layout::DATA), stored, "{code:02x?}");
    }
}

#[test]
fn movdir64b_moves_a_line_to_an_aligned_address() {
    // movdir64b rax, [rbx], and with a 32-bit address
    for code in [&[0x66, 0x0F, 0x38, 0xF8, 0x03][..], &[0x67, 0x66, 0x0F, 0x38, 0xF8, 0x03]] {
        let mut m = with_code(code);
        let narrow = code.len() == 6;
        let garbage = if narrow { 0xFFFF_FFFF << 32 } else { 0 };
        m.cpu.state.set_gpr(Gpr::Rax, (layout::DATA + 0x1000) | garbage);
        m.cpu.state.set_gpr(Gpr::Rbx, layout::DATA + 3);
        for n in 0..9 {
            m.poke(layout::DATA + 3 + 8 * n, n + 1);
        }
        m.run_to_hlt();
        let line: Vec<u64> = (0..9).map(|n| m.peek(layout::DATA + 0x1000 + 8 * n)).collect();
        assert_eq!(line, [1, 2, 3, 4, 5, 6, 7, 8, 0], "{code:02x?}");
    }
}

#[test]
fn movdir64b_refuses_a_destination_that_is_not_aligned() {
    let mut m = with_code(&[0x66, 0x0F, 0x38, 0xF8, 0x03]);
    m.cpu.state.set_gpr(Gpr::Rax, layout::DATA + 0x1020);
    m.expect_handler(vector::GP);
    let mut m = with_code(&[0x66, 0x0F, 0x38, 0xF8, 0x03]);
    m.cpu.state.set_gpr(Gpr::Rax, 0x40_0000);
    m.expect_handler(vector::PF);
}

#[test]
fn reserved_and_newer_hints_do_nothing() {
    // 0F 0D /r with a register, CLDEMOTE, 0F 18 to 0F 1F, ENDBR64, RDSSPQ.
    let hints: [&[u8]; 8] = [
        &[0x0F, 0x0D, 0xC1],
        &[0x0F, 0x1C, 0x03],
        &[0x0F, 0x18, 0xC1],
        &[0x0F, 0x19, 0x03],
        &[0x0F, 0x1A, 0xC1],
        &[0x66, 0x0F, 0x1B, 0xC1],
        &[0xF3, 0x0F, 0x1E, 0xFA],
        &[0xF3, 0x48, 0x0F, 0x1E, 0xC8],
    ];
    for code in hints {
        let mut m = with_code(code);
        let before = m.cpu.state.regs.clone();
        m.run_to_hlt();
        assert_eq!(m.cpu.state.rip(), layout::CODE + code.len() as u64, "{code:02x?}");
        for register in Gpr::ALL {
            assert_eq!(m.cpu.state.gpr(register), before.get(register), "{code:02x?}");
        }
    }
}
