//! The levels of the processor topology: CPUID leaf 1FH, and leaf BH, which is made of it.

use tdx_module_iface::metadata::cpuid::CpuidRegs;

/// Subleaves of leaf 1FH that a TD has.
pub const LEVELS: usize = 6;

/// Level types (SDM, CPUID leaf 1FH, ECX bits 15:8).
const INVALID: u32 = 0;
const SMT: u32 = 1;
const CORE: u32 = 2;
const FIRST_RESERVED: u32 = 6;

/// Leaf 1FH of a TD, subleaf by subleaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Topology(pub [CpuidRegs; LEVELS]);

/// Leaf 1FH is not what a guest could read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TopologyProblem;

const fn level_type([_, _, ecx, _]: CpuidRegs) -> u32 {
    ecx >> 8 & 0xff
}

impl Topology {
    /// Whether a configuration says nothing: the guest gets the processor's own topology.
    pub fn is_unset(&self) -> bool {
        self.0.iter().all(|level| *level == [0; 4])
    }

    /// Whether a configuration is one that the module recognises: level types that rise from subleaf 0 to the first
    /// invalid one, a core level among them, and no reserved type anywhere.
    ///
    /// # Errors
    /// [`TopologyProblem`].
    pub fn check(&self) -> Result<(), TopologyProblem> {
        if self.is_unset() {
            return Ok(());
        }
        if self.0.iter().any(|level| level_type(*level) >= FIRST_RESERVED) {
            return Err(TopologyProblem);
        }
        let mut above = INVALID;
        let mut has_core = false;
        for level in self.0.map(level_type) {
            if level == INVALID {
                break;
            }
            if level <= above {
                return Err(TopologyProblem);
            }
            above = level;
            has_core |= level == CORE;
        }
        if has_core { Ok(()) } else { Err(TopologyProblem) }
    }

    /// Leaf BH, subleaves 0 and 1.
    ///
    /// Subleaf 0 is the SMT level, the processor's own where there is none. Subleaf 1 ought to be the core level; the module takes the last subleaf that it
    /// looks at (recorded).
    pub fn leaf_b(&self, native_smt: CpuidRegs) -> [CpuidRegs; 2] {
        let smt = self.0.iter().copied().find(|level| level_type(*level) == SMT).unwrap_or(native_smt);
        let [.., last] = self.0;
        let [eax, ebx, ecx, _] = last;
        [smt, [eax, ebx, CORE << 8 | ecx & 0xff, 0]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(types: [u32; LEVELS]) -> Topology {
        Topology(types.map(|level| [1, 2, level << 8, 0]))
    }

    #[test]
    fn level_types_rise_up_to_the_first_invalid_one_and_have_a_core_level_among_them() {
        assert_eq!(levels([1, 2, 0, 0, 0, 0]).check(), Ok(()));
        assert_eq!(levels([2, 0, 0, 0, 0, 0]).check(), Ok(()));
        assert_eq!(levels([1, 2, 3, 4, 5, 0]).check(), Ok(()));
        assert_eq!(levels([2, 1, 0, 0, 0, 0]).check(), Err(TopologyProblem));
        assert_eq!(levels([1, 3, 0, 0, 0, 0]).check(), Err(TopologyProblem));
        assert_eq!(levels([1, 2, 6, 0, 0, 0]).check(), Err(TopologyProblem));
        assert_eq!(levels([1, 1, 2, 0, 0, 0]).check(), Err(TopologyProblem));
        assert_eq!(levels([0, 2, 0, 0, 0, 0]).check(), Err(TopologyProblem), "the first must be valid");
        assert_eq!(
            levels([1, 2, 0, 4, 2, 0]).check(),
            Ok(()),
            "behind the first invalid one the order is free"
        );
        assert_eq!(levels([1, 2, 0, 0, 0, 6]).check(), Err(TopologyProblem), "a reserved type, wherever");
    }

    #[test]
    fn no_topology_at_all_is_the_processors_own() {
        assert!(Topology([[0; 4]; LEVELS]).is_unset());
        assert_eq!(Topology([[0; 4]; LEVELS]).check(), Ok(()));
    }
}
