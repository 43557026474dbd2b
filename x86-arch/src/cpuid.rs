//! CPUID: its leaves, the registers that it answers in, and the feature bits, each with its place and its name.
//!
//! Source: SDM volume 2, CPUID; SDM volume 1, "Processor identification and feature determination". Names are Linux's
//! where Linux has one.

/// An answer: EAX, EBX, ECX, EDX.
pub type Values = [u32; 4];

/// Leaves by number.
pub mod leaf {
    /// The highest basic leaf, and the vendor.
    pub const BASIC: u32 = 0;
    /// Family, model and stepping; the first features.
    pub const VERSION: u32 = 1;
    /// Caches by level.
    pub const CACHES: u32 = 4;
    /// MONITOR and MWAIT.
    pub const MONITOR: u32 = 5;
    /// Thermal and power management.
    pub const THERMAL: u32 = 6;
    /// Structured extended features.
    pub const FEATURES: u32 = 7;
    /// Architectural performance monitors.
    pub const PERFMON: u32 = 0xa;
    /// Topology, as older software reads it.
    pub const TOPOLOGY: u32 = 0xb;
    /// Extended state: components, sizes, offsets.
    pub const EXTENDED_STATE: u32 = 0xd;
    /// Processor trace.
    pub const TRACE: u32 = 0x14;
    /// The time-stamp counter's ratio to the crystal.
    pub const TSC: u32 = 0x15;
    /// Frequencies in MHz: base, highest, bus.
    pub const FREQUENCY: u32 = 0x16;
    /// Key locker.
    pub const KEY_LOCKER: u32 = 0x19;
    /// Last-branch records.
    pub const LBR: u32 = 0x1c;
    /// Tiles.
    pub const TILES: u32 = 0x1d;
    /// V2 extended topology.
    pub const TOPOLOGY_V2: u32 = 0x1f;
    /// What the TDX module says to its guests.
    pub const TDX: u32 = 0x21;
    /// Where a hypervisor says who it is.
    pub const HYPERVISOR: u32 = 0x4000_0000;
    /// What a hypervisor offers.
    pub const HYPERVISOR_FEATURES: u32 = 0x4000_0001;
    /// The highest extended leaf.
    pub const EXTENDED: u32 = 0x8000_0000;
    /// Extended features.
    pub const EXTENDED_FEATURES: u32 = 0x8000_0001;
    /// The second-level cache.
    pub const L2_CACHE: u32 = 0x8000_0006;
    /// The time-stamp counter's constancy.
    pub const INVARIANT_TSC: u32 = 0x8000_0007;
    /// Widths of addresses.
    pub const ADDRESS_WIDTHS: u32 = 0x8000_0008;
}

/// A register that CPUID answers in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
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

impl Register {
    /// In the order of [`Values`].
    pub const ALL: [Self; 4] = [Self::Eax, Self::Ebx, Self::Ecx, Self::Edx];

    /// The register's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Eax => "EAX",
            Self::Ebx => "EBX",
            Self::Ecx => "ECX",
            Self::Edx => "EDX",
        }
    }

    /// What an answer has in this register.
    pub const fn of(self, values: &Values) -> u32 {
        let [eax, ebx, ecx, edx] = *values;
        match self {
            Self::Eax => eax,
            Self::Ebx => ebx,
            Self::Ecx => ecx,
            Self::Edx => edx,
        }
    }

    /// An answer with this in the register, and zeros in the others.
    pub const fn holding(self, bits: u32) -> Values {
        match self {
            Self::Eax => [bits, 0, 0, 0],
            Self::Ebx => [0, bits, 0, 0],
            Self::Ecx => [0, 0, bits, 0],
            Self::Edx => [0, 0, 0, bits],
        }
    }
}

/// A feature bit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Feature {
    /// EAX on entry.
    pub leaf: u32,
    /// ECX on entry; zero where the leaf has no subleaves.
    pub subleaf: u32,
    /// The register.
    pub register: Register,
    /// The bit's number in the register.
    pub bit: u8,
    /// The feature's name.
    pub name: &'static str,
}

impl Feature {
    /// The bit in its register.
    pub const fn mask(self) -> u32 {
        1 << self.bit
    }

    /// Whether an answer of its leaf has the bit.
    ///
    /// ```
    /// use x86_arch::cpuid::{feature, leaf};
    ///
    /// let answer = [2, 1 << 5, 0, 0]; // EAX, EBX, ECX, EDX of leaf 7, subleaf 0
    /// assert_eq!((feature::AVX2.leaf, feature::AVX2.subleaf), (leaf::FEATURES, 0));
    /// assert!(feature::AVX2.is_in(&answer));
    /// assert!(!feature::PKU.is_in(&answer));
    /// ```
    pub const fn is_in(self, values: &Values) -> bool {
        self.register.of(values) & self.mask() != 0
    }

    /// The features with a bit in a leaf.
    pub fn of_leaf(leaf: u32, subleaf: u32) -> impl Iterator<Item = &'static Self> {
        feature::ALL.iter().filter(move |feature| (feature.leaf, feature.subleaf) == (leaf, subleaf))
    }
}

/// The bits of some features of one leaf.
///
/// # Panics
/// If they are not of one leaf: a constant made so does not compile.
pub const fn bits(features: &[Feature]) -> Values {
    let mut all = [0; 4];
    let mut rest = features;
    while let [feature, others @ ..] = rest {
        let first = &features[0];
        assert!(feature.leaf == first.leaf && feature.subleaf == first.subleaf, "features of two leaves");
        let [eax, ebx, ecx, edx] = feature.register.holding(feature.mask());
        let [a, b, c, d] = all;
        all = [a | eax, b | ebx, c | ecx, d | edx];
        rest = others;
    }
    all
}

/// Declares the features, a register of a leaf at a time.
macro_rules! features {
    ($( ($leaf:expr, $subleaf:literal, $register:ident) { $( $name:ident $bit:literal $text:literal, )* } )*) => {
        /// Every feature bit that somebody here knows.
        #[expect(missing_docs, reason = "the names are the features")]
        pub mod feature {
            use super::{Feature, Register, leaf};

            $( $(
                pub const $name: Feature = Feature {
                    leaf: $leaf, subleaf: $subleaf, register: Register::$register, bit: $bit, name: $text,
                };
            )* )*

            /// Every feature, by leaf, register and bit.
            pub const ALL: &[Feature] = &[ $( $( $name ),* ),* ];
        }
    };
}

features! {
    (leaf::VERSION, 0, Ecx) {
        SSE3 0 "sse3", PCLMULQDQ 1 "pclmulqdq", DTES64 2 "dtes64", MONITOR 3 "monitor", DS_CPL 4 "ds_cpl", VMX 5 "vmx",
        SMX 6 "smx", EST 7 "est", TM2 8 "tm2", SSSE3 9 "ssse3", SDBG 11 "sdbg", FMA 12 "fma", CX16 13 "cx16",
        XTPR 14 "xtpr", PDCM 15 "pdcm", PCID 17 "pcid", DCA 18 "dca", SSE4_1 19 "sse4_1", SSE4_2 20 "sse4_2",
        X2APIC 21 "x2apic", MOVBE 22 "movbe", POPCNT 23 "popcnt", TSC_DEADLINE 24 "tsc_deadline_timer", AES 25 "aes",
        XSAVE 26 "xsave", OSXSAVE 27 "osxsave", AVX 28 "avx", F16C 29 "f16c", RDRAND 30 "rdrand",
        HYPERVISOR 31 "hypervisor",
    }
    (leaf::VERSION, 0, Edx) {
        FPU 0 "fpu", VME 1 "vme", DE 2 "de", PSE 3 "pse", TSC 4 "tsc", MSR 5 "msr", PAE 6 "pae", MCE 7 "mce", CX8 8 "cx8",
        APIC 9 "apic", SEP 11 "sep", MTRR 12 "mtrr", PGE 13 "pge", MCA 14 "mca", CMOV 15 "cmov", PAT 16 "pat",
        PSE36 17 "pse36", CLFLUSH 19 "clflush", DS 21 "ds", ACPI 22 "acpi", MMX 23 "mmx", FXSR 24 "fxsr", SSE 25 "sse",
        SSE2 26 "sse2", SELF_SNOOP 27 "ss", HT 28 "ht", TM 29 "tm", PBE 31 "pbe",
    }
    (leaf::THERMAL, 0, Eax) {
        ARAT 2 "arat",
    }
    (leaf::FEATURES, 0, Ebx) {
        FSGSBASE 0 "fsgsbase", TSC_ADJUST 1 "tsc_adjust", SGX 2 "sgx", BMI1 3 "bmi1", HLE 4 "hle", AVX2 5 "avx2",
        FDP_EXCPTN_ONLY 6 "fdp_excptn_only", SMEP 7 "smep", BMI2 8 "bmi2", ERMS 9 "erms", INVPCID 10 "invpcid",
        RTM 11 "rtm", CQM 12 "cqm", ZERO_FCS_FDS 13 "zero_fcs_fds", RDT_A 15 "rdt_a", AVX512F 16 "avx512f",
        AVX512DQ 17 "avx512dq", RDSEED 18 "rdseed", ADX 19 "adx", SMAP 20 "smap", AVX512IFMA 21 "avx512ifma",
        CLFLUSHOPT 23 "clflushopt", CLWB 24 "clwb", INTEL_PT 25 "intel_pt", AVX512PF 26 "avx512pf",
        AVX512ER 27 "avx512er", AVX512CD 28 "avx512cd", SHA 29 "sha_ni", AVX512BW 30 "avx512bw", AVX512VL 31 "avx512vl",
    }
    (leaf::FEATURES, 0, Ecx) {
        AVX512VBMI 1 "avx512vbmi", UMIP 2 "umip", PKU 3 "pku", OSPKE 4 "ospke", WAITPKG 5 "waitpkg",
        AVX512_VBMI2 6 "avx512_vbmi2", SHSTK 7 "shstk", GFNI 8 "gfni", VAES 9 "vaes", VPCLMULQDQ 10 "vpclmulqdq",
        AVX512_VNNI 11 "avx512_vnni", AVX512_BITALG 12 "avx512_bitalg", TME 13 "tme",
        AVX512_VPOPCNTDQ 14 "avx512_vpopcntdq", LA57 16 "la57", RDPID 22 "rdpid", KEY_LOCKER 23 "kl",
        BUS_LOCK_DETECT 24 "bus_lock_detect", CLDEMOTE 25 "cldemote", MOVDIRI 27 "movdiri", MOVDIR64B 28 "movdir64b",
        ENQCMD 29 "enqcmd", PKS 31 "pks",
    }
    (leaf::FEATURES, 0, Edx) {
        AVX512_4VNNIW 2 "avx512_4vnniw", AVX512_4FMAPS 3 "avx512_4fmaps", FSRM 4 "fsrm", UINTR 5 "uintr",
        AVX512_VP2INTERSECT 8 "avx512_vp2intersect", MD_CLEAR 10 "md_clear", SERIALIZE 14 "serialize",
        TSXLDTRK 16 "tsxldtrk", PCONFIG 18 "pconfig", ARCH_LBR 19 "arch_lbr", IBT 20 "ibt", AMX_BF16 22 "amx_bf16",
        AVX512_FP16 23 "avx512_fp16", AMX_TILE 24 "amx_tile", AMX_INT8 25 "amx_int8", SPEC_CTRL 26 "spec_ctrl",
        STIBP 27 "stibp", FLUSH_L1D 28 "flush_l1d", ARCH_CAPABILITIES 29 "arch_capabilities",
        CORE_CAPABILITIES 30 "core_capabilities", SSBD 31 "ssbd",
    }
    (leaf::FEATURES, 1, Eax) {
        AVX_VNNI 4 "avx_vnni", AVX512_BF16 5 "avx512_bf16", LASS 6 "lass", ARCH_PERFMON_EXT 8 "arch_perfmon_ext",
        AMX_FP16 21 "amx_fp16", LAM 26 "lam",
    }
    (leaf::FEATURES, 1, Edx) {
        AVX_VNNI_INT8 4 "avx_vnni_int8", AVX_NE_CONVERT 5 "avx_ne_convert", AVX_VNNI_INT16 10 "avx_vnni_int16",
    }
    (leaf::FEATURES, 2, Edx) {
        PSFD 0 "psfd", IPRED_CTRL 1 "ipred_ctrl", RRSBA_CTRL 2 "rrsba_ctrl", DDPD_U 3 "ddpd_u", BHI_CTRL 4 "bhi_ctrl",
        MCDT_NO 5 "mcdt_no",
    }
    (leaf::EXTENDED_STATE, 1, Eax) {
        XSAVEOPT 0 "xsaveopt", XSAVEC 1 "xsavec", XGETBV1 2 "xgetbv1", XSAVES 3 "xsaves", XFD 4 "xfd",
    }
    (leaf::EXTENDED_FEATURES, 0, Ecx) {
        LAHF_LM 0 "lahf_lm", ABM 5 "abm", PREFETCHW 8 "3dnowprefetch",
    }
    (leaf::EXTENDED_FEATURES, 0, Edx) {
        SYSCALL 11 "syscall", NX 20 "nx", PDPE1GB 26 "pdpe1gb", RDTSCP 27 "rdtscp", LM 29 "lm",
    }
    (leaf::INVARIANT_TSC, 0, Edx) {
        CONSTANT_TSC 8 "constant_tsc",
    }
    (leaf::ADDRESS_WIDTHS, 0, Ebx) {
        WBNOINVD 9 "wbnoinvd",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bit_and_no_name_stands_twice_and_they_stand_in_order() {
        for (index, feature) in feature::ALL.iter().enumerate() {
            let place = |of: &Feature| (of.leaf, of.subleaf, of.register, of.bit);
            for later in &feature::ALL[index + 1..] {
                assert!(place(feature) < place(later), "{} and {}", feature.name, later.name);
                assert_ne!(feature.name, later.name);
            }
        }
    }

    #[test]
    fn the_bits_of_features_are_gathered_by_register() {
        let both = bits(&[feature::AVX2, feature::VAES, feature::VPCLMULQDQ]);
        assert_eq!(both, [0, 1 << 5, 3 << 9, 0]);
        assert!(feature::AVX2.is_in(&both));
        assert!(!feature::PKU.is_in(&both));
        assert_eq!(bits(&[]), [0; 4]);
    }

    #[test]
    fn a_leaf_lists_its_own_features() {
        let names = Feature::of_leaf(leaf::FEATURES, 2).map(|feature| feature.name);
        assert!(names.eq(["psfd", "ipred_ctrl", "rrsba_ctrl", "ddpd_u", "bhi_ctrl", "mcdt_no"]));
    }
}
