//! Code outside 64-bit mode that a process reaches by the segments of its LDT: 16-bit code and stacks, gates, and the
//! instructions that 64-bit mode does not have. What is expected is from the manual's tables.

use crate::exits::{Exit, InstructionExit};
use crate::testing::{Machine, USER_CODE, USER_DATA, layout};
use x86_arch::{Attributes, Gpr, Seg, Segment, cr4, flags, vector};

const CODE: u64 = layout::CODE;
const DATA: u64 = layout::DATA;
/// Where the LDT of these tests is, and its selectors.
const LDT: u64 = 0x8000;
const CODE16: u16 = 0x07;
const STACK16: u16 = 0x0F;
const CODE32: u16 = 0x17;
const GATE: u16 = 0x1F;
/// The base of the 16-bit stack.
const STACK_BASE: u64 = 0x5_8000;
const VMCALL: [u8; 3] = [0x0F, 0x01, 0xC1];

/// A descriptor with byte granularity.
const fn descriptor(base: u64, limit: u64, access: u64, big: bool) -> u64 {
    limit & 0xFFFF
        | (base & 0xFF_FFFF) << 16
        | access << 40
        | (limit >> 16 & 15) << 48
        | (big as u64) << 54
        | base >> 24 << 56
}

/// A user process in 64-bit mode whose LDT has 16-bit code at [`CODE`], a 16-bit stack and 32-bit code.
fn process() -> Machine {
    let mut m = Machine::long();
    for vector in 0..=255 {
        m.gate(vector, 3 << 45);
    }
    m.make_user();
    for (n, descriptor) in (0..).zip([
        descriptor(CODE, 0xFFFF, 0xFB, false),
        descriptor(STACK_BASE, 0xFFFF, 0xF3, false),
        descriptor(0, 0xF_FFFF, 0xFB, true) | 1 << 55,
        0,
        0,
    ]) {
        m.poke(LDT + 8 * n, descriptor);
    }
    m.cpu.state.ldtr = Segment { selector: 0x48, base: LDT, limit: 39, attributes: Attributes::LDT };
    *m.cpu.state.segment_mut(Seg::Ds) = Segment::flat(USER_DATA, Attributes::DATA.with_dpl(3));
    *m.cpu.state.segment_mut(Seg::Es) = Segment::flat(USER_DATA, Attributes::DATA.with_dpl(3));
    m
}

/// The process in 16-bit code on a 16-bit stack, SP 0x4000 and the upper half of ESP not zero.
fn in_16_bit_code(code: &[u8]) -> Machine {
    let mut m = process();
    m.code(&[code, &VMCALL].concat());
    let code = Segment { selector: CODE16, base: CODE, limit: 0xFFFF, attributes: Attributes(0xFB) };
    let stack = Segment { selector: STACK16, base: STACK_BASE, limit: 0xFFFF, attributes: Attributes(0xF3) };
    *m.cpu.state.segment_mut(Seg::Cs) = code;
    *m.cpu.state.segment_mut(Seg::Ss) = stack;
    m.cpu.state.set_rip(0);
    m.cpu.state.set_gpr(Gpr::Rsp, 0x1234_4000);
    m
}

fn in_32_bit_code(code: &[u8]) -> Machine {
    let mut m = process();
    m.code(&[code, &VMCALL].concat());
    *m.cpu.state.segment_mut(Seg::Cs) = Segment::flat(CODE32, Attributes::CODE32.with_dpl(3));
    m
}

fn run_to_vmcall(m: &mut Machine, what: &str) -> u64 {
    let exit = m.run();
    let vmcall = Exit::Instruction { what: InstructionExit::Vmcall, length: 3 };
    assert_eq!(exit, vmcall, "{what}, stopped at {:#x}", m.cpu.state.rip());
    m.cpu.state.rip()
}

fn vector_of(m: &mut Machine) -> u64 {
    m.run_to_hlt();
    (m.cpu.state.rip() - layout::HANDLERS) / 16
}

fn word(m: &Machine, at: u64) -> u16 {
    m.bus.memory.load(tdvisor_base::Hpa::new(at), tdvisor_base::KeyId::DEFAULT).expect("inside the arena")
}

#[test]
fn a_far_jump_into_the_ldt_runs_16_bit_code_and_a_far_return_leaves_it() {
    let mut m = process();
    // jmp far [DATA]; in 16-bit code: mov ax, 0x1234; 66 retf
    m.code(&[0xFF, 0x1C, 0x25, 0, 0, 4, 0]);
    m.write(CODE + 7, &VMCALL);
    m.poke(DATA, 0x40 | u64::from(CODE16) << 32);
    m.write(CODE + 0x40, &[0xB8, 0x34, 0x12, 0x66, 0xCB]);
    m.cpu.state.set_gpr(Gpr::Rax, 0xFFFF_FFFF);
    assert_eq!(run_to_vmcall(&mut m, "back in 64-bit code"), CODE + 7);
    assert_eq!(m.cpu.state.gpr(Gpr::Rax), 0xFFFF_1234);
    assert_eq!(m.cpu.state.gpr(Gpr::Rsp), layout::STACK);
    assert_eq!(m.cpu.state.segment(Seg::Cs).selector, USER_CODE);
}

#[test]
fn a_16_bit_stack_moves_sp_and_keeps_the_upper_half_of_esp() {
    // push ax; push 0x55; pusha; pop bx
    let mut m = in_16_bit_code(&[0x50, 0x6A, 0x55, 0x60, 0x5B]);
    m.cpu.state.set_gpr(Gpr::Rax, 0xABCD);
    m.cpu.state.set_gpr(Gpr::Rdi, 0x7777);
    run_to_vmcall(&mut m, "pushes");
    assert_eq!(m.cpu.state.gpr(Gpr::Rsp), 0x1234_4000 - 2 - 2 - 16 + 2);
    assert_eq!(word(&m, STACK_BASE + 0x3FFE), 0xABCD);
    assert_eq!(word(&m, STACK_BASE + 0x3FFC), 0x55);
    assert_eq!(m.cpu.state.gpr(Gpr::Rbx) & 0xFFFF, 0x7777, "DI is on top");
    // SP wraps inside its segment.
    let mut m = in_16_bit_code(&[0x50]);
    m.cpu.state.set_gpr(Gpr::Rsp, 0x1234_0000);
    run_to_vmcall(&mut m, "a push at zero");
    assert_eq!(m.cpu.state.gpr(Gpr::Rsp), 0x1234_FFFE);
}

#[test]
fn frames_and_32_bit_operands_work_on_a_16_bit_stack() {
    // enter 16, 0; leave; 66 push eax; 66 pop ecx
    let mut m = in_16_bit_code(&[0xC8, 16, 0, 0, 0x89, 0xE2, 0xC9, 0x66, 0x50, 0x66, 0x59]);
    m.cpu.state.set_gpr(Gpr::Rax, 0x1122_3344);
    m.cpu.state.set_gpr(Gpr::Rbp, 0x9999_8888);
    run_to_vmcall(&mut m, "a frame");
    assert_eq!(m.cpu.state.gpr(Gpr::Rdx) & 0xFFFF, 0x4000 - 2 - 16);
    assert_eq!(m.cpu.state.gpr(Gpr::Rbp), 0x9999_8888);
    assert_eq!(m.cpu.state.gpr(Gpr::Rcx), 0x1122_3344);
    assert_eq!(m.cpu.state.gpr(Gpr::Rsp), 0x1234_4000);
}

#[test]
fn addresses_of_16_bits_wrap_and_use_their_own_registers() {
    // mov ax, [bx+si+0x10]; mov [di-2], al; lea cx, [bp+di+0x8000]; 67 mov dl, [eax]
    let mut m = in_16_bit_code(&[0x8B, 0x40, 0x10, 0x88, 0x45, 0xFE, 0x8D, 0x8B, 0, 0x80]);
    *m.cpu.state.segment_mut(Seg::Ds) =
        Segment { selector: USER_DATA, base: DATA, limit: 0xFFFF, attributes: Attributes(0xF3) };
    m.cpu.state.set_gpr(Gpr::Rbx, 0xEEEE_FFF0);
    m.cpu.state.set_gpr(Gpr::Rsi, 0xEEEE_0040);
    m.cpu.state.set_gpr(Gpr::Rdi, 0x200);
    m.cpu.state.set_gpr(Gpr::Rbp, 0x9000);
    m.write(DATA + 0x40, &[0x5A, 0xA5]);
    run_to_vmcall(&mut m, "addresses");
    assert_eq!(m.cpu.state.gpr(Gpr::Rax) & 0xFFFF, 0xA55A);
    assert_eq!(word(&m, DATA + 0x1FE) as u8, 0x5A);
    assert_eq!(m.cpu.state.gpr(Gpr::Rcx) & 0xFFFF, 0x1200);
}

#[test]
fn strings_of_16_bit_addresses_count_in_cx_si_and_di() {
    // rep movsb
    let mut m = in_16_bit_code(&[0xF3, 0xA4]);
    for register in [Seg::Ds, Seg::Es] {
        *m.cpu.state.segment_mut(register) =
            Segment { selector: USER_DATA, base: DATA, limit: 0xFFFF, attributes: Attributes(0xF3) };
    }
    m.write(DATA + 0x10, b"hello");
    m.cpu.state.set_gpr(Gpr::Rcx, 0xAAAA_0005);
    m.cpu.state.set_gpr(Gpr::Rsi, 0xBBBB_0010);
    m.cpu.state.set_gpr(Gpr::Rdi, 0xCCCC_0100);
    run_to_vmcall(&mut m, "rep movsb");
    assert_eq!(m.cpu.state.gpr(Gpr::Rcx), 0xAAAA_0000);
    assert_eq!(m.cpu.state.gpr(Gpr::Rsi), 0xBBBB_0015);
    assert_eq!(m.cpu.state.gpr(Gpr::Rdi), 0xCCCC_0105);
    assert_eq!(&m.peek(DATA + 0x100).to_le_bytes()[..5], b"hello");
}

#[test]
fn branches_of_16_bits_clear_the_upper_half_of_eip() {
    let cases: &[(&str, &[u8], u64)] = &[
        ("jmp short", &[0xEB, 1, 0xF4], 3),
        ("jmp near", &[0xE9, 1, 0, 0xF4], 4),
        ("jmp near around the end", &[0xE9, 0xFD, 0xFF], 0),
        ("je, taken", &[0x74, 1, 0xF4], 3),
        ("jne, not taken", &[0x75, 1], 2),
        ("je near", &[0x0F, 0x84, 1, 0, 0xF4], 5),
        ("jcxz looks at CX only", &[0xE3, 1, 0xF4], 3),
        ("loop with CX 0 counts to 0xffff", &[0xE2, 1, 0xF4], 3),
        ("jmp bx", &[0xFF, 0xE3], 0x30),
        ("call near, pop ax", &[0xE8, 1, 0, 0xF4, 0x58], 5),
        ("call bx", &[0xFF, 0xD3], 0x30),
    ];
    for (name, code, target) in cases {
        let mut m = in_16_bit_code(code);
        m.write(CODE + 0x30, &VMCALL);
        if *target == 0 {
            // The branch leads to itself: one step shows it.
            assert_eq!(m.run_for(1), Exit::BudgetExhausted, "{name}");
            assert_eq!(m.cpu.state.rip(), 0, "{name}");
            continue;
        }
        m.cpu.state.flags.set(flags::ZF);
        m.cpu.state.set_gpr(Gpr::Rcx, 0x7_0000);
        m.cpu.state.set_gpr(Gpr::Rbx, 0x5555_0030);
        assert_eq!(run_to_vmcall(&mut m, name), *target, "{name}");
        if name.starts_with("loop") {
            assert_eq!(m.cpu.state.gpr(Gpr::Rcx), 0x7_FFFF);
        }
        if name.starts_with("call near") {
            assert_eq!(m.cpu.state.gpr(Gpr::Rax) & 0xFFFF, 3);
        }
    }
    // ret 4
    let mut m = in_16_bit_code(&[0xC2, 4, 0]);
    m.write(CODE + 0x30, &VMCALL);
    m.write(STACK_BASE + 0x4000, &[0x30, 0]);
    assert_eq!(run_to_vmcall(&mut m, "ret 4"), 0x30);
    assert_eq!(m.cpu.state.gpr(Gpr::Rsp), 0x1234_4006);
}

#[test]
fn a_branch_beyond_the_limit_is_a_protection_fault_that_changes_nothing() {
    let mut m = in_16_bit_code(&[0xE9, 0xFC, 0x0F]);
    m.cpu.state.segment_mut(Seg::Cs).limit = 0xFFE;
    assert_eq!(vector_of(&mut m), u64::from(vector::GP));
    assert_eq!(m.peek(m.cpu.state.gpr(Gpr::Rsp) + 8), 0, "EIP is that of the jump");
    assert_eq!(m.peek(m.cpu.state.gpr(Gpr::Rsp) + 32), 0x1234_4000, "all of ESP is pushed");
}

#[test]
fn an_interrupt_return_to_a_16_bit_stack_loads_sp_only() {
    let mut m = process();
    *m.cpu.state.segment_mut(Seg::Cs) = Segment::flat(0x08, Attributes::CODE64);
    *m.cpu.state.segment_mut(Seg::Ss) = Segment::flat(0x10, Attributes::DATA);
    m.code(&[0x48, 0xCF]);
    m.write(CODE + 0x30, &VMCALL);
    for (n, word) in (0..).zip([0x30, u64::from(CODE16), 2, 0x9999_4000, u64::from(STACK16)]) {
        m.poke(layout::STACK - 40 + 8 * n, word);
    }
    m.cpu.state.set_gpr(Gpr::Rsp, layout::STACK - 40);
    assert_eq!(run_to_vmcall(&mut m, "16-bit code"), 0x30);
    assert_eq!(m.cpu.state.gpr(Gpr::Rsp), (layout::STACK - 40) & !0xFFFF | 0x4000);
}

/// Name, code, AX and flags before; AX and flags after, of those that the manual defines.
type Decimal = (&'static str, &'static [u8], u64, u64, u64, u64);

#[test]
fn decimal_arithmetic_follows_the_manuals_operation_sections() {
    use flags::{AF, CF, PF, SF, ZF};
    const ALL: u64 = CF | AF | SF | ZF | PF;
    const CARRIES: u64 = CF | AF;
    const RESULT: u64 = SF | ZF | PF;
    let cases: &[(u64, Decimal)] = &[
        (ALL, ("daa", &[0x27], 0xAE, 0, 0x14, CF | AF | PF)),
        (ALL, ("daa without a correction", &[0x27], 0x35, 0, 0x35, PF)),
        (ALL, ("daa to zero", &[0x27], 0x9A, 0, 0, CF | AF | ZF | PF)),
        (ALL, ("daa after a carry", &[0x27], 0x12, CF, 0x72, CF | PF)),
        (ALL, ("das", &[0x2F], 0xEE, 0, 0x88, CF | AF | SF | PF)),
        (ALL, ("das borrows", &[0x2F], 0x03, AF, 0xFD, CF | AF | SF)),
        (ALL, ("das without a correction", &[0x2F], 0x47, 0, 0x47, PF)),
        (CARRIES, ("aaa", &[0x37], 0x010C, 0, 0x0202, CF | AF)),
        (CARRIES, ("aaa without a correction", &[0x37], 0x0135, 0, 0x0105, 0)),
        (CARRIES, ("aaa, AL overflows into AH", &[0x37], 0x00FA, 0, 0x0200, CF | AF)),
        (CARRIES, ("aas", &[0x3F], 0x020C, 0, 0x0106, CF | AF)),
        (CARRIES, ("aas, AL borrows from AH", &[0x3F], 0x0202, AF, 0x000C, CF | AF)),
        (CARRIES, ("aas without a correction", &[0x3F], 0x0133, 0, 0x0103, 0)),
        (RESULT, ("aam", &[0xD4, 10], 0xFF3F, 0, 0x0603, PF)),
        (RESULT, ("aam 16", &[0xD4, 16], 0x00E0, 0, 0x0E00, ZF | PF)),
        (RESULT, ("aad", &[0xD5, 10], 0x0603, 0, 0x003F, PF)),
        (RESULT, ("aad 16", &[0xD5, 16], 0xFF80, 0, 0x0070, 0)),
        (0, ("salc with CF", &[0xD6], 0x1200, CF, 0x12FF, 0)),
        (0, ("salc without", &[0xD6], 0x12FF, 0, 0x1200, 0)),
    ];
    for (defined, (name, code, ax, before, expected, after)) in cases {
        let mut m = in_32_bit_code(code);
        m.cpu.state.set_gpr(Gpr::Rax, *ax);
        m.cpu.state.flags.set(*before);
        run_to_vmcall(&mut m, name);
        assert_eq!(m.cpu.state.gpr(Gpr::Rax), *expected, "{name}");
        assert_eq!(m.cpu.state.flags.get() & defined, *after, "{name}");
    }
    assert_eq!(vector_of(&mut in_32_bit_code(&[0xD4, 0])), u64::from(vector::DE), "aam 0");
}

#[test]
fn bound_is_a_range_exception_outside_its_signed_bounds() {
    for (index, raised) in [(-5i32, false), (10, false), (11, true), (-6, true), (i32::MIN, true)] {
        // bound eax, [DATA]; 66 bound ax, [DATA + 8]
        for code in [&[0x62, 0x05, 0, 0, 4, 0][..], &[0x66, 0x62, 0x05, 8, 0, 4, 0]] {
            if code.len() == 7 && index == i32::MIN {
                continue;
            }
            let mut m = in_32_bit_code(code);
            m.poke(DATA, u64::from((-5i32) as u32) | 10 << 32);
            m.poke(DATA + 8, u64::from((-5i16) as u16) | 10 << 16);
            m.cpu.state.set_gpr(Gpr::Rax, u64::from(index as u32));
            if raised {
                assert_eq!(vector_of(&mut m), u64::from(vector::BR), "{index}");
                assert_eq!(m.peek(m.cpu.state.gpr(Gpr::Rsp)), CODE, "a fault");
            } else {
                run_to_vmcall(&mut m, "in bounds");
            }
        }
    }
}

#[test]
fn arpl_raises_a_selectors_rpl_and_never_lowers_it() {
    for (selector, wanted, result, raised) in
        [(0x10u64, 3u64, 0x13u64, true), (0x13, 1, 0x13, false), (0x12, 2, 0x12, false)]
    {
        let mut m = in_32_bit_code(&[0x63, 0xD8]); // arpl ax, bx
        m.cpu.state.set_gpr(Gpr::Rax, selector);
        m.cpu.state.set_gpr(Gpr::Rbx, wanted);
        run_to_vmcall(&mut m, "arpl");
        assert_eq!(m.cpu.state.gpr(Gpr::Rax), result);
        assert_eq!(m.cpu.state.flags.get() & flags::ZF != 0, raised);
    }
}

#[test]
fn les_and_lds_load_a_pointer_and_its_segment() {
    let mut m = in_32_bit_code(&[0xC4, 0x05, 0, 0, 4, 0]);
    m.poke(DATA, 0x1234_5678 | u64::from(STACK16) << 32);
    run_to_vmcall(&mut m, "les");
    assert_eq!(m.cpu.state.gpr(Gpr::Rax), 0x1234_5678);
    let es = m.cpu.state.segment(Seg::Es);
    assert_eq!((es.selector, es.base, es.limit), (STACK16, STACK_BASE, 0xFFFF));
}

/// A 64-bit call gate in the LDT, `access` its type, DPL and presence.
fn gate(m: &Machine, selector: u16, offset: u64, access: u64) {
    let at = LDT + u64::from(GATE & !7);
    m.poke(at, offset & 0xFFFF | u64::from(selector) << 16 | access << 40 | (offset >> 16 & 0xFFFF) << 48);
    m.poke(at + 8, offset >> 32);
}

fn far_call(m: &Machine) {
    m.code(&[0xFF, 0x1C, 0x25, 0, 0, 4, 0]);
    m.poke(DATA, u64::from(GATE) << 32 | 0xDEAD);
}

#[test]
fn a_call_gate_leads_to_an_inner_privilege_on_the_stack_of_the_tss() {
    let mut m = process();
    gate(&m, 0x08, CODE + 0x100, 0xEC);
    far_call(&m);
    m.write(CODE + 0x100, &[0xF4]);
    m.run_to_hlt();
    assert_eq!((m.cpu.state.rip(), m.cpu.state.cpl()), (CODE + 0x100, 0));
    let rsp = m.cpu.state.gpr(Gpr::Rsp);
    assert_eq!(rsp, 0x5_0000 - 32);
    let frame: Vec<u64> = (0..4).map(|n| m.peek(rsp + 8 * n)).collect();
    assert_eq!(frame, [CODE + 7, u64::from(USER_CODE), layout::STACK, u64::from(USER_DATA)]);
    assert_eq!(m.cpu.state.segment(Seg::Ss).selector, 0);
    // RETFQ goes back.
    m.write(CODE + 0x100, &[0x48, 0xCB]);
    m.write(CODE + 7, &VMCALL);
    assert_eq!(run_to_vmcall(&mut m, "the caller"), CODE + 7);
    assert_eq!((m.cpu.state.cpl(), m.cpu.state.gpr(Gpr::Rsp)), (3, layout::STACK));
}

#[test]
fn a_call_gate_to_the_same_privilege_pushes_two_words() {
    let mut m = process();
    gate(&m, USER_CODE, CODE + 0x100, 0xEC);
    far_call(&m);
    m.write(CODE + 0x100, &VMCALL);
    assert_eq!(run_to_vmcall(&mut m, "the gate's code"), CODE + 0x100);
    assert_eq!(m.peek(layout::STACK - 16), CODE + 7);
    assert_eq!(m.cpu.state.gpr(Gpr::Rsp), layout::STACK - 16);
}

#[test]
fn call_gates_refuse_what_the_manual_refuses() {
    let code = u64::from(GATE & !3);
    let cases: &[(&str, u16, u64, u64, u64, u64)] = &[
        ("a gate of the kernel's", 0x08, CODE, 0x8C, 13, code),
        ("a gate that is not present", 0x08, CODE, 0x6C, 11, code),
        ("no code", 0, CODE, 0xEC, 13, 0),
        ("code beyond the table", 0xF8, CODE, 0xEC, 13, 0xF8),
        ("data", 0x10, CODE, 0xEC, 13, 0x10),
        ("32-bit code", 0x23, CODE, 0xEC, 13, 0x20),
        ("an offset that is not canonical", 0x08, 1 << 47, 0xEC, 13, 0),
        ("a 286 call gate", 0x08, CODE, 0xE4, 13, code),
        ("an upper half with a type", 0x08, 1 << 40, 0xEC, 13, code),
    ];
    for (name, selector, offset, access, vector, error) in cases {
        let mut m = process();
        gate(&m, *selector, *offset, *access);
        if name.contains("upper half") {
            m.poke(LDT + u64::from(GATE & !7) + 8, 1 << 40);
        }
        far_call(&m);
        assert_eq!(vector_of(&mut m), *vector, "{name}");
        assert_eq!(m.peek(m.cpu.state.gpr(Gpr::Rsp)), *error, "{name}");
    }
    // A jump does not change the privilege.
    let mut m = process();
    gate(&m, 0x08, CODE + 0x100, 0xEC);
    far_call(&m);
    m.code(&[0xFF, 0x2C, 0x25, 0, 0, 4, 0]);
    assert_eq!(vector_of(&mut m), 13);
    assert_eq!(m.peek(m.cpu.state.gpr(Gpr::Rsp)), 8);
}

#[test]
fn cli_and_sti_of_user_code_change_the_virtual_flag_under_pvi() {
    let mut m = process();
    m.cpu.state.control.cr4 |= cr4::PVI;
    m.cpu.state.flags.set(flags::IF);
    m.code(&[0xFB, 0x9C, 0x58, 0xFA, 0x9C, 0x5B, 0x0F, 0x01, 0xC1]); // sti; pushf; pop rax; cli; pushf; pop rbx
    run_to_vmcall(&mut m, "pvi");
    assert_eq!(m.cpu.state.gpr(Gpr::Rax) & (flags::VIF | flags::IF), flags::VIF | flags::IF);
    assert_eq!(m.cpu.state.gpr(Gpr::Rbx) & (flags::VIF | flags::IF), flags::IF);
    // With an interrupt pending, STI hands over to the kernel.
    let mut m = process();
    m.cpu.state.control.cr4 |= cr4::PVI;
    m.cpu.state.flags.set(flags::IF | flags::VIP);
    m.code(&[0xFB]);
    assert_eq!(vector_of(&mut m), 13);
}
