//! The processor under the module: what CPUID and RDMSR give outside of any TD.
//!
//! The module samples it when it starts and derives from it what a TD sees ([`crate::cpuid`]).

mod emulated;
pub mod features;
mod listed;
mod model;

use std::sync::Arc;

pub use listed::ListedProcessor;
pub use model::{EmulatedProcessor, Model, Models, NotMaskable, UnknownModel};

use crate::config::MachineConfig;
use crate::cpuid::{CpuidValues, area_size};
use crate::features::FeatureSet;

/// Which processor it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Processor {
    /// The software CPU of this project, offering what it executes.
    Emulated(EmulatedProcessor),
    /// A processor that is known by its values only, as recordings name one. It executes nothing.
    Listed(Arc<ListedProcessor>),
}

impl Default for Processor {
    fn default() -> Self {
        Self::Emulated(EmulatedProcessor::default())
    }
}

/// MSRs of the processor that the module looks at.
pub mod msr {
    /// IA32_ARCH_CAPABILITIES.
    pub const ARCH_CAPABILITIES: u32 = 0x10a;
    /// IA32_MISC_ENABLE.
    pub const MISC_ENABLE: u32 = 0x1a0;
    /// IA32_PERF_CAPABILITIES.
    pub const PERF_CAPABILITIES: u32 = 0x345;
    /// IA32_XAPIC_DISABLE_STATUS.
    pub const XAPIC_DISABLE_STATUS: u32 = 0xbd;
    /// IA32_VMX_BASIC; the other capability MSRs of VMX follow.
    pub const VMX_BASIC: u32 = 0x480;
    /// IA32_VMX_CR0_FIXED0: bits that must be one.
    pub const VMX_CR0_FIXED0: u32 = 0x486;
    /// IA32_VMX_CR0_FIXED1: bits that may be one.
    pub const VMX_CR0_FIXED1: u32 = 0x487;
    /// IA32_VMX_CR4_FIXED0: bits that must be one.
    pub const VMX_CR4_FIXED0: u32 = 0x488;
    /// IA32_VMX_CR4_FIXED1: bits that may be one.
    pub const VMX_CR4_FIXED1: u32 = 0x489;
}

impl MachineConfig {
    /// What CPUID gives on the processor.
    pub fn native_cpuid(&self, leaf: u32, subleaf: u32) -> CpuidValues {
        match &self.processor {
            Processor::Emulated(processor) => emulated::cpuid(self, *processor, leaf, subleaf),
            Processor::Listed(listed) => listed.cpuid(leaf, subleaf),
        }
    }

    /// The number of a package as the module has it: the x2APIC ids of its processors without the bits that tell them
    /// apart, which CPUID leaf 1FH counts at its highest level. Packages have x2APIC ids from `package << 8` on, so the
    /// numbers have gaps.
    pub(crate) fn package_number(&self, package: u32) -> u32 {
        /// Levels that leaf 1FH can list.
        const LEVELS: u32 = 6;
        let is_valid = |level: &CpuidValues| level.ecx >> 8 & 0xff != 0;
        let levels = (0..LEVELS).map(|subleaf| self.native_cpuid(0x1f, subleaf)).take_while(is_valid);
        let shift = levels.last().map_or(0, |level| level.eax & 0x1f);
        (package << 8) >> shift
    }

    /// CPUID(DH, 0).EBX while these components are enabled: bytes of the XSAVE area. A listed processor does not look
    /// at XCR0.
    pub fn xsave_bytes(&self, components: u64) -> u32 {
        match &self.processor {
            Processor::Emulated(_) => area_size(components),
            Processor::Listed(listed) => listed.cpuid(0xd, 0).ebx,
        }
    }

    /// Whether the values above are those of the processor that is presented. A replay of recordings that list none runs
    /// on the emulated one in its place.
    pub fn processor_is_known(&self) -> bool {
        self.features != FeatureSet::Recorded || matches!(self.processor, Processor::Listed(_))
    }

    /// What RDMSR gives on the processor.
    pub fn native_msr(&self, index: u32) -> u64 {
        match &self.processor {
            Processor::Emulated(processor) => emulated::msr(*processor, index),
            Processor::Listed(listed) => listed.msr(index),
        }
    }

    /// Bits of IA32_SPEC_CTRL that may be set. A listed processor executes nothing, and takes all.
    pub fn spec_ctrl_bits(&self) -> u64 {
        match &self.processor {
            Processor::Emulated(processor) => emulated::spec_ctrl_bits(self, *processor),
            Processor::Listed(_) => u64::MAX,
        }
    }

    /// Bits of a control register that the processor wants to be one, and those that it lets be one.
    pub(crate) fn fixed_bits(&self, zero: u32, one: u32) -> FixedRegister {
        FixedRegister { ones: self.native_msr(zero), allowed: self.native_msr(one) }
    }
}

/// What VMX operation fixes of a control register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FixedRegister {
    /// Bits that must be one.
    pub(crate) ones: u64,
    /// Bits that may be one.
    pub(crate) allowed: u64,
}

impl FixedRegister {
    /// Bits that have only one value.
    pub(crate) const fn fixed(self) -> u64 {
        self.ones | !self.allowed
    }

    /// Whether a value has a fixed bit wrong that is not in `ignored`.
    pub(crate) const fn is_violated(self, value: u64, ignored: u64) -> bool {
        (value ^ self.ones) & self.fixed() & !ignored != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_has_the_number_that_its_x2apic_ids_leave() {
        let config = MachineConfig::small();
        assert_eq!([0, 1, 2].map(|package| config.package_number(package)), [0, 4, 8]);
        let listed = ListedProcessor::new([], []);
        let bare = MachineConfig { processor: Processor::Listed(Arc::new(listed)), ..config };
        assert_eq!(bare.package_number(1), 256, "no topology: every x2APIC id is a package");
    }
}
