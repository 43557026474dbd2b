//! Leaves: which function of the module a call asks for, and what its registers mean.
//!
//! RAX on entry: leaf number in bits 15:0, version in bits 23:16, everything else zero. Host leaves (SEAMCALL)
//! and guest leaves (TDCALL) are numbered separately.

mod host_state;
mod info;
mod number;
mod tdg;
mod tdh;

pub use host_state::HostState;
pub use info::{Interruption, Kind, LeafInfo, Readiness, RegUse};
pub use tdg::TdgLeaf;
pub use tdh::TdhLeaf;

/// Everything known about the host leaves, by number.
pub const TDH: &[LeafInfo] = tdh::TABLE;
/// Everything known about the guest leaves, by number.
pub const TDG: &[LeafInfo] = tdg::TABLE;

/// Number of rows of these families.
const fn count(families: &[&[LeafInfo]]) -> usize {
    let mut rows = 0;
    let mut family = 0;
    while family < families.len() {
        rows += families[family].len();
        family += 1;
    }
    rows
}

/// The rows of these families, by leaf number.
///
/// # Panics
/// At compile time, if two rows have the same number.
const fn gather<const N: usize>(families: &[&[LeafInfo]]) -> [LeafInfo; N] {
    let mut table = [families[0][0]; N];
    let mut filled = 0;
    let mut family = 0;
    while family < families.len() {
        let mut index = 0;
        while index < families[family].len() {
            let row = families[family][index];
            let mut place = filled;
            while place > 0 && table[place - 1].number > row.number {
                table[place] = table[place - 1];
                place -= 1;
            }
            assert!(
                place == 0 || table[place - 1].number != row.number,
                "two rows have the same leaf number"
            );
            table[place] = row;
            filled += 1;
            index += 1;
        }
        family += 1;
    }
    table
}

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
        (self.0 & 0xffff) as u16
    }

    /// Bits 23:16.
    pub const fn version(self) -> u8 {
        (self.0 >> 16 & 0xff) as u8
    }

    /// Whether a bit above the version is set, which every leaf refuses.
    pub const fn has_reserved_bits(self) -> bool {
        self.0 >> 24 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::regs::Reg;
    use crate::release::Release;

    #[test]
    fn rows_stand_by_number_and_are_found_by_name() {
        for (table, prefix) in [(TDH, "TDH."), (TDG, "TDG.")] {
            assert!(table.is_sorted_by(|row, next| row.number < next.number));
            assert!(table.iter().all(|info| info.name.starts_with(prefix)));
        }
        for leaf in TdhLeaf::ALL {
            assert_eq!(TdhLeaf::from_name(leaf.name().unwrap()), Some(*leaf));
        }
        for leaf in TdgLeaf::ALL {
            assert_eq!(TdgLeaf::from_name(leaf.name().unwrap()), Some(*leaf));
        }
        assert_eq!((TDH.len(), TDG.len()), (72, 22));
        assert_eq!(
            std::format!("{} {}", TdhLeaf::MEM_PAGE_AUG, TdhLeaf(42)),
            "TDH.MEM.PAGE.AUG TdhLeaf(0x2a)"
        );
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
    fn version_one_is_accepted_exactly_where_its_release_does() {
        let versioned = |table: &'static [LeafInfo], release| {
            table.iter().filter(move |info| info.max_version(release) == 1).map(|info| info.number)
        };
        assert!(versioned(TDH, Release::V1_5_01).eq([3, 11, 23, 26, 30]));
        assert!(versioned(TDH, Release::V1_5_05).eq([3, 11, 22, 23, 26, 30]));
        assert!(versioned(TDG, Release::V1_5_01).eq([7]));
        let newer = TDH.iter().filter(|info| !info.exists_in(Release::V1_5_05)).map(|info| info.number);
        assert!(newer.eq([58, 59, 69, 97]));
    }

    #[test]
    fn only_running_a_vcpu_costs_the_host_its_registers() {
        let costly = TDH.iter().filter(|info| info.gives_up != HostState::NONE).map(|info| info.number);
        assert!(costly.eq([TdhLeaf::VP_ENTER.0]));
    }

    #[test]
    fn a_leaf_word_has_leaf_version_and_reserved_bits() {
        let word = TdhLeaf::MEM_SEPT_ADD.word_version(1);
        assert_eq!((word.0, word.leaf(), word.version()), (0x1_0003, 3, 1));
        assert!(!word.has_reserved_bits());
        assert!(LeafWord(1 << 24).has_reserved_bits());
    }
}
