//! The server processors that are emulated, and what of one is neither a feature nor the machine's.

use core::fmt;
use core::str::FromStr;

use super::features::{self, Masking, TABLE};

/// A model.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub enum Model {
    /// Fourth-generation Xeon Scalable.
    #[default]
    SapphireRapids,
    /// Xeon 6 with performance cores.
    GraniteRapids,
}

/// Which models have something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Models {
    /// All.
    All,
    /// The later one.
    GraniteRapids,
}

impl Models {
    /// Whether a model is among them.
    pub const fn contain(self, model: Model) -> bool {
        match self {
            Self::All => true,
            Self::GraniteRapids => matches!(model, Model::GraniteRapids),
        }
    }
}

/// A cache, as CPUID leaf 4 describes it. Lines have 64 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cache {
    /// Type (1 data, 2 instructions, 3 both), level and sharing: EAX.
    pub(super) kind: u32,
    /// Ways.
    pub(super) ways: u32,
    /// Sets.
    pub(super) sets: u32,
}

/// IA32_ARCH_CAPABILITIES: the faults that do not afflict these models. RDCL_NO, IBRS_ALL, SKIP_L1DFL_VMENTRY, MDS_NO,
/// IF_PSCHANGE_MC_NO, TAA_NO, SBDR_SSDP_NO, FBSDP_NO, PSDP_NO, PBRSB_NO, GDS_NO, RFDS_NO.
const ARCH_CAPABILITIES: u64 = 1
    | 1 << 1
    | 1 << 3
    | 1 << 5
    | 1 << 6
    | 1 << 8
    | 1 << 13
    | 1 << 14
    | 1 << 15
    | 1 << 24
    | 1 << 26
    | 1 << 27;
/// BHI_NO and ITS_NO.
const ARCH_CAPABILITIES_GRANITE_RAPIDS: u64 = 1 << 20 | 1 << 62;

impl Model {
    /// Every model, the earlier first.
    pub const ALL: [Self; 2] = [Self::SapphireRapids, Self::GraniteRapids];

    /// The name by which users choose it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SapphireRapids => "sapphire-rapids",
            Self::GraniteRapids => "granite-rapids",
        }
    }

    /// CPUID(1).EAX: family, model and stepping.
    pub const fn family_model_stepping(self) -> u32 {
        match self {
            Self::SapphireRapids => 0x806f8,
            Self::GraniteRapids => 0xa06d1,
        }
    }

    /// What leaves 80000002H to 80000004H spell: it does not claim to be the real thing.
    pub(super) const fn brand(self) -> &'static str {
        match self {
            Self::SapphireRapids => "Intel Xeon (Sapphire Rapids), by tdvisor",
            Self::GraniteRapids => "Intel Xeon (Granite Rapids), by tdvisor",
        }
    }

    /// Highest frequency in MHz, as leaf 16H gives it.
    pub(super) const fn max_mhz(self) -> u32 {
        match self {
            Self::SapphireRapids => 3800,
            Self::GraniteRapids => 3900,
        }
    }

    /// The caches, by subleaf of leaf 4.
    pub(super) const fn caches(self) -> [Cache; 4] {
        let data = Cache { kind: 0x0400_0121, ways: 12, sets: 64 };
        let l3 = match self {
            Self::SapphireRapids => Cache { kind: 0x0400_0163, ways: 15, sets: 0x1_c000 },
            Self::GraniteRapids => Cache { kind: 0x0400_0163, ways: 16, sets: 0x7_e000 },
        };
        let instructions = match self {
            Self::SapphireRapids => Cache { kind: 0x0400_0122, ways: 8, sets: 64 },
            Self::GraniteRapids => Cache { kind: 0x0400_0122, ways: 16, sets: 64 },
        };
        [data, instructions, Cache { kind: 0x0400_0143, ways: 16, sets: 2048 }, l3]
    }

    /// IA32_ARCH_CAPABILITIES.
    pub(super) const fn arch_capabilities(self) -> u64 {
        match self {
            Self::SapphireRapids => ARCH_CAPABILITIES,
            Self::GraniteRapids => ARCH_CAPABILITIES | ARCH_CAPABILITIES_GRANITE_RAPIDS,
        }
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no model has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnknownModel;

impl fmt::Display for UnknownModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no processor has this name: choose one of {}", Model::ALL.map(Model::name).join(", "))
    }
}

impl core::error::Error for UnknownModel {}

impl FromStr for Model {
    type Err = UnknownModel;

    fn from_str(name: &str) -> Result<Self, UnknownModel> {
        Self::ALL.into_iter().find(|model| model.name() == name).ok_or(UnknownModel)
    }
}

/// An emulated processor: a model, and which of its features CPUID does not show. Their instructions still run, as they
/// do on a processor whose firmware hides a bit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct EmulatedProcessor {
    /// The model.
    pub model: Model,
    /// One bit for each row of the table.
    masked: [u64; MASK_WORDS],
}

const MASK_WORDS: usize = TABLE.len().div_ceil(64);

impl EmulatedProcessor {
    /// A model with all that is implemented of it.
    pub const fn new(model: Model) -> Self {
        Self { model, masked: [0; MASK_WORDS] }
    }

    /// Without a feature.
    ///
    /// # Errors
    /// [`NotMaskable`] where the processor does not offer the feature, or cannot be without it.
    pub fn without(mut self, name: &str) -> Result<Self, NotMaskable> {
        let (index, feature) = features::named(name).ok_or(NotMaskable::Unknown(self))?;
        if !feature.is_offered(self.model) {
            return Err(NotMaskable::NotOffered(self));
        }
        if feature.masking == Masking::Refused {
            return Err(NotMaskable::Needed(self));
        }
        if let Some(word) = self.masked.get_mut(index / 64) {
            *word |= 1 << (index % 64);
        }
        Ok(self)
    }

    /// The features that CPUID shows.
    pub fn features(self) -> impl Iterator<Item = &'static features::CpuFeature> {
        let is_masked =
            move |index: usize| self.masked.get(index / 64).is_some_and(|word| word >> (index % 64) & 1 != 0);
        TABLE
            .iter()
            .enumerate()
            .filter(move |(index, feature)| feature.is_offered(self.model) && !is_masked(*index))
            .map(|(_, feature)| feature)
    }
}

/// Why a feature is not taken away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotMaskable {
    /// Nothing is called so.
    Unknown(EmulatedProcessor),
    /// The processor does not have it as it is.
    NotOffered(EmulatedProcessor),
    /// Kernels, or the module, are lost without it.
    Needed(EmulatedProcessor),
}

impl fmt::Display for NotMaskable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (why, processor) = match self {
            Self::Unknown(processor) => ("no feature has this name", processor),
            Self::NotOffered(processor) => ("the processor does not offer it", processor),
            Self::Needed(processor) => ("guests and the module need it", processor),
        };
        let names: Vec<_> = processor
            .features()
            .filter(|feature| feature.masking == Masking::Allowed)
            .map(|row| row.feature.name)
            .collect();
        write!(f, "{why}; {} can be without: {}", processor.model, names.join(", "))
    }
}

impl core::error::Error for NotMaskable {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_chosen_by_its_name() {
        for model in Model::ALL {
            assert_eq!(model.name().parse(), Ok(model));
            assert!(model.brand().len() < 48, "the brand string ends with a zero byte");
        }
        let said = "skylake".parse::<Model>().unwrap_err().to_string();
        assert!(said.contains("sapphire-rapids") && said.contains("granite-rapids"), "{said}");
    }

    #[test]
    fn a_feature_is_masked_once_and_what_cannot_be_is_answered_with_a_list() {
        let whole = EmulatedProcessor::default();
        let without = whole.without("rdrand").unwrap();
        let has = |processor: EmulatedProcessor| processor.features().any(|of| of.feature.name == "rdrand");
        assert_eq!([has(whole), has(without)], [true, false]);
        assert!(matches!(without.without("vmx"), Err(NotMaskable::NotOffered(_))));
        for (name, why) in [("x2apic", "need it"), ("rdrnd", "no feature")] {
            let said = whole.without(name).unwrap_err().to_string();
            assert!(said.contains(why) && said.contains("rdseed") && !said.contains("vmx"), "{said}");
        }
    }
}
