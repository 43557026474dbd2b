//! What XFAM takes away from CPUID: a feature whose state a TD may not use is not offered to it.
//!
//! Source: recordings of module 1.5.05.

use tdx_module_iface::metadata::cpuid::CpuidRegs;
use x86_arch::cpuid::{Feature, Register, bits, feature as f, leaf};
use x86_arch::{xcr0, xss};

/// Bits of one leaf that exist only with state components in XFAM.
struct Gate {
    leaf: u32,
    /// `None` where the leaf has no subleaves.
    subleaf: Option<u32>,
    /// XFAM bits; without any one of them the features are gone.
    components: u64,
    /// The features: EAX, EBX, ECX, EDX.
    features: CpuidRegs,
}

/// Features of a leaf.
const fn gate(leaf: u32, subleaf: Option<u32>, components: u64, features: &[Feature]) -> Gate {
    Gate { leaf, subleaf, components, features: bits(features) }
}

/// The components themselves, as leaf 0DH lists them: those of XCR0 in subleaf 0, those of IA32_XSS in subleaf 1.
const fn listed(register: Register, components: u64) -> Gate {
    let subleaf = match register {
        Register::Eax => 0,
        _ => 1,
    };
    Gate {
        leaf: leaf::EXTENDED_STATE,
        subleaf: Some(subleaf),
        components,
        features: register.holding(components as u32),
    }
}

const GATES: &[Gate] = &[
    gate(leaf::VERSION, None, xcr0::AVX, &[f::FMA, f::AVX, f::F16C]),
    gate(leaf::FEATURES, Some(0), xcr0::AVX, &[f::AVX2, f::VAES, f::VPCLMULQDQ]),
    gate(
        leaf::FEATURES,
        Some(0),
        xcr0::AVX512,
        &[
            f::AVX512F,
            f::AVX512DQ,
            f::AVX512IFMA,
            f::AVX512PF,
            f::AVX512ER,
            f::AVX512CD,
            f::AVX512BW,
            f::AVX512VL,
            f::AVX512VBMI,
            f::AVX512_VBMI2,
            f::AVX512_VNNI,
            f::AVX512_BITALG,
            f::AVX512_VPOPCNTDQ,
            f::AVX512_4VNNIW,
            f::AVX512_4FMAPS,
            f::AVX512_VP2INTERSECT,
            f::AVX512_FP16,
        ],
    ),
    gate(leaf::FEATURES, Some(0), xss::PT, &[f::INTEL_PT]),
    gate(leaf::FEATURES, Some(0), xcr0::PKRU, &[f::PKU]),
    gate(leaf::FEATURES, Some(0), xss::CET, &[f::SHSTK, f::IBT]),
    gate(leaf::FEATURES, Some(0), xss::UINTR, &[f::UINTR]),
    gate(leaf::FEATURES, Some(0), xss::LBR, &[f::ARCH_LBR]),
    gate(leaf::FEATURES, Some(0), xcr0::AMX, &[f::AMX_BF16, f::AMX_TILE, f::AMX_INT8]),
    gate(
        leaf::FEATURES,
        Some(1),
        xcr0::AVX,
        &[f::AVX_VNNI, f::AVX_VNNI_INT8, f::AVX_NE_CONVERT, f::AVX_VNNI_INT16],
    ),
    gate(leaf::FEATURES, Some(1), xcr0::AVX512, &[f::AVX512_BF16]),
    listed(Register::Eax, xcr0::AVX),
    listed(Register::Eax, xcr0::AVX512),
    listed(Register::Eax, xcr0::PKRU),
    listed(Register::Eax, xcr0::AMX),
    listed(Register::Ecx, xss::PT),
    listed(Register::Ecx, xss::CET),
    listed(Register::Ecx, xss::UINTR),
    listed(Register::Ecx, xss::LBR),
];

/// Clears the features of a leaf whose state components XFAM does not have.
pub(super) fn withdraw(leaf: u32, subleaf: Option<u32>, xfam: u64, value: &mut CpuidRegs) {
    let of_leaf = |gate: &&Gate| (gate.leaf, gate.subleaf) == (leaf, subleaf);
    for gate in GATES.iter().filter(of_leaf) {
        if xfam & gate.components != gate.components {
            for (register, features) in value.iter_mut().zip(gate.features) {
                *register &= !features;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: CpuidRegs = [u32::MAX; 4];

    #[test]
    fn each_component_takes_its_features_along_and_no_others() {
        for gate in GATES {
            for bit in (0..64).filter(|bit| gate.components >> bit & 1 != 0) {
                let mut value = ALL;
                withdraw(gate.leaf, gate.subleaf, !(1 << bit), &mut value);
                let removed: CpuidRegs = value.map(|register| !register);
                let mut expected = [0; 4];
                for other in GATES.iter().filter(|other| other.components >> bit & 1 != 0) {
                    if (other.leaf, other.subleaf) == (gate.leaf, gate.subleaf) {
                        for (all, features) in expected.iter_mut().zip(other.features) {
                            *all |= features;
                        }
                    }
                }
                assert_eq!(removed, expected, "leaf {:#x} without XFAM[{bit}]", gate.leaf);
            }
        }
    }

    #[test]
    fn without_xfam_9_there_are_no_protection_keys_and_with_all_of_xfam_everything_stays() {
        let mut value = ALL;
        withdraw(7, Some(0), !xcr0::PKRU, &mut value);
        assert_eq!(value, [u32::MAX, u32::MAX, !f::PKU.mask(), u32::MAX]);
        let mut value = ALL;
        withdraw(7, Some(0), u64::MAX, &mut value);
        assert_eq!(value, ALL);
    }
}
