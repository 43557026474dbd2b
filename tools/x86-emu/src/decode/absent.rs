//! What becomes of encodings of features that this CPU does not have.
//!
//! A processor without a feature does one of two things with its encodings: most are undefined, and hints were given
//! encodings that had been set aside as no-operations. (The third, an older instruction whose prefix was ignored before,
//! does not occur: this CPU has LZCNT and BMI1.) [`fate`] says which. What CPUID tells a guest must agree with
//! [`has`]: the emulated processor offers nothing that is not in it.

use iced_x86::{CpuidFeature, Instruction, Mnemonic};

/// What a processor without the feature does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// #UD.
    Undefined,
    /// Nothing.
    Nothing,
}

/// Whether the CPU has a feature. Instructions for VMX, SEAM and SGX are in it because they belong to its owner, who
/// decides about them.
const fn has(feature: CpuidFeature) -> bool {
    use CpuidFeature as F;
    matches!(
        feature,
        F::INTEL8086
            | F::INTEL186
            | F::INTEL286
            | F::INTEL386
            | F::INTEL486
            | F::X64
            | F::FPU
            | F::FPU287
            | F::FPU387
            | F::MMX
            | F::SSE
            | F::SSE2
            | F::SSE3
            | F::SSSE3
            | F::SSE4_1
            | F::SSE4_2
            | F::AVX
            | F::AVX2
            | F::FMA
            | F::F16C
            | F::VAES
            | F::VPCLMULQDQ
            | F::AES
            | F::PCLMULQDQ
            | F::SHA
            | F::BMI1
            | F::BMI2
            | F::ADX
            | F::POPCNT
            | F::LZCNT
            | F::MOVBE
            | F::CMOV
            | F::CX8
            | F::CMPXCHG16B
            | F::CPUID
            | F::CLFSH
            | F::CLFLUSHOPT
            | F::CLWB
            | F::RDRAND
            | F::RDSEED
            | F::FSGSBASE
            | F::INVPCID
            | F::XSAVE
            | F::XSAVEOPT
            | F::XSAVEC
            | F::XSAVES
            | F::MOVDIRI
            | F::MOVDIR64B
            | F::SERIALIZE
            | F::SYSCALL
            | F::SEP
            | F::MSR
            | F::TSC
            | F::RDTSCP
            | F::RDPID
            | F::RDPMC
            | F::SMAP
            | F::FXSR
            | F::MULTIBYTENOP
            | F::PAUSE
            | F::MONITOR
            | F::WBNOINVD
            | F::VMX
            | F::INVEPT
            | F::INVVPID
            | F::SMX
            | F::SGX1
            | F::PCONFIG
            | F::PKU
            | F::CLDEMOTE
            | F::TDX
    )
}

/// Whether the CPU has a feature, by the decoder's name: every encoding of it does what it does on a processor that has
/// it. What CPUID says of instructions is derived from this.
pub const fn offers(feature: CpuidFeature) -> bool {
    has(feature)
}

/// What the CPU does with an instruction of a feature that it lacks; `None` where it has the feature.
pub(crate) fn fate(i: &Instruction) -> Option<Fate> {
    use Mnemonic as M;
    Some(match i.mnemonic() {
        // Hints and checks in the space of reserved no-operations: CET, CLDEMOTE, MPX, PREFETCHW and PREFETCHIT.
        M::Endbr32
        | M::Endbr64
        | M::Rdsspd
        | M::Rdsspq
        | M::Bndmov
        | M::Bndcl
        | M::Bndcu
        | M::Bndcn
        | M::Bndmk
        | M::Bndldx
        | M::Bndstx
        | M::Prefetch
        | M::Prefetchw
        | M::Prefetchwt1
        | M::Prefetchit0
        | M::Prefetchit1
        | M::Reservednop => Fate::Nothing,
        _ if i.cpuid_features().iter().all(|feature| has(*feature)) => return None,
        _ => Fate::Undefined,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::super::{CodeMode, MAX_INSTRUCTION, decoder, vex_heads};
    use super::*;
    use crate::ops;

    /// Names that stand for no bit of CPUID: INVEPT and INVVPID come with VMX, OSS is an alias, and what is left of the
    /// space of no-operations does nothing by its fate.
    const ELSEWHERE: [CpuidFeature; 4] =
        [CpuidFeature::INVEPT, CpuidFeature::INVVPID, CpuidFeature::OSS, CpuidFeature::MULTIBYTENOP];

    /// For each feature, the forms of 64-bit mode that need it and otherwise nothing that the CPU lacks: all of them, and
    /// those without an operation.
    fn forms() -> BTreeMap<u32, (CpuidFeature, usize, BTreeSet<String>)> {
        let maps: [&[u8]; 6] =
            [&[], &[0x0F], &[0x0F, 0x38], &[0x0F, 0x3A], &[0x62, 0xF1, 0x7C, 0x48], &[0x8F, 0xE8, 0x78]];
        let prefixes = [&[][..], &[0x66], &[0xF2], &[0xF3], &[0xF0], &[0x66, 0xF2]];
        let rexes: [&[u8]; 2] = [&[], &[0x48]];
        let prefixed = prefixes.iter().flat_map(|p| rexes.iter().map(move |r| [*p, *r].concat()));
        let legacy = prefixed.flat_map(|prefix| maps.map(|map| [&prefix, map].concat()));
        let mut seen = BTreeSet::new();
        let mut forms = BTreeMap::new();
        for head in legacy.chain(vex_heads()) {
            for (opcode, modrm) in (0..=255u8).flat_map(|op| (0..=255u8).map(move |modrm| (op, modrm))) {
                let mut bytes = [&head[..], &[opcode, modrm]].concat();
                bytes.resize(MAX_INSTRUCTION, 0);
                let i = decoder(CodeMode::Code64, &bytes).decode();
                if i.is_invalid() || !seen.insert((i.code(), i.op0_kind() as u8, i.op1_kind() as u8)) {
                    continue;
                }
                let features = i.cpuid_features();
                let lacking: Vec<_> = features.iter().filter(|feature| !has(**feature)).collect();
                for feature in features {
                    if lacking.iter().any(|other| *other != feature) {
                        continue;
                    }
                    let entry = forms.entry(*feature as u32).or_insert((*feature, 0, BTreeSet::new()));
                    entry.1 += 1;
                    if ops::decode(&i, true).is_none() {
                        entry.2.insert(format!("{:?}", i.code()));
                    }
                }
            }
        }
        forms
    }

    #[test]
    fn a_feature_is_offered_exactly_where_all_of_its_encodings_have_an_operation() {
        let forms = forms();
        assert!(forms.len() > 40, "{} features", forms.len());
        let wrong: Vec<_> = forms
            .values()
            .filter(|(feature, ..)| !ELSEWHERE.contains(feature))
            .filter(|(feature, _, missing)| has(*feature) != missing.is_empty())
            .map(|(feature, count, missing)| format!("{feature:?}: of {count} forms {missing:?} are missing"))
            .collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}
