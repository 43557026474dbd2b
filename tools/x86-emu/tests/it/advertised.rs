//! Every encoding of every feature that CPUID offers to a TD is implemented: what a compiler, a C library or a probe finds
//! offered, it may use.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{CpuidFeature as F, Decoder, DecoderOptions, EncodingKind, OpKind};

/// The decoder's names for what the emulated processor offers, baseline included.
const OFFERED: &[F] = &[
    F::INTEL8086,
    F::INTEL186,
    F::INTEL286,
    F::INTEL386,
    F::INTEL486,
    F::X64,
    F::MULTIBYTENOP,
    F::PAUSE,
    F::FPU,
    F::FPU287,
    F::FPU387,
    F::MMX,
    F::SSE,
    F::SSE2,
    F::SSE3,
    F::SSSE3,
    F::SSE4_1,
    F::SSE4_2,
    F::AVX,
    F::AVX2,
    F::FMA,
    F::F16C,
    F::VAES,
    F::VPCLMULQDQ,
    F::AES,
    F::PCLMULQDQ,
    F::SHA,
    F::BMI1,
    F::BMI2,
    F::ADX,
    F::POPCNT,
    F::MOVBE,
    F::CMOV,
    F::CX8,
    F::CMPXCHG16B,
    F::CLFSH,
    F::CLFLUSHOPT,
    F::CLWB,
    F::CLDEMOTE,
    F::RDRAND,
    F::RDSEED,
    F::FSGSBASE,
    F::INVPCID,
    F::FXSR,
    F::XSAVE,
    F::XSAVEOPT,
    F::XSAVEC,
    F::XSAVES,
    F::MOVDIRI,
    F::MOVDIR64B,
    F::SERIALIZE,
    F::SYSCALL,
    F::SEP,
    F::MSR,
    F::TSC,
    F::RDTSCP,
    F::RDPID,
    F::SMAP,
    F::MONITOR,
    F::PKU,
];

/// One example of every form of every encoding that needs nothing but these features.
fn forms() -> Vec<(String, Vec<u8>)> {
    const PREFIXES: [&[u8]; 4] = [&[], &[0x66], &[0xF2], &[0xF3]];
    const REX: [&[u8]; 2] = [&[], &[0x48]];
    const MAPS: [&[u8]; 4] = [&[], &[0x0F], &[0x0F, 0x38], &[0x0F, 0x3A]];
    let prefixed = PREFIXES.iter().flat_map(|p| REX.iter().map(move |r| [*p, *r].concat()));
    let legacy = prefixed.flat_map(|prefix| MAPS.map(|map| [&prefix, map].concat()));
    // VEX encodings: three maps, all operand sizes, lengths and prefixes; the first source is a register or none.
    let maps = (1..=3u8).flat_map(|map| (0..16u8).map(move |rest| (map, rest)));
    let vex = maps.flat_map(|(map, rest)| {
        [0x78, 0x70].map(|first| vec![0xC4, 0xE0 | map, first | rest & 7 | (rest & 8) << 4])
    });
    let mut seen = BTreeSet::new();
    let mut forms = Vec::new();
    for head in legacy.chain(vex) {
        for (opcode, modrm) in (0..=255u8).flat_map(|o| (0..=255u8).map(move |m| (o, m))) {
            let mut bytes = [&head[..], &[opcode, modrm]].concat();
            bytes.resize(15, 0);
            let instruction = Decoder::with_ip(64, &bytes, 0x1000, DecoderOptions::NONE).decode();
            let code = instruction.code();
            let offered = code.cpuid_features().iter().all(|feature| OFFERED.contains(feature));
            if instruction.is_invalid()
                || !matches!(code.op_code().encoding(), EncodingKind::Legacy | EncodingKind::VEX)
                || !offered
            {
                continue;
            }
            let memory = instruction.op_kinds().any(|kind| kind == OpKind::Memory);
            if seen.insert((code, memory)) {
                bytes.truncate(instruction.len());
                forms.push((format!("{:?} {code:?}", code.cpuid_features()), bytes));
            }
        }
    }
    forms
}

#[test]
fn every_encoding_of_an_offered_feature_is_implemented() {
    let forms = forms();
    let mut missing: BTreeMap<&str, &[u8]> = BTreeMap::new();
    for (name, bytes) in &forms {
        if !x86_emu::implements(bytes) {
            missing.insert(name, bytes);
        }
    }
    assert!(missing.is_empty(), "{} of {} are missing: {missing:02x?}", missing.len(), forms.len());
    assert!(forms.len() > 3000, "{} forms", forms.len());
}
