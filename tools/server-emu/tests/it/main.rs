//! Hosts of a few instructions on the emulated server.

mod support;

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use server_emu::{Ending, Pace, ServerConfig};

use support::{Host, LeafNumber, VMX_REVISION, begin_vmx, exit_with, seamcall_or_exit};

/// A server whose processors run by the engine that tests are asked to use.
fn plain() -> ServerConfig {
    ServerConfig { engine: seam_emu::testing::engine(), ..ServerConfig::default() }
}

fn deterministic() -> ServerConfig {
    ServerConfig { pace: Pace::Deterministic { seed: 1 }, ..plain() }
}

#[test]
fn a_host_brings_the_module_up_and_reads_a_field_with_real_seamcalls() -> Result<(), IcedError> {
    /// NUM_CPUID_CONFIG, and what release 1.5.05 says there.
    const NUM_CPUID_CONFIG: (u64, u8) = (0x9900_0001_0000_0004, 18);
    let mut a = CodeAssembler::new(64)?;
    begin_vmx(&mut a)?;
    a.xor(ecx, ecx)?;
    seamcall_or_exit(&mut a, LeafNumber::SYS_INIT, 1)?;
    seamcall_or_exit(&mut a, LeafNumber::SYS_LP_INIT, 2)?;
    a.mov(rdx, NUM_CPUID_CONFIG.0)?;
    seamcall_or_exit(&mut a, LeafNumber::SYS_RD, 3)?;
    a.mov(eax, r8d)?;
    exit_with(&mut a)?;
    let host = Host::assemble(deterministic(), a);
    assert_eq!(host.run(), Ending::PowerOff { code: NUM_CPUID_CONFIG.1 });
    let counts = host.server().record().counts();
    assert_eq!(counts.by_leaf.values().sum::<u64>(), 3);
    assert_eq!(host.server().machine().violations(), []);
    Ok(())
}

#[test]
fn a_seamcall_outside_of_vmx_operation_is_undefined() -> Result<(), IcedError> {
    let mut a = CodeAssembler::new(64)?;
    a.seamcall()?;
    let host = Host::assemble(deterministic(), a);
    // There is no IDT: the exception becomes a triple fault at the instruction.
    assert_eq!(host.run(), Ending::TripleFault { processor: 0, rip: support::ENTRY });
    Ok(())
}

#[test]
fn the_loader_of_modules_does_not_answer() -> Result<(), IcedError> {
    let mut a = CodeAssembler::new(64)?;
    begin_vmx(&mut a)?;
    a.mov(rax, 1u64 << 63)?;
    a.seamcall()?;
    // CF, which says VMfailInvalid.
    a.setb(al)?;
    exit_with(&mut a)?;
    assert_eq!(Host::assemble(deterministic(), a).run(), Ending::PowerOff { code: 1 });
    Ok(())
}

#[test]
fn an_ordinary_vm_can_be_made_and_not_be_started() -> Result<(), IcedError> {
    const VMCS: u64 = 0x5000;
    const GUEST_RIP: u64 = 0x681e;
    const INSTRUCTION_ERROR: u64 = 0x4400;
    let mut a = CodeAssembler::new(64)?;
    begin_vmx(&mut a)?;
    a.mov(rax, VMCS)?;
    a.mov(dword_ptr(rax), VMX_REVISION)?;
    a.mov(qword_ptr(rsp - 8), rax)?;
    a.vmclear(qword_ptr(rsp - 8))?;
    a.vmptrld(qword_ptr(rsp - 8))?;
    a.mov(rbx, GUEST_RIP)?;
    a.mov(qword_ptr(rsp - 16), 0x1230)?;
    a.vmwrite(rbx, qword_ptr(rsp - 16))?;
    // RCX has ZF of VMLAUNCH, which says VMfailValid, and RDX its error.
    a.vmlaunch()?;
    a.setz(cl)?;
    a.mov(rbx, INSTRUCTION_ERROR)?;
    a.vmread(rdx, rbx)?;
    a.mov(rbx, GUEST_RIP)?;
    a.vmread(rax, rbx)?;
    a.add(al, cl)?;
    a.add(al, dl)?;
    exit_with(&mut a)?;
    let host = Host::assemble(deterministic(), a);
    assert_eq!(host.run(), Ending::PowerOff { code: 0x30 + 1 + 7 });
    let (notices, _) = host.server().report().notices();
    assert_eq!(notices, [server_emu::report::Notice::OrdinaryVm]);
    Ok(())
}

#[test]
fn a_string_goes_to_a_port_element_by_element() -> Result<(), IcedError> {
    /// A port where nobody is.
    const NOBODY: u32 = 0x80;
    const STRING: u64 = 0x5000;
    let mut a = CodeAssembler::new(64)?;
    a.mov(rsi, STRING)?;
    a.mov(byte_ptr(rsi + 3), 9)?;
    a.mov(ecx, 3)?;
    a.mov(edx, NOBODY)?;
    a.rep().outsb()?;
    a.mov(rdi, STRING)?;
    a.mov(ecx, 2)?;
    a.rep().insb()?;
    // What nobody drives reads as ones; the fourth byte was not touched and is the code.
    a.mov(edx, u32::from(tdvisor_board::address::EXIT))?;
    a.cmp(word_ptr(STRING), -1)?;
    let mut wrong = a.create_label();
    a.jne(wrong)?;
    a.outsb()?;
    a.set_label(&mut wrong)?;
    a.ud2()?;
    assert_eq!(Host::assemble(deterministic(), a).run(), Ending::PowerOff { code: 9 });
    Ok(())
}

/// Wakes processor 1 by the mailbox; it adds to a counter, interrupts processor 0, which sleeps until then, and parks.
fn two_processors() -> Result<CodeAssembler, IcedError> {
    const COUNTER: u64 = 0x8000;
    const IDT: u64 = 0x9000;
    const VECTOR: u64 = 0x40;
    const X2APIC_SVR: u32 = 0x80f;
    const X2APIC_EOI: u32 = 0x80b;
    const X2APIC_ICR: u32 = 0x830;

    let mut a = CodeAssembler::new(64)?;
    let (mut second, mut handler, mut wait, mut descriptor) =
        (a.create_label(), a.create_label(), a.create_label(), a.create_label());
    a.mov(rsp, 0x7000u64)?;
    // The gate of the vector: offset 15:0, selector, present interrupt gate, offset 31:16.
    a.lea(rbx, qword_ptr(handler))?;
    a.mov(rdi, IDT + 16 * VECTOR)?;
    a.mov(word_ptr(rdi), bx)?;
    a.mov(word_ptr(rdi + 2), 0x10)?;
    a.mov(word_ptr(rdi + 4), 0x8e00u32 as i32)?;
    a.shr(rbx, 16)?;
    a.mov(word_ptr(rdi + 6), bx)?;
    a.lidt(tword_ptr(descriptor))?;
    a.mov(ecx, X2APIC_SVR)?;
    a.mov(eax, 0x1ff)?;
    a.xor(edx, edx)?;
    a.wrmsr()?;
    // The mailbox: APIC id, address, command.
    a.mov(rdi, server_emu::layout::MAILBOX)?;
    a.mov(dword_ptr(rdi + 4), 1)?;
    a.lea(rbx, qword_ptr(second))?;
    a.mov(qword_ptr(rdi + 8), rbx)?;
    a.mov(word_ptr(rdi), 1)?;
    a.set_label(&mut wait)?;
    a.sti()?;
    a.hlt()?;
    a.jmp(wait)?;
    a.set_label(&mut handler)?;
    a.mov(ecx, X2APIC_EOI)?;
    a.xor(eax, eax)?;
    a.xor(edx, edx)?;
    a.wrmsr()?;
    a.mov(rdi, COUNTER)?;
    a.mov(eax, dword_ptr(rdi))?;
    exit_with(&mut a)?;

    a.set_label(&mut second)?;
    a.mov(rdi, COUNTER)?;
    a.lock().add(dword_ptr(rdi), 42)?;
    a.mov(ecx, X2APIC_ICR)?;
    a.mov(eax, VECTOR as u32)?;
    a.xor(edx, edx)?;
    a.wrmsr()?;
    a.mov(rbx, server_emu::firmware::RESET_VECTOR)?;
    a.jmp(rbx)?;

    a.set_label(&mut descriptor)?;
    a.dw(&[0xfff])?;
    a.dq(&[IDT])?;
    Ok(a)
}

/// Wakes processor 1 by the mailbox, and waits in a loop, without an exit and without PAUSE, for what its timer's handler
/// writes. Processor 1 sleeps until its timer is due.
fn one_spins_and_one_sleeps() -> Result<CodeAssembler, IcedError> {
    const WORD: u64 = 0x8000;
    const IDT: u64 = 0x9000;
    const VECTOR: u64 = 0x41;
    const X2APIC_SVR: u32 = 0x80f;
    const X2APIC_LVT_TIMER: u32 = 0x832;
    const TSC_DEADLINE_MODE: u32 = 1 << 18;
    const TSC_DEADLINE: u32 = 0x6e0;
    /// A millisecond and a half: some turns.
    const TICKS: i32 = 3_000_000;
    const DONE: u32 = 42;

    let mut a = CodeAssembler::new(64)?;
    let (mut second, mut handler, mut spin, mut descriptor) =
        (a.create_label(), a.create_label(), a.create_label(), a.create_label());
    a.mov(rdi, server_emu::layout::MAILBOX)?;
    a.mov(dword_ptr(rdi + 4), 1)?;
    a.lea(rbx, qword_ptr(second))?;
    a.mov(qword_ptr(rdi + 8), rbx)?;
    a.mov(word_ptr(rdi), 1)?;
    a.mov(rdi, WORD)?;
    a.set_label(&mut spin)?;
    a.mov(eax, dword_ptr(rdi))?;
    a.cmp(eax, DONE)?;
    a.jne(spin)?;
    exit_with(&mut a)?;

    a.set_label(&mut second)?;
    a.mov(rsp, 0x7000u64)?;
    a.lea(rbx, qword_ptr(handler))?;
    a.mov(rdi, IDT + 16 * VECTOR)?;
    a.mov(word_ptr(rdi), bx)?;
    a.mov(word_ptr(rdi + 2), 0x10)?;
    a.mov(word_ptr(rdi + 4), 0x8e00u32 as i32)?;
    a.shr(rbx, 16)?;
    a.mov(word_ptr(rdi + 6), bx)?;
    a.lidt(tword_ptr(descriptor))?;
    for (register, value) in [(X2APIC_SVR, 0x1ff), (X2APIC_LVT_TIMER, TSC_DEADLINE_MODE | VECTOR as u32)] {
        a.mov(ecx, register)?;
        a.mov(eax, value)?;
        a.xor(edx, edx)?;
        a.wrmsr()?;
    }
    a.rdtsc()?;
    a.add(eax, TICKS)?;
    a.adc(edx, 0)?;
    a.mov(ecx, TSC_DEADLINE)?;
    a.wrmsr()?;
    a.sti()?;
    a.hlt()?;
    a.set_label(&mut handler)?;
    a.mov(rdi, WORD)?;
    a.mov(dword_ptr(rdi), DONE)?;
    a.cli()?;
    a.hlt()?;

    a.set_label(&mut descriptor)?;
    a.dw(&[0xfff])?;
    a.dq(&[IDT])?;
    Ok(a)
}

#[test]
fn a_timer_wakes_its_processor_while_another_one_never_sleeps() -> Result<(), IcedError> {
    for pace in [Pace::Real, Pace::Deterministic { seed: 3 }] {
        let config = ServerConfig { processors: 2, pace, ..plain() };
        let host = Host::assemble(config, one_spins_and_one_sleeps()?);
        assert_eq!(host.run(), Ending::PowerOff { code: 42 }, "{pace:?}");
    }
    Ok(())
}

#[test]
fn whoever_spins_gives_its_turn_away() -> Result<(), IcedError> {
    const PAUSES: u32 = 1000;
    let mut a = CodeAssembler::new(64)?;
    let mut spin = a.create_label();
    a.mov(ecx, PAUSES)?;
    a.set_label(&mut spin)?;
    a.pause()?;
    a.dec(ecx)?;
    a.jne(spin)?;
    a.mov(eax, 1)?;
    exit_with(&mut a)?;
    let host = Host::assemble(deterministic(), a);
    assert_eq!(host.run(), Ending::PowerOff { code: 1 });
    // It is as if it had spun through some turns of at least 20,000 instructions, of 8 ticks each.
    let (ticks, instructions) = (host.server().machine().tsc(), host.server().retired());
    assert!(ticks > 10 * 160_000, "{ticks} ticks passed");
    assert!(instructions < 4 * u64::from(PAUSES), "{instructions} instructions were executed");
    Ok(())
}

#[test]
fn a_parked_processor_is_woken_and_interrupts_the_one_that_sleeps() -> Result<(), IcedError> {
    for pace in [Pace::Real, Pace::Deterministic { seed: 3 }] {
        let config = ServerConfig { processors: 2, pace, ..plain() };
        let host = Host::assemble(config, two_processors()?);
        assert_eq!(host.run(), Ending::PowerOff { code: 42 }, "{pace:?}");
    }
    Ok(())
}

#[test]
fn the_same_seed_gives_the_same_run() -> Result<(), IcedError> {
    let run = |seed| {
        let config = ServerConfig { processors: 2, pace: Pace::Deterministic { seed }, ..plain() };
        let host = Host::assemble(config, two_processors()?);
        let ending = host.run();
        Ok((ending, host.server().retired(), host.server().machine().tsc()))
    };
    assert_eq!(run(5)?, run(5)?);
    Ok(())
}

/// A server of two processors that is frozen at its first turn, and goes on in another one.
fn frozen_and_resumed(seed: u64) -> Result<(), IcedError> {
    let config = ServerConfig { processors: 2, pace: Pace::Deterministic { seed }, ..plain() };
    let through = Host::assemble(config.clone(), two_processors()?);
    let ending = through.run();

    let host = Host::assemble(config, two_processors()?);
    host.server().freeze();
    assert_eq!(host.run(), Ending::Frozen);
    let saved = host.server().save().expect("a frozen server can be saved");
    assert!(host.server().save().is_err(), "it is taken once");
    let resumed = host.resume(saved);
    assert_eq!(resumed.run(), ending);
    let facts = |host: &Host| (host.server().retired(), host.server().machine().tsc());
    assert_eq!(facts(&resumed), facts(&through));
    Ok(())
}

#[test]
fn a_server_that_was_frozen_and_resumed_ends_as_if_it_never_was() -> Result<(), IcedError> {
    (1..5).try_for_each(frozen_and_resumed)
}

#[test]
fn a_server_that_did_not_freeze_cannot_be_saved() -> Result<(), IcedError> {
    let mut a = CodeAssembler::new(64)?;
    a.mov(eax, 1)?;
    exit_with(&mut a)?;
    let host = Host::assemble(deterministic(), a);
    assert_eq!(host.run(), Ending::PowerOff { code: 1 });
    assert!(host.server().save().is_err());
    Ok(())
}

#[test]
fn processors_side_by_side_freeze_where_each_of_them_stands() -> Result<(), IcedError> {
    let config = ServerConfig { processors: 2, ..plain() };
    let host = Host::assemble(config, two_processors()?);
    host.server().freeze();
    assert_eq!(host.run(), Ending::Frozen);
    let saved = host.server().save().expect("a frozen server can be saved");
    assert_eq!(host.resume(saved).run(), Ending::PowerOff { code: 42 });
    Ok(())
}
