//! What CPUID of the emulated processor offers, bit by bit.
//!
//! [`TABLE`] has one row for each feature bit of the server processors that are emulated. A row does not say whether the
//! bit is set: it says what the bit needs. Where it needs instructions, or bits of CR4 and XCR0, x86-emu is asked: a
//! feature is offered from the day on which its last encoding is implemented, and nobody has to remember it here.
//! Where it needs neither, the row names what behaves so.

use x86_arch::cr4;
use x86_emu::{Controls, CpuidFeature as F};

use super::model::{Model, Models};

/// A register of CPUID's answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Register {
    /// EAX.
    Eax,
    /// EBX.
    Ebx,
    /// ECX.
    Ecx,
    /// EDX.
    Edx,
}

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
    /// The name by which users know it: that of Linux, where Linux has one.
    pub name: &'static str,
    /// The leaf.
    pub leaf: u32,
    /// The subleaf.
    pub subleaf: u32,
    /// The register.
    pub register: Register,
    /// The bit.
    pub bit: u32,
    /// What it needs.
    pub needs: Needs,
    /// Whether it can be masked.
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

/// Where a bit is.
type At = (u32, u32, Register, u32);

const fn row(name: &'static str, at: At, needs: Needs) -> CpuFeature {
    let (leaf, subleaf, register, bit) = at;
    CpuFeature { name, leaf, subleaf, register, bit, needs, masking: Masking::Allowed, models: Models::All }
}

/// Needs instructions.
const fn cpu(name: &'static str, at: At, instructions: &'static [F]) -> CpuFeature {
    row(name, at, Needs::Cpu { instructions, cr4: 0, xcr0: 0 })
}

/// Needs bits of CR4, and instructions.
const fn with_cr4(name: &'static str, at: At, cr4: u64, instructions: &'static [F]) -> CpuFeature {
    row(name, at, Needs::Cpu { instructions, cr4, xcr0: 0 })
}

/// Needs state components, and instructions.
const fn with_xcr0(name: &'static str, at: At, xcr0: u64, instructions: &'static [F]) -> CpuFeature {
    row(name, at, Needs::Cpu { instructions, cr4: cr4::OSXSAVE, xcr0 })
}

const fn behaviour(name: &'static str, at: At, what: &'static str) -> CpuFeature {
    row(name, at, Needs::Behaviour(what))
}

const fn missing(name: &'static str, at: At, what: &'static str) -> CpuFeature {
    row(name, at, Needs::Missing(what))
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

const fn c1(bit: u32) -> At {
    (1, 0, Register::Ecx, bit)
}
const fn d1(bit: u32) -> At {
    (1, 0, Register::Edx, bit)
}
const fn b7(bit: u32) -> At {
    (7, 0, Register::Ebx, bit)
}
const fn c7(bit: u32) -> At {
    (7, 0, Register::Ecx, bit)
}
const fn d7(bit: u32) -> At {
    (7, 0, Register::Edx, bit)
}
const fn a71(bit: u32) -> At {
    (7, 1, Register::Eax, bit)
}
const fn d72(bit: u32) -> At {
    (7, 2, Register::Edx, bit)
}
const fn ad1(bit: u32) -> At {
    (0xd, 1, Register::Eax, bit)
}
const fn cx1(bit: u32) -> At {
    (0x8000_0001, 0, Register::Ecx, bit)
}
const fn dx1(bit: u32) -> At {
    (0x8000_0001, 0, Register::Edx, bit)
}

/// XCR0: AVX, AVX-512, protection keys, AMX.
const AVX: u64 = 1 << 2;
const AVX512: u64 = 0xe0 | AVX;
const PKRU: u64 = 1 << 9;
const AMX: u64 = 3 << 17;

const NO_VIRTUALISATION: &str = "the server's CPUs say so themselves; a TD has no VMX";
const NO_TRACE: &str = "no branches are recorded";
const NO_POWER: &str = "there are no power states, and MONITOR is the host's";
const NO_THERMAL: &str = "there is no temperature";

/// Every feature bit of the models, by leaf, register and bit (SDM volume 2, CPUID).
#[rustfmt::skip]
pub const TABLE: &[CpuFeature] = &[
    cpu("sse3", c1(0), &[F::SSE3]).base(),
    cpu("pclmulqdq", c1(1), &[F::PCLMULQDQ]),
    behaviour("dtes64", c1(2), "IA32_DS_AREA holds 64 bits"),
    missing("monitor", c1(3), NO_POWER),
    missing("ds_cpl", c1(4), NO_TRACE),
    missing("vmx", c1(5), NO_VIRTUALISATION),
    missing("smx", c1(6), NO_VIRTUALISATION),
    missing("est", c1(7), NO_POWER),
    missing("tm2", c1(8), NO_THERMAL),
    cpu("ssse3", c1(9), &[F::SSSE3]),
    missing("sdbg", c1(11), "there is no debug port"),
    with_xcr0("fma", c1(12), AVX, &[F::AVX, F::FMA]),
    cpu("cx16", c1(13), &[F::CMPXCHG16B]).base(),
    missing("xtpr", c1(14), "there are no task-priority messages"),
    behaviour("pdcm", c1(15), "IA32_PERF_CAPABILITIES is read"),
    with_cr4("pcid", c1(17), cr4::PCIDE, &[]),
    missing("dca", c1(18), "there is no cache to write into"),
    cpu("sse4_1", c1(19), &[F::SSE4_1]),
    cpu("sse4_2", c1(20), &[F::SSE4_2]),
    behaviour("x2apic", c1(21), "the local APIC is reached by MSRs").base(),
    cpu("movbe", c1(22), &[F::MOVBE]),
    cpu("popcnt", c1(23), &[F::POPCNT]),
    behaviour("tsc_deadline_timer", c1(24), "IA32_TSC_DEADLINE arms the APIC's timer"),
    cpu("aes", c1(25), &[F::AES]),
    with_cr4("xsave", c1(26), cr4::OSXSAVE, &[F::XSAVE]).base(),
    with_xcr0("avx", c1(28), AVX, &[F::AVX]),
    with_xcr0("f16c", c1(29), AVX, &[F::AVX, F::F16C]),
    cpu("rdrand", c1(30), &[F::RDRAND]),

    cpu("fpu", d1(0), &[F::FPU, F::FPU287, F::FPU387]).base(),
    with_cr4("vme", d1(1), cr4::VME, &[]),
    with_cr4("de", d1(2), cr4::DE, &[]).base(),
    with_cr4("pse", d1(3), cr4::PSE, &[]).base(),
    with_cr4("tsc", d1(4), cr4::TSD, &[F::TSC]).base(),
    cpu("msr", d1(5), &[F::MSR]).base(),
    with_cr4("pae", d1(6), cr4::PAE, &[]).base(),
    with_cr4("mce", d1(7), cr4::MCE, &[]).base(),
    cpu("cx8", d1(8), &[F::CX8]).base(),
    behaviour("apic", d1(9), "there is a local APIC").base(),
    cpu("sep", d1(11), &[F::SEP]).base(),
    behaviour("mtrr", d1(12), "the memory-type range registers are read and written").base(),
    with_cr4("pge", d1(13), cr4::PGE, &[]).base(),
    behaviour("mca", d1(14), "IA32_MCG_CAP counts the banks, of which there are none").base(),
    cpu("cmov", d1(15), &[F::CMOV]).base(),
    behaviour("pat", d1(16), "IA32_PAT takes the memory types, and refuses what is none").base(),
    behaviour("pse36", d1(17), "4 MiB pages have 40 address bits").base(),
    cpu("clflush", d1(19), &[F::CLFSH]).base(),
    behaviour("ds", d1(21), "IA32_DS_AREA is kept; IA32_MISC_ENABLE says that neither BTS nor PEBS use it"),
    missing("acpi", d1(22), NO_THERMAL),
    cpu("mmx", d1(23), &[F::MMX]).base(),
    with_cr4("fxsr", d1(24), cr4::OSFXSR, &[F::FXSR]).base(),
    cpu("sse", d1(25), &[F::SSE]).base(),
    cpu("sse2", d1(26), &[F::SSE2]).base(),
    behaviour("ss", d1(27), "a processor always sees its own stores").base(),
    behaviour("ht", d1(28), "leaf 1 counts the processors of a package").base(),
    missing("tm", d1(29), NO_THERMAL),
    missing("pbe", d1(31), NO_POWER),

    with_cr4("fsgsbase", b7(0), cr4::FSGSBASE, &[F::FSGSBASE]),
    missing("tsc_adjust", b7(1), "the server's CPUs say so themselves; a TD has none"),
    missing("sgx", b7(2), "there are no enclaves"),
    cpu("bmi1", b7(3), &[F::BMI1]),
    with_xcr0("avx2", b7(5), AVX, &[F::AVX2]),
    behaviour("fdp_excptn_only", b7(6), "the x87 data pointer follows unmasked exceptions only"),
    with_cr4("smep", b7(7), cr4::SMEP, &[]),
    cpu("bmi2", b7(8), &[F::BMI2]),
    behaviour("erms", b7(9), "REP MOVSB and STOSB are as good as any other size"),
    cpu("invpcid", b7(10), &[F::INVPCID]),
    missing("cqm", b7(12), "no cache is watched"),
    behaviour("zero_fcs_fds", b7(13), "the x87 instruction and data selectors are saved as zero"),
    missing("rdt_a", b7(15), "no cache is divided"),
    with_xcr0("avx512f", b7(16), AVX512, &[F::AVX512F]),
    with_xcr0("avx512dq", b7(17), AVX512, &[F::AVX512DQ]),
    cpu("rdseed", b7(18), &[F::RDSEED]),
    cpu("adx", b7(19), &[F::ADX]),
    with_cr4("smap", b7(20), cr4::SMAP, &[F::SMAP]),
    with_xcr0("avx512ifma", b7(21), AVX512, &[F::AVX512_IFMA]),
    cpu("clflushopt", b7(23), &[F::CLFLUSHOPT]),
    cpu("clwb", b7(24), &[F::CLWB]),
    missing("intel_pt", b7(25), NO_TRACE),
    with_xcr0("avx512cd", b7(28), AVX512, &[F::AVX512CD]),
    cpu("sha_ni", b7(29), &[F::SHA]),
    with_xcr0("avx512bw", b7(30), AVX512, &[F::AVX512BW]),
    with_xcr0("avx512vl", b7(31), AVX512, &[F::AVX512VL]),

    with_xcr0("avx512vbmi", c7(1), AVX512, &[F::AVX512_VBMI]),
    with_cr4("umip", c7(2), cr4::UMIP, &[]),
    row("pku", c7(3), Needs::Cpu { instructions: &[F::PKU], cr4: cr4::PKE, xcr0: PKRU }),
    cpu("waitpkg", c7(5), &[F::WAITPKG]),
    with_xcr0("avx512_vbmi2", c7(6), AVX512, &[F::AVX512_VBMI2]),
    missing("shstk", c7(7), "there are no shadow stacks"),
    cpu("gfni", c7(8), &[F::GFNI]),
    with_xcr0("vaes", c7(9), AVX, &[F::VAES]),
    with_xcr0("vpclmulqdq", c7(10), AVX, &[F::VPCLMULQDQ]),
    with_xcr0("avx512_vnni", c7(11), AVX512, &[F::AVX512_VNNI]),
    with_xcr0("avx512_bitalg", c7(12), AVX512, &[F::AVX512_BITALG]),
    missing("tme", c7(13), "the server's CPUs say so themselves; a TD has none"),
    with_xcr0("avx512_vpopcntdq", c7(14), AVX512, &[F::AVX512_VPOPCNTDQ]),
    missing("la57", c7(16), "no guest has been brought up on five levels"),
    cpu("rdpid", c7(22), &[F::RDPID]),
    missing("bus_lock_detect", c7(24), "bus locks are not detected"),
    cpu("cldemote", c7(25), &[F::CLDEMOTE]),
    cpu("movdiri", c7(27), &[F::MOVDIRI]),
    cpu("movdir64b", c7(28), &[F::MOVDIR64B]),
    cpu("enqcmd", c7(29), &[F::ENQCMD]),
    missing("pks", c7(31), "there are no keys for supervisor pages"),

    behaviour("fsrm", d7(4), "a short REP MOVSB is as good as a long one"),
    cpu("uintr", d7(5), &[F::UINTR]),
    missing("md_clear", d7(10), "no buffer holds what VERW would clear"),
    cpu("serialize", d7(14), &[F::SERIALIZE]),
    missing("tsxldtrk", d7(16), "there are no transactions"),
    missing("pconfig", d7(18), NO_VIRTUALISATION),
    missing("arch_lbr", d7(19), NO_TRACE),
    missing("ibt", d7(20), "branches are not tracked"),
    with_xcr0("amx_bf16", d7(22), AMX, &[F::AMX_BF16]),
    with_xcr0("avx512_fp16", d7(23), AVX512, &[F::AVX512_FP16]),
    with_xcr0("amx_tile", d7(24), AMX, &[F::AMX_TILE]),
    with_xcr0("amx_int8", d7(25), AMX, &[F::AMX_INT8]),
    behaviour("spec_ctrl", d7(26), "IA32_SPEC_CTRL.IBRS and IA32_PRED_CMD are there; nothing is speculated").base(),
    behaviour("stibp", d7(27), "IA32_SPEC_CTRL.STIBP is there; nothing is speculated"),
    missing("flush_l1d", d7(28), "there is no first-level cache to flush"),
    behaviour("arch_capabilities", d7(29), "IA32_ARCH_CAPABILITIES says what does not afflict the processor").base(),
    missing("core_capabilities", d7(30), "split locks are not detected"),
    behaviour("ssbd", d7(31), "IA32_SPEC_CTRL.SSBD is there; nothing is speculated"),

    with_xcr0("avx_vnni", a71(4), AVX, &[F::AVX_VNNI]),
    with_xcr0("avx512_bf16", a71(5), AVX512, &[F::AVX512_BF16]),
    with_xcr0("amx_fp16", a71(21), AMX, &[F::AMX_FP16]).of(Models::GraniteRapids),

    behaviour("psfd", d72(0), "IA32_SPEC_CTRL.PSFD is there; nothing is speculated"),
    behaviour("ipred_ctrl", d72(1), "IA32_SPEC_CTRL.IPRED_DIS_U and _S are there; nothing is speculated"),
    behaviour("rrsba_ctrl", d72(2), "IA32_SPEC_CTRL.RRSBA_DIS_U and _S are there; nothing is speculated"),
    missing("ddpd_u", d72(3), "no data-dependent prefetcher is there to stop"),
    behaviour("bhi_ctrl", d72(4), "IA32_SPEC_CTRL.BHI_DIS_S is there; nothing is speculated"),
    behaviour("mcdt_no", d72(5), "no instruction takes longer for one value than for another").of(Models::GraniteRapids),

    cpu("xsaveopt", ad1(0), &[F::XSAVEOPT]).base(),
    cpu("xsavec", ad1(1), &[F::XSAVEC]).base(),
    behaviour("xgetbv1", ad1(2), "XGETBV with ECX = 1").base(),
    cpu("xsaves", ad1(3), &[F::XSAVES]).base(),
    missing("xfd", ad1(4), "no component is large enough to be taken away"),

    behaviour("lahf_lm", cx1(0), "LAHF and SAHF in 64-bit mode").base(),
    cpu("abm", cx1(5), &[F::LZCNT]),
    behaviour("3dnowprefetch", cx1(8), "PREFETCHW is a hint, and taken as one"),
    cpu("syscall", dx1(11), &[F::SYSCALL]).base(),
    behaviour("nx", dx1(20), "pages are not executable where their tables say so").base(),
    behaviour("pdpe1gb", dx1(26), "1 GiB pages"),
    cpu("rdtscp", dx1(27), &[F::RDTSCP]),
    cpu("lm", dx1(29), &[F::X64]).base(),
    behaviour("constant_tsc", (0x8000_0007, 0, Register::Edx, 8), "one rate, whatever the processors do").base(),
    cpu("wbnoinvd", (0x8000_0008, 0, Register::Ebx, 9), &[F::WBNOINVD]),
    behaviour("arat", (6, 0, Register::Eax, 2), "the APIC's timer never stops"),
];

/// The row with a name.
pub fn named(name: &str) -> Option<(usize, &'static CpuFeature)> {
    TABLE.iter().enumerate().find(|(_, feature)| feature.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bit_and_no_name_has_two_rows() {
        for (index, feature) in TABLE.iter().enumerate() {
            let at = |row: &CpuFeature| (row.leaf, row.subleaf, row.register, row.bit);
            let twin = |other: &&CpuFeature| other.name == feature.name || at(other) == at(feature);
            assert!(!TABLE[index + 1..].iter().any(|other| twin(&other)), "{}", feature.name);
        }
    }

    #[test]
    fn a_feature_is_offered_exactly_where_the_cpu_has_all_of_its_encodings() {
        let cpu = Controls::default();
        for feature in TABLE {
            let Needs::Cpu { instructions, cr4, xcr0 } = feature.needs else { continue };
            let complete = instructions.iter().all(|of| x86_emu::offers(*of));
            let registers = cr4 & !cpu.cr4_supported == 0 && xcr0 & !cpu.xcr0_supported == 0;
            assert_eq!(feature.is_offered(Model::GraniteRapids), complete && registers, "{}", feature.name);
            assert!(!instructions.is_empty() || cr4 != 0, "{} needs nothing", feature.name);
        }
    }

    #[test]
    fn what_cannot_be_masked_is_there() {
        for model in Model::ALL {
            for feature in TABLE.iter().filter(|feature| feature.masking == Masking::Refused) {
                assert!(feature.is_offered(model), "{model}: {}", feature.name);
            }
        }
    }
}
