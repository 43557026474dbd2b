//! What a CPUID instruction in a TD gives.

use super::{CpuidValues, xsave};
use crate::fields::layout::tdcs;
use crate::fields::{FieldStore, Width};
use crate::metadata::cpuid_position;

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
    /// Index of the VCPU, which is also its x2APIC id.
    pub index: u32,
    /// The guest's CR4.
    pub cr4: u64,
    /// XCR0.
    pub xcr0: u64,
    /// IA32_XSS.
    pub xss: u64,
}

/// Answers CPUID from the values of the TD. Whether the guest asked for #VE on CPUID is the caller's business.
pub fn guest_cpuid(td: &dyn FieldStore, vcpu: &VcpuFacts, leaf: u32, subleaf: u32) -> GuestCpuid {
    let leaf = match leaf {
        0..=MAX_BASIC | 0x4000_0000..=0x4fff_ffff | 0x8000_0000..=MAX_EXTENDED => leaf,
        _ => MAX_BASIC,
    };
    let Some(position) = cpuid_position(leaf, subleaf) else {
        return GuestCpuid::VirtualisationException;
    };
    let position = position as u32;
    if td.load(tdcs::CPUID_VALID + position, Width::B1) == 0 {
        return GuestCpuid::VirtualisationException;
    }
    let low = td.load_u64(tdcs::CPUID_VALUES + position * 16);
    let high = td.load_u64(tdcs::CPUID_VALUES + position * 16 + 8);
    let mut values =
        CpuidValues { eax: low as u32, ebx: (low >> 32) as u32, ecx: high as u32, edx: (high >> 32) as u32 };
    fill_in(&mut values, vcpu, leaf, subleaf);
    GuestCpuid::Values(values)
}

/// The bits that follow the VCPU's state.
fn fill_in(values: &mut CpuidValues, vcpu: &VcpuFacts, leaf: u32, subleaf: u32) {
    const CR4_OSXSAVE: u64 = 1 << 18;
    const CR4_PKE: u64 = 1 << 22;
    match (leaf, subleaf) {
        (1, _) => {
            values.ebx = values.ebx & 0x00ff_ffff | (vcpu.index & 0xff) << 24;
            set(&mut values.ecx, 27, vcpu.cr4 & CR4_OSXSAVE != 0);
        }
        (7, 0) => set(&mut values.ecx, 4, vcpu.cr4 & CR4_PKE != 0),
        (0xd, 0) => values.ebx = xsave::area_size(vcpu.xcr0),
        (0xd, 1) => values.ebx = xsave::area_size(vcpu.xcr0 | vcpu.xss),
        (0x1f, _) => values.edx = vcpu.index,
        _ => {}
    }
}

const fn set(register: &mut u32, bit: u32, value: bool) {
    *register = *register & !(1 << bit) | (value as u32) << bit;
}
