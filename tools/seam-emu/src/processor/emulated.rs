//! CPUID and MSRs of the emulated processor, before any virtualisation.
//!
//! It offers what the software CPU executes and no more: x87, SSE and PKRU state, no AVX. XFAM and configuration bits
//! of features that it lacks are accepted where the platform's masks say so, and read as zero.

use super::msr;
use crate::config::MachineConfig;
use crate::cpuid::{CpuidValues, area_size, xsave_component_leaf};

/// Highest basic leaf.
const MAX_BASIC: u32 = 0x23;
/// Highest extended leaf.
const MAX_EXTENDED: u32 = 0x8000_0008;
/// Crystal clock in Hz, as leaf 15H gives it.
const CRYSTAL_HZ: u32 = 25_000_000;

/// FPU, VME, DE, PSE, TSC, MSR, PAE, MCE, CX8, APIC, SEP, MTRR, PGE, MCA, CMOV, PAT, PSE36, CLFSH, MMX, FXSR,
/// SSE, SSE2, SS, HTT.
const LEAF_1_EDX: u32 = 0x1f8b_fbff;
/// SSE3, SSSE3, CX16, PCID, SSE4.1, SSE4.2, x2APIC, MOVBE, POPCNT, TSC deadline, XSAVE, RDRAND.
const LEAF_1_ECX: u32 =
    1 | 1 << 9 | 1 << 13 | 1 << 17 | 3 << 19 | 1 << 21 | 1 << 22 | 1 << 23 | 1 << 24 | 1 << 26 | 1 << 30;
/// FSGSBASE, SMEP, ERMS, INVPCID, RDSEED, SMAP, CLFLUSHOPT, CLWB.
const LEAF_7_EBX: u32 = 1 | 1 << 7 | 1 << 9 | 1 << 10 | 1 << 18 | 1 << 20 | 1 << 23 | 1 << 24;
/// UMIP, PKU, bus-lock detection, MOVDIRI, MOVDIR64B.
const LEAF_7_ECX: u32 = 1 << 2 | 1 << 3 | 1 << 24 | 1 << 27 | 1 << 28;
/// FSRM, SERIALIZE, IBRS, STIBP, ARCH_CAPABILITIES, SSBD.
const LEAF_7_EDX: u32 = 1 << 4 | 1 << 14 | 1 << 26 | 1 << 27 | 1 << 29 | 1 << 31;

/// State components that XSAVE handles: x87, SSE and PKRU.
const SUPPORTED_STATE: u64 = 3 | 1 << 9;

/// What CPUID gives.
pub(super) fn cpuid(config: &MachineConfig, leaf: u32, subleaf: u32) -> CpuidValues {
    let values = |eax, ebx, ecx, edx| CpuidValues { eax, ebx, ecx, edx };
    match (leaf, subleaf) {
        // "GenuineIntel" in EBX, EDX, ECX.
        (0, _) => values(MAX_BASIC, 0x756e_6547, 0x6c65_746e, 0x4965_6e69),
        (1, _) => values(config.cpuid_fms, 8 << 8, LEAF_1_ECX, LEAF_1_EDX),
        // One level of each cache; sizes do not matter to anybody here, sharing does.
        (4, 0) => values(0x0400_0121, 0x02c0_003f, 0x3f, 0),
        (4, 1) => values(0x0400_0122, 0x01c0_003f, 0x3f, 0),
        (4, 2) => values(0x0400_0143, 0x03c0_003f, 0x7ff, 0),
        (4, 3) => values(0x0400_0163, 0x02c0_003f, 0xffff, 4),
        (6, _) => values(4, 0, 0, 0),
        (7, 0) => values(2, LEAF_7_EBX, LEAF_7_ECX, LEAF_7_EDX),
        (0xd, 0) => {
            let size = area_size(SUPPORTED_STATE);
            values(SUPPORTED_STATE as u32, size, size, 0)
        }
        // XSAVEOPT, XSAVEC, XGETBV with ECX = 1, XSAVES.
        (0xd, component @ 2..) if SUPPORTED_STATE >> component.min(63) & 1 != 0 => {
            let (size, offset, flags) = xsave_component_leaf(component);
            values(size, offset, flags, 0)
        }
        (0xd, 1) => values(0xf, area_size(SUPPORTED_STATE), 0, 0),
        (0x15, _) => {
            let ratio = u32::try_from(config.tsc_hz / u64::from(CRYSTAL_HZ)).unwrap_or(u32::MAX);
            values(1, ratio, CRYSTAL_HZ, 0)
        }
        (0x1f, 0) => values(0, 1, 0x100, 0),
        // Six bits of an x2APIC id name a processor in its package.
        (0x1f, 1) => values(6, config.lp_packages.len() as u32, 0x201, 0),
        (0x1f, subleaf) => values(0, 0, subleaf & 0xff, 0),
        // "IntelTDX    " in EBX, EDX, ECX: the processor says so itself while it runs a TD.
        (0x21, 0) => values(0, 0x6574_6e49, 0x2020_2020, 0x5844_546c),
        (0x8000_0000, _) => values(MAX_EXTENDED, 0, 0, 0),
        // LAHF, LZCNT; SYSCALL, NX, 1G pages, RDTSCP, 64-bit mode.
        (0x8000_0001, _) => values(0, 0, 1 | 1 << 5, 1 << 11 | 1 << 20 | 1 << 26 | 1 << 27 | 1 << 29),
        (0x8000_0007, _) => values(0, 0, 0, 1 << 8),
        (0x8000_0008, _) => values(config.max_pa | 57 << 8, 0, 0, 0),
        _ => CpuidValues::default(),
    }
}

/// "RDCL_NO", "IBRS_ALL", "SKIP_L1DFL_VMENTRY", "MDS_NO", "IF_PSCHANGE_MC_NO", "TAA_NO", MISC_PACKAGE_CTRLS is absent:
/// the faults of speculation do not exist where nothing is speculated.
const ARCH_CAPABILITIES: u64 = 1 | 1 << 1 | 1 << 3 | 1 << 5 | 1 << 6 | 1 << 8 | 7 << 13;
/// Fast strings, "BTS unavailable", "PEBS unavailable".
const MISC_ENABLE: u64 = 1 | 3 << 11;
/// PE, NE and PG.
const CR0_FIXED0: u64 = 0x8000_0021;
const CR0_FIXED1: u64 = 0xffff_ffff;
/// VMXE.
const CR4_FIXED0: u64 = 1 << 13;
/// VME to OSXMMEXCPT, UMIP, LA57, VMXE, SMXE, FSGSBASE, PCIDE, OSXSAVE, SMEP, SMAP, PKE.
const CR4_FIXED1: u64 = 0x0077_7fff;

/// What RDMSR gives.
pub(super) fn msr(index: u32) -> u64 {
    match index {
        msr::ARCH_CAPABILITIES => ARCH_CAPABILITIES,
        msr::MISC_ENABLE => MISC_ENABLE,
        // The legacy APIC interface is gone for good.
        msr::XAPIC_DISABLE_STATUS => 1,
        msr::VMX_CR0_FIXED0 => CR0_FIXED0,
        msr::VMX_CR0_FIXED1 => CR0_FIXED1,
        msr::VMX_CR4_FIXED0 => CR4_FIXED0,
        msr::VMX_CR4_FIXED1 => CR4_FIXED1,
        _ => 0,
    }
}
