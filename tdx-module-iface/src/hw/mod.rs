//! The real SEAMCALL instruction.
//!
//! **Why this is sound.** All `unsafe` of the crate is in this module: one assembly routine, its declaration,
//! and the call to it. The routine follows the System V calling convention: it saves the six registers that a
//! callee must preserve, loads fifteen registers from the [`Gprs`] whose address it was given, executes the
//! instruction, stores the fifteen registers back through the same address, restores the six, and returns. It
//! touches no memory but its own stack and that structure, which is borrowed exclusively for the call and has a
//! fixed layout. Vector registers need no saving because the convention leaves them to the caller. What the
//! module does to *physical* memory cannot be proven here; [`HwLp::claim`] makes it the caller's promise.
//!
//! **Faults are values.** SEAMCALL raises #UD outside VMX root operation and #GP outside ring 0. The owner of
//! the interrupt descriptor table asks [`fixup`] for the address at which to go on; the routine then returns
//! the fault, with no register changed. VMfailInvalid is the carry flag.
#![expect(unsafe_code, reason = "the instruction; the proof is in the module docs")]

use core::arch::global_asm;
use core::marker::PhantomData;
use core::mem::offset_of;

use crate::regs::{Gprs, SeamCall, SeamCallFault};

#[cfg(test)]
mod tests;

/// What the routine returns.
mod ended {
    pub const DONE: u64 = 0;
    pub const VMFAIL_INVALID: u64 = 1;
    pub const UNDEFINED_OPCODE: u64 = 2;
    pub const GENERAL_PROTECTION: u64 = 3;
}

// RDI holds the address of the structure on entry and is itself an operand, so the address waits on the stack
// while the instruction runs. XCHG, MOV and POP leave the carry flag alone until SETC reads it.
global_asm!(
    ".pushsection .text.tdvisor_seamcall, \"ax\", @progbits",
    ".balign 16",
    ".hidden tdvisor_seamcall",
    ".hidden tdvisor_seamcall_instruction",
    ".hidden tdvisor_seamcall_undefined_opcode",
    ".hidden tdvisor_seamcall_general_protection",
    ".hidden tdvisor_seamcall_end",
    ".globl tdvisor_seamcall",
    ".globl tdvisor_seamcall_instruction",
    ".globl tdvisor_seamcall_undefined_opcode",
    ".globl tdvisor_seamcall_general_protection",
    ".globl tdvisor_seamcall_end",
    ".type tdvisor_seamcall, @function",
    "tdvisor_seamcall:",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "push rdi",
    "mov rax, [rdi + {rax}]",
    "mov rcx, [rdi + {rcx}]",
    "mov rdx, [rdi + {rdx}]",
    "mov rbx, [rdi + {rbx}]",
    "mov rbp, [rdi + {rbp}]",
    "mov rsi, [rdi + {rsi}]",
    "mov r8, [rdi + {r8}]",
    "mov r9, [rdi + {r9}]",
    "mov r10, [rdi + {r10}]",
    "mov r11, [rdi + {r11}]",
    "mov r12, [rdi + {r12}]",
    "mov r13, [rdi + {r13}]",
    "mov r14, [rdi + {r14}]",
    "mov r15, [rdi + {r15}]",
    "mov rdi, [rdi + {rdi}]",
    "tdvisor_seamcall_instruction:",
    ".byte 0x66, 0x0f, 0x01, 0xcf",
    "xchg rdi, [rsp]",
    "mov [rdi + {rax}], rax",
    "mov [rdi + {rcx}], rcx",
    "mov [rdi + {rdx}], rdx",
    "mov [rdi + {rbx}], rbx",
    "mov [rdi + {rbp}], rbp",
    "mov [rdi + {rsi}], rsi",
    "mov [rdi + {r8}], r8",
    "mov [rdi + {r9}], r9",
    "mov [rdi + {r10}], r10",
    "mov [rdi + {r11}], r11",
    "mov [rdi + {r12}], r12",
    "mov [rdi + {r13}], r13",
    "mov [rdi + {r14}], r14",
    "mov [rdi + {r15}], r15",
    "pop rax",
    "mov [rdi + {rdi}], rax",
    "setc al",
    "movzx eax, al",
    "2:",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
    "tdvisor_seamcall_undefined_opcode:",
    "pop rdi",
    "mov eax, {undefined_opcode}",
    "jmp 2b",
    "tdvisor_seamcall_general_protection:",
    "pop rdi",
    "mov eax, {general_protection}",
    "jmp 2b",
    "tdvisor_seamcall_end:",
    ".size tdvisor_seamcall, . - tdvisor_seamcall",
    ".popsection",
    rax = const offset_of!(Gprs, rax),
    rcx = const offset_of!(Gprs, rcx),
    rdx = const offset_of!(Gprs, rdx),
    rbx = const offset_of!(Gprs, rbx),
    rbp = const offset_of!(Gprs, rbp),
    rsi = const offset_of!(Gprs, rsi),
    rdi = const offset_of!(Gprs, rdi),
    r8 = const offset_of!(Gprs, r8),
    r9 = const offset_of!(Gprs, r9),
    r10 = const offset_of!(Gprs, r10),
    r11 = const offset_of!(Gprs, r11),
    r12 = const offset_of!(Gprs, r12),
    r13 = const offset_of!(Gprs, r13),
    r14 = const offset_of!(Gprs, r14),
    r15 = const offset_of!(Gprs, r15),
    undefined_opcode = const ended::UNDEFINED_OPCODE,
    general_protection = const ended::GENERAL_PROTECTION,
);

// SAFETY: these are the symbols that the assembly above defines: a function with this signature and the System
// V convention, and addresses inside it that are never read as data except by the test that disassembles them.
unsafe extern "sysv64" {
    fn tdvisor_seamcall(gprs: *mut Gprs) -> u64;
    static tdvisor_seamcall_instruction: u8;
    static tdvisor_seamcall_undefined_opcode: u8;
    static tdvisor_seamcall_general_protection: u8;
}

/// The exceptions that SEAMCALL can raise, for [`fixup`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Exception {
    /// Vector 6.
    UndefinedOpcode,
    /// Vector 13.
    GeneralProtection,
}

/// For exception handlers: where to continue if the exception was raised by this module's SEAMCALL.
///
/// A handler that finds `Some` sets the interrupted RIP to it, leaves every other register alone, and returns.
pub fn fixup(rip: u64, exception: Exception) -> Option<u64> {
    if rip != (&raw const tdvisor_seamcall_instruction).addr() as u64 {
        return None;
    }
    let landing = match exception {
        Exception::UndefinedOpcode => &raw const tdvisor_seamcall_undefined_opcode,
        Exception::GeneralProtection => &raw const tdvisor_seamcall_general_protection,
    };
    Some(landing.addr() as u64)
}

/// The right to execute SEAMCALLs on the logical processor that runs the code.
///
/// Neither `Send` nor `Sync`: it belongs to one LP.
#[derive(Debug)]
pub struct HwLp {
    on_this_lp: PhantomData<*mut ()>,
}

impl HwLp {
    /// Takes that right.
    ///
    /// # Safety
    /// For as long as the value exists:
    /// - the code runs in ring 0 on one logical processor, with handlers for #UD and #GP that use [`fixup`];
    /// - every physical page that is passed to a leaf, or that TDMRs cover, is memory that nothing in this
    ///   program reads or writes otherwise while the module may use it;
    /// - the caller saves and restores the processor state that TDH.VP.ENTER does not preserve and this program
    ///   relies on (extended state, debug registers, the MSRs that the module's specification lists).
    pub const unsafe fn claim() -> Self {
        Self { on_this_lp: PhantomData }
    }
}

impl SeamCall for HwLp {
    fn seamcall(&mut self, gprs: &mut Gprs) -> Result<(), SeamCallFault> {
        // SAFETY: the pointer comes from an exclusive borrow that lasts for the call, and the routine follows
        // the declared convention (see the module's first paragraph). The effects of the instruction on
        // physical memory and processor state are what the caller of `claim` has answered for.
        let ended = unsafe { tdvisor_seamcall(gprs) };
        match ended {
            ended::DONE => Ok(()),
            ended::VMFAIL_INVALID => Err(SeamCallFault::VmFailInvalid),
            ended::UNDEFINED_OPCODE => Err(SeamCallFault::UndefinedOpcode),
            _ => Err(SeamCallFault::GeneralProtection),
        }
    }
}
