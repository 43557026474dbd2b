//! What the owner of a CPU keeps for itself, and what the CPU offers.

use x86_arch::{cr4, xcr0};

/// What the owner keeps for itself, and what the CPU it presents can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Controls {
    /// Bits of CR0 that the owner owns: reads see `cr0_shadow`, a write that would change one exits.
    pub cr0_owned: u64,
    /// What the guest reads in the owned bits of CR0.
    pub cr0_shadow: u64,
    /// Bits of CR4 that the owner owns.
    pub cr4_owned: u64,
    /// What the guest reads in the owned bits of CR4.
    pub cr4_shadow: u64,
    /// Bits of CR4 that may be set; a write of any other is #GP(0).
    pub cr4_supported: u64,
    /// Bits of XCR0 that may be set.
    pub xcr0_supported: u64,
    /// Physical-address width: bits at and above it are reserved in paging structures and CR3.
    pub physical_bits: u8,
    /// MOV to CR3 exits.
    pub intercept_cr3_write: bool,
    /// MOV to CR8 exits.
    pub intercept_cr8_write: bool,
    /// MOV from CR8 exits.
    pub intercept_cr8_read: bool,
    /// MOV to and from debug registers exits.
    pub intercept_dr: bool,
    /// PAUSE exits.
    pub intercept_pause: bool,
    /// Exit as soon as an external interrupt can be taken.
    pub interrupt_window: bool,
    /// Exit as soon as an NMI can be taken.
    pub nmi_window: bool,
}

impl Default for Controls {
    fn default() -> Self {
        use cr4::*;
        Self {
            cr0_owned: 0,
            cr0_shadow: 0,
            cr4_owned: 0,
            cr4_shadow: 0,
            cr4_supported: VME
                | PVI
                | TSD
                | DE
                | PSE
                | PAE
                | MCE
                | PGE
                | PCE
                | OSFXSR
                | OSXMMEXCPT
                | UMIP
                | LA57
                | FSGSBASE
                | PCIDE
                | OSXSAVE
                | SMEP
                | SMAP
                | PKE,
            xcr0_supported: xcr0::X87 | xcr0::SSE | xcr0::AVX | xcr0::PKRU,
            physical_bits: 52,
            intercept_cr3_write: false,
            intercept_cr8_write: false,
            intercept_cr8_read: false,
            intercept_dr: false,
            intercept_pause: false,
            interrupt_window: false,
            nmi_window: false,
        }
    }
}
