//! CPUID and MSRs of the emulated processor, before any virtualisation.
//!
//! Feature bits come from [`features`](super::features); here is what else a server's CPUID says: its names, caches,
//! frequencies, widths and topology.

use x86_arch::cpuid::{Feature, feature};
use x86_arch::{cr4, spec_ctrl};
use x86_emu::Controls;

use super::model::EmulatedProcessor;
use super::msr;
use crate::config::MachineConfig;
use crate::cpuid::{CpuidValues, area_size, compacted_size, xsave_component_leaf};

/// Highest basic leaf.
const MAX_BASIC: u32 = 0x23;
/// Highest extended leaf.
const MAX_EXTENDED: u32 = 0x8000_0008;
/// Crystal clock in Hz, as leaf 15H gives it.
const CRYSTAL_HZ: u32 = 25_000_000;
/// The bus in MHz, as leaf 16H gives it.
const BUS_MHZ: u32 = 100;
/// Linear-address bits: four levels of tables.
const LINEAR_BITS: u32 = 48;
/// Bytes that CLFLUSH flushes, in units of eight: CPUID(1).EBX bits 15:8.
const CLFLUSH_LINE: u32 = 8 << 8;
/// CPUID(4).EBX: 64-byte lines, one partition; the ways stand above.
const CACHE_LINE: u32 = 63;
/// CPUID(80000006H).ECX: a second level of 2 MiB, 16 ways, 64-byte lines.
const L2_CACHE: u32 = 2048 << 16 | 8 << 12 | 64;

/// State components that XSAVE handles.
fn supported_state() -> u64 {
    Controls::default().xcr0_supported
}

/// The feature bits of a leaf.
fn features(processor: EmulatedProcessor, leaf: u32, subleaf: u32) -> CpuidValues {
    let features = processor.features().map(|row| row.feature);
    let of_leaf = features.filter(|of| (of.leaf, of.subleaf) == (leaf, subleaf));
    of_leaf.fold(CpuidValues::default(), |values, feature| values.with(feature))
}

/// Sixteen bytes of the brand string.
fn brand(name: &str, leaf: u32) -> CpuidValues {
    let begin = (leaf & 0xf).saturating_sub(2) as usize * 16;
    let word = |number: usize| {
        let byte = |at: usize| name.as_bytes().get(begin + 4 * number + at).copied().unwrap_or(0);
        u32::from_le_bytes([byte(0), byte(1), byte(2), byte(3)])
    };
    CpuidValues { eax: word(0), ebx: word(1), ecx: word(2), edx: word(3) }
}

/// What CPUID gives.
pub(super) fn cpuid(
    config: &MachineConfig,
    processor: EmulatedProcessor,
    leaf: u32,
    subleaf: u32,
) -> CpuidValues {
    let values = |eax, ebx, ecx, edx| CpuidValues { eax, ebx, ecx, edx };
    let of = |leaf, subleaf| features(processor, leaf, subleaf);
    match (leaf, subleaf) {
        // "GenuineIntel" in EBX, EDX, ECX.
        (0, _) => values(MAX_BASIC, 0x756e_6547, 0x6c65_746e, 0x4965_6e69),
        (1, _) => CpuidValues { eax: config.cpuid_fms, ebx: CLFLUSH_LINE, ..of(1, 0) },
        (4, level) => match processor.model.caches().get(level as usize) {
            // The third level is indexed by a hash.
            Some(cache) => {
                let complex = if level == 3 { 4 } else { 0 };
                values(cache.kind, (cache.ways - 1) << 22 | CACHE_LINE, cache.sets - 1, complex)
            }
            None => CpuidValues::default(),
        },
        (6, _) => of(6, 0),
        // EAX is the last subleaf.
        (7, 0) => CpuidValues { eax: 2, ..of(7, 0) },
        (7, _) => of(7, subleaf),
        (0xd, 0) => {
            let state = supported_state();
            let size = area_size(state);
            values(state as u32, size, size, (state >> 32) as u32)
        }
        (0xd, 1) => CpuidValues { ebx: compacted_size(supported_state()), ..of(0xd, 1) },
        (0xd, component @ 2..) if supported_state() >> component.min(63) & 1 != 0 => {
            let (size, offset, flags) = xsave_component_leaf(component);
            values(size, offset, flags, 0)
        }
        (0x15, _) => {
            let ratio = u32::try_from(config.tsc_hz / u64::from(CRYSTAL_HZ)).unwrap_or(u32::MAX);
            values(1, ratio, CRYSTAL_HZ, 0)
        }
        (0x16, _) => {
            let base = u32::try_from(config.tsc_hz / 1_000_000).unwrap_or(u32::MAX);
            values(base, processor.model.max_mhz(), BUS_MHZ, 0)
        }
        (0x1f, 0) => values(0, 1, 0x100, 0),
        // Six bits of an x2APIC id name a processor in its package.
        (0x1f, 1) => values(6, config.lp_packages.len() as u32, 0x201, 0),
        (0x1f, subleaf) => values(0, 0, subleaf & 0xff, 0),
        // "IntelTDX    " in EBX, EDX, ECX: the processor says so itself while it runs a TD.
        (0x21, 0) => values(0, 0x6574_6e49, 0x2020_2020, 0x5844_546c),
        (0x8000_0000, _) => values(MAX_EXTENDED, 0, 0, 0),
        (0x8000_0001 | 0x8000_0007, _) => of(leaf, 0),
        (0x8000_0002..=0x8000_0004, _) => brand(processor.model.brand(), leaf),
        (0x8000_0006, _) => values(0, 0, L2_CACHE, 0),
        (0x8000_0008, _) => CpuidValues { eax: config.max_pa | LINEAR_BITS << 8, ..of(0x8000_0008, 0) },
        _ => CpuidValues::default(),
    }
}

/// Fast strings, "BTS unavailable", "PEBS unavailable".
const MISC_ENABLE: u64 = 1 | 3 << 11;
/// PE, NE and PG.
const CR0_FIXED0: u64 = 0x8000_0021;
const CR0_FIXED1: u64 = 0xffff_ffff;
/// VMXE.
const CR4_FIXED0: u64 = cr4::VMXE;

/// What RDMSR gives.
pub(super) fn msr(processor: EmulatedProcessor, index: u32) -> u64 {
    match index {
        msr::ARCH_CAPABILITIES => processor.model.arch_capabilities(),
        msr::MISC_ENABLE => MISC_ENABLE,
        // The legacy APIC interface is gone for good.
        msr::XAPIC_DISABLE_STATUS => 1,
        msr::VMX_CR0_FIXED0 => CR0_FIXED0,
        msr::VMX_CR0_FIXED1 => CR0_FIXED1,
        msr::VMX_CR4_FIXED0 => CR4_FIXED0,
        // What the software CPU lets be set, and what VMX and SMX bring.
        msr::VMX_CR4_FIXED1 => Controls::default().cr4_supported | cr4::VMXE | cr4::SMXE,
        _ => 0,
    }
}

/// Bits of IA32_SPEC_CTRL that the processor has: IBRS, and what CPUID names.
pub(super) fn spec_ctrl_bits(config: &MachineConfig, processor: EmulatedProcessor) -> u64 {
    /// A feature, and its bits.
    const OFFERED: [(Feature, u64); 8] = [
        (feature::SPEC_CTRL, spec_ctrl::IBRS),
        (feature::STIBP, spec_ctrl::STIBP),
        (feature::SSBD, spec_ctrl::SSBD),
        (feature::PSFD, spec_ctrl::PSFD),
        (feature::IPRED_CTRL, spec_ctrl::IPRED_DIS),
        (feature::RRSBA_CTRL, spec_ctrl::RRSBA_DIS),
        (feature::DDPD_U, spec_ctrl::DDPD_U),
        (feature::BHI_CTRL, spec_ctrl::BHI_DIS_S),
    ];
    let has = |feature: Feature| cpuid(config, processor, feature.leaf, feature.subleaf).has(feature);
    OFFERED.iter().filter(|(feature, _)| has(*feature)).fold(0, |all, (_, bits)| all | bits)
}
