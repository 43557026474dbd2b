//! Leaves: which function of the module a call asks for, and what its registers mean.
//!
//! RAX on entry: leaf number in bits 15:0, version in bits 23:16, everything else zero. Host leaves (SEAMCALL)
//! and guest leaves (TDCALL) are numbered separately.

mod info;
mod tdg;
mod tdg_table;
mod tdh;
mod tdh_table;

pub use info::{Kind, LeafInfo, RegUse};
pub use tdg::TdgLeaf;
pub use tdh::TdhLeaf;

/// Everything known about the host leaves, by number.
pub const TDH: &[LeafInfo] = tdh_table::TABLE;
/// Everything known about the guest leaves, by number.
pub const TDG: &[LeafInfo] = tdg_table::TABLE;

/// RAX on entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(transparent)]
pub struct LeafWord(pub u64);

impl LeafWord {
    /// The word for a leaf and version.
    pub const fn new(leaf: u16, version: u8) -> Self {
        Self(leaf as u64 | (version as u64) << 16)
    }

    /// Bits 15:0.
    pub const fn leaf(self) -> u16 {
        self.0 as u16
    }

    /// Bits 23:16.
    pub const fn version(self) -> u8 {
        (self.0 >> 16) as u8
    }

    /// Whether a bit above the version is set, which every leaf refuses.
    pub const fn has_reserved_bits(self) -> bool {
        self.0 >> 24 != 0
    }
}

impl TdhLeaf {
    /// What is known about the leaf.
    pub fn info(self) -> Option<&'static LeafInfo> {
        TDH.iter().find(|info| info.number == self.0)
    }

    /// The leaf of this name, such as `TDH.MEM.PAGE.AUG`.
    pub fn from_name(name: &str) -> Option<Self> {
        TDH.iter().find(|info| info.name == name).map(|info| Self(info.number))
    }
}

impl TdgLeaf {
    /// What is known about the leaf.
    pub fn info(self) -> Option<&'static LeafInfo> {
        TDG.iter().find(|info| info.number == self.0)
    }

    /// The leaf of this name, such as `TDG.MEM.PAGE.ACCEPT`.
    pub fn from_name(name: &str) -> Option<Self> {
        TDG.iter().find(|info| info.name == name).map(|info| Self(info.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::regs::Reg;
    use crate::status::Release;

    #[test]
    fn every_named_leaf_has_a_row_and_every_row_a_name() {
        assert!(TdhLeaf::ALL.iter().map(|leaf| leaf.0).eq(TDH.iter().map(|info| info.number)));
        assert!(TdgLeaf::ALL.iter().map(|leaf| leaf.0).eq(TDG.iter().map(|info| info.number)));
        for leaf in TdhLeaf::ALL {
            let info = leaf.info().unwrap();
            assert_eq!(Some(info.name), leaf.name());
            assert!(info.name.starts_with("TDH."));
            assert_eq!(TdhLeaf::from_name(info.name), Some(*leaf));
        }
        for leaf in TdgLeaf::ALL {
            let info = leaf.info().unwrap();
            assert!(info.name.starts_with("TDG."));
            assert_eq!(TdgLeaf::from_name(info.name), Some(*leaf));
        }
    }

    #[test]
    fn no_row_names_a_register_twice_or_describes_rax() {
        for info in TDH.iter().chain(TDG) {
            for uses in [info.inputs, info.outputs] {
                for (position, entry) in uses.iter().enumerate() {
                    assert_ne!(entry.reg, Reg::Rax, "{}", info.name);
                    assert!(
                        !uses[position + 1..].iter().any(|other| other.reg == entry.reg),
                        "{}",
                        info.name
                    );
                }
            }
        }
    }

    #[test]
    fn version_one_is_accepted_exactly_where_module_1_5_01_does() {
        let versioned = TDH.iter().filter(|info| info.max_version == 1).map(|info| info.number);
        assert!(versioned.eq([3, 11, 23, 26, 30]));
        let versioned = TDG.iter().filter(|info| info.max_version == 1).map(|info| info.number);
        assert!(versioned.eq([7]));
        let newer = TDH.iter().filter(|info| info.release == Release::Newer).map(|info| info.number);
        assert!(newer.eq([58, 59, 97]));
    }

    #[test]
    fn a_leaf_word_has_leaf_version_and_reserved_bits() {
        let word = TdhLeaf::MEM_SEPT_ADD.word_version(1);
        assert_eq!((word.0, word.leaf(), word.version()), (0x1_0003, 3, 1));
        assert!(!word.has_reserved_bits());
        assert!(LeafWord(1 << 24).has_reserved_bits());
    }
}
