//! Hosts whose processors do nothing but interrupt each other, sleep and park.

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use server_emu::firmware::RESET_VECTOR;
use server_emu::layout::MAILBOX;

use crate::support::exit_with;

/// The code with which each of these hosts ends when all went as it must.
pub const DONE: u8 = 42;

/// Where each processor counts its interrupts, eight bytes for each.
const COUNTERS: u64 = 0x8000;
const IDT: u64 = 0x9000;
/// Each processor's stack ends here, the next one's a page above.
const STACKS: u64 = 0xb000;
const STACK: u64 = 0x1000;
/// The vector that processor `n` sends, and that processor 0 answers it with, is this plus `n`.
const VECTORS: u32 = 0x40;

const X2APIC_EOI: u32 = 0x80b;
const X2APIC_SVR: u32 = 0x80f;
const X2APIC_ICR: u32 = 0x830;
const APIC_ENABLED: u32 = 0x1ff;

fn write_msr(a: &mut CodeAssembler, register: u32, high: u32, low: u32) -> Result<(), IcedError> {
    a.mov(ecx, register)?;
    a.mov(edx, high)?;
    a.mov(eax, low)?;
    a.wrmsr()
}

/// A stack, the table of interrupts, and the local APIC.
fn begin(a: &mut CodeAssembler, processor: u32, table: CodeLabel) -> Result<(), IcedError> {
    a.mov(rsp, STACKS + STACK * u64::from(processor + 1))?;
    a.lidt(tword_ptr(table))?;
    write_msr(a, X2APIC_SVR, 0, APIC_ENABLED)
}

/// A present interrupt gate to a handler.
fn gate(a: &mut CodeAssembler, vector: u32, handler: CodeLabel) -> Result<(), IcedError> {
    const CODE: i32 = 0x10;
    const INTERRUPT_GATE: i32 = 0x8e00;
    a.lea(rbx, qword_ptr(handler))?;
    a.mov(rdi, IDT + 16 * u64::from(vector))?;
    a.mov(word_ptr(rdi), bx)?;
    a.mov(word_ptr(rdi + 2), CODE)?;
    a.mov(word_ptr(rdi + 4), INTERRUPT_GATE)?;
    a.shr(rbx, 16)?;
    a.mov(word_ptr(rdi + 6), bx)
}

/// A handler that counts in a place of its own.
fn handler(a: &mut CodeAssembler, label: &mut CodeLabel, place: u64) -> Result<(), IcedError> {
    a.set_label(label)?;
    for register in [rax, rcx, rdx, rdi] {
        a.push(register)?;
    }
    a.mov(rdi, COUNTERS + 8 * place)?;
    a.lock().inc(qword_ptr(rdi))?;
    write_msr(a, X2APIC_EOI, 0, 0)?;
    for register in [rdi, rdx, rcx, rax] {
        a.pop(register)?;
    }
    a.iretq()
}

/// Sleeps until so many interrupts were counted there: looked at with interrupts off, HLT right behind STI.
fn wait_for(a: &mut CodeAssembler, place: u64, count: u32) -> Result<(), IcedError> {
    let (mut look, mut done) = (a.create_label(), a.create_label());
    a.set_label(&mut look)?;
    a.cli()?;
    a.mov(rdi, COUNTERS + 8 * place)?;
    a.cmp(qword_ptr(rdi), count as i32)?;
    a.jae(done)?;
    a.sti()?;
    a.hlt()?;
    a.jmp(look)?;
    a.set_label(&mut done)?;
    a.sti()
}

/// Wakes a parked processor, and waits until it has taken the command.
fn wake(a: &mut CodeAssembler, processor: u32, entry: CodeLabel) -> Result<(), IcedError> {
    const COMMAND_WAKE: i32 = 1;
    let mut taken = a.create_label();
    a.mov(rdi, MAILBOX)?;
    a.mov(dword_ptr(rdi + 4), processor as i32)?;
    a.lea(rbx, qword_ptr(entry))?;
    a.mov(qword_ptr(rdi + 8), rbx)?;
    a.mov(word_ptr(rdi), COMMAND_WAKE)?;
    a.set_label(&mut taken)?;
    a.pause()?;
    a.mov(ax, word_ptr(rdi))?;
    a.test(ax, ax)?;
    a.jne(taken)
}

fn table(a: &mut CodeAssembler, label: &mut CodeLabel) -> Result<(), IcedError> {
    a.set_label(label)?;
    a.dw(&[0xfff])?;
    a.dq(&[IDT])
}

fn done(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(eax, u32::from(DONE))?;
    exit_with(a)
}

/// Each of the other processors interrupts processor 0 and sleeps until it is answered, `rounds` times; processor 0 sleeps
/// until all have, and answers each.
pub fn answers_each(others: u32, rounds: u32) -> Result<CodeAssembler, IcedError> {
    let mut a = CodeAssembler::new(64)?;
    let mut descriptor = a.create_label();
    let all: Vec<u32> = (1..=others).collect();
    let entries: Vec<CodeLabel> = all.iter().map(|_| a.create_label()).collect();
    // Processor 0 counts what `n` sends at `n`; `n` counts its answers behind that.
    let places: Vec<u64> = (1..=2 * u64::from(others)).collect();
    let handlers: Vec<CodeLabel> = places.iter().map(|_| a.create_label()).collect();
    for (place, label) in places.iter().zip(&handlers) {
        gate(&mut a, VECTORS + *place as u32, *label)?;
    }
    begin(&mut a, 0, descriptor)?;
    for (processor, entry) in all.iter().zip(&entries) {
        wake(&mut a, *processor, *entry)?;
    }
    for round in 1..=rounds {
        for processor in &all {
            wait_for(&mut a, u64::from(*processor), round)?;
        }
        for processor in &all {
            write_msr(&mut a, X2APIC_ICR, *processor, VECTORS + others + processor)?;
        }
    }
    // The last answer has to be heard as well.
    for processor in &all {
        wait_for(&mut a, u64::from(*processor), rounds + 1)?;
    }
    done(&mut a)?;
    for (processor, mut entry) in all.iter().zip(entries) {
        a.set_label(&mut entry)?;
        begin(&mut a, *processor, descriptor)?;
        for round in 1..=rounds {
            write_msr(&mut a, X2APIC_ICR, 0, VECTORS + processor)?;
            wait_for(&mut a, u64::from(others + processor), round)?;
        }
        write_msr(&mut a, X2APIC_ICR, 0, VECTORS + processor)?;
        a.mov(rbx, RESET_VECTOR)?;
        a.jmp(rbx)?;
    }
    for (place, mut label) in places.into_iter().zip(handlers) {
        handler(&mut a, &mut label, place)?;
    }
    table(&mut a, &mut descriptor)?;
    Ok(a)
}

/// Processor 1 interrupts processor 0, which sleeps until then, and parks; it is woken `rounds` times.
pub fn wakes_again(rounds: u32) -> Result<CodeAssembler, IcedError> {
    const PLACE: u64 = 1;
    let mut a = CodeAssembler::new(64)?;
    let (mut descriptor, mut second, mut counts) = (a.create_label(), a.create_label(), a.create_label());
    gate(&mut a, VECTORS, counts)?;
    begin(&mut a, 0, descriptor)?;
    for round in 1..=rounds {
        wake(&mut a, 1, second)?;
        wait_for(&mut a, PLACE, round)?;
    }
    done(&mut a)?;
    a.set_label(&mut second)?;
    write_msr(&mut a, X2APIC_ICR, 0, VECTORS)?;
    a.mov(rbx, RESET_VECTOR)?;
    a.jmp(rbx)?;
    handler(&mut a, &mut counts, PLACE)?;
    table(&mut a, &mut descriptor)?;
    Ok(a)
}

/// Processor 0 sleeps with interrupts off, the others are parked.
pub fn sleeps_for_good() -> Result<CodeAssembler, IcedError> {
    let mut a = CodeAssembler::new(64)?;
    let mut again = a.create_label();
    a.cli()?;
    a.set_label(&mut again)?;
    a.hlt()?;
    a.jmp(again)?;
    Ok(a)
}
