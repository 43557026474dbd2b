//! Single step over every instruction that changes TF, the privilege or the stack, or that blocks traps.
//!
//! The rules: TF is looked at when an instruction begins, and the trap comes behind it (SDM vol. 3, "Single-Step
//! Exception Condition"). SYSCALL and SYSRET look at TF when they end (what a kernel puts into IA32_FMASK protects
//! it from the user's TF). INT n, INT3, INTO and INT1 clear TF on the way to their handler (the same section). A
//! load of SS by MOV or POP holds the trap off until the next instruction is over (vol. 3, "Masking Exceptions and
//! Interrupts When Switching Stacks"). A repeated string instruction traps behind every iteration (vol. 2, "REP").

use crate::segments::selector_code;
use crate::testing::{KERNEL_CODE, KERNEL_DATA, Machine, USER_CODE, USER_DATA, layout};
use x86_arch::{Activity, Attributes, Gpr, Seg, Segment, flags};

/// Where kernel entries and user returns lead: `nop; ud2`.
const ELSEWHERE: u64 = 0x3_0000;
/// Where SYSENTER and SYSEXIT put the stack pointer.
const OTHER_STACK: u64 = 0x5_8000;
const KERNEL_CODE32: u16 = 0x18;
const DB: u64 = 1;
const BP: u64 = 3;
const OF: u64 = 4;
const UD: u64 = 6;
const SOFTWARE: u64 = 0x55;

/// What the first handler that runs finds on its stack.
#[derive(PartialEq, Eq, Debug)]
struct Seen {
    vector: u64,
    rip: u64,
    cpl: u64,
}

const fn seen(vector: u64, rip: u64, cpl: u64) -> Seen {
    Seen { vector, rip, cpl }
}

struct Case {
    name: &'static str,
    code: &'static [u8],
    prepare: fn(&mut Machine),
    expected: Seen,
}

fn kernel(m: &mut Machine) {
    m.cpu.state.flags.set(flags::TF);
}

fn user(m: &mut Machine) {
    m.make_user();
    m.cpu.state.flags.set(flags::TF);
}

/// 32-bit code at CPL 0 in compatibility mode.
fn compatibility(m: &mut Machine) {
    *m.cpu.state.segment_mut(Seg::Cs) = Segment::flat(KERNEL_CODE32, Attributes::CODE32);
    kernel(m);
}

fn system_call(m: &mut Machine, mask: u64) {
    user(m);
    m.cpu.state.msrs.lstar = ELSEWHERE;
    m.cpu.state.msrs.star = u64::from(KERNEL_CODE) << 32;
    m.cpu.state.msrs.fmask = mask;
}

fn system_return(m: &mut Machine, before: u64, after: u64) {
    m.make_user();
    kernel_segments(m);
    m.cpu.state.flags.set(before);
    // User code is two descriptors above the base that STAR names.
    m.cpu.state.msrs.star = u64::from(USER_CODE - 16) << 48;
    m.cpu.state.set_gpr(Gpr::Rcx, ELSEWHERE);
    m.cpu.state.set_gpr(Gpr::R11, after);
}

fn kernel_segments(m: &mut Machine) {
    *m.cpu.state.segment_mut(Seg::Cs) = Segment::flat(KERNEL_CODE, Attributes::CODE64);
    *m.cpu.state.segment_mut(Seg::Ss) = Segment::flat(KERNEL_DATA, Attributes::DATA);
}

/// An interrupt frame for a return to [`ELSEWHERE`] in user code.
fn return_frame(m: &mut Machine, before: u64, after: u64) {
    m.make_user();
    kernel_segments(m);
    m.cpu.state.flags.set(before);
    m.cpu.state.set_gpr(Gpr::Rsp, layout::STACK - 40);
    let words = [ELSEWHERE, u64::from(USER_CODE), after, layout::STACK, u64::from(USER_DATA)];
    for (n, word) in (0..).zip(words) {
        m.poke(layout::STACK - 40 + 8 * n, word);
    }
}

fn sysenter(m: &mut Machine) {
    user(m);
    m.cpu.state.msrs.sysenter_cs = u64::from(KERNEL_CODE);
    m.cpu.state.msrs.sysenter_eip = ELSEWHERE;
    m.cpu.state.msrs.sysenter_esp = OTHER_STACK;
}

fn sysexit(m: &mut Machine) {
    m.make_user();
    kernel_segments(m);
    kernel(m);
    // 64-bit user code is 32 above the selector in the MSR.
    m.cpu.state.msrs.sysenter_cs = u64::from(USER_CODE) - 32;
    m.cpu.state.set_gpr(Gpr::Rdx, ELSEWHERE);
    m.cpu.state.set_gpr(Gpr::Rcx, OTHER_STACK);
}

fn popped(m: &mut Machine, before: u64, after: u64) {
    m.cpu.state.flags.set(before);
    m.cpu.state.set_gpr(Gpr::Rsp, layout::STACK - 8);
    m.poke(layout::STACK - 8, after);
}

fn far_pointer(m: &mut Machine) {
    kernel(m);
    m.poke(layout::DATA, ELSEWHERE | u64::from(KERNEL_CODE) << 32);
}

fn repeated(m: &mut Machine, count: u64) {
    kernel(m);
    m.cpu.state.set_gpr(Gpr::Rcx, count);
    m.cpu.state.set_gpr(Gpr::Rsi, layout::DATA);
    m.cpu.state.set_gpr(Gpr::Rdi, layout::DATA + 0x100);
}

const CODE: u64 = layout::CODE;
const TF: u64 = flags::TF;

const CASES: &[Case] = &[
    Case { name: "NOP", code: &[0x90], prepare: kernel, expected: seen(DB, CODE + 1, 0) },
    Case {
        name: "a fault is not stepped",
        code: &[0x0F, 0x0B],
        prepare: kernel,
        expected: seen(UD, CODE, 0),
    },
    Case {
        name: "SYSCALL, IA32_FMASK clears TF",
        code: &[0x0F, 0x05],
        prepare: |m| system_call(m, TF | flags::IF),
        expected: seen(UD, ELSEWHERE + 1, 0),
    },
    Case {
        name: "SYSCALL, IA32_FMASK keeps TF",
        code: &[0x0F, 0x05],
        prepare: |m| system_call(m, 0),
        expected: seen(DB, ELSEWHERE, 0),
    },
    Case {
        name: "SYSRET to a user with TF",
        code: &[0x48, 0x0F, 0x07],
        prepare: |m| system_return(m, 0, TF),
        expected: seen(DB, ELSEWHERE, 3),
    },
    Case {
        name: "SYSRET by a kernel with TF to a user with TF",
        code: &[0x48, 0x0F, 0x07],
        prepare: |m| system_return(m, TF, TF),
        expected: seen(DB, ELSEWHERE, 3),
    },
    Case {
        name: "SYSRET by a kernel with TF to a user without",
        code: &[0x48, 0x0F, 0x07],
        prepare: |m| system_return(m, TF, 0),
        expected: seen(UD, ELSEWHERE + 1, 3),
    },
    Case {
        name: "SYSENTER leaves TF alone",
        code: &[0x0F, 0x34],
        prepare: sysenter,
        expected: seen(DB, ELSEWHERE, 0),
    },
    Case { name: "SYSEXIT", code: &[0x48, 0x0F, 0x35], prepare: sysexit, expected: seen(DB, ELSEWHERE, 3) },
    Case {
        name: "IRET that sets TF: behind the next instruction",
        code: &[0x48, 0xCF],
        prepare: |m| return_frame(m, 0, TF),
        expected: seen(DB, ELSEWHERE + 1, 3),
    },
    Case {
        name: "IRET that clears TF is stepped itself",
        code: &[0x48, 0xCF],
        prepare: |m| return_frame(m, TF, 0),
        expected: seen(DB, ELSEWHERE, 3),
    },
    Case {
        name: "POPF that sets TF: behind the next instruction",
        code: &[0x9D, 0x90, 0x90],
        prepare: |m| popped(m, 0, TF),
        expected: seen(DB, CODE + 2, 0),
    },
    Case {
        name: "POPF that clears TF is stepped itself",
        code: &[0x9D, 0x90],
        prepare: |m| popped(m, TF, 0),
        expected: seen(DB, CODE + 1, 0),
    },
    Case {
        name: "MOV SS: behind the next instruction",
        code: &[0x8E, 0xD0, 0x90, 0x90],
        prepare: |m| {
            kernel(m);
            m.cpu.state.set_gpr(Gpr::Rax, u64::from(KERNEL_DATA));
        },
        expected: seen(DB, CODE + 3, 0),
    },
    Case {
        name: "POP SS: behind the next instruction",
        code: &[0x17, 0x90, 0x90],
        prepare: |m| {
            compatibility(m);
            m.poke(layout::STACK, u64::from(KERNEL_DATA));
        },
        expected: seen(DB, CODE + 2, 0),
    },
    Case {
        name: "LSS holds nothing off",
        code: &[0x0F, 0xB2, 0x24, 0x25, 0, 0, 4, 0, 0x90],
        prepare: |m| {
            kernel(m);
            m.poke(layout::DATA, OTHER_STACK | u64::from(KERNEL_DATA) << 32);
        },
        expected: seen(DB, CODE + 8, 0),
    },
    Case { name: "STI", code: &[0xFB, 0x90], prepare: kernel, expected: seen(DB, CODE + 1, 0) },
    Case {
        name: "INT n clears TF",
        code: &[0xCD, SOFTWARE as u8],
        prepare: kernel,
        expected: seen(SOFTWARE, CODE + 2, 0),
    },
    Case {
        name: "INT n from user code clears TF",
        code: &[0xCD, SOFTWARE as u8],
        prepare: user,
        expected: seen(SOFTWARE, CODE + 2, 3),
    },
    Case { name: "INT3 clears TF", code: &[0xCC], prepare: user, expected: seen(BP, CODE + 1, 3) },
    Case { name: "INT1 is one #DB, not two", code: &[0xF1], prepare: user, expected: seen(DB, CODE + 1, 3) },
    Case {
        name: "INTO that traps clears TF",
        code: &[0xCE],
        prepare: |m| {
            compatibility(m);
            m.cpu.state.flags.set(TF | flags::OF);
        },
        expected: seen(OF, CODE + 1, 0),
    },
    Case {
        name: "INTO that does not trap is stepped",
        code: &[0xCE, 0x90],
        prepare: compatibility,
        expected: seen(DB, CODE + 1, 0),
    },
    Case {
        name: "far JMP",
        code: &[0xFF, 0x2C, 0x25, 0, 0, 4, 0],
        prepare: far_pointer,
        expected: seen(DB, ELSEWHERE, 0),
    },
    Case {
        name: "far CALL",
        code: &[0xFF, 0x1C, 0x25, 0, 0, 4, 0],
        prepare: far_pointer,
        expected: seen(DB, ELSEWHERE, 0),
    },
    Case {
        name: "far RET",
        code: &[0x48, 0xCB],
        prepare: |m| {
            kernel(m);
            m.cpu.state.set_gpr(Gpr::Rsp, layout::STACK - 16);
            m.poke(layout::STACK - 16, ELSEWHERE);
            m.poke(layout::STACK - 8, u64::from(KERNEL_CODE));
        },
        expected: seen(DB, ELSEWHERE, 0),
    },
    Case {
        name: "an iteration of REP MOVSB",
        code: &[0xF3, 0xA4, 0x90],
        prepare: |m| repeated(m, 3),
        expected: seen(DB, CODE, 0),
    },
    Case {
        name: "the last iteration of REP MOVSB",
        code: &[0xF3, 0xA4, 0x90],
        prepare: |m| repeated(m, 1),
        expected: seen(DB, CODE + 2, 0),
    },
    Case {
        name: "REP MOVSB without an iteration",
        code: &[0xF3, 0xA4, 0x90],
        prepare: |m| repeated(m, 0),
        expected: seen(DB, CODE + 2, 0),
    },
];

fn machine(case: &Case) -> Machine {
    let mut m = Machine::long();
    for vector in [DB, BP, OF, UD, SOFTWARE, 8, 13, 14] {
        m.gate(vector as u8, 3 << 45);
    }
    m.write(ELSEWHERE, &[0x90, 0x0F, 0x0B]);
    m.code(case.code);
    (case.prepare)(&mut m);
    m
}

#[test]
fn a_single_step_arrives_where_the_manual_says() {
    for case in CASES {
        let mut m = machine(case);
        m.run_to_hlt();
        let rsp = m.cpu.state.gpr(Gpr::Rsp);
        let got = Seen {
            vector: m.cpu.state.rip().wrapping_sub(layout::HANDLERS) / 16,
            rip: m.peek(rsp),
            cpl: m.peek(rsp + 8) & 3,
        };
        assert_eq!(got, case.expected, "{}", case.name);
        assert_eq!(m.cpu.state.flags.get() & TF, 0, "{}: handlers are not stepped", case.name);
        if case.expected.cpl == 3 {
            assert_eq!(
                rsp,
                0x5_0000 - 40,
                "{}: events from user code arrive on the stack of the TSS",
                case.name
            );
        }
    }
}

#[test]
fn a_masked_step_over_syscall_leaves_no_trap_for_later() {
    let case = &CASES[2];
    let mut m = machine(case);
    m.write(ELSEWHERE, &[0xF4]);
    m.run_to_hlt();
    assert_eq!(m.cpu.state.rip(), ELSEWHERE, "the kernel's first instruction");
    assert_eq!(m.cpu.state.gpr(Gpr::Rsp), layout::STACK, "nothing was pushed on the user's stack");
    assert_eq!(m.cpu.state.debug.dr6 & 1 << 14, 0);
    assert_ne!(m.cpu.state.gpr(Gpr::R11) & TF, 0, "the kernel finds the user's TF in R11");
}

#[test]
fn every_iteration_of_a_repeated_move_is_one_step_and_all_but_the_last_push_rf() {
    let mut m = Machine::long();
    m.gate(1, 0);
    m.write(layout::HANDLERS + 16, &[0x48, 0xCF]); // iretq
    m.write(layout::DATA, b"abc");
    m.code(&[0xF3, 0xA4, 0xF4]);
    repeated(&mut m, 3);
    for left in (0..3u64).rev() {
        assert_eq!(m.run_for(1), crate::Exit::BudgetExhausted);
        assert_eq!(m.cpu.state.gpr(Gpr::Rcx), left);
        assert_eq!(m.run_for(1), crate::Exit::BudgetExhausted, "the handler's IRET");
        let image = m.peek(m.cpu.state.gpr(Gpr::Rsp) - 24);
        assert_eq!(
            image & flags::RF != 0,
            left != 0,
            "RF in the image behind the iteration that leaves {left}"
        );
        assert_ne!(image & TF, 0);
    }
    assert_eq!(m.cpu.state.rip(), CODE + 2);
    assert_eq!(m.peek(layout::DATA + 0x100) & 0xFF_FFFF, u64::from_le_bytes(*b"abc\0\0\0\0\0"));
}

#[test]
fn sysenter_and_sysexit_load_flat_segments_from_their_msr() {
    let mut m = machine(&CASES[7]);
    m.cpu.state.flags.set(flags::IF);
    m.write(ELSEWHERE, &[0xF4]);
    m.run_to_hlt();
    assert_eq!(m.cpu.state.segment(Seg::Cs).selector, KERNEL_CODE);
    assert_eq!(m.cpu.state.segment(Seg::Ss).selector, KERNEL_CODE + 8);
    assert_eq!((m.cpu.state.cpl(), m.cpu.state.gpr(Gpr::Rsp)), (0, OTHER_STACK));
    assert_eq!(m.cpu.state.flags.get() & flags::IF, 0);

    for (msr, rdx, rcx) in
        [(0, ELSEWHERE, OTHER_STACK), (0x13, 1 << 63, OTHER_STACK), (0x13, ELSEWHERE, 1 << 63)]
    {
        let mut m = machine(&CASES[8]);
        m.cpu.state.flags.set(0);
        m.cpu.state.msrs.sysenter_cs = msr;
        m.cpu.state.set_gpr(Gpr::Rdx, rdx);
        m.cpu.state.set_gpr(Gpr::Rcx, rcx);
        m.expect_handler(13);
        assert_eq!(
            m.peek(m.cpu.state.gpr(Gpr::Rsp)),
            0,
            "SYSEXIT with {msr:#x}, {rdx:#x}, {rcx:#x} is #GP(0)"
        );
    }
    assert_eq!(selector_code(USER_CODE), 0x30);
}

#[test]
fn a_step_over_hlt_wakes_the_cpu() {
    let mut m = Machine::long();
    m.gate(DB as u8, 0);
    kernel(&mut m);
    m.code(&[0xF4, 0x90]);
    m.run_to_hlt();
    assert_eq!(m.cpu.state.rip(), CODE);
    // What an owner does with HLT.
    m.cpu.advance(1);
    m.cpu.state.activity = Activity::Halted;
    m.expect_handler(DB as u8);
    assert_eq!(m.peek(m.cpu.state.gpr(Gpr::Rsp)), CODE + 1, "the trap comes behind HLT");
    assert_eq!(m.cpu.state.activity, Activity::Active);
}
