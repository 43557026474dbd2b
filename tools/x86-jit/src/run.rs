//! The jump into compiled code.

use core::arch::asm;
use core::mem::offset_of;

use crate::context::{Context, FloatingPoint};

/// What one stay in compiled code came to.
pub(crate) struct Returned {
    /// See [`crate::exit_word`].
    pub(crate) word: u64,
    /// What is left of the budget.
    pub(crate) budget: u64,
}

/// Loads the guest's registers, runs code, and takes the registers back.
///
/// # Safety
/// `entry` is an entry or a resume point of code that was compiled for the arena whose pages the tables of `context` lead to,
/// and those tables, the arena and the code stay until this returns.
pub(crate) unsafe fn enter(context: &mut Context, entry: u64, budget: u64) -> Returned {
    let (word, left): (u64, u64);
    // SAFETY: the caller vouches for the entry; compiled code returns to here with the stack pointer as it was, changes no
    // register but those that are named (RBX, RBP and MXCSR are put back), and leaves the direction flag clear.
    unsafe {
        asm!(
            "push rbx",
            "push rbp",
            "mov rbp, r13",
            "mov rax, [rbp]",
            "mov rcx, [rbp + 8]",
            "mov rdx, [rbp + 16]",
            "mov rbx, [rbp + 24]",
            "mov r10, [rbp + 32]",
            "mov r11, [rbp + 40]",
            "mov rsi, [rbp + 48]",
            "mov rdi, [rbp + 56]",
            "mov r8, [rbp + 64]",
            "mov r9, [rbp + 72]",
            "stmxcsr [rbp + {host_mxcsr}]",
            "call r12",
            "mov [rbp], rax",
            "mov [rbp + 8], rcx",
            "mov [rbp + 16], rdx",
            "mov [rbp + 24], rbx",
            "mov [rbp + 32], r10",
            "mov [rbp + 40], r11",
            "mov [rbp + 48], rsi",
            "mov [rbp + 56], rdi",
            "mov [rbp + 64], r8",
            "mov [rbp + 72], r9",
            "cmp byte ptr [rbp + {floating_point}], {loaded}",
            "jne 2f",
            "stmxcsr [rbp + {mxcsr}]",
            "ldmxcsr [rbp + {host_mxcsr}]",
            "2:",
            "pop rbp",
            "pop rbx",
            floating_point = const offset_of!(Context, floating_point),
            loaded = const FloatingPoint::Loaded as u8,
            mxcsr = const offset_of!(Context, mxcsr),
            host_mxcsr = const offset_of!(Context, host_mxcsr),
            inout("r12") entry => word,
            inout("r13") core::ptr::from_mut(context) => _,
            inout("r15") budget => left,
            out("rax") _, out("rcx") _, out("rdx") _, out("rsi") _, out("rdi") _,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _, out("r14") _,
            out("xmm0") _, out("xmm1") _,
        );
    }
    Returned { word, budget: left }
}
