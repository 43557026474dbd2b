//! Which CPUID values a TD is asked for, which it got, and why a bit is not there.
//!
//! Three parties have a say. *The module* fixes most bits, and lists those that a host may configure. *KVM* takes some off that
//! list, and supports what it supports on this machine. *This host* wants every configurable bit that KVM supports, and its
//! own topology. A guest asks the module; what the module leaves to the host is asked of KVM, which answers from
//! KVM_SET_CPUID2. Both must say the same.

use std::fmt;

use tdvisor_vm::topology::{self, Topology};
use x86_arch::cpuid::leaf;

use crate::error::BuildError;
use crate::uapi::CpuidEntry;

/// Bits of a register of CPUID.
const REGISTER_BITS: u8 = 32;

/// KVM takes the width of a guest's addresses from EAX bits 23:16 of [`leaf::ADDRESS_WIDTHS`].
const GUEST_WIDTH_SHIFT: u32 = 16;
const GUEST_WIDTH_MASK: u32 = 0xff << GUEST_WIDTH_SHIFT;
/// EBX bits of leaf 1 that are the topology's or differ from one processor to the next: bits 31:16.
const LEAF_1_EBX_OF_TOPOLOGY: u32 = 0xffff_0000;
/// Leaves whose bits are features, each of which is there or not.
const FEATURE_LEAVES: [(u32, u32); 9] = [
    (leaf::VERSION, 0),
    (leaf::FEATURES, 0),
    (leaf::FEATURES, 1),
    (leaf::FEATURES, 2),
    (leaf::EXTENDED_STATE, 1),
    (leaf::KEY_LOCKER, 0),
    (leaf::EXTENDED_FEATURES, 0),
    (leaf::INVARIANT_TSC, 0),
    (leaf::ADDRESS_WIDTHS, 0),
];

pub use x86_arch::cpuid::Register;

/// Why a guest does not have a feature.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum DropReason {
    /// KVM supports it, and the module decides by itself that TDs do not have it.
    OfModule,
    /// The module would give it to TDs, and KVM does not support it on this machine.
    NotOfKvm,
    /// The feature was asked for, and the TD does not have it.
    NotGiven,
}

/// A feature bit that the TD does not have.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Dropped {
    /// The leaf.
    pub leaf: u32,
    /// The subleaf.
    pub subleaf: u32,
    /// The register.
    pub register: Register,
    /// The bit.
    pub bit: u8,
    /// Why.
    pub why: DropReason,
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { leaf, subleaf, bit, .. } = self;
        let register = self.register.name();
        let why = match self.why {
            DropReason::OfModule => "the module gives it to no TD, or decides by ATTRIBUTES and XFAM",
            DropReason::NotOfKvm => "KVM does not support it on this machine",
            DropReason::NotGiven => "it was asked for, and the module did not give it",
        };
        write!(f, "CPUID {leaf:#x}.{subleaf:#x} {register} bit {bit}: {why}")
    }
}

/// The policy for one TD.
#[derive(Clone, Debug)]
pub(crate) struct Policy<'a> {
    /// What KVM supports on this machine.
    pub(crate) supported: &'a [CpuidEntry],
    /// By set bits: what may be configured.
    pub(crate) configurable: &'a [CpuidEntry],
    /// The TD's vCPUs.
    pub(crate) topology: Topology,
    /// Bits of guest-physical addresses: 48 or 52.
    pub(crate) address_bits: u32,
}

fn find(entries: &[CpuidEntry], leaf: u32, subleaf: u32) -> [u32; 4] {
    let found = entries.iter().find(|entry| (entry.function, entry.index) == (leaf, subleaf));
    found.map_or([0; 4], CpuidEntry::values)
}

impl Policy<'_> {
    /// What the host wants in a leaf, whether it may be configured or not.
    fn wanted(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        let mut values = match leaf {
            topology::LEAF => return self.topology.configured(subleaf),
            topology::CACHES => return self.topology.elsewhere(leaf, subleaf),
            _ => find(self.supported, leaf, subleaf),
        };
        match leaf {
            topology::BASIC => {
                let [_, ebx, ..] = self.topology.elsewhere(leaf, subleaf);
                values[1] = values[1] & !LEAF_1_EBX_OF_TOPOLOGY | ebx;
            }
            leaf::ADDRESS_WIDTHS => {
                values[0] = values[0] & !GUEST_WIDTH_MASK | self.address_bits << GUEST_WIDTH_SHIFT;
            }
            _ => {}
        }
        values
    }

    /// The list for KVM_TDX_INIT_VM: every leaf that may be configured, and nothing else.
    pub(crate) fn for_init_vm(&self) -> Result<Vec<CpuidEntry>, BuildError> {
        let mut has_width = false;
        let entries = self.configurable.iter().map(|mask| {
            has_width |= mask.function == leaf::ADDRESS_WIDTHS;
            let mut values = self.wanted(mask.function, mask.index);
            for (value, allowed) in values.iter_mut().zip(mask.values()) {
                *value &= allowed;
            }
            // Without the flag KVM takes the entry for every subleaf of its leaf.
            let entry = CpuidEntry::new(mask.function, mask.index, values);
            CpuidEntry { flags: CpuidEntry::SIGNIFICANT_INDEX, ..entry }
        });
        let entries = entries.collect();
        if has_width { Ok(entries) } else { Err(BuildError::NoAddressWidth) }
    }

    /// The list for KVM_SET_CPUID2: what the TD has, and what the module leaves to the host.
    pub(crate) fn for_vcpu(&self, of_td: &[CpuidEntry], x2apic_id: u32) -> Vec<CpuidEntry> {
        let is_ours = |leaf| {
            matches!(leaf, topology::LEAF | topology::OLD_LEAF | leaf::HYPERVISOR | leaf::HYPERVISOR_FEATURES)
        };
        let mut entries: Vec<_> = of_td.iter().filter(|entry| !is_ours(entry.function)).copied().collect();
        for leaf in [topology::OLD_LEAF, topology::LEAF] {
            for subleaf in 0..=2 {
                let values = self.topology.cpuid(subleaf, x2apic_id);
                let entry = CpuidEntry::new(leaf, subleaf, values);
                entries.push(CpuidEntry { flags: CpuidEntry::SIGNIFICANT_INDEX, ..entry });
            }
        }
        // KVM's signature and none of its features, as every host of this project answers.
        let [first, second, third] = [*b"KVMK", *b"VMKV", *b"M\0\0\0"].map(u32::from_le_bytes);
        entries.push(CpuidEntry::new(leaf::HYPERVISOR, 0, [leaf::HYPERVISOR_FEATURES, first, second, third]));
        entries.push(CpuidEntry::new(leaf::HYPERVISOR_FEATURES, 0, [0; 4]));
        entries
    }

    /// What the TD has not that KVM or the module would have, bit by bit.
    pub(crate) fn dropped(&self, of_td: &[CpuidEntry]) -> Vec<Dropped> {
        let mut dropped = Vec::new();
        for (leaf, subleaf) in FEATURE_LEAVES {
            let [supported, mask, has] = [self.supported, self.configurable, of_td];
            let (supported, mask, has) =
                (find(supported, leaf, subleaf), find(mask, leaf, subleaf), find(has, leaf, subleaf));
            for (index, register) in Register::ALL.into_iter().enumerate() {
                if !is_of_features(leaf, register) {
                    continue;
                }
                for bit in 0..REGISTER_BITS {
                    let set = |values: [u32; 4]| values[index] >> bit & 1 == 1;
                    let why = match (set(supported), set(mask), set(has)) {
                        (_, _, true) | (false, false, _) => continue,
                        (true, false, false) => DropReason::OfModule,
                        (false, true, false) => DropReason::NotOfKvm,
                        (true, true, false) => DropReason::NotGiven,
                    };
                    dropped.push(Dropped { leaf, subleaf, register, bit, why });
                }
            }
        }
        dropped
    }
}

/// Whether each bit of a register of a feature leaf is a feature.
const fn is_of_features(leaf: u32, register: Register) -> bool {
    match leaf {
        leaf::VERSION | leaf::EXTENDED_FEATURES => matches!(register, Register::Ecx | Register::Edx),
        leaf::FEATURES => true,
        leaf::EXTENDED_STATE => matches!(register, Register::Eax),
        leaf::INVARIANT_TSC => matches!(register, Register::Edx),
        leaf::ADDRESS_WIDTHS => matches!(register, Register::Ebx),
        _ => matches!(register, Register::Eax | Register::Ebx),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy<'a>(supported: &'a [CpuidEntry], configurable: &'a [CpuidEntry]) -> Policy<'a> {
        Policy { supported, configurable, topology: Topology { vcpus: 2 }, address_bits: 48 }
    }

    fn width() -> CpuidEntry {
        CpuidEntry::new(leaf::ADDRESS_WIDTHS, 0, [0x00ff_0000, 0x1ff, 0, 0])
    }

    #[test]
    fn what_is_asked_for_is_what_kvm_supports_and_the_module_lets_be_configured() {
        let supported = [CpuidEntry::new(7, 0, [0, 0b1111, 0, 0]), CpuidEntry::new(9, 0, [1; 4])];
        let configurable = [width(), CpuidEntry::new(7, 0, [0, 0b0101_0101, 0, 0])];
        let list = policy(&supported, &configurable).for_init_vm().unwrap();
        assert_eq!(find(&list, 7, 0), [0, 0b0101, 0, 0]);
        assert_eq!(find(&list, leaf::ADDRESS_WIDTHS, 0)[0], 48 << 16);
        assert_eq!(list.len(), 2, "KVM refuses entries that are not configurable");
        assert!(list.iter().all(|entry| entry.flags == CpuidEntry::SIGNIFICANT_INDEX), "{list:?}");
    }

    #[test]
    fn without_the_leaf_for_the_address_width_there_is_no_td() {
        assert_eq!(policy(&[], &[]).for_init_vm(), Err(BuildError::NoAddressWidth));
    }

    #[test]
    fn leaf_1_has_the_tds_topology_and_not_the_hosts() {
        let supported = [CpuidEntry::new(1, 0, [0x806f8, 0x3740_0800, 5, 7])];
        let configurable = [width(), CpuidEntry::new(1, 0, [u32::MAX; 4])];
        let list = policy(&supported, &configurable).for_init_vm().unwrap();
        assert_eq!(find(&list, 1, 0), [0x806f8, 2 << 16 | 0x0800, 5, 7]);
    }

    #[test]
    fn each_vcpu_has_its_own_id_and_kvm_says_who_it_is_but_offers_nothing() {
        let list = policy(&[], &[]).for_vcpu(&[CpuidEntry::new(0x1f, 0, [9; 4])], 1);
        assert_eq!(find(&list, 0x1f, 1), [1, 2, 0x201, 1]);
        assert_eq!(find(&list, 0xb, 0), [0, 1, 0x100, 1]);
        assert_eq!(
            find(&list, leaf::HYPERVISOR, 0)[1..].iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>(),
            b"KVMKVMKVM\0\0\0"
        );
        assert_eq!(find(&list, leaf::HYPERVISOR_FEATURES, 0), [0; 4]);
    }

    #[test]
    fn every_bit_that_is_missing_has_its_reason() {
        let supported = [CpuidEntry::new(7, 0, [0, 0b0111, 0, 0])];
        let configurable = [CpuidEntry::new(7, 0, [0, 0b1010, 0, 0])];
        let has = [CpuidEntry::new(7, 0, [0, 0b0001, 0, 0])];
        let dropped = policy(&supported, &configurable).dropped(&has);
        let reasons: Vec<_> = dropped.iter().map(|one| (one.bit, one.why)).collect();
        assert_eq!(
            reasons,
            [(1, DropReason::NotGiven), (2, DropReason::OfModule), (3, DropReason::NotOfKvm)]
        );
        assert!(
            dropped[2].to_string().contains("0x7.0x0 EBX bit 3: KVM does not support it"),
            "{}",
            dropped[2]
        );
    }
}
