//! TD_PARAMS: what a host gives to `TDH.MNG.INIT`.
//!
//! 1024 bytes in shared memory, 1 KiB aligned. Reserved bytes are zero.

mod value;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use value::TdAttributes;

/// EAX, EBX, ECX and EDX of one configured CPUID leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the registers'")]
pub struct CpuidValues {
    pub eax: u32,
    pub ebx: u32,
    pub ecx: u32,
    pub edx: u32,
}

/// The parameters of a TD.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TdParams {
    /// [`attributes`] bits.
    pub attributes: u64,
    /// XCR0 and XSS bits that the TD may use; see [`xfam_is_consistent`].
    pub xfam: u64,
    /// Greatest number of VCPUs; not 0.
    pub max_vcpus: u16,
    /// L2 VMs (TD partitioning): 0 to 3.
    pub num_l2_vms: u8,
    /// Bit 0: `ia32_arch_capabilities_config` is valid.
    pub msr_config_ctls: u8,
    /// Zero.
    pub reserved_20: [u8; 4],
    /// [`eptp`] values.
    pub eptp_controls: u64,
    /// [`config_flags`] bits.
    pub config_flags: u64,
    /// Virtual TSC frequency in units of 25 MHz: 4 to 400.
    pub tsc_frequency: u16,
    /// Zero.
    pub reserved_42: [u8; 38],
    /// Software-defined id of the TD's configuration.
    pub mrconfigid: [u8; 48],
    /// Software-defined id of the TD's owner.
    pub mrowner: [u8; 48],
    /// Software-defined configuration of the owner.
    pub mrownerconfig: [u8; 48],
    /// Virtual IA32_ARCH_CAPABILITIES bits, where `msr_config_ctls` says so.
    pub ia32_arch_capabilities_config: u64,
    /// Zero.
    pub reserved_232: [u8; 24],
    /// One entry per configurable CPUID leaf, in the order of [`crate::metadata::cpuid::CpuidTable`]; the rest is
    /// zero.
    pub cpuid_config: [CpuidValues; 48],
}

const _: () = assert!(size_of::<TdParams>() == 1024);

impl TdParams {
    /// The alignment in bytes that `TDH.MNG.INIT` demands of the structure's address.
    pub const ALIGN: u64 = 1024;

    /// All bytes zero: a start for filling in, not yet valid.
    pub const ZERO: Self = Self {
        attributes: 0,
        xfam: 0,
        max_vcpus: 0,
        num_l2_vms: 0,
        msr_config_ctls: 0,
        reserved_20: [0; 4],
        eptp_controls: 0,
        config_flags: 0,
        tsc_frequency: 0,
        reserved_42: [0; 38],
        mrconfigid: [0; 48],
        mrowner: [0; 48],
        mrownerconfig: [0; 48],
        ia32_arch_capabilities_config: 0,
        reserved_232: [0; 24],
        cpuid_config: [CpuidValues { eax: 0, ebx: 0, ecx: 0, edx: 0 }; 48],
    };
}

/// Bits of `msr_config_ctls`.
pub mod msr_config_ctls {
    /// `ia32_arch_capabilities_config` is valid.
    pub const IA32_ARCH_CAPABILITIES: u8 = 1 << 0;
}

/// Bits of ATTRIBUTES; [`TdAttributes`] is the value.
pub mod attributes {
    /// The host may read and write the TD's memory and state.
    pub const DEBUG: u64 = 1 << 0;
    /// Newer modules: HGS+ profiling.
    pub const HGS_PLUS_PROF: u64 = 1 << 4;
    /// Newer modules: performance profiling.
    pub const PERF_PROF: u64 = 1 << 5;
    /// Newer modules: PMT profiling.
    pub const PMT_PROF: u64 = 1 << 6;
    /// Newer modules: ICSSD.
    pub const ICSSD: u64 = 1 << 16;
    /// Newer modules: extended service-TD features.
    pub const SERVTD_EXT: u64 = 1 << 17;
    /// Newer modules: linear address space separation.
    pub const LASS: u64 = 1 << 27;
    /// Touching a pending page exits to the host instead of raising #VE in the guest.
    pub const SEPT_VE_DISABLE: u64 = 1 << 28;
    /// The TD can be migrated; excludes DEBUG, PERFMON and L2 VMs.
    pub const MIGRATABLE: u64 = 1 << 29;
    /// The guest may use supervisor protection keys.
    pub const PKS: u64 = 1 << 30;
    /// Key locker; no module supports it.
    pub const KL: u64 = 1 << 31;
    /// Newer modules: TDX provisioning agent.
    pub const TPA: u64 = 1 << 62;
    /// The guest may use performance counters.
    pub const PERFMON: u64 = 1 << 63;
    /// What module 1.5.01 lets a TD set: SYS field ATTRIBUTES_FIXED0.
    pub const FIXED0_1_5_01: u64 = DEBUG | SEPT_VE_DISABLE | MIGRATABLE | PKS | PERFMON;
}

/// XFAM as module 1.5.01 restricts it, before the processor's own limits.
pub mod xfam {
    use x86_arch::xcr0;

    /// Bits that may be set.
    pub const FIXED0_1_5_01: u64 = 0x6_dbe7;
    /// Bits that must be set: x87 and SSE.
    pub const FIXED1: u64 = xcr0::X87 | xcr0::SSE;
}

/// Values of EPTP_CONTROLS: write-back tables, no accessed and dirty bits.
pub mod eptp {
    /// Four-level Secure EPT: guest addresses of 48 bits.
    pub const LEVELS_4: u64 = 0x1e;
    /// Five-level Secure EPT: guest addresses of 52 bits, if CONFIG_FLAGS.GPAW is set too.
    pub const LEVELS_5: u64 = 0x26;
}

/// Bits of CONFIG_FLAGS.
pub mod config_flags {
    /// Guest-physical addresses have 52 bits; needs a five-level Secure EPT.
    pub const GPAW: u64 = 1 << 0;
    /// The guest may change whether pending pages raise #VE.
    pub const FLEXIBLE_PENDING_VE: u64 = 1 << 1;
    /// TDG.VP.VMCALL may not expose RBP, and VP.ENTER preserves the host's.
    pub const NO_RBP_MOD: u64 = 1 << 2;
    /// Newer modules: MAXPA is virtualised.
    pub const MAXPA_VIRT: u64 = 1 << 3;
    /// Newer modules: MAXGPA is virtualised.
    pub const MAXGPA_VIRT: u64 = 1 << 4;
    /// Newer modules: TDX Connect.
    pub const TDX_CONNECT: u64 = 1 << 5;
    /// Newer modules: the guest may release pages.
    pub const PAGE_RELEASE: u64 = 1 << 6;
}

/// Whether an XFAM value obeys the rules between its bits: x87 and SSE are set, AVX-512 comes as a whole and
/// with AVX, CET as user and supervisor, AMX as configuration and data, and MPX is absent.
pub const fn xfam_is_consistent(xfam: u64) -> bool {
    const fn all_or_none(xfam: u64, mask: u64) -> bool {
        xfam & mask == 0 || xfam & mask == mask
    }
    use x86_arch::xcr0::{AMX, AVX, AVX512, MPX};
    use x86_arch::xss::CET;

    xfam & xfam::FIXED1 == xfam::FIXED1
        && xfam & MPX == 0
        && all_or_none(xfam, AVX512)
        && (xfam & AVX512 == 0 || xfam & AVX != 0)
        && all_or_none(xfam, CET)
        && all_or_none(xfam, AMX)
}

#[cfg(test)]
mod tests {
    use core::mem::offset_of;

    use super::*;

    #[test]
    fn the_fields_are_at_the_offsets_of_the_abi() {
        assert_eq!(offset_of!(TdParams, max_vcpus), 16);
        assert_eq!(offset_of!(TdParams, num_l2_vms), 18);
        assert_eq!(offset_of!(TdParams, msr_config_ctls), 19);
        assert_eq!(offset_of!(TdParams, eptp_controls), 24);
        assert_eq!(offset_of!(TdParams, config_flags), 32);
        assert_eq!(offset_of!(TdParams, tsc_frequency), 40);
        assert_eq!(offset_of!(TdParams, mrconfigid), 80);
        assert_eq!(offset_of!(TdParams, mrowner), 128);
        assert_eq!(offset_of!(TdParams, mrownerconfig), 176);
        assert_eq!(offset_of!(TdParams, ia32_arch_capabilities_config), 224);
        assert_eq!(offset_of!(TdParams, cpuid_config), 256);
    }

    #[test]
    fn xfam_combinations_are_accepted_only_as_wholes() {
        assert!(xfam_is_consistent(0x3));
        assert!(xfam_is_consistent(0xe7));
        assert!(!xfam_is_consistent(0x1), "SSE is mandatory");
        assert!(!xfam_is_consistent(0x27), "AVX-512 is three bits");
        assert!(!xfam_is_consistent(0xe3), "AVX-512 needs AVX");
        assert!(!xfam_is_consistent(0x803), "CET is two bits");
        assert!(!xfam_is_consistent(0x20003), "AMX is two bits");
        assert!(!xfam_is_consistent(0xb), "no MPX");
    }
}
