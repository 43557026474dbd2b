//! What XFAM takes away from CPUID: a feature whose state a TD may not use is not offered to it.
//!
//! Source: recordings of module 1.5.05.

use tdx_module_iface::metadata::cpuid::CpuidRegs;

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

const AVX: u64 = 1 << 2;
const AVX512: u64 = 7 << 5;
const PT: u64 = 1 << 8;
const PKRU: u64 = 1 << 9;
const CET: u64 = 3 << 11;
const UINTR: u64 = 1 << 14;
const LBR: u64 = 1 << 15;
const AMX: u64 = 3 << 17;

const fn gate(leaf: u32, subleaf: Option<u32>, components: u64, features: CpuidRegs) -> Gate {
    Gate { leaf, subleaf, components, features }
}

const GATES: &[Gate] = &[
    // FMA, AVX, F16C.
    gate(0x1, None, AVX, [0, 0, 1 << 12 | 3 << 28, 0]),
    // AVX2; VAES, VPCLMULQDQ.
    gate(0x7, Some(0), AVX, [0, 1 << 5, 3 << 9, 0]),
    // AVX-512 F, DQ, IFMA, PF, ER, CD, BW, VL; VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ; 4VNNIW, 4FMAPS, VP2INTERSECT, FP16.
    gate(
        0x7,
        Some(0),
        AVX512,
        [
            0,
            3 << 16 | 1 << 21 | 7 << 26 | 3 << 30,
            1 << 1 | 1 << 6 | 3 << 11 | 1 << 14,
            3 << 2 | 1 << 8 | 1 << 23,
        ],
    ),
    gate(0x7, Some(0), PT, [0, 1 << 25, 0, 0]),
    gate(0x7, Some(0), PKRU, [0, 0, 1 << 3, 0]),
    // Shadow stacks; indirect branch tracking.
    gate(0x7, Some(0), CET, [0, 0, 1 << 7, 1 << 20]),
    gate(0x7, Some(0), UINTR, [0, 0, 0, 1 << 5]),
    gate(0x7, Some(0), LBR, [0, 0, 0, 1 << 19]),
    // AMX-BF16, AMX-TILE, AMX-INT8.
    gate(0x7, Some(0), AMX, [0, 0, 0, 1 << 22 | 3 << 24]),
    // AVX-VNNI; AVX-VNNI-INT8, AVX-NE-CONVERT, AVX-VNNI-INT16.
    gate(0x7, Some(1), AVX, [1 << 4, 0, 0, 3 << 4 | 1 << 10]),
    // AVX512-BF16.
    gate(0x7, Some(1), AVX512, [1 << 5, 0, 0, 0]),
    gate(0xd, Some(0), AVX, [1 << 2, 0, 0, 0]),
    gate(0xd, Some(0), AVX512, [7 << 5, 0, 0, 0]),
    gate(0xd, Some(0), PKRU, [1 << 9, 0, 0, 0]),
    gate(0xd, Some(0), AMX, [3 << 17, 0, 0, 0]),
    gate(0xd, Some(1), PT, [0, 0, 1 << 8, 0]),
    gate(0xd, Some(1), CET, [0, 0, 3 << 11, 0]),
    gate(0xd, Some(1), UINTR, [0, 0, 1 << 14, 0]),
    gate(0xd, Some(1), LBR, [0, 0, 1 << 15, 0]),
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
        withdraw(7, Some(0), !PKRU, &mut value);
        assert_eq!(value, [u32::MAX, u32::MAX, !(1 << 3), u32::MAX]);
        let mut value = ALL;
        withdraw(7, Some(0), u64::MAX, &mut value);
        assert_eq!(value, ALL);
    }
}
