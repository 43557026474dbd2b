//! Model-specific registers: their numbers (SDM vol. 4), and those that instructions use by themselves.

pub use x86::msr::{
    IA32_APIC_BASE, IA32_BIOS_SIGN_ID, IA32_CSTAR, IA32_DEBUGCTL, IA32_EFER, IA32_FEATURE_CONTROL,
    IA32_FMASK, IA32_FS_BASE, IA32_GS_BASE, IA32_KERNEL_GSBASE, IA32_LSTAR, IA32_MCG_CAP, IA32_MCG_STATUS,
    IA32_MISC_ENABLE, IA32_PAT, IA32_PLATFORM_ID, IA32_STAR, IA32_SYSENTER_CS, IA32_SYSENTER_EIP,
    IA32_SYSENTER_ESP, IA32_TSC_AUX, MSR_PLATFORM_INFO, MSR_POWER_CTL,
};

/// Speculation control; the `x86` crate has no number for it.
pub const IA32_SPEC_CTRL: u32 = 0x48;
/// Which of the optional features of [`MSR_PLATFORM_INFO`] are on; the `x86` crate has no number for it.
pub const MSR_MISC_FEATURES_ENABLES: u32 = 0x140;
/// Supervisor state components; the `x86` crate has no number for it.
pub const IA32_XSS: u32 = 0xDA0;

/// Bits of [`IA32_SPEC_CTRL`].
pub mod spec_ctrl {
    /// Indirect branches are restricted.
    pub const IBRS: u64 = 1 << 0;
    /// Indirect branches do not depend on the other thread.
    pub const STIBP: u64 = 1 << 1;
    /// Loads wait for the addresses of earlier stores.
    pub const SSBD: u64 = 1 << 2;
    /// Indirect predictions are off: IPRED_DIS_U and IPRED_DIS_S.
    pub const IPRED_DIS: u64 = 3 << 3;
    /// The alternate predictor of returns is off: RRSBA_DIS_U and RRSBA_DIS_S.
    pub const RRSBA_DIS: u64 = 3 << 5;
    /// Stores are not forwarded by prediction.
    pub const PSFD: u64 = 1 << 7;
    /// The data-dependent prefetcher is off in user mode.
    pub const DDPD_U: u64 = 1 << 8;
    /// Branch history is not used in supervisor mode.
    pub const BHI_DIS_S: u64 = 1 << 10;
}

/// IA32_PAT after reset.
pub const PAT_RESET: u64 = 0x0007_0406_0007_0406;

/// The MSRs that instructions use by themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names are those of the SDM")]
pub struct Msrs {
    pub star: u64,
    pub lstar: u64,
    /// Readable and writable; no instruction of an Intel processor uses it.
    pub cstar: u64,
    pub fmask: u64,
    pub kernel_gs_base: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub tsc_aux: u64,
    pub pat: u64,
    pub xss: u64,
    pub debugctl: u64,
    pub spec_ctrl: u64,
}

impl Default for Msrs {
    fn default() -> Self {
        Self {
            star: 0,
            lstar: 0,
            cstar: 0,
            fmask: 0,
            kernel_gs_base: 0,
            sysenter_cs: 0,
            sysenter_esp: 0,
            sysenter_eip: 0,
            tsc_aux: 0,
            pat: PAT_RESET,
            xss: 0,
            debugctl: 0,
            spec_ctrl: 0,
        }
    }
}
