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
