//! Control registers, IA32_EFER and XCR0: their bits and their values (SDM vol. 3, "Control Registers").

use x86::controlregs::{Cr0, Cr4, Xcr0};

/// Bits of CR0.
#[expect(missing_docs, reason = "the names are the bits")]
pub mod cr0 {
    use super::Cr0;

    pub const PE: u64 = Cr0::CR0_PROTECTED_MODE.bits() as u64;
    pub const MP: u64 = Cr0::CR0_MONITOR_COPROCESSOR.bits() as u64;
    pub const EM: u64 = Cr0::CR0_EMULATE_COPROCESSOR.bits() as u64;
    pub const TS: u64 = Cr0::CR0_TASK_SWITCHED.bits() as u64;
    pub const ET: u64 = Cr0::CR0_EXTENSION_TYPE.bits() as u64;
    pub const NE: u64 = Cr0::CR0_NUMERIC_ERROR.bits() as u64;
    pub const WP: u64 = Cr0::CR0_WRITE_PROTECT.bits() as u64;
    pub const AM: u64 = Cr0::CR0_ALIGNMENT_MASK.bits() as u64;
    pub const NW: u64 = Cr0::CR0_NOT_WRITE_THROUGH.bits() as u64;
    pub const CD: u64 = Cr0::CR0_CACHE_DISABLE.bits() as u64;
    pub const PG: u64 = Cr0::CR0_ENABLE_PAGING.bits() as u64;
    /// Every defined bit.
    pub const DEFINED: u64 = PE | MP | EM | TS | ET | NE | WP | AM | NW | CD | PG;
}

/// Bits of CR4.
#[expect(missing_docs, reason = "the names are the bits")]
pub mod cr4 {
    use super::Cr4;

    pub const VME: u64 = Cr4::CR4_ENABLE_VME.bits() as u64;
    pub const PVI: u64 = Cr4::CR4_VIRTUAL_INTERRUPTS.bits() as u64;
    pub const TSD: u64 = Cr4::CR4_TIME_STAMP_DISABLE.bits() as u64;
    pub const DE: u64 = Cr4::CR4_DEBUGGING_EXTENSIONS.bits() as u64;
    pub const PSE: u64 = Cr4::CR4_ENABLE_PSE.bits() as u64;
    pub const PAE: u64 = Cr4::CR4_ENABLE_PAE.bits() as u64;
    pub const MCE: u64 = Cr4::CR4_ENABLE_MACHINE_CHECK.bits() as u64;
    pub const PGE: u64 = Cr4::CR4_ENABLE_GLOBAL_PAGES.bits() as u64;
    pub const PCE: u64 = Cr4::CR4_ENABLE_PPMC.bits() as u64;
    pub const OSFXSR: u64 = Cr4::CR4_ENABLE_SSE.bits() as u64;
    pub const OSXMMEXCPT: u64 = Cr4::CR4_UNMASKED_SSE.bits() as u64;
    pub const UMIP: u64 = Cr4::CR4_ENABLE_UMIP.bits() as u64;
    pub const LA57: u64 = Cr4::CR4_ENABLE_LA57.bits() as u64;
    pub const VMXE: u64 = Cr4::CR4_ENABLE_VMX.bits() as u64;
    pub const SMXE: u64 = Cr4::CR4_ENABLE_SMX.bits() as u64;
    pub const FSGSBASE: u64 = Cr4::CR4_ENABLE_FSGSBASE.bits() as u64;
    pub const PCIDE: u64 = Cr4::CR4_ENABLE_PCID.bits() as u64;
    pub const OSXSAVE: u64 = Cr4::CR4_ENABLE_OS_XSAVE.bits() as u64;
    pub const SMEP: u64 = Cr4::CR4_ENABLE_SMEP.bits() as u64;
    pub const SMAP: u64 = Cr4::CR4_ENABLE_SMAP.bits() as u64;
    pub const PKE: u64 = Cr4::CR4_ENABLE_PROTECTION_KEY.bits() as u64;
    // The `x86` crate ends with PKE.
    pub const KL: u64 = 1 << 19;
    pub const CET: u64 = 1 << 23;
    pub const PKS: u64 = 1 << 24;
    pub const UINTR: u64 = 1 << 25;
    pub const LASS: u64 = 1 << 27;
    pub const LAM_SUP: u64 = 1 << 28;
}

/// Bits of IA32_EFER (SDM vol. 4; the `x86` crate has the MSR's number only).
#[expect(missing_docs, reason = "the names are the bits")]
pub mod efer {
    pub const SCE: u64 = 1;
    pub const LME: u64 = 1 << 8;
    pub const LMA: u64 = 1 << 10;
    pub const NXE: u64 = 1 << 11;
}

/// State components that XCR0 switches on: bits of XCR0, and of a TD's XFAM.
#[expect(missing_docs, reason = "the names are the components")]
pub mod xcr0 {
    use super::Xcr0;

    pub const X87: u64 = Xcr0::XCR0_FPU_MMX_STATE.bits();
    pub const SSE: u64 = Xcr0::XCR0_SSE_STATE.bits();
    pub const AVX: u64 = Xcr0::XCR0_AVX_STATE.bits();
    pub const MPX: u64 = Xcr0::XCR0_BNDREG_STATE.bits() | Xcr0::XCR0_BNDCSR_STATE.bits();
    pub const AVX512: u64 =
        Xcr0::XCR0_OPMASK_STATE.bits() | Xcr0::XCR0_ZMM_HI256_STATE.bits() | Xcr0::XCR0_HI16_ZMM_STATE.bits();
    pub const PKRU: u64 = Xcr0::XCR0_PKRU_STATE.bits();
    /// Tile configuration and tile data; the `x86` crate does not have them.
    pub const AMX: u64 = 3 << 17;
}

/// State components that IA32_XSS switches on: bits of IA32_XSS, and of a TD's XFAM (SDM volume 1, "Supervisor state";
/// the `x86` crate does not have them).
#[expect(missing_docs, reason = "the names are the components")]
pub mod xss {
    pub const PT: u64 = 1 << 8;
    /// User and supervisor state.
    pub const CET: u64 = 3 << 11;
    pub const UINTR: u64 = 1 << 14;
    pub const LBR: u64 = 1 << 15;
}

/// Control and extended control registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ControlRegisters {
    /// CR0.
    pub cr0: u64,
    /// CR2: the linear address of the last page fault.
    pub cr2: u64,
    /// CR3, with the PCID where CR4.PCIDE is set.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// CR8: the task priority, 0 to 15.
    pub cr8: u64,
    /// IA32_EFER.
    pub efer: u64,
    /// XCR0.
    pub xcr0: u64,
}

impl Default for ControlRegisters {
    /// Protected mode, paging off, XCR0 as reset leaves it.
    fn default() -> Self {
        Self { cr0: cr0::PE | cr0::NE | cr0::ET, cr2: 0, cr3: 0, cr4: 0, cr8: 0, efer: 0, xcr0: xcr0::X87 }
    }
}
