//! The processor topology of a TD: one package of cores with one thread each.
//!
//! A vCPU's x2APIC id is its index. Three places say the same: CPUID leaf 1FH, which TD_PARAMS configures where the
//! module can show it; TDH.VP.INIT of version 1; and the answers to CPUID of guests that did not turn it on
//! (TD_CTLS.ENUM_TOPOLOGY), which the module leaves to the host.

use tdx_module_iface::td_params::CpuidValues;
use tdx_module_iface::tdsysinfo::TdhSysInfo;

/// CPUID leaf that lists the levels of the topology, and its older form.
pub(crate) const LEAF: u32 = 0x1f;
/// The older form, without levels above the core.
pub(crate) const OLD_LEAF: u32 = 0xb;

/// Level types (SDM, CPUID leaf 1FH, ECX bits 15:8).
const SMT: u32 = 1;
const CORE: u32 = 2;

/// The topology of a TD with so many vCPUs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Topology {
    /// vCPUs; not zero.
    pub(crate) vcpus: u32,
}

impl Topology {
    /// EAX, EBX, ECX of a subleaf of leaf 1FH: bits of an x2APIC id up to this level, logical processors in it, level
    /// type and subleaf.
    pub(crate) const fn level(self, subleaf: u32) -> [u32; 3] {
        let vcpus = if self.vcpus == 0 { 1 } else { self.vcpus };
        match subleaf {
            0 => [0, 1, SMT << 8],
            1 => [u32::BITS - (vcpus - 1).leading_zeros(), vcpus, CORE << 8 | subleaf],
            _ => [0, 0, subleaf & 0xff],
        }
    }

    /// The whole subleaf as a vCPU reads it.
    pub(crate) const fn cpuid(self, subleaf: u32, x2apic_id: u32) -> [u32; 4] {
        let [eax, ebx, ecx] = self.level(subleaf);
        [eax, ebx, ecx, x2apic_id]
    }

    /// What TD_PARAMS gets for a subleaf: levels that do not exist stay zero.
    pub(crate) const fn configured(self, subleaf: u32) -> CpuidValues {
        match self.level(subleaf) {
            [0, 0, _] => CpuidValues { eax: 0, ebx: 0, ecx: 0, edx: 0 },
            [eax, ebx, ecx] => CpuidValues { eax, ebx, ecx, edx: 0 },
        }
    }
}

/// Whether the module shows guests a topology of the host's choice.
pub(crate) fn is_configurable(module: &TdhSysInfo) -> bool {
    module.cpuid_config.iter().any(|offered| offered.leaf == LEAF)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_x2apic_id_is_as_wide_as_the_greatest_index() {
        for (vcpus, bits) in [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (64, 6), (65, 7)] {
            assert_eq!(Topology { vcpus }.level(1), [bits, vcpus, 0x201], "{vcpus} vCPUs");
        }
    }

    #[test]
    fn behind_the_core_level_there_is_none() {
        let topology = Topology { vcpus: 4 };
        assert_eq!(topology.cpuid(0, 3), [0, 1, 0x100, 3]);
        assert_eq!(topology.cpuid(2, 3), [0, 0, 2, 3]);
        assert_eq!(topology.configured(2), CpuidValues::default());
    }
}
