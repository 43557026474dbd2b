//! CPUID as a TD sees it: native values, the module's rules, the host's configuration.
//!
//! # Protocol
//! TDH.MNG.INIT computes the virtual value of every leaf that the module knows and keeps it in the TDCS. A
//! CPUID instruction in the guest is answered from there, after bits that depend on the VCPU's state are filled
//! in; a leaf that the module does not know, or does not answer, raises #VE.
//!
//! Which bit of a leaf comes from where is a table of the release: [`CpuidTable`].
//!
//! [`CpuidTable`]: tdx_module_iface::metadata::cpuid::CpuidTable

mod guest;
mod imported;
mod topology;
mod virtual_values;
mod xfam;
mod xsave;

pub use guest::{CodeMode, GuestCpuid, VcpuFacts, guest_cpuid};
pub(crate) use guest::{known_leaf, offers};
pub(crate) use imported::can_be_imported;
pub use topology::{LEVELS, Topology, TopologyProblem};
pub(crate) use virtual_values::given_topology;
pub use virtual_values::{store_virtual_values, virtual_cpuid, virtual_values};
pub(crate) use xsave::enumerate as xsave_component_leaf;
pub use xsave::{area_size, compacted_size, component as xsave_component};

use tdx_module_iface::metadata::cpuid::CpuidRegs;
use x86_arch::cpuid::{Feature, Register};

/// EAX, EBX, ECX, EDX by their usual names.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CpuidValues {
    /// EAX.
    pub eax: u32,
    /// EBX.
    pub ebx: u32,
    /// ECX.
    pub ecx: u32,
    /// EDX.
    pub edx: u32,
}

impl CpuidValues {
    /// Whether the values, which are those of its leaf, have a feature.
    pub fn has(self, feature: Feature) -> bool {
        feature.is_in(&self.into())
    }

    /// The values with a feature.
    #[must_use]
    pub fn with(mut self, feature: Feature) -> Self {
        *self.register(feature) |= feature.mask();
        self
    }

    /// The values without a feature.
    #[must_use]
    pub fn without(mut self, feature: Feature) -> Self {
        *self.register(feature) &= !feature.mask();
        self
    }

    const fn register(&mut self, feature: Feature) -> &mut u32 {
        match feature.register {
            Register::Eax => &mut self.eax,
            Register::Ebx => &mut self.ebx,
            Register::Ecx => &mut self.ecx,
            Register::Edx => &mut self.edx,
        }
    }
}

impl From<CpuidRegs> for CpuidValues {
    fn from([eax, ebx, ecx, edx]: CpuidRegs) -> Self {
        Self { eax, ebx, ecx, edx }
    }
}

impl From<CpuidValues> for CpuidRegs {
    fn from(values: CpuidValues) -> Self {
        [values.eax, values.ebx, values.ecx, values.edx]
    }
}
