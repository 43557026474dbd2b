//! The processor's own instructions.
//!
//! **Why this is sound.** Code here runs in ring 0, on a machine that nobody else runs: that is what [`super::Ring0`] stands
//! for, and who makes one answers for it. The instructions read the processor, or change what only the processor uses
//! (MSRs of its local APIC and of VMX, control bits that switch features on). None of them changes how addresses are
//! translated, except for the load of page tables, whose caller answers for the tables. Those that touch memory (VMXON, INVEPT,
//! MOVDIR64B) get an address from a reference, or say what their caller has to promise.
#![expect(unsafe_code)]

use core::arch::asm;

use tdvisor_base::Ticks;
use x86::controlregs::{cr0, cr0_write, cr3_write};
use x86::msr::{IA32_EFER, IA32_FEATURE_CONTROL, IA32_VMX_BASIC};
use x86_arch::{cr0 as cr0_bits, cr4, efer};

use crate::conditions::{FEATURE_CONTROL_LOCKED, FEATURE_CONTROL_VMX, Identity};

// SAFETY: defined by vectors.s with this signature and C's calling convention. They use the stack that they are called on,
// and no red zone.
unsafe extern "C" {
    fn bare_metal_rdmsr(index: u32, value: *mut u64) -> u32;
    fn bare_metal_take_interrupts();
    fn bare_metal_halt();
    fn bare_metal_unblock_nmis();
}

/// The processor that runs this code.
#[derive(Clone, Copy, Debug)]
pub struct ThisProcessor;

impl Identity for ThisProcessor {
    fn cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        let answer = core::arch::x86_64::__cpuid_count(leaf, subleaf);
        [answer.eax, answer.ebx, answer.ecx, answer.edx]
    }

    fn msr(&self, index: u32) -> Option<u64> {
        let mut value = 0;
        // SAFETY: the routine writes to the place that it is given; #GP is expected there (`exceptions`).
        let fault = unsafe { bare_metal_rdmsr(index, &raw mut value) };
        (fault == 0).then_some(value)
    }
}

/// Writes an MSR that exists.
pub(crate) fn write_msr(index: u32, value: u64) {
    // SAFETY: see the file's first paragraph; callers are in this room, and write registers that conditions have shown.
    unsafe { x86::msr::wrmsr(index, value) };
}

/// Reads an MSR that exists.
pub(crate) fn read_msr(index: u32) -> u64 {
    // SAFETY: reading has no effect.
    unsafe { x86::msr::rdmsr(index) }
}

/// The time-stamp counter.
pub fn ticks() -> Ticks {
    // SAFETY: reading has no effect.
    Ticks::new(unsafe { x86::time::rdtsc() })
}

/// The address of the last page fault.
pub(crate) fn cr2() -> u64 {
    // SAFETY: reading has no effect.
    unsafe { x86::controlregs::cr2() as u64 }
}

fn set_cr4(bits: u64) {
    // SAFETY: the bits switch features on that this room uses; none of them changes translations.
    unsafe {
        asm!("mov {0}, cr4", "or {0}, {1}", "mov cr4, {0}", out(reg) _, in(reg) bits, options(nostack));
    }
}

/// Control bits that code here relies on: SSE, write protection, numeric errors as exceptions, no-execute pages, and the
/// control words of x87 and SSE as the calling convention has them.
pub(crate) fn set_up() {
    set_cr4(cr4::OSFXSR | cr4::OSXMMEXCPT | cr4::MCE);
    static MXCSR: u32 = 0x1F80;
    // SAFETY: write protection and no-execute make pages do less, and nothing of this image's needs more; the others are
    // what compiled code expects.
    unsafe {
        let bits = cr0_bits::NE | cr0_bits::WP | cr0_bits::MP;
        let cleared = cr0_bits::EM | cr0_bits::TS | cr0_bits::CD | cr0_bits::NW;
        let value = cr0().bits() as u64 & !cleared | bits;
        cr0_write(x86::controlregs::Cr0::from_bits_truncate(tdvisor_base::to_usize(value)));
        asm!("fninit", "ldmxcsr [{0}]", in(reg) &raw const MXCSR, options(nostack));
    }
    write_msr(IA32_EFER, read_msr(IA32_EFER) | efer::NXE);
}

/// Makes the processor translate by these tables.
///
/// # Safety
/// They map the image, its stacks and everything that the host touches to itself.
pub(crate) unsafe fn load_page_tables(root: u64) {
    // SAFETY: the caller's promise.
    unsafe { cr3_write(root) };
}

/// Takes the interrupts that are pending.
pub fn take_interrupts() {
    // SAFETY: all vectors have gates, with handlers that touch nothing but their processor's events.
    unsafe { bare_metal_take_interrupts() };
}

/// Sleeps until an interrupt comes, and takes it.
pub fn halt() {
    // SAFETY: all vectors have gates, with handlers that touch nothing but their processor's events.
    unsafe { bare_metal_halt() };
}

/// Stops the processor for good.
pub fn stop() -> ! {
    loop {
        // SAFETY: with IF 0 only a non-maskable interrupt ends it, and the loop goes on.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}

/// Ends the blocking of non-maskable interrupts that a TD's exit for one left.
pub(crate) fn unblock_nmis() {
    // SAFETY: an IRET to the routine's own next instruction, with the selectors and flags that it found.
    unsafe { bare_metal_unblock_nmis() };
}

/// WBINVD.
pub(crate) fn write_back_caches() {
    // SAFETY: writing caches back changes no contents.
    unsafe { asm!("wbinvd", options(nostack, preserves_flags)) };
}

/// Orders earlier stores before a message to another processor: writes to x2APIC registers do not (SDM volume 3,
/// "MSR access in x2APIC mode").
pub(crate) fn order_before_message() {
    // SAFETY: fences.
    unsafe { asm!("mfence", "lfence", options(nostack, preserves_flags)) };
}

/// INVEPT of all contexts: a host of TDs does not know their private root, under which the processor keeps translations.
pub(crate) fn drop_second_stages() {
    const ALL_CONTEXTS: u64 = 2;
    let descriptor = [0u64; 2];
    // SAFETY: dropping translations changes no contents; the descriptor is read only. The processor is in VMX operation,
    // else this is #UD, which ends the host.
    unsafe {
        asm!("invept {0}, [{1}]", in(reg) ALL_CONTEXTS, in(reg) &raw const descriptor, options(nostack, readonly));
    }
}

/// VMX operation could not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmxonFailed;

impl core::fmt::Display for VmxonFailed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("VMXON failed")
    }
}

/// Enters VMX operation. The conditions are met.
///
/// # Safety
/// `region` is the physical address of a page that belongs to the processor from now on.
///
/// # Errors
/// [`VmxonFailed`].
pub(crate) unsafe fn begin_vmx(region: u64) -> Result<(), VmxonFailed> {
    let control = read_msr(IA32_FEATURE_CONTROL);
    if control & FEATURE_CONTROL_LOCKED == 0 {
        write_msr(IA32_FEATURE_CONTROL, control | FEATURE_CONTROL_LOCKED | FEATURE_CONTROL_VMX);
    }
    set_cr4(cr4::VMXE);
    // Bits 30:0 are the revision, which a region begins with.
    let revision = (read_msr(IA32_VMX_BASIC) & 0x7fff_ffff) as u32;
    let failed: u8;
    // SAFETY: memory is mapped to itself, and the page is the caller's to give.
    unsafe {
        (region as *mut u32).write_volatile(revision);
        asm!("vmxon [{0}]", "setbe {1}", in(reg) &raw const region, out(reg_byte) failed, options(nostack));
    }
    if failed == 0 { Ok(()) } else { Err(VmxonFailed) }
}

/// Writes zeros over a page by MOVDIR64B, whatever key it was under.
///
/// # Safety
/// It is a page of memory that is mapped to itself and that nobody has a reference to.
pub(crate) unsafe fn clear_page(at: u64) {
    #[repr(align(64))]
    struct Line([u8; 64]);
    static ZEROS: Line = Line([0; 64]);
    for line in (at..at + 4096).step_by(64) {
        // SAFETY: the caller's promise; a line of zeros is read.
        unsafe {
            asm!("movdir64b {0}, [{1}]", in(reg) line, in(reg) (&raw const ZEROS.0), options(nostack, preserves_flags));
        }
    }
    // Direct stores are weakly ordered.
    // SAFETY: a fence.
    unsafe { asm!("sfence", options(nostack, preserves_flags)) };
}
