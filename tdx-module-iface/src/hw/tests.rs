//! What the assembler emitted, read back from the test binary, and the fault path taken for real.

use std::vec::Vec;

use iced_x86::{Code, Decoder, DecoderOptions, Instruction, OpKind, Register};

use super::*;
use crate::regs::Reg;

// SAFETY: defined by the assembly of the parent module.
unsafe extern "sysv64" {
    static tdvisor_seamcall_end: u8;
}

/// The bytes of the routine as they are in this program.
fn emitted() -> &'static [u8] {
    let start = tdvisor_seamcall as *const u8;
    let length = (&raw const tdvisor_seamcall_end).addr() - start.addr();
    assert!(length < 1024, "the routine is short");
    // SAFETY: start and end are labels of one section of initialised, readable code that never changes.
    unsafe { core::slice::from_raw_parts(start, length) }
}

fn instructions() -> Vec<Instruction> {
    let start = (tdvisor_seamcall as *const u8).addr() as u64;
    Decoder::with_ip(64, emitted(), start, DecoderOptions::NONE).iter().collect()
}

fn register(reg: Reg) -> Register {
    match reg {
        Reg::Rax => Register::RAX,
        Reg::Rcx => Register::RCX,
        Reg::Rdx => Register::RDX,
        Reg::Rbx => Register::RBX,
        Reg::Rbp => Register::RBP,
        Reg::Rsi => Register::RSI,
        Reg::Rdi => Register::RDI,
        Reg::R8 => Register::R8,
        Reg::R9 => Register::R9,
        Reg::R10 => Register::R10,
        Reg::R11 => Register::R11,
        Reg::R12 => Register::R12,
        Reg::R13 => Register::R13,
        Reg::R14 => Register::R14,
        Reg::R15 => Register::R15,
    }
}

fn offset(reg: Reg) -> u64 {
    let mut gprs = Gprs::ZERO;
    gprs.set(reg, 1);
    let bytes: [u64; 15] = [
        gprs.rax, gprs.rcx, gprs.rdx, gprs.rbx, gprs.rbp, gprs.rsi, gprs.rdi, gprs.r8, gprs.r9, gprs.r10,
        gprs.r11, gprs.r12, gprs.r13, gprs.r14, gprs.r15,
    ];
    8 * bytes.iter().position(|value| *value == 1).unwrap() as u64
}

fn is_load(instruction: &Instruction, reg: Reg) -> bool {
    instruction.code() == Code::Mov_r64_rm64
        && instruction.op0_register() == register(reg)
        && instruction.op1_kind() == OpKind::Memory
        && instruction.memory_base() == Register::RDI
        && instruction.memory_displacement64() == offset(reg)
}

fn is_store(instruction: &Instruction, source: Register, reg: Reg) -> bool {
    instruction.code() == Code::Mov_rm64_r64
        && instruction.op1_register() == source
        && instruction.memory_base() == Register::RDI
        && instruction.memory_displacement64() == offset(reg)
}

#[test]
fn the_emitted_code_contains_exactly_one_seamcall_with_the_architectural_bytes() {
    let bytes = emitted();
    let found: Vec<_> =
        bytes.windows(4).enumerate().filter(|(_, window)| *window == [0x66, 0x0f, 0x01, 0xcf]).collect();
    assert_eq!(found.len(), 1, "{bytes:02x?}");
    let decoded = instructions();
    assert!(decoded.iter().all(|instruction| !instruction.is_invalid()), "{bytes:02x?}");
    let seamcalls: Vec<_> =
        decoded.iter().filter(|instruction| instruction.code() == Code::Seamcall).collect();
    assert_eq!(seamcalls.len(), 1);
    assert_eq!(seamcalls[0].ip(), (&raw const tdvisor_seamcall_instruction).addr() as u64);
}

#[test]
fn all_fifteen_registers_are_loaded_before_and_stored_after_the_instruction() {
    let decoded = instructions();
    let position = decoded.iter().position(|instruction| instruction.code() == Code::Seamcall).unwrap();
    let (before, after) = decoded.split_at(position);
    for reg in Reg::ALL {
        assert_eq!(before.iter().filter(|one| is_load(one, reg)).count(), 1, "{reg} is loaded");
        let source = if reg == Reg::Rdi { Register::RAX } else { register(reg) };
        assert_eq!(after.iter().filter(|one| is_store(one, source, reg)).count(), 1, "{reg} is stored");
    }
    let last_load = before.last().unwrap();
    assert!(is_load(last_load, Reg::Rdi), "the pointer goes last");
}

#[test]
fn fixups_exist_for_the_instruction_and_for_nothing_else() {
    let instruction = (&raw const tdvisor_seamcall_instruction).addr() as u64;
    let undefined = fixup(instruction, Exception::UndefinedOpcode).unwrap();
    let protection = fixup(instruction, Exception::GeneralProtection).unwrap();
    assert_ne!(undefined, protection);
    assert_eq!(fixup(instruction + 4, Exception::UndefinedOpcode), None);
    assert_eq!(fixup(0, Exception::GeneralProtection), None);
}

/// A signal handler in the role of the exception handlers.
extern "C" fn on_fault(signal: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid ucontext to a handler installed with SA_SIGINFO.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    let rip = &mut context.uc_mcontext.gregs[libc::REG_RIP as usize];
    let exception =
        if signal == libc::SIGILL { Exception::UndefinedOpcode } else { Exception::GeneralProtection };
    match fixup(*rip as u64, exception) {
        Some(landing) => *rip = landing as i64,
        None => std::process::abort(),
    }
}

#[test]
fn outside_of_ring_0_the_instruction_faults_and_the_fault_is_a_value() {
    for signal in [libc::SIGILL, libc::SIGSEGV] {
        // SAFETY: a zeroed sigaction is valid, and the handler only edits the interrupted RIP or aborts.
        let installed = unsafe {
            let mut action: libc::sigaction = core::mem::zeroed();
            action.sa_sigaction = on_fault as *const () as libc::sighandler_t;
            action.sa_flags = libc::SA_SIGINFO;
            libc::sigaction(signal, &action, core::ptr::null_mut())
        };
        assert_eq!(installed, 0);
    }
    // SAFETY: this test does not run in ring 0, so the instruction faults and reaches no module; the handlers
    // above use `fixup`.
    let mut lp = unsafe { HwLp::claim() };
    let mut gprs = Gprs::ZERO;
    for reg in Reg::ALL {
        gprs.set(reg, 0x1000 + u64::from(reg.index()));
    }
    let before = gprs;
    let fault = lp.seamcall(&mut gprs).unwrap_err();
    assert!(
        matches!(fault, SeamCallFault::UndefinedOpcode | SeamCallFault::GeneralProtection),
        "no module answers in user mode: {fault:?}"
    );
    assert_eq!(gprs, before, "a fault changes no register");
}
