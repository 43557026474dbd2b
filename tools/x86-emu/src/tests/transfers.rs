//! Far transfers, IRET, SYSCALL and SYSRET, and segment loads.

use crate::exits::Exit;
use crate::testing::{KERNEL_CODE, KERNEL_DATA, Machine, TSS_SELECTOR, USER_CODE, USER_DATA, layout};
use x86_arch::{Attributes, Gpr, Seg, Segment, efer, flags, vector};

const VMCALL: [u8; 3] = [0x0F, 0x01, 0xC1];
/// Descriptors that a test adds behind those of the machine.
const EXTRA: u16 = 0x50;

fn with_extra(descriptor: u64) -> Machine {
    let mut m = Machine::long();
    m.cpu.state.gdtr.limit = EXTRA + 7;
    m.poke(layout::GDT + u64::from(EXTRA), descriptor);
    for v in [vector::TS, vector::NP, vector::SS, vector::GP, vector::UD] {
        m.gate(v, 1 << 32);
    }
    m
}

fn error_code(m: &Machine) -> u64 {
    m.peek(m.cpu.state.gpr(Gpr::Rsp))
}

#[test]
fn iret_returns_to_user_code_with_its_stack_and_flags() {
    let mut m = Machine::long();
    m.gate(13, 0);
    m.make_user();
    *m.cpu.state.segment_mut(Seg::Cs) = Segment::flat(KERNEL_CODE, Attributes::CODE64);
    *m.cpu.state.segment_mut(Seg::Ss) = Segment::flat(KERNEL_DATA, Attributes::DATA);
    *m.cpu.state.segment_mut(Seg::Ds) = Segment::flat(KERNEL_DATA, Attributes::DATA);
    let words =
        [layout::CODE + 0x40, u64::from(USER_CODE), flags::IF | flags::CF, 0x4_8000, u64::from(USER_DATA)];
    for (n, word) in (0u64..).zip(words) {
        m.poke(layout::STACK + 8 * n, word);
    }
    m.code(&[0x48, 0xCF]);
    m.write(layout::CODE + 0x40, &VMCALL);
    let Exit::Instruction { .. } = m.run() else { panic!("user code runs") };
    assert_eq!(m.cpu.state.rip(), layout::CODE + 0x40);
    assert_eq!(m.cpu.state.cpl(), 3);
    assert_eq!(m.cpu.state.gpr(Gpr::Rsp), 0x4_8000);
    assert_eq!(m.cpu.state.flags.get(), 2 | flags::IF | flags::CF);
    assert!(m.cpu.state.segment(Seg::Ds).attributes.unusable(), "an inner segment is taken away");
}

#[test]
fn a_return_to_user_code_nulls_the_kernels_gs_and_keeps_its_base() {
    const BASE: u64 = 0xFFFF_8000_0000_1000;
    let far_return: &[u8] = &[0x48, 0xCB];
    for (name, code, words) in [
        (
            "IRET",
            &[0x48, 0xCF][..],
            vec![layout::CODE + 0x40, u64::from(USER_CODE), 2, 0x4_8000, u64::from(USER_DATA)],
        ),
        (
            "a far return",
            far_return,
            vec![layout::CODE + 0x40, u64::from(USER_CODE), 0x4_8000, u64::from(USER_DATA)],
        ),
    ] {
        let mut m = Machine::long();
        m.make_user();
        *m.cpu.state.segment_mut(Seg::Cs) = Segment::flat(KERNEL_CODE, Attributes::CODE64);
        *m.cpu.state.segment_mut(Seg::Ss) = Segment::flat(KERNEL_DATA, Attributes::DATA);
        *m.cpu.state.segment_mut(Seg::Gs) =
            Segment { base: BASE, ..Segment::flat(KERNEL_DATA, Attributes::DATA) };
        for (n, word) in (0u64..).zip(words) {
            m.poke(layout::STACK + 8 * n, word);
        }
        m.code(code);
        m.write(layout::CODE + 0x40, &VMCALL);
        assert!(matches!(m.run(), Exit::Instruction { .. }), "{name}");
        let gs = m.cpu.state.segment(Seg::Gs);
        assert_eq!((gs.selector, gs.attributes.unusable(), gs.base), (0, true, BASE), "{name}");
    }
}

/// What is on the stack, and what IRET at CPL 0 raises.
#[test]
fn iret_refuses_what_the_manual_refuses() {
    let user = u64::from(USER_CODE);
    let good = [layout::CODE, u64::from(KERNEL_CODE), 2, layout::STACK, u64::from(KERNEL_DATA)];
    let change = |index: usize, value: u64| {
        let mut words = good;
        words[index] = value;
        words
    };
    // (name, words, vector, error code)
    let cases = [
        ("a null CS", change(1, 0), vector::GP, 0),
        ("CS beyond the table", change(1, 0xF8), vector::GP, 0xF8),
        ("data as CS", change(1, 0x10), vector::GP, 0x10),
        ("RPL that is not the DPL", change(1, 0x0B), vector::GP, 0x08),
        ("RIP that is not canonical", change(0, 1 << 47), vector::GP, 0),
        ("null SS for CPL 3", [layout::CODE, user, 2, 0, 3], vector::GP, 0),
        ("SS of another level", [layout::CODE, user, 2, 0, 0x10], vector::GP, 0x10),
        ("code as SS", change(4, 0x18), vector::GP, 0x18),
    ];
    for (name, words, raised, error) in cases {
        let mut m = with_extra(0);
        for (n, word) in (0u64..).zip(words) {
            m.poke(layout::STACK + 8 * n, word);
        }
        m.code(&[0x48, 0xCF]);
        m.expect_handler(raised);
        assert_eq!(error_code(&m), error, "{name}");
        assert_eq!(m.peek(m.cpu.state.gpr(Gpr::Rsp) + 8), layout::CODE, "{name}");
        assert_eq!(m.peek(m.cpu.state.gpr(Gpr::Rsp) + 32), layout::STACK, "{name}: RSP as it was");
    }
}

#[test]
fn iret_with_nested_task_is_refused_in_long_mode() {
    let mut m = with_extra(0);
    m.cpu.state.flags.set(flags::NT);
    m.code(&[0x48, 0xCF]);
    m.expect_handler(vector::GP);
}

#[test]
fn user_code_cannot_change_iopl_or_if_by_iret_or_popf() {
    for code in [vec![0x48, 0xCF], vec![0x9D, 0x0F, 0x01, 0xC1]] {
        let popf = code[0] == 0x9D;
        let mut m = Machine::long();
        m.make_user();
        m.cpu.state.flags.set(flags::IF);
        let image = flags::IOPL | flags::CF;
        let words = if popf {
            vec![image]
        } else {
            vec![layout::CODE + 0x40, u64::from(USER_CODE), image, layout::STACK, u64::from(USER_DATA)]
        };
        for (n, word) in (0u64..).zip(words) {
            m.poke(layout::STACK + 8 * n, word);
        }
        m.code(&code);
        m.write(layout::CODE + 0x40, &VMCALL);
        assert!(matches!(m.run(), Exit::Instruction { .. }));
        assert_eq!(m.cpu.state.flags.get(), 2 | flags::IF | flags::CF);
    }
}

#[test]
fn syscall_and_sysret_follow_their_registers() {
    let mut m = Machine::long();
    m.make_user();
    m.cpu.state.msrs.star = 0x0023_0008 << 32;
    m.cpu.state.msrs.lstar = layout::CODE + 0x80;
    m.cpu.state.msrs.fmask = flags::IF | flags::DF;
    m.cpu.state.flags.set(flags::IF | flags::CF);
    m.code(&[0x0F, 0x05, 0x0F, 0x01, 0xC1]);
    m.write(layout::CODE + 0x80, &[0xF4, 0x48, 0x0F, 0x07]);
    m.run_to_hlt();
    assert_eq!(m.cpu.state.rip(), layout::CODE + 0x80);
    assert_eq!(m.cpu.state.gpr(Gpr::Rcx), layout::CODE + 2);
    assert_eq!(m.cpu.state.gpr(Gpr::R11), 2 | flags::IF | flags::CF);
    assert_eq!(m.cpu.state.flags.get(), 2 | flags::CF);
    assert_eq!((m.cpu.state.segment(Seg::Cs).selector, m.cpu.state.segment(Seg::Ss).selector), (0x08, 0x10));
    assert_eq!(m.cpu.state.cpl(), 0);
    m.cpu.advance(1);
    assert!(matches!(m.run(), Exit::Instruction { .. }));
    assert_eq!(m.cpu.state.rip(), layout::CODE + 2);
    assert_eq!(m.cpu.state.cpl(), 3);
    assert_eq!((m.cpu.state.segment(Seg::Cs).selector, m.cpu.state.segment(Seg::Ss).selector), (0x33, 0x2B));
    assert_eq!(m.cpu.state.flags.get(), 2 | flags::IF | flags::CF);
}

#[test]
fn syscall_needs_its_enable_bit_and_sysret_a_canonical_target() {
    let mut m = with_extra(0);
    m.cpu.state.control.efer &= !efer::SCE;
    m.code(&[0x0F, 0x05]);
    m.expect_handler(vector::UD);
    let mut m = with_extra(0);
    m.cpu.state.set_gpr(Gpr::Rcx, 1 << 47);
    m.code(&[0x48, 0x0F, 0x07]);
    m.expect_handler(vector::GP);
    assert_eq!(error_code(&m), 0);
}

/// A far jump to a code descriptor at CPL 0: what happens.
#[test]
fn far_jumps_check_the_descriptor() {
    const CODE64: u64 = 0x00AF_9B00_0000_FFFF;
    let accessed_clear = CODE64 & !(1 << 40);
    // (name, descriptor, selector, vector or none, error code)
    let cases: [(&str, u64, u16, Option<u8>, u64); 8] = [
        ("64-bit code", CODE64, EXTRA, None, 0),
        ("code not accessed yet", accessed_clear, EXTRA, None, 0),
        ("not present", CODE64 & !(1 << 47), EXTRA, Some(vector::NP), u64::from(EXTRA)),
        ("data", 0x00CF_9300_0000_FFFF, EXTRA, Some(vector::GP), u64::from(EXTRA)),
        ("L and D", CODE64 | 1 << 54, EXTRA, Some(vector::GP), u64::from(EXTRA)),
        ("another level", CODE64 | 3 << 45, EXTRA | 3, Some(vector::GP), u64::from(EXTRA)),
        ("null", 0, 0, Some(vector::GP), 0),
        ("beyond the table", CODE64, EXTRA + 8, Some(vector::GP), u64::from(EXTRA + 8)),
    ];
    for (name, descriptor, selector, raised, error) in cases {
        let mut m = with_extra(descriptor);
        m.poke(layout::DATA, layout::CODE + 0x40);
        m.poke(layout::DATA + 8, u64::from(selector));
        m.code(&[0x48, 0xFF, 0x2B]); // jmp far [rbx]
        m.write(layout::CODE + 0x40, &[0xF4]);
        m.cpu.state.set_gpr(Gpr::Rbx, layout::DATA);
        match raised {
            None => {
                m.run_to_hlt();
                assert_eq!(m.cpu.state.rip(), layout::CODE + 0x40, "{name}");
                assert_eq!(m.cpu.state.segment(Seg::Cs).selector, selector, "{name}");
                assert_ne!(m.peek(layout::GDT + u64::from(EXTRA)) >> 40 & 1, 0, "{name}: accessed");
            }
            Some(v) => {
                m.expect_handler(v);
                assert_eq!(error_code(&m), error, "{name}");
            }
        }
    }
}

#[test]
fn a_far_call_and_its_return_cross_into_compatibility_mode_and_back() {
    let mut m = Machine::long();
    m.poke(layout::DATA, (layout::CODE + 0x40) | 0x18 << 32);
    // call far [rbx] (16:32); hlt
    m.code(&[0xFF, 0x1B, 0xF4]);
    // 32-bit: mov eax, 5; retf
    m.write(layout::CODE + 0x40, &[0xB8, 5, 0, 0, 0, 0xCB]);
    m.cpu.state.set_gpr(Gpr::Rbx, layout::DATA);
    m.cpu.state.set_gpr(Gpr::Rax, u64::MAX);
    m.run_to_hlt();
    assert_eq!(m.cpu.state.rip(), layout::CODE + 2);
    assert_eq!(m.cpu.state.gpr(Gpr::Rax), 5);
    assert_eq!(m.cpu.state.gpr(Gpr::Rsp), layout::STACK);
}

/// MOV to a data segment register at CPL 0 or 3.
#[test]
fn loads_of_data_segments_check_type_presence_and_privilege() {
    const DATA: u64 = 0x00CF_9300_0000_FFFF;
    const CODE: u64 = 0x00CF_9B00_0000_FFFF;
    let gp = Some((vector::GP, u64::from(EXTRA)));
    // (name, descriptor, RPL, segment's ModRM number, outcome)
    type Outcome = Option<(u8, u64)>;
    let cases: [(&str, u64, u16, u8, Outcome); 9] = [
        ("data into DS", DATA, 0, 3, None),
        ("readable code into ES", CODE, 0, 0, None),
        ("execute-only code", CODE & !(1 << 41), 0, 3, gp),
        ("a system descriptor", DATA & !(1 << 44), 0, 3, gp),
        ("RPL above DPL", DATA, 3, 3, gp),
        ("data not present", DATA & !(1 << 47), 0, 3, Some((vector::NP, u64::from(EXTRA)))),
        ("stack not present", DATA & !(1 << 47), 0, 2, Some((vector::SS, u64::from(EXTRA)))),
        ("a read-only stack", DATA & !(1 << 41), 0, 2, gp),
        ("a stack of another level", DATA | 3 << 45, 0, 2, gp),
    ];
    for (name, descriptor, rpl, register, outcome) in cases {
        let mut m = with_extra(descriptor);
        m.cpu.state.set_gpr(Gpr::Rax, u64::from(EXTRA | rpl));
        m.code(&[0x8E, 0xC0 | register << 3, 0xF4]);
        match outcome {
            None => {
                m.run_to_hlt();
                let loaded = m.cpu.state.segments[register as usize];
                assert_eq!(loaded.selector, EXTRA | rpl, "{name}");
                assert_eq!(loaded.limit, u32::MAX, "{name}");
            }
            Some((v, error)) => {
                m.expect_handler(v);
                assert_eq!(error_code(&m), error, "{name}");
            }
        }
    }
}

#[test]
fn a_null_selector_makes_a_data_segment_unusable_and_is_refused_for_a_user_stack() {
    let mut m = with_extra(0);
    m.code(&[0x31, 0xC0, 0x8E, 0xE8, 0x8E, 0xD0, 0xF4]); // xor eax,eax; mov gs,ax; mov ss,ax; hlt
    m.run_to_hlt();
    assert!(m.cpu.state.segment(Seg::Gs).attributes.unusable());
    assert_eq!(m.cpu.state.cpl(), 0);
    let mut m = with_extra(0);
    m.make_user();
    m.code(&[0x31, 0xC0, 0x8E, 0xD0]);
    m.expect_handler(vector::GP);
}

#[test]
fn the_task_register_takes_an_available_tss_and_marks_it_busy() {
    let mut m = with_extra(0);
    m.cpu.state.tr = Segment::NULL;
    m.cpu.state.set_gpr(Gpr::Rax, u64::from(TSS_SELECTOR));
    m.code(&[0x0F, 0x00, 0xD8, 0x0F, 0x00, 0xC9, 0xF4]); // ltr ax; str ecx; hlt
    m.run_to_hlt();
    assert_eq!(m.cpu.state.tr.base, layout::TSS);
    assert_eq!(m.cpu.state.tr.attributes, Attributes::BUSY_TSS);
    assert_eq!(m.cpu.state.gpr(Gpr::Rcx), u64::from(TSS_SELECTOR));
    assert_eq!(m.peek(layout::GDT + u64::from(TSS_SELECTOR)) >> 40 & 15, 11);
    m.cpu.state.set_rip(layout::CODE);
    m.expect_handler(vector::GP);
    assert_eq!(error_code(&m), u64::from(TSS_SELECTOR), "a busy TSS is refused");
}

#[test]
fn segment_limits_hold_in_protected_mode() {
    use x86_arch::TableRegister;
    // (name, segment, instruction through it, vector)
    let small = Segment { limit: 0xFFF, ..Segment::flat(0x10, Attributes::DATA) };
    let down = Segment { limit: 0xFFF, ..Segment::flat(0x10, Attributes(0xC097)) };
    let read_only = Segment::flat(0x10, Attributes(0xC091));
    let load: &[u8] = &[0x8B, 0x03];
    let store: &[u8] = &[0x89, 0x03];
    let cases: [(&str, Segment, &[u8], u64, bool); 7] = [
        ("inside", small, load, 0xFFC, true),
        ("one byte over the limit", small, load, 0xFFD, false),
        ("far beyond", small, store, 0x10_0000, false),
        ("below an expand-down limit", down, load, 0xFFF, false),
        ("above an expand-down limit", down, load, 0x1000, true),
        ("a store to read-only data", read_only, store, 0x1000, false),
        ("a null segment", Segment::NULL, load, 0, false),
    ];
    for (name, segment, code, offset, allowed) in cases {
        let mut m = Machine::protected();
        *m.cpu.state.segment_mut(Seg::Cs) = Segment::flat(0x18, Attributes::CODE32);
        *m.cpu.state.segment_mut(Seg::Ds) = segment;
        m.cpu.state.idtr = TableRegister { base: layout::IDT, limit: 0x7FF };
        let handler = layout::HANDLERS;
        m.poke(layout::IDT + 8 * 13, handler & 0xFFFF | 0x18 << 16 | 0x8E00 << 32 | (handler >> 16) << 48);
        m.write(handler, &[0xF4]);
        let mut bytes = code.to_vec();
        bytes.push(0xF4);
        m.code(&bytes);
        m.cpu.state.set_gpr(Gpr::Rbx, offset);
        m.run_to_hlt();
        assert_eq!(m.cpu.state.rip() == handler, !allowed, "{name}");
    }
}
