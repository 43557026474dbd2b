//! Instructions that may raise an exception: the exception is the answer.
//!
//! # Protocol
//! [`install`] replaces the runtime's interrupt table of this vCPU by one whose gates lead to [`caught`]. An instruction
//! to be tried stores the address behind it in [`LANDING`] first; an exception meanwhile is noted in [`VECTOR`], and the
//! interrupted code goes on at that address. An exception while nothing is tried ends the TD.
//!
//! All of this is of one vCPU; the others are not released.

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use tdx_guest::get_veinfo;
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, Segment};
use x86_64::instructions::tables::lidt;
use x86_64::structures::DescriptorTablePointer;

use crate::tap::Came;

const VECTORS: usize = 32;
/// #GP and #VE.
const GENERAL_PROTECTION: u64 = 13;
const VIRTUALISATION: u64 = 20;
/// Nothing was raised.
const NONE: u64 = u64::MAX;

/// Where an exception goes on; zero: nothing is tried.
static LANDING: AtomicU64 = AtomicU64::new(0);
/// What was raised.
static VECTOR: AtomicU64 = AtomicU64::new(NONE);
/// The exit reason of the last #VE.
static REASON: AtomicU64 = AtomicU64::new(0);

// One stub a vector, sixteen bytes apart: every stack has vector and error code on top. The instructions that are tried
// name every register that a function may change as lost, so that the handler saves none.
global_asm!(
    ".balign 16",
    "compliance_entries:",
    ".set number, 0",
    ".rept {vectors}",
    ".balign 16",
    // Exceptions with an error code of the hardware's: 8, 10 to 14, 17, 21.
    ".if (number == 8) || ((number >= 10) && (number <= 14)) || (number == 17) || (number == 21)",
    ".else",
    "push 0",
    ".endif",
    // PUSH of the number, whose name would be taken for an address.
    ".byte 0x6A, number",
    "jmp compliance_common",
    ".set number, number + 1",
    ".endr",
    "compliance_common:",
    "cld",
    "mov rdi, rsp",
    "mov rbx, rsp",
    "and rsp, -16",
    "call {caught}",
    "mov rsp, rbx",
    "add rsp, 16",
    "iretq",
    vectors = const VECTORS,
    caught = sym caught,
);

unsafe extern "C" {
    static compliance_entries: [[u8; 16]; VECTORS];
}

#[repr(C)]
struct Frame {
    vector: u64,
    error: u64,
    rip: u64,
}

extern "C" fn caught(frame: &mut Frame) {
    let landing = LANDING.swap(0, SeqCst);
    if landing == 0 {
        guest_rt::exit::die(format_args!(
            "exception {}, error {:#x}, RIP {:#x}",
            frame.vector, frame.error, frame.rip
        ));
    }
    if frame.vector == VIRTUALISATION {
        // The next #VE would be a double fault while this information is there.
        REASON.store(get_veinfo().map_or(NONE, |info| u64::from(info.exit_reason)), SeqCst);
    }
    VECTOR.store(frame.vector, SeqCst);
    frame.rip = landing;
}

#[repr(C, align(16))]
struct Table([[u64; 2]; VECTORS]);

/// Makes exceptions of this vCPU answers.
pub fn install() {
    static mut TABLE: Table = Table([[0; 2]; VECTORS]);
    /// Present interrupt gate of ring 0, on the runtime's fourth exception stack.
    const GATE: u64 = 0x8E << 40 | 4 << 32;
    // SAFETY: one vCPU runs, and calls this once, before anything uses the table.
    let table = unsafe { &mut *core::ptr::addr_of_mut!(TABLE) };
    let code = u64::from(CS::get_reg().0) << 16;
    for (number, gate) in table.0.iter_mut().enumerate() {
        // SAFETY: only the address of the stub is formed.
        let entry = unsafe { &raw const compliance_entries[number] } as u64;
        *gate = [GATE | code | entry & 0xFFFF | (entry & 0xFFFF_0000) << 32, entry >> 32];
    }
    let pointer = DescriptorTablePointer {
        limit: (size_of::<Table>() - 1) as u16,
        base: VirtAddr::new(table as *const Table as u64),
    };
    // SAFETY: the table lives for ever, and its gates lead to the stubs above.
    unsafe { lidt(&pointer) };
}

fn arm() {
    VECTOR.store(NONE, SeqCst);
}

/// What the instruction came to, and what VEINFO.GET said of a #VE.
fn outcome() -> Came {
    LANDING.store(0, SeqCst);
    match VECTOR.load(SeqCst) {
        NONE => Came::Done,
        GENERAL_PROTECTION => Came::Fault,
        VIRTUALISATION => Came::Exception,
        other => Came::Vector(other),
    }
}

/// The exit reason of the last #VE.
pub fn reason() -> u64 {
    REASON.load(SeqCst)
}

/// CPUID: EAX, EBX, ECX, EDX.
pub fn cpuid(leaf: u32, subleaf: u32) -> Result<[u32; 4], Came> {
    let (eax, ebx, ecx, edx): (u64, u64, u64, u64);
    arm();
    // SAFETY: CPUID changes four registers; an exception goes on behind it, with RBX changed by the handler.
    unsafe {
        asm!(
            "lea r8, [rip + 2f]",
            "mov [r9], r8",
            "mov r12, rbx",
            "cpuid",
            "2:",
            "xchg r12, rbx",
            in("r9") LANDING.as_ptr(),
            inout("rax") u64::from(leaf) => eax,
            inout("rcx") u64::from(subleaf) => ecx,
            out("rdx") edx,
            out("r12") ebx,
            clobber_abi("C"),
        );
    }
    match outcome() {
        Came::Done => Ok([eax as u32, ebx as u32, ecx as u32, edx as u32]),
        came => Err(came),
    }
}

/// RDMSR.
pub fn rdmsr(index: u32) -> Result<u64, Came> {
    let (low, high): (u64, u64);
    arm();
    // SAFETY: RDMSR changes two registers; an exception goes on behind it, with RBX changed by the handler.
    unsafe {
        asm!(
            "lea r8, [rip + 2f]",
            "mov [r9], r8",
            "mov r12, rbx",
            "rdmsr",
            "2:",
            "mov rbx, r12",
            in("r9") LANDING.as_ptr(),
            inout("rcx") u64::from(index) => _,
            out("rax") low,
            out("rdx") high,
            out("r12") _,
            clobber_abi("C"),
        );
    }
    match outcome() {
        Came::Done => Ok(low & 0xFFFF_FFFF | high << 32),
        came => Err(came),
    }
}

macro_rules! write_of_edx_eax {
    ($(#[$doc:meta])* $name:ident, $instruction:literal) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// The value does not change where this code runs and what it runs on.
        pub unsafe fn $name(index: u64, value: u64) -> Came {
            arm();
            // SAFETY: the caller's; an exception goes on behind the instruction, with RBX changed by the handler.
            unsafe {
                asm!(
                    "lea r8, [rip + 2f]",
                    "mov [r9], r8",
                    "mov r12, rbx",
                    $instruction,
                    "2:",
                    "mov rbx, r12",
                    in("r9") LANDING.as_ptr(),
                    inout("rcx") index => _,
                    inout("rax") value & 0xFFFF_FFFF => _,
                    inout("rdx") value >> 32 => _,
                    out("r12") _,
                    clobber_abi("C"),
                );
            }
            outcome()
        }
    };
}

write_of_edx_eax!(
    /// WRMSR.
    wrmsr, "wrmsr"
);
write_of_edx_eax!(
    /// XSETBV.
    xsetbv, "xsetbv"
);

macro_rules! control_register {
    ($(#[$doc:meta])* $try:ident, $read:ident, $register:literal) => {
        $(#[$doc])*
        pub fn $read() -> u64 {
            let value;
            // SAFETY: reads a register.
            unsafe { asm!(concat!("mov {}, ", $register), out(reg) value, options(nomem, nostack)) };
            value
        }

        /// Writes a value to the register and puts the old one back: what the write came to, and what was read in
        /// between.
        ///
        /// # Safety
        /// The next three instructions run with the value as with the old one.
        pub unsafe fn $try(value: u64) -> (Came, u64) {
            let between;
            arm();
            // SAFETY: the caller's; an exception goes on behind the write, with RBX changed by the handler.
            unsafe {
                asm!(
                    "lea r8, [rip + 2f]",
                    "mov [r9], r8",
                    "mov r12, rbx",
                    concat!("mov r13, ", $register),
                    concat!("mov ", $register, ", rax"),
                    "2:",
                    concat!("mov r14, ", $register),
                    concat!("mov ", $register, ", r13"),
                    "mov rbx, r12",
                    in("r9") LANDING.as_ptr(),
                    inout("rax") value => _,
                    out("r12") _,
                    out("r13") _,
                    out("r14") between,
                    clobber_abi("C"),
                );
            }
            (outcome(), between)
        }
    };
}

control_register!(
    /// CR0.
    try_cr0, cr0, "cr0"
);
control_register!(
    /// CR4.
    try_cr4, cr4, "cr4"
);

/// Sets bits of CR4 or clears them.
///
/// # Safety
/// This code runs as well without as with them.
pub unsafe fn set_cr4(value: u64) {
    // SAFETY: the caller's.
    unsafe { asm!("mov cr4, {}", in(reg) value, options(nostack)) };
}

/// XCR0; CR4.OSXSAVE is set.
pub fn xcr0() -> u64 {
    let (low, high): (u64, u64);
    // SAFETY: reads a register.
    unsafe { asm!("xgetbv", in("ecx") 0, out("rax") low, out("rdx") high, options(nomem, nostack)) };
    low & 0xFFFF_FFFF | high << 32
}
