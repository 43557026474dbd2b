//! A processor known by its values.

use std::collections::BTreeMap;

use crate::cpuid::CpuidValues;

/// CPUID and MSR values of a processor. What is not listed is zero.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ListedProcessor {
    cpuid: BTreeMap<(u32, u32), CpuidValues>,
    msrs: BTreeMap<u32, u64>,
}

impl ListedProcessor {
    /// A processor with these leaves, named by EAX and ECX on entry, and these MSRs.
    pub fn new(
        cpuid: impl IntoIterator<Item = ((u32, u32), CpuidValues)>,
        msrs: impl IntoIterator<Item = (u32, u64)>,
    ) -> Self {
        Self { cpuid: cpuid.into_iter().collect(), msrs: msrs.into_iter().collect() }
    }

    pub(super) fn cpuid(&self, leaf: u32, subleaf: u32) -> CpuidValues {
        self.cpuid.get(&(leaf, subleaf)).copied().unwrap_or_default()
    }

    pub(super) fn msr(&self, index: u32) -> u64 {
        self.msrs.get(&index).copied().unwrap_or(0)
    }
}
