//! What becomes of encodings of features that this CPU does not have.
//!
//! A processor without a feature does one of three things with its encodings: most are undefined; some are another,
//! older instruction, because the prefix that makes the difference was ignored before; and hints were given encodings
//! that had been set aside as no-operations. [`fate`] says which. What CPUID tells a guest must agree with
//! [`has`]: the emulated processor offers nothing that is not in it.

use iced_x86::{Code, CpuidFeature, Instruction, Mnemonic};

/// What a processor without the feature does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// #UD.
    Undefined,
    /// Nothing.
    Nothing,
    /// What this code does with the same operands.
    Older(Code),
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
            | F::SMX
            | F::SGX1
            | F::PCONFIG
            | F::PKU
            | F::CLDEMOTE
            | F::TDX
    )
}

/// What the CPU does with an instruction of a feature that it lacks; `None` where it has the feature.
pub(crate) fn fate(i: &Instruction) -> Option<Fate> {
    use Mnemonic as M;
    Some(match i.mnemonic() {
        // BMI1: the REP prefix of BSF was ignored.
        M::Tzcnt => match i.code() {
            Code::Tzcnt_r16_rm16 => Fate::Older(Code::Bsf_r16_rm16),
            Code::Tzcnt_r32_rm32 => Fate::Older(Code::Bsf_r32_rm32),
            _ => Fate::Older(Code::Bsf_r64_rm64),
        },
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
