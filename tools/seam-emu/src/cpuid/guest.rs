//! What a CPUID instruction in a TD gives.

use super::{CpuidValues, virtual_cpuid, xsave};
use crate::fields::FieldStore;
use crate::rules::Rules;
use tdx_module_iface::metadata::cpuid::CpuidTable;
use x86_arch::cpuid::{Feature, feature, leaf};
use x86_arch::cr4;

/// Highest basic leaf that the module knows; higher ones are answered as this one.
const MAX_BASIC: u32 = 0x23;
/// Highest extended leaf.
const MAX_EXTENDED: u32 = 0x8000_0008;

/// The answer to a CPUID instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GuestCpuid {
    /// The registers.
    Values(CpuidValues),
    /// The guest gets #VE.
    VirtualisationException,
}

/// What of the VCPU's state shows in CPUID.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VcpuFacts {
    /// Index of the VCPU.
    pub index: u32,
    /// The vCPU's x2APIC id, where the guest enabled the enumeration of the topology.
    pub x2apic_id: Option<u32>,
    /// Whether the guest executes 64-bit code.
    pub mode: CodeMode,
    /// The guest's CR4.
    pub cr4: u64,
    /// XCR0.
    pub xcr0: u64,
    /// IA32_XSS.
    pub xss: u64,
    /// IA32_TSX_CTRL.
    pub tsx_ctrl: u64,
}

/// Width of the code that executes CPUID.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CodeMode {
    /// 16 or 32 bits: there is no SYSCALL.
    Legacy,
    /// 64 bits.
    Long,
}

/// The leaf that answers for a value of EAX.
pub(crate) const fn known_leaf(leaf: u32) -> u32 {
    match leaf {
        0..=MAX_BASIC | 0x4000_0000..=0x4fff_ffff | 0x8000_0000..=MAX_EXTENDED => leaf,
        _ => MAX_BASIC,
    }
}

/// Answers CPUID from the values of the TD. Whether the guest asked for #VE on CPUID is the caller's business.
pub fn guest_cpuid(
    rules: &Rules,
    td: &dyn FieldStore,
    vcpu: &VcpuFacts,
    leaf: u32,
    subleaf: u32,
) -> GuestCpuid {
    let leaf = known_leaf(leaf);
    let shows_id = matches!(leaf, leaf::TOPOLOGY | leaf::TOPOLOGY_V2);
    if shows_id && rules.topology.is_present() && vcpu.x2apic_id.is_none() {
        return GuestCpuid::VirtualisationException;
    }
    let Some(mut values) = virtual_cpuid(&rules.cpuid, td, leaf, subleaf) else {
        return GuestCpuid::VirtualisationException;
    };
    fill_in(&mut values, vcpu, leaf, subleaf);
    GuestCpuid::Values(values)
}

/// The bits that follow the VCPU's state.
fn fill_in(values: &mut CpuidValues, vcpu: &VcpuFacts, leaf: u32, subleaf: u32) {
    /// IA32_TSX_CTRL: CPUID does not show TSX.
    const TSX_CPUID_CLEAR: u64 = 1 << 1;
    let id = vcpu.x2apic_id.unwrap_or(vcpu.index);
    let shown = |values: CpuidValues, of, on: bool| if on { values.with(of) } else { values.without(of) };
    match (leaf, subleaf) {
        (leaf::VERSION, _) => {
            values.ebx = values.ebx & 0x00ff_ffff | (id & 0xff) << 24;
            *values = shown(*values, feature::OSXSAVE, vcpu.cr4 & cr4::OSXSAVE != 0);
        }
        (leaf::FEATURES, 0) => {
            *values = shown(*values, feature::OSPKE, vcpu.cr4 & cr4::PKE != 0);
            if values.has(feature::HLE) && vcpu.tsx_ctrl & TSX_CPUID_CLEAR != 0 {
                *values = values.without(feature::HLE).without(feature::RTM);
            }
        }
        (leaf::EXTENDED_STATE, 0) => values.ebx = xsave::area_size(vcpu.xcr0),
        (leaf::EXTENDED_STATE, 1) => values.ebx = xsave::compacted_size(vcpu.xcr0 | vcpu.xss),
        (leaf::TOPOLOGY | leaf::TOPOLOGY_V2, _) => values.edx = id,
        (leaf::EXTENDED_FEATURES, _) => {
            *values = shown(*values, feature::SYSCALL, vcpu.mode == CodeMode::Long);
        }
        _ => {}
    }
}

/// Whether a TD's virtual CPUID has a feature.
pub(crate) fn offers(table: &CpuidTable, td: &dyn FieldStore, feature: Feature) -> bool {
    virtual_cpuid(table, td, feature.leaf, feature.subleaf).is_some_and(|values| values.has(feature))
}
