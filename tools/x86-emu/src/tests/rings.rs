//! Privilege in 32-bit protected mode without paging, where a TD begins: events and calls that lead to an inner ring, returns
//! that lead out, and task switches, which leave the processor. What is expected is from the manual's sections on INT n, CALL,
//! IRET and "Treatment of Task Switches".

use tdvisor_base::{Hpa, KeyId};

use crate::exits::{Exit, InstructionExit, TaskSwitch, TaskSwitchBy};
use crate::testing::{Machine, TSS_SELECTOR, layout};
use x86_arch::{Attributes, Event, Gpr, Seg, Segment, TableRegister, flags, vector};

const CODE: u64 = layout::CODE;
const IDT: u64 = layout::IDT;
const TSS: u64 = layout::TSS;
const HANDLERS: u64 = layout::HANDLERS;
/// Flat segments of the tests' GDT.
const KERNEL: u16 = 0x18;
const KERNEL_STACK: u16 = 0x10;
const USER: u16 = 0x23;
const USER_STACK: u16 = 0x2B;
/// Places in the GDT that these tests fill.
const SPARE: u16 = 0x50;
const OTHER_TASK: u16 = 0x58;
const STACK16: u16 = 0x60;
/// Where ring 0 has its stack.
const INNER_STACK: u64 = 0x5_0000;
const VMCALL: [u8; 3] = [0x0F, 0x01, 0xC1];

/// An entry of a descriptor table that is a gate.
fn gate(selector: u16, offset: u64, access: u64, parameters: u64) -> u64 {
    offset & 0xFFFF | u64::from(selector) << 16 | parameters << 32 | access << 40 | (offset >> 16) << 48
}

/// Code in ring 3, a 32-bit TSS, and a 32-bit interrupt gate for every vector, to a HLT in ring 0.
fn user(code: &[u8]) -> Machine {
    let mut m = Machine::protected();
    m.code(code);
    m.cpu.state.gdtr = TableRegister { base: layout::GDT, limit: 0x7F };
    m.cpu.state.idtr = TableRegister { base: IDT, limit: 0x7FF };
    for vector in 0..=255 {
        let target = HANDLERS + 16 * vector;
        m.poke(IDT + 8 * vector, gate(KERNEL, target, 0xEE, 0));
        m.write(target, &[0xF4]);
    }
    m.write(TSS, &[0; 0x68]);
    // Link, ESP0 and SS0.
    m.write(TSS + 4, &(INNER_STACK as u32).to_le_bytes());
    m.write(TSS + 8, &KERNEL_STACK.to_le_bytes());
    let attributes = Attributes::BUSY_TSS;
    let state = &mut m.cpu.state;
    state.tr = Segment { selector: TSS_SELECTOR, base: TSS, limit: 0x67, attributes };
    *state.segment_mut(Seg::Cs) = Segment::flat(USER, Attributes::CODE32.with_dpl(3));
    for register in [Seg::Ss, Seg::Ds, Seg::Es] {
        *state.segment_mut(register) = Segment::flat(USER_STACK, Attributes::DATA.with_dpl(3));
    }
    state.flags.set(flags::IF);
    m
}

fn put(m: &Machine, selector: u16, descriptor: u64) {
    m.poke(layout::GDT + u64::from(selector & !7), descriptor);
}

fn words(m: &Machine, at: u64) -> [u32; 2] {
    let word = |at| m.bus.memory.load(Hpa::new(at), KeyId::DEFAULT).expect("inside the arena, and aligned");
    [word(at), word(at + 4)]
}

/// A vector and its error code.
type Raised = (u8, u32);

/// The vector whose handler ended the run, and the error code where it has one.
#[track_caller]
fn handled(m: &mut Machine) -> Raised {
    m.run_to_hlt();
    let vector = ((m.cpu.state.rip() - HANDLERS) / 16) as u8;
    (vector, words(m, m.cpu.state.gpr(Gpr::Rsp))[0])
}

#[test]
fn an_interrupt_of_ring_3_arrives_on_the_stack_of_ring_0_and_iret_goes_back() {
    let mut m = user(&[&[0xCD, 0x80][..], &VMCALL].concat()); // int 0x80; vmcall
    m.write(HANDLERS + 16 * 0x80, &[0x9C, 0x5B, 0xCF]); // pushf; pop ebx; iret
    let vmcall = Exit::Instruction { what: InstructionExit::Vmcall, length: 3 };
    assert_eq!(m.run(), vmcall);
    let frame = INNER_STACK - 20;
    assert_eq!(words(&m, frame), [CODE as u32 + 2, USER.into()]);
    assert_eq!(words(&m, frame + 8), [(flags::IF | 2) as u32, layout::STACK as u32]);
    assert_eq!(words(&m, frame + 16)[0], USER_STACK.into());
    let state = &m.cpu.state;
    assert_eq!(state.gpr(Gpr::Rbx) & flags::IF, 0, "an interrupt gate masks interrupts");
    assert_eq!((state.cpl(), state.gpr(Gpr::Rsp)), (3, layout::STACK));
    assert_eq!(state.segment(Seg::Ss).selector, USER_STACK);
}

#[test]
fn a_fault_brings_its_error_code_and_a_16_bit_gate_halves_the_words() {
    let mut m = user(&[0xF4]); // hlt
    assert_eq!(handled(&mut m), (vector::GP, 0));
    assert_eq!(m.cpu.state.gpr(Gpr::Rsp), INNER_STACK - 24);

    let mut m = user(&[0xF4]);
    // Code for a 16-bit offset.
    put(&m, SPARE, 0x0040_9B00_0000_FFFF | (HANDLERS & 0xFF_FFFF) << 16);
    m.poke(IDT + 8 * u64::from(vector::GP), gate(SPARE, 0xFFFF_0000 | 0x0D0, 0x86, 0));
    m.cpu.state.set_gpr(Gpr::Rsp, 0x1234_5678);
    m.run_to_hlt();
    assert_eq!(m.cpu.state.rip(), 0xD0, "the upper half of the gate's offset is not used");
    let top = INNER_STACK - 12;
    assert_eq!(m.cpu.state.gpr(Gpr::Rsp), top);
    // Error code, IP, CS, flags with RF lost, SP, SS.
    assert_eq!(words(&m, top), [(CODE as u32 & 0xFFFF) << 16, u32::from(USER) | 0x202 << 16]);
    assert_eq!(words(&m, top + 8)[0], 0x5678 | u32::from(USER_STACK) << 16);
}

#[test]
fn a_16_bit_tss_and_a_16_bit_stack_serve_as_well() {
    let mut m = user(&[0xF4]);
    m.cpu.state.tr.attributes = Attributes(0x83);
    m.cpu.state.tr.limit = 0x2B;
    m.write(TSS + 2, &[0x00, 0x80]);
    m.write(TSS + 4, &STACK16.to_le_bytes());
    put(&m, STACK16, 0x0000_9305_0000_FFFF);
    m.cpu.state.set_gpr(Gpr::Rsp, 0xABCD_4000);
    m.run_to_hlt();
    assert_eq!(m.cpu.state.gpr(Gpr::Rsp), 0xABCD_0000 | (0x8000 - 24), "the upper half of ESP stays");
    assert_eq!(words(&m, 0x5_8000 - 24), [0, CODE as u32]);
    assert_eq!(words(&m, 0x5_8000 - 8), [0xABCD_4000, USER_STACK.into()]);
}

#[test]
fn what_is_wrong_with_the_inner_stack_is_told_by_its_selector() {
    let selector = u32::from(SPARE);
    let cases: &[(&str, u16, u64, u8, u32)] = &[
        ("null", 0, 0, vector::TS, 0),
        ("beyond the table", 0x80, 0, vector::TS, 0x80),
        ("another RPL", SPARE | 1, 0x00CF_9300_0000_FFFF, vector::TS, selector),
        ("another DPL", SPARE, 0x00CF_B300_0000_FFFF, vector::TS, selector),
        ("not writable", SPARE, 0x00CF_9100_0000_FFFF, vector::TS, selector),
        ("code", SPARE, 0x00CF_9B00_0000_FFFF, vector::TS, selector),
        ("not present", SPARE, 0x00CF_1300_0000_FFFF, vector::SS, selector),
        ("too small", SPARE, 0x0040_9300_0000_0FFF, vector::SS, selector),
    ];
    for (name, ss, descriptor, expected, code) in cases {
        let mut m = user(&[0xCD, 0x80]);
        put(&m, SPARE, *descriptor);
        m.write(TSS + 8, &ss.to_le_bytes());
        // The exception's own handler runs in ring 3: no stack is needed for it.
        put(&m, OTHER_TASK, 0x00CF_FF00_0000_FFFF);
        m.poke(IDT + 8 * u64::from(*expected), gate(OTHER_TASK, CODE + 0x80, 0xEE, 0));
        m.write(CODE + 0x80, &VMCALL);
        let vmcall = Exit::Instruction { what: InstructionExit::Vmcall, length: 3 };
        assert_eq!(m.run(), vmcall, "{name}");
        assert_eq!(words(&m, layout::STACK - 16), [*code, CODE as u32], "{name}");
    }
    // A TSS that ends before the stack of ring 0: #TS with the TSS, and the handler in ring 0 has no stack either.
    let mut m = user(&[0xCD, 0x80]);
    m.cpu.state.tr.limit = 8;
    assert_eq!(m.run(), Exit::TripleFault);
}

#[test]
fn a_call_gate_copies_its_parameters_and_a_far_return_takes_them_off_both_stacks() {
    for (access, width) in [(0xEC, 4u64), (0xE4, 2)] {
        // push 0x22; push 0x11; call far SPARE:0; vmcall
        let mut m =
            user(&[&[0x6A, 0x22, 0x6A, 0x11, 0x9A, 0, 0, 0, 0, SPARE as u8 | 3, 0][..], &VMCALL].concat());
        let mut back = vec![0xCA, 8, 0]; // retf 8
        if width == 2 {
            back.insert(0, 0x66);
        }
        // Code at 0, so that a 16-bit offset reaches it.
        let place = if width == 2 { 0x9000 } else { HANDLERS };
        m.write(place, &back);
        put(&m, SPARE, gate(KERNEL, place, access, if width == 4 { 2 } else { 4 }));
        let vmcall = Exit::Instruction { what: InstructionExit::Vmcall, length: 3 };
        assert_eq!(m.run_for(3), Exit::BudgetExhausted);
        assert_eq!((m.cpu.state.cpl(), m.cpu.state.rip()), (0, place), "width {width}");
        let top = m.cpu.state.gpr(Gpr::Rsp);
        assert_eq!(top, INNER_STACK - 4 * width - 8);
        let [eip, cs] = words(&m, top);
        if width == 4 {
            assert_eq!([eip, cs], [CODE as u32 + 11, USER.into()]);
            assert_eq!(words(&m, top + 8), [0x11, 0x22]);
            assert_eq!(words(&m, top + 16), [layout::STACK as u32 - 8, USER_STACK.into()]);
            assert_eq!(m.run(), vmcall, "width {width}");
            assert_eq!(m.cpu.state.gpr(Gpr::Rsp), layout::STACK);
        } else {
            assert_eq!(eip, 11 | u32::from(USER) << 16);
            assert_eq!([cs, words(&m, top + 8)[0]], [0x11, 0x22]);
            assert_eq!(
                words(&m, top + 12)[0],
                (layout::STACK as u32 - 8) & 0xFFFF | u32::from(USER_STACK) << 16
            );
        }
    }
}

#[test]
fn a_call_gate_keeps_its_privilege_rules() {
    let call = [0x9A, 0, 0, 0, 0, SPARE as u8 | 3, 0];
    let jump = [0xEA, 0, 0, 0, 0, SPARE as u8 | 3, 0];
    let to_kernel = |access| gate(KERNEL, HANDLERS, access, 0);
    let spare = u32::from(SPARE);
    let cases: &[(&str, [u8; 7], u64, Raised)] = &[
        ("the gate's DPL", call, to_kernel(0xAC), (vector::GP, spare)),
        ("a gate that is not present", call, to_kernel(0x6C), (vector::NP, spare)),
        ("no code behind it", call, gate(KERNEL_STACK, HANDLERS, 0xEC, 0), (vector::GP, KERNEL_STACK.into())),
        ("nothing behind it", call, gate(0, HANDLERS, 0xEC, 0), (vector::GP, 0)),
        ("a jump inwards", jump, to_kernel(0xEC), (vector::GP, KERNEL.into())),
    ];
    for (name, code, descriptor, expected) in cases {
        let mut m = user(code);
        put(&m, SPARE, *descriptor);
        assert_eq!(handled(&mut m), *expected, "{name}");
    }
    // A jump through a gate stays in its ring.
    let mut m = user(&jump);
    m.write(CODE + 0x80, &VMCALL);
    put(&m, SPARE, gate(USER, CODE + 0x80, 0xEC, 0));
    let vmcall = Exit::Instruction { what: InstructionExit::Vmcall, length: 3 };
    assert_eq!(m.run(), vmcall);
    assert_eq!((m.cpu.state.cpl(), m.cpu.state.gpr(Gpr::Rsp)), (3, layout::STACK));
}

/// A TSS descriptor with this type and limit.
const fn tss(access: u64, limit: u64) -> u64 {
    limit | 0x8000 << 16 | access << 40
}

fn switch(selector: u16, by: TaskSwitchBy, length: u8) -> Exit<crate::testing::NotToday> {
    Exit::Instruction { what: InstructionExit::TaskSwitch(TaskSwitch { selector, by }), length }
}

#[test]
fn a_task_switch_leaves_the_processor_as_it_was_with_what_asks_for_it() {
    let far = |opcode, selector: u16| [opcode, 0, 0, 0, 0, selector as u8 | 3, 0];
    for (opcode, by) in [(0x9A, TaskSwitchBy::Call), (0xEA, TaskSwitchBy::Jump)] {
        for (access, limit) in [(0xE9, 0x67), (0xE1, 0x2B)] {
            let mut m = user(&far(opcode, OTHER_TASK));
            put(&m, OTHER_TASK, tss(access, limit));
            assert_eq!(m.run(), switch(OTHER_TASK | 3, by, 7));
            assert_eq!((m.cpu.state.rip(), m.cpu.state.cpl()), (CODE, 3));
        }
        let mut m = user(&far(opcode, SPARE));
        put(&m, SPARE, gate(OTHER_TASK, 0, 0xE5, 0));
        // Behind a gate the task's own privilege does not count.
        put(&m, OTHER_TASK, tss(0x89, 0x67));
        assert_eq!(m.run(), switch(OTHER_TASK, by, 7));
    }
    let mut m = user(&[0xCD, 0x80]);
    m.poke(IDT + 8 * 0x80, gate(OTHER_TASK, 0, 0xE5, 0));
    put(&m, OTHER_TASK, tss(0x89, 0x67));
    assert_eq!(m.run(), switch(OTHER_TASK, TaskSwitchBy::Gate(Event::software(0x80, 2)), 2));
    let mut m = user(&[0xF4]);
    m.poke(IDT + 8 * u64::from(vector::GP), gate(OTHER_TASK, 0, 0x85, 0));
    put(&m, OTHER_TASK, tss(0x89, 0x67));
    let fault = Event::exception_with_code(vector::GP, 0);
    assert_eq!(m.run(), switch(OTHER_TASK, TaskSwitchBy::Gate(fault), 0));
    let mut m = user(&[0xCF]); // iret
    m.cpu.state.flags.set(flags::NT);
    m.write(TSS, &OTHER_TASK.to_le_bytes());
    put(&m, OTHER_TASK, tss(0x8B, 0x67));
    assert_eq!(m.run(), switch(OTHER_TASK, TaskSwitchBy::Iret, 1));
}

#[test]
fn what_is_wrong_with_a_task_is_an_exception_before_anything_leaves() {
    let other = u32::from(OTHER_TASK);
    let call = [0x9A, 0, 0, 0, 0, OTHER_TASK as u8 | 3, 0];
    let cases: &[(&str, u64, Raised)] = &[
        ("its DPL", tss(0x89, 0x67), (vector::GP, other)),
        ("busy", tss(0xEB, 0x67), (vector::GP, other)),
        ("not present", tss(0x69, 0x67), (vector::NP, other)),
        ("too short for 32 bits", tss(0xE9, 0x66), (vector::TS, other)),
        ("too short for 16 bits", tss(0xE1, 0x2A), (vector::TS, other)),
    ];
    for (name, descriptor, expected) in cases {
        let mut m = user(&call);
        put(&m, OTHER_TASK, *descriptor);
        assert_eq!(handled(&mut m), *expected, "{name}");
    }
    // An event from outside is told as such.
    let gates: &[(&str, u16, u64, Raised)] = &[
        ("in the LDT", OTHER_TASK | 4, tss(0x89, 0x67), (vector::DF, 0)),
        ("no TSS", OTHER_TASK, tss(0x92, 0x67), (vector::DF, 0)),
    ];
    for (name, selector, descriptor, expected) in gates {
        let mut m = user(&[0xF4]);
        m.poke(IDT + 8 * u64::from(vector::GP), gate(*selector, 0, 0x85, 0));
        put(&m, OTHER_TASK, *descriptor);
        assert_eq!(handled(&mut m), *expected, "{name}");
    }
    // A task that returns finds the other one busy.
    for (link, descriptor, expected) in [
        (OTHER_TASK, tss(0x89, 0x67), (vector::TS, other)),
        (OTHER_TASK, tss(0x0B, 0x67), (vector::NP, other)),
        (OTHER_TASK | 4, tss(0x8B, 0x67), (vector::TS, other | 4)),
        (0, 0, (vector::TS, 0)),
    ] {
        let mut m = user(&[0xCF]);
        m.cpu.state.flags.set(flags::NT);
        m.write(TSS, &link.to_le_bytes());
        put(&m, OTHER_TASK, descriptor);
        assert_eq!(handled(&mut m), expected, "link {link:#x}");
    }
}
