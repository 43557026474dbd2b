//! How the module virtualises CPUID.
//!
//! # Protocol
//! TDH.MNG.INIT gives a TD one value for each leaf of the release's [`CpuidTable`]; CPUID in the guest is answered
//! from there, and a leaf that is not in the table, or [`Presence::Faulting`], raises #VE. Each bit of a value has
//! one origin:
//!
//! | column | the bit is |
//! |---|---|
//! | `fixed_zero`, `fixed_one` | what the module says, where the host may configure the leaf; elsewhere the processor's own, which a processor that can run the module has so |
//! | `given` | copied from TD_PARAMS |
//! | `allowed` | the processor's own where TD_PARAMS says one, otherwise zero |
//! | `dynamic` | computed when the guest executes CPUID |
//! | none of them | the processor's own |
//!
//! A configuration bit that is neither given nor allowed makes TDH.MNG.INIT fail with OPERAND_INVALID and operand
//! CPUID_CONFIG.

mod leaves;

use crate::release::Release;
use leaves::{BEFORE_TOPOLOGY, LEAVES, WITHOUT_TOPOLOGY};

/// EAX, EBX, ECX, EDX, in that order.
pub type CpuidRegs = [u32; 4];

/// Whether a guest gets an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Presence {
    /// The value of the leaf.
    Value,
    /// #VE, although the module knows the leaf.
    Faulting,
}

/// One leaf or subleaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CpuidLeaf {
    /// EAX on entry.
    pub leaf: u32,
    /// ECX on entry; `None` where the leaf has no subleaves (the ABI writes all ones).
    pub subleaf: Option<u32>,
    /// Whether the guest gets a value.
    pub presence: Presence,
    /// Position in TD_PARAMS.CPUID_CONFIG.
    pub config: Option<u8>,
    /// Bits that read as zero.
    pub fixed_zero: CpuidRegs,
    /// Bits that read as one.
    pub fixed_one: CpuidRegs,
    /// Bits copied from TD_PARAMS.
    pub given: CpuidRegs,
    /// Bits that TD_PARAMS keeps or clears.
    pub allowed: CpuidRegs,
    /// Bits that follow the state of the VCPU.
    pub dynamic: CpuidRegs,
}

impl CpuidLeaf {
    /// Bits that a configuration may set.
    pub fn settable(&self) -> CpuidRegs {
        core::array::from_fn(|register| pick(&self.given, register) | pick(&self.allowed, register))
    }

    /// Bits that are the processor's own.
    pub fn native(&self) -> CpuidRegs {
        core::array::from_fn(|register| {
            let columns = [&self.fixed_zero, &self.fixed_one, &self.given, &self.allowed, &self.dynamic];
            !columns.into_iter().fold(0, |all, column| all | pick(column, register))
        })
    }

    /// The leaf and subleaf as CPUID_CONFIG_LEAVES and error details carry them: bits 31:0 and 63:32.
    pub const fn key(&self) -> u64 {
        let subleaf = match self.subleaf {
            Some(subleaf) => subleaf,
            None => u32::MAX,
        };
        self.leaf as u64 | (subleaf as u64) << 32
    }

    /// Whether CPUID with this EAX and ECX is answered from here.
    pub const fn answers(&self, leaf: u32, subleaf: u32) -> bool {
        let same = match self.subleaf {
            Some(own) => own == subleaf,
            None => true,
        };
        self.leaf == leaf && same
    }
}

const fn pick(registers: &CpuidRegs, register: usize) -> u32 {
    if register < 4 { registers[register] } else { 0 }
}

/// All leaves of a release, in the order in which its metadata walks them.
#[derive(Clone, Copy, Debug)]
pub struct CpuidTable {
    leaves: &'static [CpuidLeaf],
    /// Leaves that are different in this release.
    changed: &'static [CpuidLeaf],
}

impl CpuidTable {
    /// Release 1.5.01: twelve configurable leaves, and no topology.
    pub const V1_5_01: Self = Self { leaves: WITHOUT_TOPOLOGY, changed: BEFORE_TOPOLOGY };
    /// Release 1.5.05: eighteen configurable leaves.
    pub const V1_5_05: Self = Self { leaves: LEAVES, changed: &[] };

    /// The table of a release. Releases after 1.5.05 have added to it what nobody recorded.
    pub const fn of(release: Release) -> Self {
        match release {
            Release::V1_5_01 => Self::V1_5_01,
            Release::V1_5_05 | Release::V1_5Late | Release::V2_0 => Self::V1_5_05,
        }
    }

    /// Number of leaves.
    pub const fn len(&self) -> usize {
        self.leaves.len()
    }

    /// Whether there is no leaf.
    pub const fn is_empty(&self) -> bool {
        self.leaves.is_empty()
    }

    /// The leaf at a position.
    pub fn at(&self, position: usize) -> Option<&'static CpuidLeaf> {
        let leaf = self.leaves.get(position)?;
        Some(self.changed.iter().find(|changed| changed.key() == leaf.key()).unwrap_or(leaf))
    }

    /// All leaves in order.
    pub fn iter(&self) -> impl Iterator<Item = &'static CpuidLeaf> + use<> {
        let table = *self;
        (0..table.len()).filter_map(move |position| table.at(position))
    }

    /// The position of the leaf that answers for this EAX and ECX.
    pub fn position(&self, leaf: u32, subleaf: u32) -> Option<usize> {
        self.leaves.iter().position(|entry| entry.answers(leaf, subleaf))
    }

    /// The leaf that stands at a place of TD_PARAMS.CPUID_CONFIG.
    pub fn configured(&self, place: usize) -> Option<&'static CpuidLeaf> {
        self.iter().find(|leaf| leaf.config.is_some_and(|config| usize::from(config) == place))
    }

    /// Number of leaves in TD_PARAMS.CPUID_CONFIG.
    pub fn num_configurable(&self) -> usize {
        self.iter().filter(|leaf| leaf.config.is_some()).count()
    }
}

const fn native(
    leaf: u32,
    subleaf: Option<u32>,
    fixed_zero: CpuidRegs,
    fixed_one: CpuidRegs,
    dynamic: CpuidRegs,
) -> CpuidLeaf {
    let (given, allowed) = ([0; 4], [0; 4]);
    let presence = Presence::Value;
    CpuidLeaf { leaf, subleaf, presence, config: None, fixed_zero, fixed_one, given, allowed, dynamic }
}

const fn faulting(leaf: u32, subleaf: Option<u32>) -> CpuidLeaf {
    let value = native(leaf, subleaf, [0; 4], [0; 4], [0; 4]);
    CpuidLeaf { presence: Presence::Faulting, ..value }
}

#[expect(clippy::too_many_arguments, reason = "the columns of the table")]
const fn configurable(
    place: u8,
    leaf: u32,
    subleaf: Option<u32>,
    fixed_zero: CpuidRegs,
    fixed_one: CpuidRegs,
    given: CpuidRegs,
    allowed: CpuidRegs,
    dynamic: CpuidRegs,
) -> CpuidLeaf {
    let value = native(leaf, subleaf, fixed_zero, fixed_one, dynamic);
    CpuidLeaf { config: Some(place), given, allowed, ..value }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELEASES: [(CpuidTable, usize); 2] = [(CpuidTable::V1_5_01, 12), (CpuidTable::V1_5_05, 18)];

    #[test]
    fn every_place_of_td_params_has_one_leaf() {
        for (table, places) in RELEASES {
            assert_eq!(table.num_configurable(), places);
            assert!((0..places).all(|place| table.configured(place).is_some()));
            assert!(table.configured(places).is_none());
        }
    }

    #[test]
    fn no_bit_has_two_origins() {
        for (table, _) in RELEASES {
            for leaf in table.iter() {
                for register in 0..4 {
                    let columns = [
                        leaf.fixed_zero,
                        leaf.fixed_one,
                        leaf.given,
                        leaf.allowed,
                        leaf.dynamic,
                        leaf.native(),
                    ];
                    let all = columns.iter().fold(0, |all, column| all | column[register]);
                    let bits: u32 = columns.iter().map(|column| column[register].count_ones()).sum();
                    assert_eq!((all, bits), (u32::MAX, 32), "leaf {:#x}, register {register}", leaf.leaf);
                }
            }
        }
    }

    #[test]
    fn the_first_release_has_no_leaf_that_names_a_place_in_the_topology() {
        let table = CpuidTable::V1_5_01;
        assert_eq!((table.len(), CpuidTable::V1_5_05.len()), (64, 68));
        for (leaf, subleaf) in [(0xb, 0), (0xb, 1), (0xb, 2), (0x1a, 0)] {
            assert_eq!(table.position(leaf, subleaf), None, "leaf {leaf:#x}.{subleaf}");
        }
        for subleaf in 0..6 {
            let leaf = table.position(0x1f, subleaf).and_then(|at| table.at(at)).unwrap();
            assert_eq!(leaf.presence, Presence::Faulting, "leaf 0x1f.{subleaf}");
        }
    }

    #[test]
    fn each_leaf_is_found_at_its_own_position() {
        for (table, _) in RELEASES {
            for (position, leaf) in table.iter().enumerate() {
                assert_eq!(table.position(leaf.leaf, leaf.subleaf.unwrap_or(0)), Some(position));
            }
            assert_eq!(table.position(4, 5), None);
            assert_eq!(table.position(2, 0), None);
        }
    }
}
