//! What machine is emulated: its memory, its processors, and the release of the TDX module that it runs.

use core::fmt;
use core::ops::RangeInclusive;
use core::str::FromStr;

use tdx_module_iface::Release;

use crate::fidelity::Backing;
use crate::processor::Processor;
use crate::rules::Rules;

/// Which release of the module answers. Everything that differs between releases asks this and nothing else.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub enum ModuleProfile {
    /// Release 1.5.01, as recorded.
    V1_5_01,
    /// Release 1.5.05, as recorded.
    #[default]
    V1_5_05,
    /// A late 1.5 release, by rule: TDH.MEM.PAGE.DEMOTE is not interrupted by external interrupts.
    V1_5Late,
    /// Release 2.0, by rule: as late 1.5, and the 4 KiB part of the PAMT is given and taken at run time.
    V2_0,
}

impl ModuleProfile {
    /// Every profile, by release.
    pub const ALL: [Self; 4] = [Self::V1_5_01, Self::V1_5_05, Self::V1_5Late, Self::V2_0];

    /// The name by which users choose it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V1_5_01 => "1.5.01",
            Self::V1_5_05 => "1.5.05",
            Self::V1_5Late => "1.5-late",
            Self::V2_0 => "2.0",
        }
    }

    /// What the profile rests on: recordings of the release, or its published rules.
    pub const fn backing(self) -> Backing {
        match self {
            Self::V1_5_01 | Self::V1_5_05 => Backing::Recording,
            Self::V1_5Late | Self::V2_0 => Backing::Rule,
        }
    }

    /// The release whose ABI tables hold.
    pub const fn release(self) -> Release {
        match self {
            Self::V1_5_01 => Release::V1_5_01,
            Self::V1_5_05 => Release::V1_5_05,
            Self::V1_5Late => Release::V1_5Late,
            Self::V2_0 => Release::V2_0,
        }
    }

    /// What this release does differently from others.
    pub const fn rules(self) -> &'static Rules {
        Rules::of(self)
    }

    /// Whether PAMT pages of 4 KiB entries are added and removed by TDH.PHYMEM.PAMT.ADD and .REMOVE.
    pub const fn has_dynamic_pamt(self) -> bool {
        self.rules().dynamic_pamt.is_present()
    }
}

impl fmt::Display for ModuleProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no profile has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnknownProfile;

impl fmt::Display for UnknownProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = ModuleProfile::ALL.map(ModuleProfile::name).join(", ");
        write!(f, "no module profile has this name: choose one of {names}")
    }
}

impl core::error::Error for UnknownProfile {}

impl FromStr for ModuleProfile {
    type Err = UnknownProfile;

    fn from_str(name: &str) -> Result<Self, UnknownProfile> {
        Self::ALL.into_iter().find(|profile| profile.name() == name).ok_or(UnknownProfile)
    }
}

/// A convertible memory range: memory that the platform vouches for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cmr {
    /// First byte.
    pub base: u64,
    /// Bytes.
    pub size: u64,
}

/// The memory that the module itself lives in; the host may not name it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SeamRange {
    /// First byte.
    pub base: u64,
    /// Bytes.
    pub size: u64,
}

/// Where the machine's time-stamp counter comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TscSource {
    /// A counter that moves only when a guest runs or somebody advances it: runs repeat exactly.
    #[default]
    Virtual,
    /// The clock of the process, scaled to `tsc_hz`.
    Host,
}

/// Which feature bits TD attributes and XFAM may and must have: a bit clear in `fixed0` must be 0, a bit set
/// in `fixed1` must be 1 (Intel 348551, TDSYSINFO_STRUCT).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FixedBits {
    /// Bits that may be 1.
    pub fixed0: u64,
    /// Bits that must be 1.
    pub fixed1: u64,
}

impl FixedBits {
    /// Whether a value obeys both masks.
    pub const fn allows(self, value: u64) -> bool {
        value & !self.fixed0 == 0 && value & self.fixed1 == self.fixed1
    }
}

/// Everything that a [`crate::Machine`] is made from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MachineConfig {
    /// Which feature bits the module presents.
    pub features: crate::features::FeatureSet,
    /// Physical-address width in bits, key-id bits included.
    pub max_pa: u32,
    /// The lowest bit of the key id in a physical address; key ids fill the bits up to `max_pa`.
    pub hkid_start_bit: u32,
    /// The private key ids.
    pub private_hkids: RangeInclusive<u16>,
    /// The package of each logical processor; its length is the number of logical processors.
    pub lp_packages: Vec<u32>,
    /// Bytes of memory, from address zero.
    pub phys_mem_bytes: u64,
    /// Convertible memory, ascending.
    pub cmrs: Vec<Cmr>,
    /// The module's own memory.
    pub seam_range: SeamRange,
    /// Supported bits of TD ATTRIBUTES.
    pub attributes: FixedBits,
    /// Supported bits of XFAM.
    pub xfam: FixedBits,
    /// The processor that the module runs on.
    pub processor: Processor,
    /// CPUID(1).EAX of the processor.
    pub cpuid_fms: u32,
    /// Frequency of the time-stamp counter.
    pub tsc_hz: u64,
    /// Where the time-stamp counter comes from.
    pub tsc_source: TscSource,
    /// How far a guest's instruction moves a virtual time-stamp counter.
    pub tsc_ticks_per_instruction: u64,
    /// After how many steps TDH.PHYMEM.CACHE.WB looks for a pending interrupt, per package.
    pub wbinvd_sub_blocks: u32,
    /// Pages that the module asks for to hand itself over to a successor.
    pub num_handoff_pages: u16,
    /// The release of the module.
    pub profile: ModuleProfile,
}

impl MachineConfig {
    /// The rules of the module on this machine.
    pub const fn rules(&self) -> Rules {
        Rules::on_machine(self.profile, self.features)
    }

    /// A small server: two logical processors in one package, 2 GiB of memory of which the upper half is
    /// convertible, 32 private keys.
    pub fn small() -> Self {
        Self {
            features: crate::features::FeatureSet::Offered,
            max_pa: 52,
            hkid_start_bit: 46,
            private_hkids: 32..=63,
            lp_packages: vec![0, 0],
            phys_mem_bytes: 4 << 30,
            cmrs: vec![Cmr { base: 1 << 30, size: 3 << 30 }],
            seam_range: SeamRange { base: 0x3000_0000, size: 0x200_0000 },
            attributes: FixedBits { fixed0: 0x8000_0000_7000_0001, fixed1: 0 },
            xfam: FixedBits { fixed0: 0x6_9be7, fixed1: 3 },
            processor: Processor::default(),
            cpuid_fms: 0x806f8,
            tsc_hz: 2_000_000_000,
            tsc_source: TscSource::Virtual,
            tsc_ticks_per_instruction: 1,
            wbinvd_sub_blocks: 4,
            num_handoff_pages: 0,
            profile: ModuleProfile::default(),
        }
    }

    /// Number of packages: one more than the highest package number.
    pub fn num_packages(&self) -> u32 {
        self.lp_packages.iter().max().map_or(0, |max| max.saturating_add(1))
    }

    /// The bits of a physical address that hold the key id.
    pub const fn hkid_mask(&self) -> u64 {
        mask_below(self.max_pa) & !mask_below(self.hkid_start_bit)
    }

    /// The key id in a physical address.
    pub const fn hkid_of(&self, pa: u64) -> u16 {
        ((pa & self.hkid_mask()) >> if self.hkid_start_bit < 64 { self.hkid_start_bit } else { 63 }) as u16
    }

    /// The configuration as the module presents it: where only what is emulated is offered, without the bits of
    /// ATTRIBUTES and XFAM that are not.
    #[must_use]
    pub fn presented(mut self) -> Self {
        use crate::features::{FeatureSet, Word};

        if self.features != FeatureSet::Recorded {
            let release = self.profile.release();
            self.attributes.fixed0 &= self.features.bits(Word::Attributes, release);
            self.xfam.fixed0 &= self.features.bits(Word::Xfam, release);
        }
        self
    }
}

/// Ones below bit `bit`; all ones from 64 on.
const fn mask_below(bit: u32) -> u64 {
    if bit >= 64 { u64::MAX } else { (1 << bit) - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_id_of_an_address_is_what_stands_in_its_upper_bits() {
        let config = MachineConfig::small();
        assert_eq!(config.hkid_mask(), 0x3f << 46);
        assert_eq!(config.hkid_of(33 << 46 | 0x1234_5000), 33);
        assert_eq!(config.num_packages(), 1);
    }

    #[test]
    fn a_profile_is_chosen_by_its_name_and_a_wrong_name_is_answered_with_the_list() {
        for profile in ModuleProfile::ALL {
            assert_eq!(profile.name().parse(), Ok(profile));
        }
        let said = "1.5".parse::<ModuleProfile>().unwrap_err().to_string();
        assert!(ModuleProfile::ALL.iter().all(|profile| said.contains(profile.name())), "{said}");
    }

    #[test]
    fn fixed_bits_refuse_what_is_not_supported_and_what_is_missing() {
        let xfam = FixedBits { fixed0: 0xe7, fixed1: 3 };
        assert!(xfam.allows(7));
        assert!(!xfam.allows(4), "bits 0 and 1 are mandatory");
        assert!(!xfam.allows(0xf), "bit 3 is not supported");
    }
}
