//! The processor topology of a VM: one package of cores with one thread each.
//!
//! A vCPU's x2APIC id is its index. Three places say the same: CPUID leaf 1FH, which a TD's host configures where the
//! module can show it; the id that a vCPU is made with; and the answers to CPUID of guests that did not turn it on
//! (TD_CTLS.ENUM_TOPOLOGY), which the module leaves to the host.

use x86_arch::cpuid::leaf;

/// CPUID leaf that lists the levels of the topology, and its older form.
pub const LEAF: u32 = leaf::TOPOLOGY_V2;
/// The older form, without levels above the core.
pub const OLD_LEAF: u32 = leaf::TOPOLOGY;

/// Level types (SDM, CPUID leaf 1FH, ECX bits 15:8).
const SMT: u32 = 1;
const CORE: u32 = 2;

/// The topology of a VM with so many vCPUs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Topology {
    /// vCPUs; not zero.
    pub vcpus: u32,
}

impl Topology {
    /// EAX, EBX, ECX of a subleaf of leaf 1FH: bits of an x2APIC id up to this level, logical processors in it, level
    /// type and subleaf.
    pub const fn level(self, subleaf: u32) -> [u32; 3] {
        let vcpus = if self.vcpus == 0 { 1 } else { self.vcpus };
        match subleaf {
            0 => [0, 1, SMT << 8],
            1 => [u32::BITS - (vcpus - 1).leading_zeros(), vcpus, CORE << 8 | subleaf],
            _ => [0, 0, subleaf & 0xff],
        }
    }

    /// The whole subleaf as a vCPU reads it.
    ///
    /// ```
    /// use tdvisor_vm::topology::Topology;
    ///
    /// let four = Topology { vcpus: 4 };
    /// let [shift, processors, _, id] = four.cpuid(1, 3);
    /// assert_eq!((shift, processors, id), (2, 4, 3), "two bits of an id name a processor in its package");
    /// ```
    pub const fn cpuid(self, subleaf: u32, x2apic_id: u32) -> [u32; 4] {
        let [eax, ebx, ecx] = self.level(subleaf);
        [eax, ebx, ecx, x2apic_id]
    }

    /// EAX, EBX, ECX and EDX that a subleaf of leaf 1FH is configured with: levels that do not exist stay zero.
    pub const fn configured(self, subleaf: u32) -> [u32; 4] {
        match self.level(subleaf) {
            [0, 0, _] => [0; 4],
            [eax, ebx, ecx] => [eax, ebx, ecx, 0],
        }
    }
}

/// CPUID leaf 1, whose EBX bits 23:16 count the logical processors that a package has room for.
pub const BASIC: u32 = leaf::VERSION;
/// CPUID leaf 4: caches, and who shares them.
pub const CACHES: u32 = leaf::CACHES;

impl Topology {
    /// Logical processors that the package has room for: a power of two, as x2APIC ids are bits.
    const fn room(self) -> u32 {
        if self.vcpus == 0 { 1 } else { self.vcpus.next_power_of_two() }
    }

    /// What the topology says in a leaf other than 1FH, as EAX, EBX, ECX and EDX; zeros where that leaf does not speak of it.
    ///
    /// A module that takes these bits as given (release 1.5.05) shows the guest what stands here and nothing of the
    /// processor's own: a guest that finds no processor in leaf 1 divides by it.
    pub const fn elsewhere(self, leaf: u32, subleaf: u32) -> [u32; 4] {
        match leaf {
            BASIC => {
                let room = if self.room() > 255 { 255 } else { self.room() };
                [0, room << 16, 0, 0]
            }
            CACHES => self.cache(subleaf),
            _ => [0; 4],
        }
    }

    /// A subleaf of leaf 4 (SDM volume 2, CPUID, "Deterministic Cache Parameters"): 48 KiB and 32 KiB of first level and
    /// 2 MiB of second for each vCPU, 48 MiB of third level for all.
    const fn cache(self, subleaf: u32) -> [u32; 4] {
        const DATA: u32 = 1;
        const CODE: u32 = 2;
        const UNIFIED: u32 = 3;
        const SELF_INITIALISING: u32 = 1 << 8;
        const LINE: u32 = 64;
        let (kind, level, ways, sets, sharing) = match subleaf {
            0 => (DATA, 1, 12, 64, 1),
            1 => (CODE, 1, 8, 64, 1),
            2 => (UNIFIED, 2, 16, 2048, 1),
            3 => (UNIFIED, 3, 12, 65536, self.room()),
            _ => return [0; 4],
        };
        // The field for cores has six bits.
        let cores = if self.room() > 64 { 64 } else { self.room() };
        [
            (cores - 1) << 26 | (sharing - 1) << 14 | SELF_INITIALISING | level << 5 | kind,
            (ways - 1) << 22 | (LINE - 1),
            sets - 1,
            0,
        ]
    }
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
    fn leaf_1_and_the_caches_count_at_least_the_vcpus_that_there_are() {
        for vcpus in [1, 2, 3, 8, 64, 576] {
            let topology = Topology { vcpus };
            let logical = topology.elsewhere(BASIC, 0)[1] >> 16;
            assert!(logical >= vcpus.min(255), "{vcpus} vCPUs");
            let last_level = topology.elsewhere(CACHES, 3)[0];
            assert!((last_level >> 14 & 0xfff) + 1 >= vcpus, "{vcpus} vCPUs");
            assert!((last_level >> 26) + 1 >= vcpus.min(64), "{vcpus} vCPUs");
            let first_level = topology.elsewhere(CACHES, 0)[0];
            assert_eq!(first_level >> 14 & 0xfff, 0, "a first-level cache belongs to one vCPU");
        }
        assert_eq!(Topology { vcpus: 2 }.elsewhere(CACHES, 4), [0; 4]);
        assert_eq!(Topology { vcpus: 2 }.elsewhere(7, 0), [0; 4]);
    }

    #[test]
    fn behind_the_core_level_there_is_none() {
        let topology = Topology { vcpus: 4 };
        assert_eq!(topology.cpuid(0, 3), [0, 1, 0x100, 3]);
        assert_eq!(topology.cpuid(2, 3), [0, 0, 2, 3]);
        assert_eq!(topology.configured(2), [0; 4]);
    }
}
