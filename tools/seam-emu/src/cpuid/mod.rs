//! CPUID as a TD sees it: native values, the module's rules, the host's configuration.
//!
//! # Protocol
//! TDH.MNG.INIT computes the virtual value of every leaf that the module knows and keeps it in the TDCS. A
//! CPUID instruction in the guest is answered from there, after bits that depend on the VCPU's state are filled
//! in; a leaf that the module does not know raises #VE.
//!
//! | bits of a value | come from |
//! |---|---|
//! | fixed one | the rule |
//! | fixed zero or computed | zero, or the module's computation |
//! | configured directly | TD_PARAMS |
//! | allowed | native, if TD_PARAMS says one |
//! | all others | native |

mod guest;
mod native;
mod virtual_values;
mod xsave;

pub use guest::{GuestCpuid, VcpuFacts, guest_cpuid};
pub use native::native;
pub use virtual_values::{store_virtual_values, virtual_value};
pub use xsave::{area_size, component as xsave_component};

use tdx_module_iface::metadata::cpuid::CpuidRegs;

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
