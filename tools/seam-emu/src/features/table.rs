//! One row a bit.

use tdx_module_iface::Release::{self, V1_5_01, V1_5_05, V1_5Late, V2_0};

use super::Word::{Attributes, ConfigFlags, Features0, TdCtls, Xfam};
use super::{Feature, Word};

/// A bit whose behaviour is there.
const fn offered(word: Word, bit: u8, name: &'static str, since: Release) -> Feature {
    Feature { word, bit, name, since, absent: None }
}

/// A bit that the release announces and that is not offered.
const fn absent(word: Word, bit: u8, name: &'static str, since: Release, why: &'static str) -> Feature {
    Feature { word, bit, name, since, absent: Some(why) }
}

const PARTITIONING: &str = "only on request: the emulated processor applies a part of an L2 VM's controls and stops at others (exits for exceptions, INVLPG, RDTSC, reads of CR3, the monitor trap flag, most secondary controls); RDTSCP, INVPCID and XSAVES are executed also where L1 left them off, and hardware raises #UD";
const WITH_L2_VMS: &str = "it is about L2 VMs, which are there on request only";
const NO_INSTRUCTIONS: &str = "the emulated processor does not have the instructions";
const NO_TRACE: &str = "the emulated processor records no branches";
const NO_COUNTERS: &str = "the emulated processor has no performance counters";

/// L2 VMs inside of a TD: where this row is offered, TD_PARAMS may ask for them.
pub const TD_PARTITIONING: Feature = absent(Features0, 7, "TD_PARTITIONING", V1_5_01, PARTITIONING);

/// Every bit of every word that a release announces.
#[rustfmt::skip]
pub const TABLE: &[Feature] = &[
    offered(Features0, 0, "TD_MIGRATION", V1_5_01),
    absent(Features0, 1, "TD_PRESERVING_UPDATE", V1_5_01, "the module cannot be replaced while TDs live"),
    offered(Features0, 2, "SERVICE_TD", V1_5_01),
    offered(Features0, 3, "TDG_VP_RDWR", V1_5_01),
    offered(Features0, 4, "RELAXED_MEM_MNG_CONCURRENCY", V1_5_01),
    offered(Features0, 5, "CPUID_VIRT_GUEST_CTRL", V1_5_01),
    TD_PARTITIONING,
    offered(Features0, 8, "LOCAL_ATTESTATION", V1_5_01),
    offered(Features0, 9, "TD_ENTRY_ENHANCEMENTS", V1_5_01),
    offered(Features0, 10, "HOST_PRIORITY_LOCKS", V1_5_01),
    offered(Features0, 11, "CONFIG_IA32_ARCH_CAPABILITIES", V1_5_01),
    offered(Features0, 16, "PENDING_EPT_VIOLATION_V2", V1_5_01),
    offered(Features0, 17, "FMS_CONFIG", V1_5_01),
    offered(Features0, 18, "NO_RBP_MOD", V1_5_01),
    absent(Features0, 19, "L2_TLB_INVD_OPT", V1_5_01, WITH_L2_VMS),
    offered(Features0, 20, "TOPOLOGY_ENUM", V1_5_05),
    offered(Features0, 36, "DYNAMIC_PAMT", V2_0),
    offered(Features0, 51, "ENHANCED_DEMOTE", V1_5Late),

    offered(Attributes, 0, "DEBUG", V1_5_01),
    absent(Attributes, 27, "LASS", V1_5_05, NO_INSTRUCTIONS),
    offered(Attributes, 28, "SEPT_VE_DISABLE", V1_5_01),
    offered(Attributes, 29, "MIGRATABLE", V1_5_01),
    absent(Attributes, 30, "PKS", V1_5_01, NO_INSTRUCTIONS),
    absent(Attributes, 63, "PERFMON", V1_5_01, NO_COUNTERS),

    offered(Xfam, 0, "x87", V1_5_01),
    offered(Xfam, 1, "SSE", V1_5_01),
    offered(Xfam, 2, "AVX", V1_5_01),
    absent(Xfam, 5, "AVX-512 opmask", V1_5_01, NO_INSTRUCTIONS),
    absent(Xfam, 6, "AVX-512 ZMM_Hi256", V1_5_01, NO_INSTRUCTIONS),
    absent(Xfam, 7, "AVX-512 Hi16_ZMM", V1_5_01, NO_INSTRUCTIONS),
    absent(Xfam, 8, "PT", V1_5_01, NO_TRACE),
    offered(Xfam, 9, "PKRU", V1_5_01),
    absent(Xfam, 11, "CET_U", V1_5_01, NO_INSTRUCTIONS),
    absent(Xfam, 12, "CET_S", V1_5_01, NO_INSTRUCTIONS),
    absent(Xfam, 15, "LBR", V1_5_01, NO_TRACE),
    absent(Xfam, 17, "AMX XTILECFG", V1_5_01, NO_INSTRUCTIONS),
    absent(Xfam, 18, "AMX XTILEDATA", V1_5_01, NO_INSTRUCTIONS),

    offered(ConfigFlags, 0, "GPAW", V1_5_01),
    offered(ConfigFlags, 1, "FLEXIBLE_PENDING_VE", V1_5_01),
    offered(ConfigFlags, 2, "NO_RBP_MOD", V1_5_01),

    offered(TdCtls, 0, "PENDING_VE_DISABLE", V1_5_01),
    offered(TdCtls, 1, "ENUM_TOPOLOGY", V1_5_05),
];
