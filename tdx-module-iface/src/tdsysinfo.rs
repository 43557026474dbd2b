//! TDHSYSINFO: what `TDH.SYS.INFO` writes, 1024 bytes at a 1 KiB aligned address.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A CPUID leaf that TD_PARAMS can configure, and which of its bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CpuidConfigEntry {
    /// Leaf number.
    pub leaf: u32,
    /// Subleaf number; all-ones where the leaf has none.
    pub subleaf: u32,
    /// Configurable bits of EAX.
    pub eax: u32,
    /// Configurable bits of EBX.
    pub ebx: u32,
    /// Configurable bits of ECX.
    pub ecx: u32,
    /// Configurable bits of EDX.
    pub edx: u32,
}

/// Entries of the CPUID list that fit into the structure.
pub const MAX_CPUID_CONFIG: usize = 37;

/// Capabilities of the module.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TdhSysInfo {
    /// Bit 31: a debug module.
    pub attributes: u32,
    /// PCI vendor id: [`VENDOR_INTEL`].
    pub vendor_id: u32,
    /// Build date as BCD yyyymmdd.
    pub build_date: u32,
    /// Build number.
    pub build_num: u16,
    /// Minor version.
    pub minor_version: u16,
    /// Major version.
    pub major_version: u16,
    /// 1 where `TDH.SYS.RD` exists.
    pub sys_rd: u8,
    /// Zero.
    pub reserved_19: [u8; 13],
    /// Most TDMRs.
    pub max_tdmrs: u16,
    /// Most reserved areas of a TDMR.
    pub max_reserved_per_tdmr: u16,
    /// Bytes of a PAMT entry.
    pub pamt_entry_size: u16,
    /// Zero.
    pub reserved_38: [u8; 10],
    /// Bytes of the control structure of a TD without L2 VMs.
    pub tdcs_base_size: u16,
    /// Zero.
    pub reserved_50: [u8; 2],
    /// Bytes of the control structure of a VCPU without L2 VMs.
    pub tdvps_base_size: u16,
    /// 1 where the VCPU structure's size depends on XFAM.
    pub tdvps_xfam_dependent_size: u8,
    /// Zero.
    pub reserved_55: [u8; 9],
    /// TD ATTRIBUTES bits that may be one.
    pub attributes_fixed0: u64,
    /// TD ATTRIBUTES bits that must be one.
    pub attributes_fixed1: u64,
    /// XFAM bits that may be one.
    pub xfam_fixed0: u64,
    /// XFAM bits that must be one.
    pub xfam_fixed1: u64,
    /// Zero.
    pub reserved_96: [u8; 32],
    /// Valid entries of `cpuid_config`.
    pub num_cpuid_config: u32,
    /// Configurable CPUID leaves.
    pub cpuid_config: [CpuidConfigEntry; MAX_CPUID_CONFIG],
    /// Zero.
    pub reserved_1020: [u8; 4],
}

const _: () = assert!(size_of::<TdhSysInfo>() == 1024);

/// The vendor id of Intel's module.
pub const VENDOR_INTEL: u32 = 0x8086;

impl TdhSysInfo {
    /// The alignment in bytes that `TDH.SYS.INFO` demands of the structure's address.
    pub const ALIGN: u64 = 1024;
}

/// Bits of SYS field TDX_FEATURES0.
pub mod tdx_features0 {
    #![expect(missing_docs, reason = "the names are the features'")]
    pub const TD_MIGRATION: u64 = 1 << 0;
    pub const TD_PRESERVING_UPDATE: u64 = 1 << 1;
    pub const SERVICE_TD: u64 = 1 << 2;
    pub const TDG_VP_RDWR: u64 = 1 << 3;
    pub const RELAXED_MEM_MNG_CONCURRENCY: u64 = 1 << 4;
    pub const CPUID_VIRT_GUEST_CTRL: u64 = 1 << 5;
    pub const TD_PARTITIONING: u64 = 1 << 7;
    pub const LOCAL_ATTESTATION: u64 = 1 << 8;
    pub const TD_ENTRY_ENHANCEMENTS: u64 = 1 << 9;
    pub const HOST_PRIORITY_LOCKS: u64 = 1 << 10;
    pub const CONFIG_IA32_ARCH_CAPABILITIES: u64 = 1 << 11;
    pub const PENDING_EPT_VIOLATION_V2: u64 = 1 << 16;
    pub const FMS_CONFIG: u64 = 1 << 17;
    pub const NO_RBP_MOD: u64 = 1 << 18;
    pub const L2_TLB_INVD_OPT: u64 = 1 << 19;
    /// Later releases.
    pub const TOPOLOGY_ENUM: u64 = 1 << 20;
    /// Release 2.0 (Linux, TDX host code).
    pub const DYNAMIC_PAMT: u64 = 1 << 36;
    /// The value of module 1.5.01.
    pub const MODULE_1_5_01: u64 = 0xf_0fbf;
}

#[cfg(test)]
mod tests {
    use core::mem::offset_of;

    use super::*;

    #[test]
    fn the_fields_are_at_the_offsets_of_the_abi() {
        assert_eq!(offset_of!(TdhSysInfo, build_num), 12);
        assert_eq!(offset_of!(TdhSysInfo, sys_rd), 18);
        assert_eq!(offset_of!(TdhSysInfo, max_tdmrs), 32);
        assert_eq!(offset_of!(TdhSysInfo, pamt_entry_size), 36);
        assert_eq!(offset_of!(TdhSysInfo, tdcs_base_size), 48);
        assert_eq!(offset_of!(TdhSysInfo, tdvps_base_size), 52);
        assert_eq!(offset_of!(TdhSysInfo, tdvps_xfam_dependent_size), 54);
        assert_eq!(offset_of!(TdhSysInfo, attributes_fixed0), 64);
        assert_eq!(offset_of!(TdhSysInfo, xfam_fixed1), 88);
        assert_eq!(offset_of!(TdhSysInfo, num_cpuid_config), 128);
        assert_eq!(offset_of!(TdhSysInfo, cpuid_config), 132);
    }
}
