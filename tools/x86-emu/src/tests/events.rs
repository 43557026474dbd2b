//! Delivery of events: gates, stacks, error codes, combinations, shadows, windows.

use tdvisor_base::sync::Ordering;

use crate::exits::{Exit, InstructionExit};
use crate::testing::{KERNEL_CODE, KERNEL_DATA, Machine, USER_CODE, USER_DATA, layout};
use x86_arch::{Access, Activity, Event, EventKind, Gpr, Seg, Shadow, TableRegister, flags, vector};

/// What delivery pushed, from the error code (or RIP) upwards.
fn frame(m: &Machine, word: u64) -> u64 {
    m.peek(m.cpu.state.gpr(Gpr::Rsp) + 8 * word)
}

#[test]
fn an_exception_pushes_its_frame_on_the_aligned_stack_of_the_same_level() {
    let mut m = Machine::long();
    m.gate(6, 0);
    m.cpu.state.set_gpr(Gpr::Rsp, layout::STACK - 3);
    m.cpu.state.flags.set(flags::IF | flags::CF);
    m.code(&[0x90, 0x0F, 0x0B]);
    m.expect_handler(6);
    assert_eq!(m.cpu.state.gpr(Gpr::Rsp), ((layout::STACK - 3) & !15) - 40);
    assert_eq!(frame(&m, 0), layout::CODE + 1);
    assert_eq!(frame(&m, 1), u64::from(KERNEL_CODE));
    assert_eq!(frame(&m, 2), 2 | flags::IF | flags::CF | flags::RF, "a fault is pushed with RF");
    assert_eq!(frame(&m, 3), layout::STACK - 3);
    assert_eq!(frame(&m, 4), u64::from(KERNEL_DATA));
    assert_eq!(m.cpu.state.flags.get() & flags::IF, 0, "an interrupt gate masks interrupts");
}

#[test]
fn a_trap_gate_leaves_interrupts_on() {
    let mut m = Machine::long();
    m.gate(6, 1 << 40);
    m.cpu.state.flags.set(flags::IF);
    m.code(&[0x0F, 0x0B]);
    m.expect_handler(6);
    assert_ne!(m.cpu.state.flags.get() & flags::IF, 0);
}

#[test]
fn an_event_from_user_code_switches_to_the_stack_of_the_tss() {
    let mut m = Machine::long();
    m.gate(6, 0);
    m.make_user();
    m.code(&[0x0F, 0x0B]);
    m.expect_handler(6);
    assert_eq!(m.cpu.state.gpr(Gpr::Rsp), 0x5_0000 - 40);
    assert_eq!(frame(&m, 1), u64::from(USER_CODE));
    assert_eq!(frame(&m, 4), u64::from(USER_DATA));
    assert_eq!(m.cpu.state.cpl(), 0);
    assert_eq!(m.cpu.state.segment(Seg::Ss).selector, 0, "SS becomes null");
}

#[test]
fn an_interrupt_stack_is_used_even_at_the_same_level() {
    let mut m = Machine::long();
    m.gate(6, 1 << 32);
    m.code(&[0x0F, 0x0B]);
    m.expect_handler(6);
    assert_eq!(m.cpu.state.gpr(Gpr::Rsp), 0x5_4000 - 40);
}

/// How a gate is spoilt, and what its use raises instead.
#[test]
fn a_bad_gate_raises_what_the_manual_says() {
    const EXT: u64 = 1;
    let code = 6 * 8 + 2;
    // (name, change of the first word of the gate, vector raised, error code)
    type Change = fn(u64) -> u64;
    let cases: [(&str, Change, u8, u64); 6] = [
        ("not present", |g| g & !(1 << 47), vector::NP, code | EXT),
        ("a call gate", |g| g & !(0xF << 40) | 0xC << 40, vector::GP, code | EXT),
        ("a null selector", |g| g & !(0xFFFF << 16), vector::GP, EXT),
        ("a data segment", |g| g & !(0xFFFF << 16) | 0x10 << 16, vector::GP, 0x10 | EXT),
        ("32-bit code", |g| g & !(0xFFFF << 16) | 0x18 << 16, vector::GP, 0x18 | EXT),
        ("a selector beyond the table", |g| g & !(0xFFFF << 16) | 0x98 << 16, vector::GP, 0x98 | EXT),
    ];
    for (name, change, raised, error) in cases {
        let mut m = Machine::long();
        for v in [6, vector::NP, vector::GP] {
            m.gate(v, 0);
        }
        m.poke(layout::IDT + 6 * 16, change(m.peek(layout::IDT + 6 * 16)));
        m.code(&[0x0F, 0x0B]);
        m.expect_handler(raised);
        assert_eq!(frame(&m, 0), error, "{name}");
        assert_eq!(frame(&m, 1), layout::CODE, "{name}");
    }
}

#[test]
fn a_vector_beyond_the_table_is_a_protection_fault() {
    let mut m = Machine::long();
    m.gate(13, 0);
    m.cpu.state.idtr.limit = 16 * 14 - 1;
    m.code(&[0xCD, 0x20]);
    m.expect_handler(13);
    assert_eq!(frame(&m, 0), 0x20 * 8 + 2, "a software interrupt is not external");
}

#[test]
fn user_code_may_only_raise_what_the_gate_allows() {
    for (options, handler) in [(0u64, 13u8), (3 << 45, 0x40)] {
        let mut m = Machine::long();
        m.gate(13, 0);
        m.gate(0x40, options);
        m.make_user();
        m.code(&[0xCD, 0x40]);
        m.expect_handler(handler);
        let rip = if handler == 13 { frame(&m, 1) } else { frame(&m, 0) };
        assert_eq!(rip, layout::CODE + if handler == 13 { 0 } else { 2 });
    }
}

#[test]
fn breakpoints_return_behind_themselves() {
    for (code, v) in [(vec![0xCC], 3), (vec![0xF1], 1)] {
        let mut m = Machine::long();
        m.gate(v, 0);
        m.code(&code);
        m.expect_handler(v);
        assert_eq!(frame(&m, 0), layout::CODE + 1);
    }
}

/// First exception, what is missing, and what comes of both.
#[test]
fn exceptions_combine_as_the_table_says() {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Outcome {
        Serial,
        Double,
    }
    let gp = Event::exception_with_code(vector::GP, 0);
    let pf = Event::exception_with_code(vector::PF, 0);
    let ve = Event::exception(vector::VE);
    let ud = Event::exception(vector::UD);
    let external = Event::external(0x50);
    let cases = [
        // A gate that is not present raises #NP, which is contributory.
        (gp, Outcome::Double),
        (pf, Outcome::Double),
        (ve, Outcome::Double),
        (ud, Outcome::Serial),
        (external, Outcome::Serial),
    ];
    for (first, outcome) in cases {
        let mut m = Machine::long();
        m.gate(vector::NP, 0);
        m.gate(vector::DF, 1 << 32);
        m.gate(first.vector, 0);
        let gate = layout::IDT + 16 * u64::from(first.vector);
        m.poke(gate, m.peek(gate) & !(1 << 47));
        m.cpu.inject(first);
        let handler = if outcome == Outcome::Double { vector::DF } else { vector::NP };
        m.expect_handler(handler);
        if handler == vector::DF {
            assert_eq!(frame(&m, 0), 0, "the error code of a double fault");
        }
    }
}

#[test]
fn a_page_fault_after_a_protection_fault_is_serial_and_after_a_page_fault_double() {
    for (first, handler) in [
        (Event::exception_with_code(vector::GP, 0), vector::PF),
        (Event::exception_with_code(vector::PF, 0), vector::DF),
    ] {
        let mut m = Machine::long();
        for v in [vector::GP, vector::PF, vector::DF] {
            m.gate(v, if v == first.vector { 0 } else { 1 << 32 });
        }
        // The first delivery pushes onto a page that is not there.
        m.poke(layout::PT + 8 * ((layout::STACK - 1) >> 12), 0);
        if first.vector == vector::PF {
            m.gate(vector::PF, 0);
        }
        m.cpu.inject(first);
        m.expect_handler(handler);
        assert_eq!(m.cpu.state.control.cr2 & !0xFFF, layout::STACK - 0x1000);
    }
}

#[test]
fn an_exception_during_a_double_fault_shuts_the_cpu_down() {
    let mut m = Machine::long();
    m.code(&[0x0F, 0x0B]);
    m.cpu.state.idtr = TableRegister { base: layout::IDT, limit: 0 };
    assert_eq!(m.run(), Exit::TripleFault);
    assert_eq!(m.cpu.state.activity, Activity::Shutdown);
    assert_eq!(m.cpu.state.rip(), layout::CODE);
    let told = m.cpu.take_shutdown().expect("a triple fault has its reason");
    assert_eq!((told.first.vector, told.last.vector, told.rip), (vector::UD, vector::GP, layout::CODE));
    assert_eq!((told.bytes.as_slice(), told.instruction.as_deref()), (&[0x0F, 0x0B][..], Some("ud2")));
    assert_eq!(m.cpu.take_shutdown(), None, "told once");
    assert_eq!(m.run(), Exit::Inactive);
}

#[test]
fn a_refused_frame_hands_the_event_back_and_its_injection_succeeds() {
    for (page, access) in [
        (layout::STACK - 0x1000, Access::Write),
        (layout::IDT, Access::Read),
        (layout::GDT, Access::Read),
        (layout::HANDLERS, Access::Execute),
    ] {
        let mut m = Machine::long();
        m.gate(0x31, 0);
        m.code(&[0xEB, 0xFE]);
        m.bus.refused.push((page, access));
        m.cpu.state.flags.set(flags::IF);
        m.cpu.inject(Event::external(0x31));
        let Exit::Refused(fault) = m.run() else { panic!("{page:#x} is refused") };
        assert_eq!(fault.gpa.get() & !0xFFF, page);
        if access == Access::Execute {
            assert_eq!(fault.idt_vectoring, None, "the event was delivered; the handler's fetch is refused");
        } else {
            assert_eq!(fault.idt_vectoring, Some(Event::external(0x31)));
            assert_eq!(m.cpu.state.rip(), layout::CODE);
            assert_eq!(m.cpu.state.gpr(Gpr::Rsp), layout::STACK);
            m.cpu.inject(Event::external(0x31));
        }
        m.bus.refused.clear();
        m.expect_handler(0x31);
    }
}

#[test]
fn a_refused_software_interrupt_keeps_its_length() {
    let mut m = Machine::long();
    m.gate(0x31, 0);
    m.code(&[0xCD, 0x31]);
    m.bus.refused.push((layout::STACK - 0x1000, Access::Write));
    let Exit::Refused(fault) = m.run() else { panic!("the stack is refused") };
    let event = fault.idt_vectoring.expect("INT was being delivered");
    assert_eq!((event.kind, event.instruction_length), (EventKind::SoftwareInterrupt, 2));
    m.bus.refused.clear();
    m.cpu.inject(event);
    m.expect_handler(0x31);
    assert_eq!(frame(&m, 0), layout::CODE + 2);
}

#[test]
fn an_nmi_blocks_others_until_iret() {
    let mut m = Machine::long();
    m.gate(2, 0);
    m.write(layout::HANDLERS + 32, &[0x48, 0xCF]); // iretq
    m.code(&[0xF4]);
    m.cpu.inject(Event::nmi());
    assert_eq!(m.run_for(0), Exit::BudgetExhausted);
    assert!(m.cpu.state.interruptibility.nmi_blocked && !m.cpu.state.nmis_open());
    m.cpu.controls.nmi_window = true;
    assert_eq!(m.run(), Exit::NmiWindow);
    assert_eq!(m.cpu.state.rip(), layout::CODE);
}

#[test]
fn an_iret_that_faults_ends_nmi_blocking_and_a_refused_one_does_not() {
    let mut m = Machine::long();
    m.gate(13, 1 << 32);
    m.code(&[0x48, 0xCF]);
    m.cpu.state.interruptibility.nmi_blocked = true;
    m.bus.refused.push((layout::STACK, Access::Read));
    assert!(matches!(m.run(), Exit::Refused(_)));
    assert!(m.cpu.state.interruptibility.nmi_blocked);
    m.bus.refused.clear();
    m.expect_handler(13); // the stack holds zeros: a null CS
    assert!(!m.cpu.state.interruptibility.nmi_blocked);
}

#[test]
fn the_interrupt_window_opens_one_instruction_after_sti() {
    let mut m = Machine::long();
    m.cpu.controls.interrupt_window = true;
    m.code(&[0x90, 0xFB, 0x90, 0x90, 0xF4]);
    assert_eq!(m.run(), Exit::InterruptWindow);
    assert_eq!(m.cpu.state.rip(), layout::CODE + 3);
}

#[test]
fn sti_with_interrupts_on_has_no_shadow() {
    let mut m = Machine::long();
    m.cpu.state.flags.set(flags::IF);
    m.code(&[0xFB, 0x90]);
    assert_eq!(m.run_for(1), Exit::BudgetExhausted);
    assert_eq!(m.cpu.state.interruptibility.shadow, Shadow::None);
}

#[test]
fn a_halt_in_the_shadow_of_sti_exits_with_the_shadow_in_force() {
    let mut m = Machine::long();
    m.code(&[0xFB, 0xF4, 0x90]);
    m.run_to_hlt();
    assert_eq!(m.cpu.state.interruptibility.shadow, Shadow::Sti);
    m.cpu.advance(1);
    assert_eq!(m.cpu.state.interruptibility.shadow, Shadow::None);
    assert!(m.cpu.state.interrupts_open());
}

#[test]
fn a_load_of_ss_shields_the_next_instruction() {
    let mut m = Machine::long();
    m.cpu.state.flags.set(flags::IF);
    m.cpu.state.set_gpr(Gpr::Rax, u64::from(KERNEL_DATA));
    m.code(&[0x8E, 0xD0, 0x90, 0x90]);
    assert_eq!(m.run_for(1), Exit::BudgetExhausted);
    assert_eq!(m.cpu.state.interruptibility.shadow, Shadow::MovSs);
    m.cpu.controls.interrupt_window = true;
    assert_eq!(m.run(), Exit::InterruptWindow);
    assert_eq!(m.cpu.state.rip(), layout::CODE + 3);
}

#[test]
fn the_trap_flag_steps_one_instruction() {
    let mut m = Machine::long();
    m.gate(1, 0);
    m.cpu.state.flags.set(flags::TF);
    m.code(&[0x48, 0xFF, 0xC0, 0x90]);
    m.expect_handler(1);
    assert_eq!(m.cpu.state.gpr(Gpr::Rax), 1);
    assert_eq!(frame(&m, 0), layout::CODE + 3);
    assert_ne!(m.cpu.state.debug.dr6 & 1 << 14, 0);
    assert_eq!(m.cpu.state.flags.get() & flags::TF, 0);
}

#[test]
fn a_kick_ends_an_endless_loop() {
    let mut m = Machine::long();
    m.kick.store(true, Ordering::Relaxed);
    m.code(&[0xEB, 0xFE]);
    assert_eq!(m.run(), Exit::ExternalInterrupt);
    assert_eq!(m.cpu.retired(), 0);
}

#[test]
fn a_handler_that_faults_at_once_uses_its_budget_up() {
    let mut m = Machine::long();
    // On a stack of its own, so that the nesting never runs out of it.
    m.gate(6, 1 << 32);
    m.write(layout::HANDLERS + 16 * 6, &[0x0F, 0x0B]);
    m.code(&[0x0F, 0x0B]);
    assert_eq!(m.run(), Exit::BudgetExhausted);
}

#[test]
fn a_halted_cpu_wakes_for_an_event_only() {
    let mut m = Machine::long();
    m.gate(0x31, 0);
    m.code(&[0xF4]);
    m.cpu.state.activity = Activity::Halted;
    assert_eq!(m.run(), Exit::Inactive);
    m.cpu.inject(Event::external(0x31));
    m.expect_handler(0x31);
}

#[test]
fn a_protected_mode_interrupt_returns_by_iret() {
    let mut m = Machine::protected();
    *m.cpu.state.segment_mut(Seg::Cs) = x86_arch::Segment::flat(0x18, x86_arch::Attributes::CODE32);
    m.cpu.state.idtr = TableRegister { base: layout::IDT, limit: 0x7FF };
    m.poke(
        layout::IDT + 8 * 6,
        layout::HANDLERS & 0xFFFF | 0x18 << 16 | 0x8E00 << 32 | (layout::HANDLERS >> 16) << 48,
    );
    // ud2; hlt; the handler skips over ud2: add dword [esp], 2; iret
    m.code(&[0x0F, 0x0B, 0xF4]);
    m.write(layout::HANDLERS, &[0x83, 0x04, 0x24, 0x02, 0xCF]);
    m.run_to_hlt();
    assert_eq!(m.cpu.state.rip(), layout::CODE + 2);
    assert_eq!(m.cpu.state.gpr(Gpr::Rsp), layout::STACK);
}

#[test]
fn an_exit_during_single_step_is_stepped_by_advance() {
    let mut m = Machine::long();
    m.gate(1, 0);
    m.cpu.state.flags.set(flags::TF);
    m.code(&[0x0F, 0xA2, 0x90]);
    assert_eq!(m.run(), Exit::Instruction { what: InstructionExit::Cpuid, length: 2 });
    m.cpu.advance(2);
    m.expect_handler(1);
    assert_eq!(frame(&m, 0), layout::CODE + 2);
}
