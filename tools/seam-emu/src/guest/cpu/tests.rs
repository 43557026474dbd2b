//! A guest of hand-assembled bytes behind a hand-written EPT.

mod td;

use tdvisor_base::{Gpa, KeyId};
use tdx_module_iface::exit::ExitReason;
use x86_arch::{
    Attributes, Event, EventKind, Gpr, Interruptibility, Segment, Shadow, TableRegister, X87State, vector,
};
use x86_emu::EngineKind;

use crate::config::MachineConfig;
use crate::guest::{GuestCpu, VmExit, Window, gpr, reason};
use crate::machine::Machine;
use td::{ALL, ASID, CODE, DATA, GDT, IDT, PT, READ, SHARED, STACK, Td, entry_state, env};

#[test]
fn every_register_comes_back_as_it_went_in() {
    let mut td = Td::at_reset(&[0xf4]);
    let state = &mut td.state;
    for (value, reg) in (0x1111_2222_3333_0000..).zip(tdx_module_iface::Reg::ALL) {
        state.set_gpr(gpr(reg), value);
    }
    state.regs[Gpr::Rsp] = 0x1234_5678_9abc;
    state.flags.set(0x4_08d7);
    state.control.cr0 |= 1 << 4;
    state.control.cr2 = 0xdead_b000;
    state.control.cr8 = 9;
    state.control.xcr0 = 7;
    state.segments[4].base = 0xffff_8000_1234_0000;
    state.segments[5] = Segment { selector: 0x2b, base: 0x77, limit: 0xfff, attributes: Attributes(0x40f3) };
    state.ldtr.base = 0x5_5000;
    state.tr =
        Segment { selector: 0x40, base: 0xffff_8000_0000_1000, limit: 0x67, attributes: Attributes(0x8b) };
    state.gdtr = TableRegister { base: 0xffff_8000_0000_2000, limit: 0x7f };
    state.idtr = TableRegister { base: 0xffff_8000_0000_3000, limit: 0xfff };
    state.debug.address = [1, 2, 3, 4];
    state.debug.dr6 = 0xffff_0ff1;
    (state.msrs.star, state.msrs.lstar, state.msrs.fmask) = (5, 6, 7);
    (state.msrs.kernel_gs_base, state.msrs.tsc_aux) = (8, 9);
    (state.msrs.sysenter_cs, state.msrs.sysenter_esp, state.msrs.sysenter_eip) = (10, 11, 12);
    (state.msrs.spec_ctrl, state.msrs.debugctl, state.msrs.xss) = (13, 14, 15);
    for (value, xmm) in (1u128 << 100..).zip(&mut state.simd.xmm) {
        *xmm = value;
    }
    (state.simd.mxcsr, state.simd.x87.control) = (0x1fa0, 0x27f);
    state.simd.x87 = X87State {
        status: 1,
        tags: 2,
        opcode: 3,
        instruction: 4,
        data: 5,
        registers: [6, 7, 8, 9, 10, 11, 12, 13],
        ..state.simd.x87
    };
    state.interruptibility = Interruptibility { shadow: Shadow::Sti, nmi_blocked: true };
    let before = state.clone();
    let exit = td.run_to(ExitReason::HLT);
    assert_eq!(exit, VmExit::instruction(ExitReason::HLT, 1, 0));
    assert_eq!(td.state, before, "HLT has not been executed");
}

#[test]
fn the_architectural_entry_leads_to_64_bit_code() {
    let mut td = Td::in_long_mode(&[0x66, 0x0f, 0x01, 0xcc]);
    td.state = entry_state();
    td.write(GDT + 0x20, &[0x17, 0x00, 0x00, 0x50, 0x00, 0x00]);
    td.write(0xffff_fff0, &[0xe9, 0x0b, 0xe0, 0x00, 0x00]); // jmp 0xe000 bytes on, wrapping to 0xe000
    td.map(0xe000, ALL);
    td.write(
        0xe000,
        &[
            0x0f, 0x01, 0x15, 0x20, 0x50, 0, 0, // lgdt [0x5020]
            0x0f, 0x20, 0xe0, // mov eax, cr4
            0x89, 0xc3, // mov ebx, eax
            0x83, 0xc8, 0x20, // or eax, PAE
            0x0f, 0x22, 0xe0, // mov cr4, eax
            0xb8, 0x00, 0x80, 0, 0, // mov eax, PML4
            0x0f, 0x22, 0xd8, // mov cr3, eax
            0x0f, 0x20, 0xc0, // mov eax, cr0
            0x0d, 0, 0, 0, 0x80, // or eax, PG
            0x0f, 0x22, 0xc0, // mov cr0, eax
            0xea, 0x00, 0x10, 0, 0, 8, 0, // jmp far 8:0x1000
        ],
    );
    let exit = td.run_to(ExitReason::TDCALL);
    assert_eq!(exit.instruction_length, 4);
    assert_eq!(td.state.rip(), CODE);
    assert!(td.state.is_64_bit());
    assert_eq!(td.state.regs[Gpr::Rbx], 0x40, "CR4.VMXE is one and hidden");
    assert_eq!(td.state.control.cr4, 0x2060, "and stays one");
    assert_eq!(td.state.control.efer, 0xd01, "paging has activated long mode");
}

#[test]
fn instructions_exit_with_the_reason_length_and_qualification_of_the_manual() {
    let cases: &[(&[u8], ExitReason, u64)] = &[
        (&[0xf4], ExitReason::HLT, 0),
        (&[0x0f, 0xa2], ExitReason::CPUID, 0),
        (&[0x0f, 0x32], ExitReason::RDMSR, 0),
        (&[0x0f, 0x30], ExitReason::WRMSR, 0),
        (&[0xe4, 0x70], ExitReason::IO_INSTRUCTION, 0x70 << 16 | 1 << 6 | 1 << 3),
        (&[0xef], ExitReason::IO_INSTRUCTION, 0x3f8 << 16 | 3),
        (&[0x66, 0xed], ExitReason::IO_INSTRUCTION, 0x3f8 << 16 | 1 << 3 | 1),
        (&[0xf3, 0x6e], ExitReason::IO_INSTRUCTION, 0x3f8 << 16 | 1 << 5 | 1 << 4),
        (&[0x6d], ExitReason::IO_INSTRUCTION, 0x3f8 << 16 | 1 << 4 | 1 << 3 | 3),
        (&[0x0f, 0x08], ExitReason::INVD, 0),
        (&[0x0f, 0x09], ExitReason::WBINVD, 0),
        (&[0x0f, 0x33], ExitReason::RDPMC, 0),
        (&[0x0f, 0x01, 0xc1], ExitReason::VMCALL, 0),
        (&[0x0f, 0x01, 0xc8], ExitReason::MONITOR, 0),
        (&[0x0f, 0x01, 0xc9], ExitReason::MWAIT, 0),
        (&[0x0f, 0x01, 0xd1], ExitReason::XSETBV, 0),
        (&[0x66, 0x0f, 0x01, 0xcc], ExitReason::TDCALL, 0),
        (&[0x66, 0x0f, 0x01, 0xcf], ExitReason::SEAMCALL, 0),
        (&[0x0f, 0x01, 0xc2], reason::VMLAUNCH, 0),
        (&[0x0f, 0x01, 0xc4], reason::VMXOFF, 0),
        (&[0x0f, 0x22, 0xc1], ExitReason::CR_ACCESS, 1 << 8),
        (&[0x41, 0x0f, 0x22, 0xe1], ExitReason::CR_ACCESS, 9 << 8 | 4),
    ];
    for (bytes, expected, qualification) in cases {
        let mut td = Td::in_long_mode(bytes);
        td.state.control.cr4 |= 1 << 18;
        td.state.regs[Gpr::Rdx] = 0x3f8;
        td.state.regs[Gpr::Rcx] = 5;
        td.state.regs[Gpr::Rsi] = DATA;
        td.state.regs[Gpr::Rdi] = DATA + 8;
        let exit = td.run_to(*expected);
        assert_eq!(exit.instruction_length as usize, bytes.len(), "length of {bytes:02x?}");
        assert_eq!(exit.qualification, *qualification, "qualification of {bytes:02x?}");
        assert_eq!(td.state.rip(), CODE, "{bytes:02x?} has not been executed");
        let string = qualification & 1 << 4 != 0 && *expected == ExitReason::IO_INSTRUCTION;
        let gla = if !string {
            0
        } else if qualification & 1 << 3 != 0 {
            DATA + 8
        } else {
            DATA
        };
        assert_eq!(exit.gla, gla, "linear address of {bytes:02x?}");
    }
}

#[test]
fn a_read_of_unmapped_memory_leaves_and_is_repeated() {
    // mov rax, [0x2010]; hlt
    let mut td = Td::in_long_mode(&[0x48, 0x8b, 0x04, 0x25, 0x10, 0x20, 0, 0, 0xf4]);
    td.unmap(DATA);
    let exit = td.run_to(ExitReason::EPT_VIOLATION);
    assert_eq!(exit.gpa, Gpa::new(DATA + 0x10));
    assert_eq!(exit.gla, DATA + 0x10);
    assert_eq!(exit.qualification, 0x181, "a read, linear address valid, at the end of the translation");
    assert_eq!(exit.idt_vectoring_info, 0);
    assert_eq!(td.state.rip(), CODE);
    td.map(DATA, ALL);
    td.poke(DATA + 0x10, 0x0123_4567_89ab_cdef);
    td.run_to(ExitReason::HLT);
    assert_eq!(td.state.regs[Gpr::Rax], 0x0123_4567_89ab_cdef);
}

#[test]
fn a_violation_says_what_was_wanted_and_what_is_granted() {
    // mov [0x2010], rax
    let mut td = Td::in_long_mode(&[0x48, 0x89, 0x04, 0x25, 0x10, 0x20, 0, 0]);
    td.map(DATA, READ);
    assert_eq!(td.run_to(ExitReason::EPT_VIOLATION).qualification, 0x18a, "write, page readable");
    // jmp to DATA
    let mut td = Td::in_long_mode(&[0xe9, 0xfb, 0x0f, 0, 0]);
    td.map(DATA, READ | 2);
    let exit = td.run_to(ExitReason::EPT_VIOLATION);
    assert_eq!((exit.qualification, exit.gla), (0x19c, DATA), "fetch, page readable and writable");
    assert_eq!(td.state.rip(), DATA);
    let mut td = Td::in_long_mode(&[0xf4]);
    td.unmap(PT);
    let exit = td.run_to(ExitReason::EPT_VIOLATION);
    assert_eq!(exit.qualification, 0x81, "a page-table read is not the end of the translation");
    assert_eq!((exit.gpa, exit.gla), (Gpa::new(PT + 8), CODE));
}

#[test]
fn shared_memory_is_reached_through_the_shared_tree_and_without_a_key() {
    // mov rax, [0x2010]; hlt, with the SHARED bit in the page table
    let mut td = Td::in_long_mode(&[0x48, 0x8b, 0x04, 0x25, 0x10, 0x20, 0, 0, 0xf4]);
    td.poke(PT + 16, SHARED | 0x3_0003);
    let exit = td.run_to(ExitReason::EPT_VIOLATION);
    assert_eq!((exit.gpa, exit.gla), (Gpa::new(SHARED | 0x3_0010), DATA + 0x10));
    td.map(SHARED | 0x3_0000, ALL);
    td.poke(SHARED | 0x3_0010, 77);
    td.run_to(ExitReason::HLT);
    assert_eq!(td.state.regs[Gpr::Rax], 77);
}

#[test]
fn an_event_whose_delivery_leaves_can_be_delivered_again() {
    let mut td = Td::in_long_mode(&[0x90]);
    td.unmap(IDT);
    td.state.event = Some(Event::exception_with_code(13, 0x18));
    let exit = td.run_to(ExitReason::EPT_VIOLATION);
    assert_eq!(td.state.event, None, "the processor has taken the event");
    assert_eq!(exit.idt_vectoring_info, 0x8000_0b0d);
    assert_eq!(exit.idt_vectoring_error, 0x18);
    assert_eq!(exit.gla, IDT + 16 * 13);
    assert_eq!(
        (td.state.rip(), td.state.regs[Gpr::Rsp]),
        (CODE, STACK + 0x1000),
        "nothing of the delivery has happened"
    );
    td.map(IDT, ALL);
    td.state.event = Some(Event::exception_with_code(13, 0x18));
    td.run_to_handler(13);
    assert_eq!(td.state.regs[Gpr::Rsp], STACK + 0x1000 - 48);
    assert_eq!((td.peek(td.state.regs[Gpr::Rsp]), td.peek(td.state.regs[Gpr::Rsp] + 8)), (0x18, CODE));
}

#[test]
fn a_software_interrupt_that_leaves_keeps_its_length() {
    let mut td = Td::in_long_mode(&[0xcd, 0x30]); // int 0x30
    td.unmap(STACK);
    let exit = td.run_to(ExitReason::EPT_VIOLATION);
    assert_eq!(exit.idt_vectoring_info, 0x8000_0430);
    assert_eq!(exit.instruction_length, 2);
    td.map(STACK, ALL);
    td.state.event = Some(Event {
        vector: 0x30,
        kind: EventKind::SoftwareInterrupt,
        error_code: None,
        instruction_length: 2,
    });
    td.run_to_handler(0x30);
    assert_eq!(td.peek(td.state.regs[Gpr::Rsp]), CODE + 2, "the handler returns behind the instruction");
}

#[test]
fn an_injected_ve_reaches_its_handler() {
    let mut td = Td::in_long_mode(&[0x90]);
    td.state.event = Some(Event::exception(vector::VE));
    td.run_to_handler(20);
    assert_eq!(td.state.event, None);
    assert_eq!(td.state.regs[Gpr::Rsp], STACK + 0x1000 - 40, "no error code");
}

#[test]
fn an_interrupt_for_the_vmm_ends_an_endless_loop() {
    let mut td = Td::in_long_mode(&[0xeb, 0xfe]); // jmp self
    td.machine.set_interrupt_pending(0, true);
    td.run_to(ExitReason::EXTERNAL_INTERRUPT);
    assert_eq!(td.state.rip(), CODE);
    td.machine.set_interrupt_pending(0, false);
    let machine = core::mem::replace(&mut td.machine, Machine::new(MachineConfig::small()));
    let shared = tdvisor_base::sync::Arc::new(machine);
    let other = shared.clone();
    let kicker = std::thread::spawn(move || other.set_interrupt_pending(0, true));
    let env = env(&shared, td.vcpu);
    let exit = td.cpu.run(&mut td.state, &env);
    assert_eq!(exit, VmExit::plain(ExitReason::EXTERNAL_INTERRUPT));
    kicker.join().unwrap();
}

#[test]
fn a_page_that_lost_its_key_is_a_machine_check() {
    // mov rax, [0x2010]
    let mut td = Td::in_long_mode(&[0x48, 0x8b, 0x04, 0x25, 0x10, 0x20, 0, 0]);
    td.machine.memory().clear_page(Td::home(DATA).0.frame(), KeyId::DEFAULT).unwrap();
    let exit = td.run_to(ExitReason::EXCEPTION_NMI);
    assert_eq!(exit.interruption_info, 0x8000_0312, "hardware exception 18");
}

#[test]
fn what_the_cpu_cannot_do_is_named_and_stops_the_vcpu() {
    const VIRTUAL_8086: u64 = 1 << 17;
    let mut td = Td::at_reset(&[0x90, 0xcf]); // nop; iretd, into virtual-8086 mode
    td.map(STACK, ALL);
    td.poke(STACK, 0);
    td.poke(STACK + 8, VIRTUAL_8086);
    td.state.regs[Gpr::Rsp] = STACK;
    td.run_to(reason::EMULATOR_LIMIT);
    let limits = td.machine.limits();
    assert_eq!(limits.len(), 1);
    let text = limits[0].what.to_string();
    assert!(text.contains("iretd") && text.contains("0xfffffff1") && text.contains("bytes cf"), "{text}");
    let public = limits[0].to_string();
    assert!(public.ends_with("not implemented: iretd"), "{public}");
}

#[test]
fn a_watchpoint_is_a_debug_exception_of_the_guest() {
    // mov dr7, rax; mov dr0, rbx; mov [rbx], eax
    let mut td = Td::in_long_mode(&[0x0f, 0x23, 0xf8, 0x0f, 0x23, 0xc3, 0x89, 0x03]);
    td.state.regs[Gpr::Rax] = 0xd_0001;
    td.state.regs[Gpr::Rbx] = DATA + 8;
    td.run_to_handler(1);
    assert_eq!(td.state.debug.dr6 & 0xf, 1);
    assert!(td.machine.limits().is_empty());
}

#[test]
fn an_exception_without_handlers_is_a_triple_fault() {
    let mut td = Td::in_long_mode(&[0x0f, 0x0b]); // ud2
    td.state.idtr.limit = 0;
    td.run_to(ExitReason::TRIPLE_FAULT);
    let shutdowns = td.machine.shutdowns();
    assert_eq!(shutdowns.len(), 1);
    let text = shutdowns[0].what.to_string();
    assert!(
        text.contains("vector 6") && text.contains("RIP 0x1000") && text.contains("ud2, bytes 0f 0b"),
        "{text}"
    );
    assert!(!shutdowns[0].to_string().contains("0x1000"), "{}", shutdowns[0]);
    assert!(td.machine.limits().is_empty());
}

#[test]
fn instructions_of_seam_root_mode_are_undefined() {
    let mut td = Td::in_long_mode(&[0x66, 0x0f, 0x01, 0xcd]); // seamret
    td.run_to_handler(6);
}

#[test]
fn a_window_opens_behind_the_shadow_of_sti() {
    let mut td = Td::in_long_mode(&[0xfb, 0x90, 0x90, 0xf4]); // sti; nop; nop; hlt
    td.windows.interrupt = Window::Wanted;
    td.run_to(ExitReason::INTERRUPT_WINDOW);
    assert_eq!(td.state.rip(), CODE + 2);
    assert_eq!(td.state.interruptibility, Interruptibility::default());
    td.windows.interrupt = Window::Closed;
    td.state.event = Some(Event::external(0x31));
    td.run_to_handler(0x31);
}

#[test]
fn a_lower_task_priority_gives_waiting_interrupts_a_chance() {
    // mov cr8, rax; mov cr8, rcx; hlt
    let mut td = Td::in_long_mode(&[0x44, 0x0f, 0x22, 0xc0, 0x44, 0x0f, 0x22, 0xc1, 0xf4]);
    td.state.regs[Gpr::Rax] = 9;
    td.state.regs[Gpr::Rcx] = 2;
    td.run_to(ExitReason::INTERRUPT_WINDOW);
    assert_eq!((td.state.control.cr8, td.state.rip()), (2, CODE + 8));
    td.run_to(ExitReason::HLT);
}

#[test]
fn translations_last_until_the_registry_drops_them() {
    // l: mov rax, [0x2010]; hlt
    let mut td = Td::in_long_mode(&[0x48, 0x8b, 0x04, 0x25, 0x10, 0x20, 0, 0, 0xf4]);
    td.poke(DATA + 0x10, 1);
    td.run_to(ExitReason::HLT);
    let entry = td.entry(DATA);
    td.map(0xd000, ALL);
    td.poke(0xd010, 2);
    td.store(entry, Td::home(0xd000).0.get() | ALL);
    td.state.set_rip(CODE);
    td.run_to(ExitReason::HLT);
    assert_eq!(td.state.regs[Gpr::Rax], 1, "nobody has flushed: the processor may use what it has");
    td.machine.processors()[0].tlb.flush(ASID.tdr);
    td.state.set_rip(CODE);
    td.run_to(ExitReason::HLT);
    assert_eq!(td.state.regs[Gpr::Rax], 2);
}

#[test]
fn another_vcpu_does_not_use_the_linear_translations_of_the_first() {
    let mut td = Td::in_long_mode(&[0x48, 0x8b, 0x04, 0x25, 0x10, 0x20, 0, 0, 0xf4]);
    td.poke(DATA + 0x10, 1);
    td.poke(STACK + 0x10, 2);
    td.run_to(ExitReason::HLT);
    td.poke(PT + 16, STACK | 3);
    td.state.set_rip(CODE);
    td.run_to(ExitReason::HLT);
    assert_eq!(td.state.regs[Gpr::Rax], 1, "without INVLPG the old translation is used");
    td.vcpu = 0x2000;
    td.state.set_rip(CODE);
    td.run_to(ExitReason::HLT);
    assert_eq!(td.state.regs[Gpr::Rax], 2);
}

#[test]
fn changed_code_runs_as_changed() {
    let mut td = Td::in_long_mode(&[0xb0, 1, 0xf4]); // mov al, 1; hlt
    td.run_to(ExitReason::HLT);
    td.write(CODE, &[0xb0, 2]);
    td.state.set_rip(CODE);
    td.run_to(ExitReason::HLT);
    assert_eq!(td.state.regs[Gpr::Rax], 2);
}

#[test]
fn the_counter_of_the_guest_is_scaled_and_moved() {
    let mut td = Td::in_long_mode(&[0x0f, 0x31, 0xf4]); // rdtsc; hlt
    td.machine.advance_tsc(4000);
    td.run_to(ExitReason::HLT);
    assert_eq!(td.state.regs[Gpr::Rax], 4000 / 2 + 1000);
    assert!(td.machine.tsc() > 4000, "a virtual clock moves with the instructions");
}

#[test]
fn a_guest_that_waits_in_a_loop_gives_the_rest_of_its_turn_away() {
    const TURN: u64 = 50_000;
    let mut td = Td::in_long_mode(&[0xf3, 0x90, 0xeb, 0xfc]); // pause; jmp to it
    for entry in 1..=3 {
        let began = td.machine.tsc();
        td.machine.set_quantum(0, Some(TURN));
        td.run_to(ExitReason::EXTERNAL_INTERRUPT);
        let passed = td.machine.tsc() - began;
        assert!((128..TURN / 100).contains(&passed), "entry {entry}: {passed} of {TURN} instructions");
    }
}

/// Every test above once more with the other engine, everything compiled before it runs.
#[test]
fn the_compiler_passes_the_tests_of_the_interpreter() {
    if crate::testing::engine() == EngineKind::Compiler {
        return;
    }
    let this = std::env::current_exe().expect("this program");
    let mut again = std::process::Command::new(this);
    again
        .args(["guest::cpu::tests::", "--skip", "passes_the_tests"])
        .env("X86_EMU_ENGINE", EngineKind::Compiler.name());
    let output = again.output().expect("this program again");
    let words = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && !words.contains(" 0 passed"), "{words}");
}
