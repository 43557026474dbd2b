//! What the module says about itself and the platform: versions, feature words, limits, TDHSYSINFO.
//!
//! The same facts appear as fields of SYS.RD ([`crate::metadata::sys`]) and as the structures of SYS.INFO.

mod version;

use tdx_module_iface::metadata::cpuid::{CpuidLeaf, CpuidRegs};
use tdx_module_iface::td_params;
use tdx_module_iface::tdsysinfo::{CpuidConfigEntry, MAX_CPUID_CONFIG, TdhSysInfo, VENDOR_INTEL};
use zerocopy::FromZeros;

use crate::config::MachineConfig;
use crate::rules::ReportedCpuid;
pub use version::ModuleVersion;

/// Most TDMRs.
pub const MAX_TDMRS: u16 = 64;
/// Most reserved areas of a TDMR.
pub const MAX_RESERVED_PER_TDMR: u16 = 16;
/// Bytes of a PAMT entry of any level.
pub const PAMT_ENTRY_SIZE: u16 = 16;
/// Most convertible memory ranges; SYS.RD's NUM_CMRS gives this number and not that of valid ones (recorded).
pub const MAX_CMRS: usize = 32;
/// Bytes of a TDCS without L2 VMs.
pub const TDCS_BASE_SIZE: u16 = 0x6000;
/// Bytes that each L2 VM adds to a TDCS.
pub const TDCS_SIZE_PER_L2_VM: u16 = 0x1000;
/// Bytes of a TDVPS without L2 VMs.
pub const TDVPS_BASE_SIZE: u16 = 0x6000;
/// Bytes that each L2 VM adds to a TDVPS.
pub const TDVPS_SIZE_PER_L2_VM: u16 = 0x3000;
/// CONFIG_FLAGS bits that this release lets a TD set.
pub const CONFIG_FLAGS_FIXED0: u64 = td_params::config_flags::GPAW
    | td_params::config_flags::FLEXIBLE_PENDING_VE
    | td_params::config_flags::NO_RBP_MOD;

/// The structure that SYS.INFO writes.
pub fn tdhsysinfo(config: &MachineConfig) -> TdhSysInfo {
    let version = ModuleVersion::of(config.profile);
    let mut cpuid_config = [CpuidConfigEntry::default(); MAX_CPUID_CONFIG];
    for (place, slot) in cpuid_config.iter_mut().enumerate() {
        if let Some((leaf, [eax, ebx, ecx, edx])) = cpuid_config_entry(config, place) {
            let subleaf = leaf.subleaf.unwrap_or(u32::MAX);
            *slot = CpuidConfigEntry { leaf: leaf.leaf, subleaf, eax, ebx, ecx, edx };
        }
    }
    TdhSysInfo {
        vendor_id: VENDOR_INTEL,
        build_date: version.build_date,
        build_num: version.build_num,
        minor_version: version.minor,
        major_version: version.major,
        sys_rd: 1,
        max_tdmrs: MAX_TDMRS,
        max_reserved_per_tdmr: MAX_RESERVED_PER_TDMR,
        pamt_entry_size: PAMT_ENTRY_SIZE,
        tdcs_base_size: TDCS_BASE_SIZE,
        tdvps_base_size: TDVPS_BASE_SIZE,
        attributes_fixed0: config.attributes.fixed0,
        attributes_fixed1: config.attributes.fixed1,
        xfam_fixed0: config.xfam.fixed0,
        xfam_fixed1: config.xfam.fixed1,
        num_cpuid_config: config.profile.rules().cpuid.num_configurable() as u32,
        cpuid_config,
        ..TdhSysInfo::new_zeroed()
    }
}

/// The leaf at a place of TD_PARAMS.CPUID_CONFIG, and what a host is told that it may configure of it.
pub fn cpuid_config_entry(config: &MachineConfig, place: usize) -> Option<(&'static CpuidLeaf, CpuidRegs)> {
    let rules = config.profile.rules();
    let leaf = rules.cpuid.configured(place)?;
    let settable = match rules.reported_cpuid {
        ReportedCpuid::Configurable => leaf.settable(),
        ReportedCpuid::ConfigurableAndNative => {
            let native: CpuidRegs = config.native_cpuid(leaf.leaf, leaf.subleaf.unwrap_or(0)).into();
            let columns = leaf.given.iter().zip(leaf.allowed.iter().zip(native));
            let mut bits = [0; 4];
            for (slot, (given, (allowed, native))) in bits.iter_mut().zip(columns) {
                *slot = given | allowed & native;
            }
            bits
        }
    };
    Some((leaf, settable))
}

/// The CMR table that SYS.INFO writes: base and size of 32 ranges, unused ones zero.
pub fn cmr_table(config: &MachineConfig) -> [u8; MAX_CMRS * 16] {
    let mut table = [0; MAX_CMRS * 16];
    for (slot, cmr) in table.chunks_exact_mut(16).zip(&config.cmrs) {
        let (base, size) = slot.split_at_mut(8);
        base.copy_from_slice(&cmr.base.to_le_bytes());
        size.copy_from_slice(&cmr.size.to_le_bytes());
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ModuleProfile;

    #[test]
    fn the_cpuid_list_has_the_entries_of_td_params_in_its_order() {
        let config = MachineConfig { profile: ModuleProfile::V1_5_01, ..MachineConfig::small() };
        let info = tdhsysinfo(&config);
        assert_eq!(info.num_cpuid_config, 12);
        assert_eq!((info.cpuid_config[0].leaf, info.cpuid_config[0].subleaf), (1, u32::MAX));
        assert_eq!((info.cpuid_config[4].leaf, info.cpuid_config[4].subleaf), (4, 3));
        assert_eq!(info.cpuid_config[12], CpuidConfigEntry::default());
    }

    #[test]
    fn unused_cmrs_are_zero() {
        let config = MachineConfig::small();
        let table = cmr_table(&config);
        assert_eq!(table[..8], config.cmrs[0].base.to_le_bytes());
        assert!(table[16 * config.cmrs.len()..].iter().all(|byte| *byte == 0));
    }
}
