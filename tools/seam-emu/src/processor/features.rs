//! What CPUID of the emulated processor offers, bit by bit.
//!
//! [`TABLE`] has one row for each feature bit of the server processors that are emulated. A row does not say whether the
//! bit is set: it says what the bit needs. Where it needs instructions, or bits of CR4 and XCR0, x86-emu is asked: a
//! feature is offered from the day on which its last encoding is implemented, and nobody has to remember it here.
//! Where it needs neither, the row names what behaves so.

use x86_arch::cpuid::{Feature, feature};
use x86_arch::xcr0::{AMX, AVX, PKRU};
use x86_arch::{cr4, xcr0};
use x86_emu::{Controls, CpuidFeature as F};

use super::model::{Model, Models};

/// What a feature needs in order to be offered.
#[derive(Clone, Copy, Debug)]
pub enum Needs {
    /// Every encoding of these features in the software CPU, and that it lets these bits of CR4 and XCR0 be set.
    Cpu {
        /// Features, by the decoder's names.
        instructions: &'static [F],
        /// Bits of CR4.
        cr4: u64,
        /// Bits of XCR0.
        xcr0: u64,
    },
    /// No instruction: what behaves so is named.
    Behaviour(&'static str),
    /// Something that is not there: the model has the bit, the emulated processor does not.
    Missing(&'static str),
}

/// Whether a user may take a bit away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Masking {
    /// Yes.
    Allowed,
    /// No: 64-bit kernels, or the module, are lost without it.
    Refused,
}

/// One bit.
#[derive(Clone, Copy, Debug)]
pub struct CpuFeature {
    /// Where the bit is, and the name by which users know it.
    pub feature: Feature,
    /// What the feature needs.
    pub needs: Needs,
    /// Whether the feature can be masked.
    pub masking: Masking,
    /// Which models have it.
    pub models: Models,
}

impl CpuFeature {
    /// Whether a model offers it, nothing masked.
    pub fn is_offered(&self, model: Model) -> bool {
        self.models.contain(model)
            && match self.needs {
                Needs::Cpu { instructions, cr4, xcr0 } => {
                    let cpu = Controls::default();
                    instructions.iter().all(|feature| x86_emu::offers(*feature))
                        && cr4 & !cpu.cr4_supported == 0
                        && xcr0 & !cpu.xcr0_supported == 0
                }
                Needs::Behaviour(_) => true,
                Needs::Missing(_) => false,
            }
    }
}

const fn row(feature: Feature, needs: Needs) -> CpuFeature {
    CpuFeature { feature, needs, masking: Masking::Allowed, models: Models::All }
}

/// Needs instructions.
const fn cpu(feature: Feature, instructions: &'static [F]) -> CpuFeature {
    row(feature, Needs::Cpu { instructions, cr4: 0, xcr0: 0 })
}

/// Needs bits of CR4, and instructions.
const fn with_cr4(feature: Feature, cr4: u64, instructions: &'static [F]) -> CpuFeature {
    row(feature, Needs::Cpu { instructions, cr4, xcr0: 0 })
}

/// Needs state components, and instructions.
const fn with_xcr0(feature: Feature, xcr0: u64, instructions: &'static [F]) -> CpuFeature {
    row(feature, Needs::Cpu { instructions, cr4: cr4::OSXSAVE, xcr0 })
}

const fn behaviour(feature: Feature, what: &'static str) -> CpuFeature {
    row(feature, Needs::Behaviour(what))
}

const fn missing(feature: Feature, what: &'static str) -> CpuFeature {
    row(feature, Needs::Missing(what))
}

impl CpuFeature {
    /// The row, not to be masked.
    const fn base(mut self) -> Self {
        self.masking = Masking::Refused;
        self
    }

    /// The row, of some models.
    const fn of(mut self, models: Models) -> Self {
        self.models = models;
        self
    }
}

/// AVX-512 is nothing without AVX.
const AVX512: u64 = xcr0::AVX512 | AVX;

const NO_VIRTUALISATION: &str = "the server's CPUs say so themselves; a TD has no VMX";
const NO_TRACE: &str = "no branches are recorded";
const NO_POWER: &str = "there are no power states, and MONITOR is the host's";
const NO_THERMAL: &str = "there is no temperature";

/// Every feature bit of the models, by leaf, register and bit (SDM volume 2, CPUID).
#[rustfmt::skip]
pub const TABLE: &[CpuFeature] = &[
    cpu(feature::SSE3, &[F::SSE3]).base(),
    cpu(feature::PCLMULQDQ, &[F::PCLMULQDQ]),
    behaviour(feature::DTES64, "IA32_DS_AREA holds 64 bits"),
    missing(feature::MONITOR, NO_POWER),
    missing(feature::DS_CPL, NO_TRACE),
    missing(feature::VMX, NO_VIRTUALISATION),
    missing(feature::SMX, NO_VIRTUALISATION),
    missing(feature::EST, NO_POWER),
    missing(feature::TM2, NO_THERMAL),
    cpu(feature::SSSE3, &[F::SSSE3]),
    missing(feature::SDBG, "there is no debug port"),
    with_xcr0(feature::FMA, AVX, &[F::AVX, F::FMA]),
    cpu(feature::CX16, &[F::CMPXCHG16B]).base(),
    missing(feature::XTPR, "there are no task-priority messages"),
    behaviour(feature::PDCM, "IA32_PERF_CAPABILITIES is read"),
    with_cr4(feature::PCID, cr4::PCIDE, &[]),
    missing(feature::DCA, "there is no cache to write into"),
    cpu(feature::SSE4_1, &[F::SSE4_1]),
    cpu(feature::SSE4_2, &[F::SSE4_2]),
    behaviour(feature::X2APIC, "the local APIC is reached by MSRs").base(),
    cpu(feature::MOVBE, &[F::MOVBE]),
    cpu(feature::POPCNT, &[F::POPCNT]),
    behaviour(feature::TSC_DEADLINE, "IA32_TSC_DEADLINE arms the APIC's timer"),
    cpu(feature::AES, &[F::AES]),
    with_cr4(feature::XSAVE, cr4::OSXSAVE, &[F::XSAVE]).base(),
    with_xcr0(feature::AVX, AVX, &[F::AVX]),
    with_xcr0(feature::F16C, AVX, &[F::AVX, F::F16C]),
    cpu(feature::RDRAND, &[F::RDRAND]),

    cpu(feature::FPU, &[F::FPU, F::FPU287, F::FPU387]).base(),
    with_cr4(feature::VME, cr4::VME, &[]),
    with_cr4(feature::DE, cr4::DE, &[]).base(),
    with_cr4(feature::PSE, cr4::PSE, &[]).base(),
    with_cr4(feature::TSC, cr4::TSD, &[F::TSC]).base(),
    cpu(feature::MSR, &[F::MSR]).base(),
    with_cr4(feature::PAE, cr4::PAE, &[]).base(),
    with_cr4(feature::MCE, cr4::MCE, &[]).base(),
    cpu(feature::CX8, &[F::CX8]).base(),
    behaviour(feature::APIC, "there is a local APIC").base(),
    cpu(feature::SEP, &[F::SEP]).base(),
    behaviour(feature::MTRR, "the memory-type range registers are read and written").base(),
    with_cr4(feature::PGE, cr4::PGE, &[]).base(),
    behaviour(feature::MCA, "IA32_MCG_CAP counts the banks, of which there are none").base(),
    cpu(feature::CMOV, &[F::CMOV]).base(),
    behaviour(feature::PAT, "IA32_PAT takes the memory types, and refuses what is none").base(),
    behaviour(feature::PSE36, "4 MiB pages have 40 address bits").base(),
    cpu(feature::CLFLUSH, &[F::CLFSH]).base(),
    behaviour(feature::DS, "IA32_DS_AREA is kept; IA32_MISC_ENABLE says that neither BTS nor PEBS use it"),
    missing(feature::ACPI, NO_THERMAL),
    cpu(feature::MMX, &[F::MMX]).base(),
    with_cr4(feature::FXSR, cr4::OSFXSR, &[F::FXSR]).base(),
    cpu(feature::SSE, &[F::SSE]).base(),
    cpu(feature::SSE2, &[F::SSE2]).base(),
    behaviour(feature::SELF_SNOOP, "a processor always sees its own stores").base(),
    behaviour(feature::HT, "leaf 1 counts the processors of a package").base(),
    missing(feature::TM, NO_THERMAL),
    missing(feature::PBE, NO_POWER),

    with_cr4(feature::FSGSBASE, cr4::FSGSBASE, &[F::FSGSBASE]),
    missing(feature::TSC_ADJUST, "the server's CPUs say so themselves; a TD has none"),
    missing(feature::SGX, "there are no enclaves"),
    cpu(feature::BMI1, &[F::BMI1]),
    with_xcr0(feature::AVX2, AVX, &[F::AVX2]),
    behaviour(feature::FDP_EXCPTN_ONLY, "the x87 data pointer follows unmasked exceptions only"),
    with_cr4(feature::SMEP, cr4::SMEP, &[]),
    cpu(feature::BMI2, &[F::BMI2]),
    behaviour(feature::ERMS, "REP MOVSB and STOSB are as good as any other size"),
    cpu(feature::INVPCID, &[F::INVPCID]),
    missing(feature::CQM, "no cache is watched"),
    behaviour(feature::ZERO_FCS_FDS, "the x87 instruction and data selectors are saved as zero"),
    missing(feature::RDT_A, "no cache is divided"),
    with_xcr0(feature::AVX512F, AVX512, &[F::AVX512F]),
    with_xcr0(feature::AVX512DQ, AVX512, &[F::AVX512DQ]),
    cpu(feature::RDSEED, &[F::RDSEED]),
    cpu(feature::ADX, &[F::ADX]),
    with_cr4(feature::SMAP, cr4::SMAP, &[F::SMAP]),
    with_xcr0(feature::AVX512IFMA, AVX512, &[F::AVX512_IFMA]),
    cpu(feature::CLFLUSHOPT, &[F::CLFLUSHOPT]),
    cpu(feature::CLWB, &[F::CLWB]),
    missing(feature::INTEL_PT, NO_TRACE),
    with_xcr0(feature::AVX512CD, AVX512, &[F::AVX512CD]),
    cpu(feature::SHA, &[F::SHA]),
    with_xcr0(feature::AVX512BW, AVX512, &[F::AVX512BW]),
    with_xcr0(feature::AVX512VL, AVX512, &[F::AVX512VL]),

    with_xcr0(feature::AVX512VBMI, AVX512, &[F::AVX512_VBMI]),
    with_cr4(feature::UMIP, cr4::UMIP, &[]),
    row(feature::PKU, Needs::Cpu { instructions: &[F::PKU], cr4: cr4::PKE, xcr0: PKRU }),
    cpu(feature::WAITPKG, &[F::WAITPKG]),
    with_xcr0(feature::AVX512_VBMI2, AVX512, &[F::AVX512_VBMI2]),
    missing(feature::SHSTK, "there are no shadow stacks"),
    cpu(feature::GFNI, &[F::GFNI]),
    with_xcr0(feature::VAES, AVX, &[F::VAES]),
    with_xcr0(feature::VPCLMULQDQ, AVX, &[F::VPCLMULQDQ]),
    with_xcr0(feature::AVX512_VNNI, AVX512, &[F::AVX512_VNNI]),
    with_xcr0(feature::AVX512_BITALG, AVX512, &[F::AVX512_BITALG]),
    missing(feature::TME, "the server's CPUs say so themselves; a TD has none"),
    with_xcr0(feature::AVX512_VPOPCNTDQ, AVX512, &[F::AVX512_VPOPCNTDQ]),
    missing(feature::LA57, "no guest has been brought up on five levels"),
    cpu(feature::RDPID, &[F::RDPID]),
    missing(feature::BUS_LOCK_DETECT, "bus locks are not detected"),
    cpu(feature::CLDEMOTE, &[F::CLDEMOTE]),
    cpu(feature::MOVDIRI, &[F::MOVDIRI]),
    cpu(feature::MOVDIR64B, &[F::MOVDIR64B]),
    cpu(feature::ENQCMD, &[F::ENQCMD]),
    missing(feature::PKS, "there are no keys for supervisor pages"),

    behaviour(feature::FSRM, "a short REP MOVSB is as good as a long one"),
    cpu(feature::UINTR, &[F::UINTR]),
    missing(feature::MD_CLEAR, "no buffer holds what VERW would clear"),
    cpu(feature::SERIALIZE, &[F::SERIALIZE]),
    missing(feature::TSXLDTRK, "there are no transactions"),
    missing(feature::PCONFIG, NO_VIRTUALISATION),
    missing(feature::ARCH_LBR, NO_TRACE),
    missing(feature::IBT, "branches are not tracked"),
    with_xcr0(feature::AMX_BF16, AMX, &[F::AMX_BF16]),
    with_xcr0(feature::AVX512_FP16, AVX512, &[F::AVX512_FP16]),
    with_xcr0(feature::AMX_TILE, AMX, &[F::AMX_TILE]),
    with_xcr0(feature::AMX_INT8, AMX, &[F::AMX_INT8]),
    behaviour(feature::SPEC_CTRL, "IA32_SPEC_CTRL.IBRS and IA32_PRED_CMD are there; nothing is speculated").base(),
    behaviour(feature::STIBP, "IA32_SPEC_CTRL.STIBP is there; nothing is speculated"),
    missing(feature::FLUSH_L1D, "there is no first-level cache to flush"),
    behaviour(feature::ARCH_CAPABILITIES, "IA32_ARCH_CAPABILITIES says what does not afflict the processor").base(),
    missing(feature::CORE_CAPABILITIES, "split locks are not detected"),
    behaviour(feature::SSBD, "IA32_SPEC_CTRL.SSBD is there; nothing is speculated"),

    with_xcr0(feature::AVX_VNNI, AVX, &[F::AVX_VNNI]),
    with_xcr0(feature::AVX512_BF16, AVX512, &[F::AVX512_BF16]),
    with_xcr0(feature::AMX_FP16, AMX, &[F::AMX_FP16]).of(Models::GraniteRapids),

    behaviour(feature::PSFD, "IA32_SPEC_CTRL.PSFD is there; nothing is speculated"),
    behaviour(feature::IPRED_CTRL, "IA32_SPEC_CTRL.IPRED_DIS_U and _S are there; nothing is speculated"),
    behaviour(feature::RRSBA_CTRL, "IA32_SPEC_CTRL.RRSBA_DIS_U and _S are there; nothing is speculated"),
    missing(feature::DDPD_U, "no data-dependent prefetcher is there to stop"),
    behaviour(feature::BHI_CTRL, "IA32_SPEC_CTRL.BHI_DIS_S is there; nothing is speculated"),
    behaviour(feature::MCDT_NO, "no instruction takes longer for one value than for another").of(Models::GraniteRapids),

    cpu(feature::XSAVEOPT, &[F::XSAVEOPT]).base(),
    cpu(feature::XSAVEC, &[F::XSAVEC]).base(),
    behaviour(feature::XGETBV1, "XGETBV with ECX = 1").base(),
    cpu(feature::XSAVES, &[F::XSAVES]).base(),
    missing(feature::XFD, "no component is large enough to be taken away"),

    behaviour(feature::LAHF_LM, "LAHF and SAHF in 64-bit mode").base(),
    cpu(feature::ABM, &[F::LZCNT]),
    behaviour(feature::PREFETCHW, "PREFETCHW is a hint, and taken as one"),
    cpu(feature::SYSCALL, &[F::SYSCALL]).base(),
    behaviour(feature::NX, "pages are not executable where their tables say so").base(),
    behaviour(feature::PDPE1GB, "1 GiB pages"),
    cpu(feature::RDTSCP, &[F::RDTSCP]),
    cpu(feature::LM, &[F::X64]).base(),
    behaviour(feature::CONSTANT_TSC, "one rate, whatever the processors do").base(),
    cpu(feature::WBNOINVD, &[F::WBNOINVD]),
    behaviour(feature::ARAT, "the APIC's timer never stops"),
];

/// The row with a name.
pub fn named(name: &str) -> Option<(usize, &'static CpuFeature)> {
    TABLE.iter().enumerate().find(|(_, row)| row.feature.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_feature_has_two_rows() {
        for (index, row) in TABLE.iter().enumerate() {
            let later = &TABLE[index + 1..];
            assert!(!later.iter().any(|other| other.feature == row.feature), "{}", row.feature.name);
        }
    }

    #[test]
    fn a_feature_is_offered_exactly_where_the_cpu_has_all_of_its_encodings() {
        let cpu = Controls::default();
        for row in TABLE {
            let Needs::Cpu { instructions, cr4, xcr0 } = row.needs else { continue };
            let complete = instructions.iter().all(|of| x86_emu::offers(*of));
            let registers = cr4 & !cpu.cr4_supported == 0 && xcr0 & !cpu.xcr0_supported == 0;
            assert_eq!(row.is_offered(Model::GraniteRapids), complete && registers, "{}", row.feature.name);
            assert!(!instructions.is_empty() || cr4 != 0, "{} needs nothing", row.feature.name);
        }
    }

    #[test]
    fn what_cannot_be_masked_is_there() {
        for model in Model::ALL {
            for row in TABLE.iter().filter(|row| row.masking == Masking::Refused) {
                assert!(row.is_offered(model), "{model}: {}", row.feature.name);
            }
        }
    }
}
