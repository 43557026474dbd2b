//! Version numbers and feature words of the releases that are emulated.

use tdx_module_iface::tdsysinfo::tdx_features0;

use crate::config::ModuleProfile;

/// TDX_FEATURES0 bit 36: the 4 KiB part of the PAMT is given and taken at run time (Linux, TDX host code).
pub const FEATURE_DYNAMIC_PAMT: u64 = 1 << 36;
/// TDX_FEATURES0 bit 51: DEMOTE does not stop for interrupts (Linux, TDX huge-page series).
pub const FEATURE_ENHANCED_DEMOTE: u64 = 1 << 51;

/// Which release answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ModuleVersion {
    /// Major version.
    pub major: u16,
    /// Minor version.
    pub minor: u16,
    /// Update version.
    pub update: u16,
    /// Build number.
    pub build_num: u16,
    /// Build date, BCD yyyymmdd.
    pub build_date: u32,
    /// TDX_FEATURES0.
    pub features0: u64,
}

impl ModuleVersion {
    /// The release that a profile emulates.
    pub const fn of(profile: ModuleProfile) -> Self {
        match profile {
            ModuleProfile::V1_5_01 => Self {
                major: 1,
                minor: 5,
                update: 1,
                build_num: 0,
                build_date: 0x2023_0323,
                features0: tdx_features0::MODULE_1_5_01,
            },
            ModuleProfile::V1_5_05 => Self {
                major: 1,
                minor: 5,
                update: 5,
                build_num: 0,
                build_date: 0x2024_0407,
                features0: tdx_features0::MODULE_1_5_01 | tdx_features0::TOPOLOGY_ENUM,
            },
            ModuleProfile::V1_5Late => Self {
                major: 1,
                minor: 5,
                update: 28,
                build_num: 972,
                build_date: 0x2025_1101,
                features0: 0x22_6f3f_0fbf | FEATURE_ENHANCED_DEMOTE,
            },
            ModuleProfile::V2_0 => Self {
                major: 2,
                minor: 0,
                update: 8,
                build_num: 0,
                build_date: 0x2025_1101,
                features0: 0x32_a71f_0fbf | FEATURE_ENHANCED_DEMOTE,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use tdx_module_iface::TdhLeaf;
    use tdx_module_iface::leaf::Interruption;

    use super::*;

    #[test]
    fn a_profile_announces_what_it_does() {
        for profile in
            [ModuleProfile::V1_5_01, ModuleProfile::V1_5_05, ModuleProfile::V1_5Late, ModuleProfile::V2_0]
        {
            let features = ModuleVersion::of(profile).features0;
            assert_eq!(features & FEATURE_DYNAMIC_PAMT != 0, profile.has_dynamic_pamt(), "{profile:?}");
            assert_eq!(
                features & FEATURE_ENHANCED_DEMOTE == 0,
                TdhLeaf::MEM_PAGE_DEMOTE.info().unwrap().interruption_in(profile.release())
                    != Interruption::Never,
                "{profile:?}"
            );
        }
    }
}
