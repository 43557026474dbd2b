//! Version numbers of the releases that are emulated.

use crate::config::ModuleProfile;

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
}

impl ModuleVersion {
    /// The release that a profile emulates.
    pub const fn of(profile: ModuleProfile) -> Self {
        match profile {
            ModuleProfile::V1_5_01 => {
                Self { major: 1, minor: 5, update: 1, build_num: 0, build_date: 0x2023_0323 }
            }
            ModuleProfile::V1_5_05 => {
                Self { major: 1, minor: 5, update: 5, build_num: 0, build_date: 0x2024_0407 }
            }
            ModuleProfile::V1_5Late => {
                Self { major: 1, minor: 5, update: 28, build_num: 972, build_date: 0x2025_1101 }
            }
            ModuleProfile::V2_0 => {
                Self { major: 2, minor: 0, update: 8, build_num: 0, build_date: 0x2025_1101 }
            }
        }
    }
}
