//! What an unprivileged process can do to its CPU: it gets a result or an exception, never more.

use x86_arch::{Gpr, Seg, cr0, cr4, flags, vector};

use crate::exits::Exit;
use crate::testing::{Machine, layout};

/// A user process at `code`, with a gate for every vector.
fn user(code: &[u8]) -> Machine {
    let mut m = Machine::long();
    for vector in 0..=255 {
        m.gate(vector, 3 << 45);
    }
    m.make_user();
    m.cpu.state.control.cr0 |= cr0::AM;
    // A TSS without an I/O permission bitmap.
    m.cpu.state.tr.limit = 0x67;
    m.write(layout::TSS + 0x66, &[0x68, 0]);
    m.code(code);
    m
}

/// Runs to the HLT of a handler and gives its vector; `None` if the CPU stopped elsewhere.
fn vector_of(m: &mut Machine) -> Option<u64> {
    let exit = m.run();
    assert!(!matches!(exit, Exit::Unimplemented(_) | Exit::TripleFault), "{exit:?}");
    let at = m.cpu.state.rip().wrapping_sub(layout::HANDLERS);
    (at < 4096).then_some(at / 16)
}

fn expect(name: &str, code: &[u8], expected: u8) {
    assert_eq!(vector_of(&mut user(code)), Some(expected.into()), "{name}");
}

#[test]
fn instructions_of_features_that_the_cpu_lacks_are_undefined() {
    let cases: &[(&str, &[u8])] = &[
        ("vaddps ymm", &[0xC5, 0xFC, 0x58, 0xC0]),
        ("vaesenc xmm", &[0xC4, 0xE2, 0x71, 0xDC, 0xC2]),
        ("vpclmulqdq xmm", &[0xC4, 0xE3, 0x71, 0x44, 0xC2, 0]),
        ("gf2p8mulb", &[0x66, 0x0F, 0x38, 0xCF, 0xC1]),
        ("blsfill of TBM", &[0x8F, 0xE9, 0x78, 0x01, 0xD0]),
        ("vpaddd zmm", &[0x62, 0xF1, 0x7D, 0x48, 0xFE, 0xC0]),
        ("vmmcall", &[0x0F, 0x01, 0xD9]),
        ("rdpru", &[0x0F, 0x01, 0xFD]),
        ("monitorx", &[0x0F, 0x01, 0xFA]),
        ("clzero", &[0x0F, 0x01, 0xFC]),
        ("xbegin", &[0xC7, 0xF8, 0, 0, 0, 0]),
        ("xtest", &[0x0F, 0x01, 0xD6]),
        ("tpause", &[0x66, 0x0F, 0xAE, 0xF0]),
        ("umwait", &[0xF2, 0x0F, 0xAE, 0xF0]),
        ("wrpkru without CR4.PKE", &[0x0F, 0x01, 0xEF]),
        ("rdpkru without CR4.PKE", &[0x0F, 0x01, 0xEE]),
        ("incsspq", &[0xF3, 0x48, 0x0F, 0xAE, 0xE8]),
        ("ptwrite", &[0xF3, 0x0F, 0xAE, 0xE0]),
    ];
    for (name, code) in cases {
        expect(name, code, vector::UD);
    }
}

#[test]
fn hints_of_features_that_the_cpu_lacks_do_nothing() {
    let cases: &[(&str, &[u8])] = &[
        ("endbr64", &[0xF3, 0x0F, 0x1E, 0xFA]),
        ("rdsspq rax", &[0xF3, 0x48, 0x0F, 0x1E, 0xC8]),
        ("prefetchw", &[0x0F, 0x0D, 0x0C, 0x24]),
        ("cldemote", &[0x0F, 0x1C, 0x04, 0x24]),
        ("xacquire lock inc", &[0xF2, 0xF0, 0xFF, 0x04, 0x24]),
    ];
    for (name, code) in cases {
        // What follows them is UD2.
        let mut m = user(&[code, &[0x0F, 0x0B][..]].concat());
        m.cpu.state.set_gpr(Gpr::Rsp, layout::STACK - 8);
        assert_eq!(vector_of(&mut m), Some(vector::UD.into()), "{name}");
        assert_eq!(m.peek(0x5_0000 - 40), layout::CODE + code.len() as u64, "{name} runs");
        assert_eq!(m.cpu.state.gpr(Gpr::Rax), 0, "{name} leaves its register");
    }
}

#[test]
fn alignment_checks_fault_on_misaligned_operands_only() {
    // pushfq; or dword [rsp], AC; popfq; then the access, then ud2
    let armed = [0x9C, 0x81, 0x0C, 0x24, 0, 0, 4, 0, 0x9D];
    let cases: &[(&str, &[u8], u8)] = &[
        ("aligned load", &[0x8B, 0x04, 0x25, 0x04, 0, 4, 0], vector::UD),
        ("misaligned load", &[0x8B, 0x04, 0x25, 0x02, 0, 4, 0], vector::AC),
        ("misaligned store", &[0x89, 0x04, 0x25, 0x02, 0, 4, 0], vector::AC),
        ("byte load", &[0x8A, 0x04, 0x25, 0x03, 0, 4, 0], vector::UD),
        ("misaligned update", &[0x01, 0x04, 0x25, 0x02, 0, 4, 0], vector::AC),
        ("misaligned locked update", &[0xF0, 0x01, 0x04, 0x25, 0x02, 0, 4, 0], vector::AC),
        ("misaligned movups", &[0x0F, 0x10, 0x04, 0x25, 0x02, 0, 4, 0], vector::UD),
    ];
    for (name, access, expected) in cases {
        let code = [&armed[..], access, &[0x0F, 0x0B]].concat();
        let mut m = user(&code);
        m.cpu.state.control.cr4 |= cr4::OSFXSR;
        assert_eq!(vector_of(&mut m), Some((*expected).into()), "{name}");
    }
}

#[test]
fn a_kernel_is_not_checked_for_alignment() {
    let mut m = Machine::long();
    m.cpu.state.control.cr0 |= cr0::AM;
    m.cpu.state.flags.set(flags::AC);
    m.code(&[0x8B, 0x04, 0x25, 0x02, 0, 4, 0, 0xF4]);
    m.run_to_hlt();
}

#[test]
fn a_lock_across_two_pages_changes_both_or_neither() {
    let at = layout::DATA + 0xFFE;
    let code = [0xF0, 0xFF, 0x04, 0x25, 0xFE, 0x0F, 0x04, 0, 0x0F, 0x0B]; // lock inc dword [at]; ud2
    let mut m = user(&code);
    m.write(at, &0x0001_FFFFu32.to_le_bytes());
    assert_eq!(vector_of(&mut m), Some(vector::UD.into()));
    assert_eq!((m.peek(at - 6) >> 48, m.peek(at + 2) as u16), (0, 2));

    let mut m = user(&code);
    m.poke(layout::PT + 8 * ((layout::DATA >> 12) + 1), 0);
    m.write(at, &[0xFF, 0xFF]);
    assert_eq!(vector_of(&mut m), Some(vector::PF.into()));
    assert_eq!(m.peek(at - 6) >> 48, 0xFFFF, "the first half is as it was");
}

#[test]
fn enter_copies_the_frame_pointers_of_enclosing_procedures() {
    let mut m = user(&[0xC8, 0x10, 0, 3, 0x0F, 0x0B]); // enter 16, 3; ud2
    let frame = layout::DATA + 0x100;
    m.cpu.state.set_gpr(Gpr::Rbp, frame);
    m.poke(frame - 8, 0x1111);
    m.poke(frame - 16, 0x2222);
    assert_eq!(vector_of(&mut m), Some(vector::UD.into()));
    let top = layout::STACK - 8;
    let words: Vec<u64> = (0..4).map(|n| m.peek(top - 8 * n)).collect();
    assert_eq!(words, [frame, 0x1111, 0x2222, top]);
    assert_eq!(m.cpu.state.gpr(Gpr::Rbp), top);
    assert_eq!(m.peek(0x5_0000 - 40 + 24), top - 24 - 16, "the stack pointer");
}

#[test]
fn a_far_jump_to_a_task_state_segment_is_a_protection_fault() {
    let mut m = user(&[0xFF, 0x2C, 0x25, 0, 0, 4, 0]);
    m.poke(layout::DATA, 0x40 << 32 | 0x1234);
    assert_eq!(vector_of(&mut m), Some(vector::GP.into()));
    assert_eq!(m.peek(0x5_0000 - 48), 0x40, "the error code names the selector");
}

#[test]
fn an_instruction_of_more_than_fifteen_bytes_is_a_protection_fault() {
    let mut code = [0x66; 16];
    code[15] = 0x90;
    expect("15 prefixes and NOP", &code, vector::GP);
    let long_move = [&[0x66; 12][..], &[0x48, 0xB8, 1, 2, 3, 4, 5, 6, 7, 8]].concat();
    expect("an immediate beyond the fifteenth byte", &long_move, vector::GP);
    expect("14 prefixes and NOP, then UD2", &[&[0x66; 14][..], &[0x90, 0x0F, 0x0B]].concat(), vector::UD);
}

#[test]
fn an_instruction_at_the_end_of_its_page_needs_the_next_one_only_if_it_is_longer() {
    let end = 0x3_1000;
    let at_end = |bytes: &[u8]| {
        let mut m = user(&[]);
        m.poke(layout::PT + 8 * 0x31, 0);
        let at = end - bytes.len() as u64;
        m.write(at, bytes);
        m.cpu.state.set_rip(at);
        (vector_of(&mut m), m.cpu.state.control.cr2, m)
    };
    let (vector, cr2, _) = at_end(&[0x48, 0xB8, 1]); // the beginning of mov rax, imm64
    assert_eq!((vector, cr2), (Some(vector::PF.into()), end));
    let (vector, _, m) = at_end(&[0x90]);
    assert_eq!((vector, m.peek(0x5_0000 - 40)), (Some(vector::PF.into()), end), "NOP has run");
    assert_eq!(at_end(&[0x0F, 0x0B]).0, Some(vector::UD.into()));
    assert_eq!(at_end(&[0x06]).0, Some(vector::UD.into()), "an opcode that 64-bit mode does not have");
}

#[test]
fn privileged_instructions_are_protection_faults() {
    let cases: &[(&str, &[u8])] = &[
        ("hlt", &[0xF4]),
        ("cli", &[0xFA]),
        ("sti", &[0xFB]),
        ("in", &[0xE4, 1]),
        ("out", &[0xE6, 1]),
        ("insb", &[0x6C]),
        ("outsb", &[0x6E]),
        ("mov rax, cr0", &[0x0F, 0x20, 0xC0]),
        ("mov cr3, rax", &[0x0F, 0x22, 0xD8]),
        ("mov cr8, rax", &[0x44, 0x0F, 0x22, 0xC0]),
        ("mov dr7, rax", &[0x0F, 0x23, 0xF8]),
        ("mov rax, dr6", &[0x0F, 0x21, 0xF0]),
        ("rdmsr", &[0x0F, 0x32]),
        ("wrmsr", &[0x0F, 0x30]),
        ("invlpg", &[0x0F, 0x01, 0x3C, 0x24]),
        ("lgdt", &[0x0F, 0x01, 0x14, 0x24]),
        ("lidt", &[0x0F, 0x01, 0x1C, 0x24]),
        ("ltr", &[0x0F, 0x00, 0xD8]),
        ("lldt", &[0x0F, 0x00, 0xD0]),
        ("clts", &[0x0F, 0x06]),
        ("lmsw", &[0x0F, 0x01, 0xF0]),
        ("wbinvd", &[0x0F, 0x09]),
        ("invd", &[0x0F, 0x08]),
        ("swapgs", &[0x0F, 0x01, 0xF8]),
        ("sysret", &[0x48, 0x0F, 0x07]),
        ("sysexit", &[0x0F, 0x35]),
        ("sysenter without its MSR", &[0x0F, 0x34]),
        ("invpcid", &[0x66, 0x0F, 0x38, 0x82, 0x04, 0x24]),
        ("int 0x80 through a gate of the kernel's", &[0xCD, 0x80]),
    ];
    for (name, code) in cases {
        let mut m = user(code);
        m.gate(0x80, 0);
        assert_eq!(vector_of(&mut m), Some(vector::GP.into()), "{name}");
        assert_eq!(m.cpu.state.segment(Seg::Cs).selector & 3, 0, "{name}: the handler is the kernel's");
    }
    for (name, code) in
        [("clac", [0x0F, 0x01, 0xCA]), ("stac", [0x0F, 0x01, 0xCB]), ("monitor", [0x0F, 0x01, 0xC8])]
    {
        expect(name, &code, vector::UD);
    }
}
