//! Which instructions go to the owner, and which privilege they need.

use crate::exits::{Exit, InstructionExit, Io, IoDirection, StringIo, VmxInstruction, VmxOperands, VmxPlace};
use crate::testing::{Machine, layout};
use x86_arch::{Gpr, cr0, cr4, flags, vector};

fn io(port: u16, size: u8, direction: IoDirection, value: u32, immediate: bool) -> InstructionExit {
    InstructionExit::Io(Io { port, size, direction, value, immediate, string: None })
}

/// Bytes, the exit at CPL 0, and the exception at CPL 3 (`None`: the same exit).
fn table() -> Vec<(&'static [u8], InstructionExit, Option<u8>)> {
    use InstructionExit as X;
    use IoDirection::{In, Out};
    const GP: Option<u8> = Some(vector::GP);
    const UD: Option<u8> = Some(vector::UD);
    const AT_RAX: u64 = 0xFFFF_FFFF_1234_5678;
    let vmx = |what, register, place| X::Vmx { what, operands: VmxOperands { register, place } };
    vec![
        (&[0xF4], X::Hlt, GP),
        (&[0x0F, 0xA2], X::Cpuid, None),
        (&[0x0F, 0x32], X::Rdmsr { index: 0x3F8 }, GP),
        (&[0x0F, 0x30], X::Wrmsr { index: 0x3F8, value: 0x3F8_1234_5678 }, GP),
        (&[0x66, 0x0F, 0x01, 0xCC], X::Tdcall, None),
        (&[0x66, 0x0F, 0x01, 0xCF], X::Seamcall, None),
        (&[0x66, 0x0F, 0x01, 0xCD], X::Seamret, None),
        (&[0x0F, 0x01, 0xC1], X::Vmcall, None),
        (&[0xF3, 0x0F, 0xC7, 0x30], vmx(VmxInstruction::Vmxon, Gpr::Rax, VmxPlace::Memory(AT_RAX)), None),
        (&[0x0F, 0x01, 0xC4], vmx(VmxInstruction::Vmxoff, Gpr::Rax, VmxPlace::Register(Gpr::Rax)), None),
        (&[0x66, 0x0F, 0xC7, 0x30], vmx(VmxInstruction::Vmclear, Gpr::Rax, VmxPlace::Memory(AT_RAX)), None),
        (&[0x0F, 0xC7, 0x30], vmx(VmxInstruction::Vmptrld, Gpr::Rax, VmxPlace::Memory(AT_RAX)), None),
        (&[0x0F, 0xC7, 0x38], vmx(VmxInstruction::Vmptrst, Gpr::Rax, VmxPlace::Memory(AT_RAX)), None),
        (&[0x0F, 0x78, 0xC8], vmx(VmxInstruction::Vmread, Gpr::Rcx, VmxPlace::Register(Gpr::Rax)), None),
        (&[0x0F, 0x79, 0xC8], vmx(VmxInstruction::Vmwrite, Gpr::Rcx, VmxPlace::Register(Gpr::Rax)), None),
        (&[0x0F, 0x01, 0xC2], vmx(VmxInstruction::Vmlaunch, Gpr::Rax, VmxPlace::Register(Gpr::Rax)), None),
        (&[0x0F, 0x01, 0xC3], vmx(VmxInstruction::Vmresume, Gpr::Rax, VmxPlace::Register(Gpr::Rax)), None),
        (&[0x0F, 0x01, 0xD4], vmx(VmxInstruction::Vmfunc, Gpr::Rax, VmxPlace::Register(Gpr::Rax)), None),
        (
            &[0x66, 0x0F, 0x38, 0x80, 0x08],
            vmx(VmxInstruction::Invept, Gpr::Rcx, VmxPlace::Memory(AT_RAX)),
            None,
        ),
        (
            &[0x66, 0x0F, 0x38, 0x81, 0x08],
            vmx(VmxInstruction::Invvpid, Gpr::Rcx, VmxPlace::Memory(AT_RAX)),
            None,
        ),
        (&[0x0F, 0x08], X::Invd, GP),
        (&[0x0F, 0x09], X::Wbinvd, GP),
        (&[0x0F, 0x01, 0xC8], X::Monitor, UD),
        (&[0x0F, 0x01, 0xC9], X::Mwait, UD),
        (&[0x0F, 0x33], X::Rdpmc { index: 0x3F8 }, GP),
        (&[0xE4, 0x60], io(0x60, 1, In, 0, true), GP),
        (&[0xE6, 0x80], io(0x80, 1, Out, 0x78, true), GP),
        (&[0xEC], io(0x3F8, 1, In, 0, false), GP),
        (&[0x66, 0xED], io(0x3F8, 2, In, 0, false), GP),
        (&[0xED], io(0x3F8, 4, In, 0, false), GP),
        (&[0xEE], io(0x3F8, 1, Out, 0x78, false), GP),
        (&[0x66, 0xEF], io(0x3F8, 2, Out, 0x5678, false), GP),
        (&[0xEF], io(0x3F8, 4, Out, 0x1234_5678, false), GP),
        (&[0x0F, 0x01, 0xD1], X::Xsetbv { index: 0x3F8, value: 0x3F8_1234_5678 }, GP),
        (&[0x0F, 0x01, 0xC5], X::Pconfig, GP),
        (&[0x0F, 0x01, 0xCF], X::Sgx, None),
    ]
}

fn ready(code: &[u8]) -> Machine {
    let mut m = Machine::long();
    m.gate(vector::GP, 0);
    m.gate(vector::UD, 0);
    // No I/O permission bitmap inside the TSS.
    m.poke(layout::TSS + 0x60, 0xFFFF << 48);
    m.cpu.state.control.cr4 |= cr4::OSXSAVE;
    m.cpu.state.set_gpr(Gpr::Rax, 0xFFFF_FFFF_1234_5678);
    m.cpu.state.set_gpr(Gpr::Rcx, 0x3F8);
    m.cpu.state.set_gpr(Gpr::Rdx, 0x3F8);
    m.code(code);
    m
}

#[test]
fn the_owner_gets_what_belongs_to_it() {
    for (code, what, _) in table() {
        let mut m = ready(code);
        assert_eq!(m.run(), Exit::Instruction { what, length: code.len() as u8 }, "{code:02x?}");
        assert_eq!(m.cpu.state.rip(), layout::CODE, "{code:02x?}");
        assert_eq!(m.cpu.retired(), 0, "{code:02x?}");
    }
}

#[test]
fn user_code_gets_an_exception_instead() {
    for (code, what, raised) in table() {
        let mut m = ready(code);
        m.make_user();
        match raised {
            Some(v) => m.expect_handler(v),
            None => assert_eq!(m.run(), Exit::Instruction { what, length: code.len() as u8 }),
        }
    }
}

#[test]
fn instructions_without_exit_are_privileged_too() {
    let cases: [(&[u8], u8); 18] = [
        (&[0xFA], vector::GP),
        (&[0xFB], vector::GP),
        (&[0x0F, 0x06], vector::GP),
        (&[0x0F, 0x01, 0x13], vector::GP),       // lgdt [rbx]
        (&[0x0F, 0x01, 0x1B], vector::GP),       // lidt [rbx]
        (&[0x0F, 0x00, 0xD0], vector::GP),       // lldt ax
        (&[0x0F, 0x00, 0xD8], vector::GP),       // ltr ax
        (&[0x0F, 0x01, 0xF0], vector::GP),       // lmsw ax
        (&[0x0F, 0x20, 0xC0], vector::GP),       // mov rax, cr0
        (&[0x0F, 0x22, 0xD8], vector::GP),       // mov cr3, rax
        (&[0x0F, 0x21, 0xC0], vector::GP),       // mov rax, dr0
        (&[0x0F, 0x23, 0xC0], vector::GP),       // mov dr0, rax
        (&[0x0F, 0x01, 0x3B], vector::GP),       // invlpg [rbx]
        (&[0x0F, 0x01, 0xF8], vector::GP),       // swapgs
        (&[0x48, 0x0F, 0x07], vector::GP),       // sysretq
        (&[0x0F, 0x01, 0xCA], vector::UD),       // clac
        (&[0x0F, 0x01, 0xCB], vector::UD),       // stac
        (&[0x48, 0x0F, 0xC7, 0x2B], vector::GP), // xsaves64 [rbx]
    ];
    for (code, v) in cases {
        let mut m = ready(code);
        m.make_user();
        m.cpu.state.set_gpr(Gpr::Rbx, layout::DATA);
        m.expect_handler(v);
        assert_eq!(m.cpu.retired(), 0, "{code:02x?}");
    }
}

#[test]
fn umip_hides_the_tables_from_user_code() {
    for code in [
        &[0x0F, 0x01, 0x03][..],
        &[0x0F, 0x01, 0x0B],
        &[0x0F, 0x00, 0xC8],
        &[0x0F, 0x00, 0xC0],
        &[0x0F, 0x01, 0xE0],
    ] {
        let mut m = ready(code);
        m.make_user();
        m.cpu.state.control.cr4 |= cr4::UMIP;
        m.cpu.state.set_gpr(Gpr::Rbx, layout::DATA);
        m.expect_handler(vector::GP);
    }
}

#[test]
fn the_permission_bitmap_lets_user_code_reach_some_ports() {
    for (clear_bits, allowed) in [(0xFFu8, true), (0xFE, false), (0x01, false), (0xF1, false)] {
        // Port 0x3F8 with size 4: bits 0 to 3 of byte 0x7F.
        let mut m = ready(&[0xED]);
        m.make_user();
        m.poke(layout::TSS + 0x60, 0x68 << 48);
        m.write(layout::TSS + 0x68 + 0x7F, &[!clear_bits, 0xFF]);
        m.cpu.state.tr.limit = 0x68 + 0x80;
        if allowed {
            let what = io(0x3F8, 4, IoDirection::In, 0, false);
            assert_eq!(m.run(), Exit::Instruction { what, length: 1 });
        } else {
            m.expect_handler(vector::GP);
        }
    }
    let mut m = ready(&[0xED]);
    m.make_user();
    m.cpu.state.flags.set(flags::IOPL);
    assert!(matches!(m.run(), Exit::Instruction { .. }), "IOPL 3 allows all ports");
}

#[test]
fn string_io_names_its_memory_and_skips_when_there_is_nothing_to_do() {
    let mut m = ready(&[0xF3, 0x6E, 0xF4]);
    m.cpu.state.set_gpr(Gpr::Rsi, layout::DATA);
    let string = Some(StringIo { rep: true, address: layout::DATA, index_mask: u64::MAX });
    let what = InstructionExit::Io(Io {
        port: 0x3F8,
        size: 1,
        direction: IoDirection::Out,
        value: 0,
        immediate: false,
        string,
    });
    assert_eq!(m.run(), Exit::Instruction { what, length: 2 });
    m.cpu.state.set_gpr(Gpr::Rcx, 0);
    m.run_to_hlt();
}

#[test]
fn an_in_is_completed_by_the_owner() {
    for (size, expected) in [(1, 0xFFFF_FFFF_1234_56AA), (2, 0xFFFF_FFFF_1234_BBAA), (4, 0xDDCC_BBAA)] {
        let mut m = ready(&[0xEC]);
        m.cpu.complete_in(size, 0xDDCC_BBAA);
        assert_eq!(m.cpu.state.gpr(Gpr::Rax), expected);
    }
}

#[test]
fn sse_obeys_its_enable_bits() {
    let movaps = [0x0F, 0x28, 0xC1, 0xF4];
    let cases = [
        (0, 0, None),
        (cr0::EM, 0, Some(vector::UD)),
        (cr0::TS, 0, Some(vector::NM)),
        (0, cr4::OSFXSR, Some(vector::UD)),
    ];
    for (set0, clear4, raised) in cases {
        let mut m = ready(&movaps);
        m.gate(vector::NM, 0);
        m.cpu.state.control.cr0 |= set0;
        m.cpu.state.control.cr4 &= !clear4;
        match raised {
            None => m.run_to_hlt(),
            Some(v) => m.expect_handler(v),
        }
    }
}

#[test]
fn a_misaligned_sse_operand_is_a_protection_fault() {
    let mut m = ready(&[0x0F, 0x28, 0x03]);
    m.cpu.state.set_gpr(Gpr::Rbx, layout::DATA + 8);
    m.expect_handler(vector::GP);
}

#[test]
fn an_unmasked_float_exception_is_raised_before_the_result() {
    let mut m = ready(&[0xF2, 0x0F, 0x5E, 0xC1]); // divsd xmm0, xmm1
    m.gate(vector::XM, 0);
    m.cpu.state.simd.xmm[0] = u128::from(1f64.to_bits());
    m.cpu.state.simd.mxcsr = 0x1F80 & !(1 << 9);
    m.expect_handler(vector::XM);
    assert_eq!(m.cpu.state.simd.xmm[0], u128::from(1f64.to_bits()));
    assert_eq!(m.cpu.state.simd.mxcsr & 0x3F, 4);
}

#[test]
fn lock_on_what_cannot_be_locked_is_undefined() {
    for code in [&[0xF0, 0x01, 0xC8][..], &[0xF0, 0x8B, 0x03]] {
        let mut m = ready(code);
        m.cpu.state.set_gpr(Gpr::Rbx, layout::DATA);
        m.expect_handler(vector::UD);
    }
}

#[test]
fn protection_keys_that_are_not_offered_are_undefined() {
    // rdpkru, wrpkru
    for code in [[0x0F, 0x01, 0xEE], [0x0F, 0x01, 0xEF]] {
        let mut m = ready(&code);
        m.expect_handler(vector::UD);
    }
}
