//! Feature bits: what a release announces, and what of it is offered here.
//!
//! Two sets for each word. *Recorded* is what the release itself announces, and what a replay of its recordings
//! presents. *Offered* is the recorded set without the bits whose behaviour is absent, and what everything that runs
//! a guest presents: a guest or host that sees a bit finds the behaviour.
//!
//! [`TABLE`] has one row a bit. A test has one probe for each offered bit, which fails when the code behind the bit
//! is removed, and refuses an offered bit without a probe.

#[cfg(test)]
mod probes;
mod table;

use tdx_module_iface::Release;

pub use table::{TABLE, TD_PARTITIONING};

/// Which bits a machine presents.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub enum FeatureSet {
    /// What the release announces, whether it is emulated or not.
    Recorded,
    /// What is emulated of it.
    #[default]
    Offered,
    /// What is emulated, and TD partitioning: an L2 VM for which L1 wants controls that the emulated processor does not apply
    /// stops, and says so.
    Partitioned,
}

/// A word of feature bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Word {
    /// SYS field TDX_FEATURES0.
    Features0,
    /// ATTRIBUTES that a TD may have.
    Attributes,
    /// XFAM bits that a TD may have.
    Xfam,
    /// CONFIG_FLAGS that a TD may have.
    ConfigFlags,
    /// TD_CTLS that a guest may write.
    TdCtls,
}

impl Word {
    /// Every word.
    pub const ALL: [Self; 5] =
        [Self::Features0, Self::Attributes, Self::Xfam, Self::ConfigFlags, Self::TdCtls];

    /// The name that the ABI gives to the word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Features0 => "TDX_FEATURES0",
            Self::Attributes => "ATTRIBUTES",
            Self::Xfam => "XFAM",
            Self::ConfigFlags => "CONFIG_FLAGS",
            Self::TdCtls => "TD_CTLS",
        }
    }
}

/// One bit of one word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Feature {
    /// The word.
    pub word: Word,
    /// The bit's number.
    pub bit: u8,
    /// The feature's name.
    pub name: &'static str,
    /// The first release that announces it.
    pub since: Release,
    /// Why the bit is not offered; `None`: its behaviour is there.
    pub absent: Option<&'static str>,
}

impl Feature {
    /// The bit as a mask.
    pub const fn mask(&self) -> u64 {
        1 << self.bit
    }

    /// Whether the set of a release has the bit.
    pub const fn is_in(&self, set: FeatureSet, release: Release) -> bool {
        release.is_from(self.since)
            && match set {
                FeatureSet::Recorded => true,
                FeatureSet::Offered => self.absent.is_none(),
                FeatureSet::Partitioned => self.absent.is_none() || is_partitioning(self),
            }
    }
}

const fn is_partitioning(feature: &Feature) -> bool {
    matches!(feature.word, Word::Features0) && feature.bit == TD_PARTITIONING.bit
}

impl FeatureSet {
    /// Whether the set of a release has a bit.
    pub const fn has(self, feature: &Feature, release: Release) -> bool {
        feature.is_in(self, release)
    }

    /// The bits of a word that the set of a release has.
    pub fn bits(self, word: Word, release: Release) -> u64 {
        TABLE
            .iter()
            .filter(|feature| feature.word == word && feature.is_in(self, release))
            .fold(0, |bits, feature| bits | feature.mask())
    }
}

#[cfg(test)]
mod tests {
    use tdx_module_iface::TdhLeaf;
    use tdx_module_iface::leaf::Interruption;

    use super::*;

    #[test]
    fn the_recorded_sets_are_what_the_recordings_show() {
        let recorded = |word, release| FeatureSet::Recorded.bits(word, release);
        assert_eq!(recorded(Word::Features0, Release::V1_5_01), 0xf_0fbf);
        assert_eq!(recorded(Word::Features0, Release::V1_5_05), 0x1f_0fbf);
        assert_eq!(recorded(Word::Attributes, Release::V1_5_01), 0x8000_0000_7000_0001);
        assert_eq!(recorded(Word::Attributes, Release::V1_5_05), 0x8000_0000_7800_0001);
        assert_eq!(recorded(Word::Xfam, Release::V1_5_01), 0x6_9be7);
        assert_eq!(recorded(Word::ConfigFlags, Release::V1_5_05), 7);
        assert_eq!([Release::V1_5_01, Release::V1_5_05].map(|at| recorded(Word::TdCtls, at)), [1, 3]);
    }

    #[test]
    fn a_release_announces_what_its_leaves_do() {
        for release in Release::ALL {
            let announced = FeatureSet::Recorded.bits(Word::Features0, release);
            let has = |leaf: TdhLeaf| leaf.info().is_some_and(|info| info.exists_in(release));
            assert_eq!(announced >> 36 & 1 != 0, has(TdhLeaf::PHYMEM_PAMT_ADD), "{release}: dynamic PAMT");
            let demote = TdhLeaf::MEM_PAGE_DEMOTE.info().map(|info| info.interruption_in(release));
            assert_eq!(announced >> 51 & 1 != 0, demote == Some(Interruption::Never), "{release}: DEMOTE");
        }
    }

    #[test]
    fn no_bit_has_two_rows() {
        for (index, feature) in TABLE.iter().enumerate() {
            let twin = |other: &&Feature| (other.word, other.bit) == (feature.word, feature.bit);
            assert_eq!(TABLE[index + 1..].iter().find(twin), None, "{}", feature.name);
        }
    }
}
