//! What differs between releases of the module beside its leaves and fields, one row a release.
//!
//! Nothing else asks which release answers: a leaf looks up the one rule that it needs. A rule of a recorded release
//! is what its recordings show; the later releases, which nobody recorded, have the rules of 1.5.05 and what
//! their row says.

use tdx_module_iface::Operand;
use tdx_module_iface::metadata::cpuid::CpuidTable;

use crate::config::ModuleProfile;
use crate::features::FeatureSet;

/// The rules of one release.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Which CPUID leaves a TD has, and what a host may configure of them.
    pub cpuid: CpuidTable,
    /// What a host is told that it may configure.
    pub reported_cpuid: ReportedCpuid,
    /// Whether VCPUs have x2APIC ids that the host chooses, and guests may see the topology.
    pub topology: Support,
    /// The most VCPUs of a TD.
    pub max_vcpus: u16,
    /// Pages of a TD's immutable state in a migration bundle.
    pub immutable_state_pages: u64,
    /// What of IA32_ARCH_CAPABILITIES a host may choose.
    pub arch_capabilities: ArchCapabilities,
    /// CR4 bits that no TD may set.
    pub cr4_reserved: u64,
    /// What MONITOR and MWAIT of a TD come to.
    pub monitor_mwait: Intercept,
    /// Whether IA32_DEBUGCTL refuses bits of features that the TD does not have.
    pub debugctl_features: Check,
    /// What an asynchronous exit of a TD with NO_RBP_MOD leaves in the host's RBP.
    pub rbp_after_async_exit: HostRbp,
    /// The operand of TLB_TRACKING_NOT_DONE in TDH.MEM.RANGE.UNBLOCK.
    pub untracked_unblock: Operand,
    /// Whether an import asks that the exporting module is of this very release. 1.5.01 does not look (recorded).
    pub bundle_origin: Check,
    /// Whether PAMT pages of 4 KiB entries come and go by TDH.PHYMEM.PAMT.ADD and .REMOVE.
    pub dynamic_pamt: Support,
}

/// Whether a release has something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Support {
    /// The release does not have the feature.
    Absent,
    /// The release has the feature.
    Present,
}

impl Support {
    /// Whether the release has the feature.
    pub const fn is_present(self) -> bool {
        matches!(self, Self::Present)
    }
}

/// Whether a release looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Check {
    /// The release does not check.
    Omitted,
    /// The release checks.
    Made,
}

/// How CPUID_CONFIG_VALUES and the list of TDHSYSINFO are filled in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReportedCpuid {
    /// The bits that may be configured.
    Configurable,
    /// Without those that the processor does not have.
    ConfigurableAndNative,
}

/// What an instruction of a guest comes to that the module does not carry out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Intercept {
    /// #VE: the guest asks its host.
    VirtualisationException,
    /// #UD: a TD does not have the instruction.
    UndefinedOpcode,
}

/// What an exit does to a register of the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HostRbp {
    /// The host's RBP is zero.
    Cleared,
    /// The host's RBP keeps its value.
    Kept,
}

/// The treatment of IA32_ARCH_CAPABILITIES.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ArchCapabilities {
    /// Bits that TD_PARAMS may set.
    pub configurable: u64,
    /// Bits that a guest reads as zero whatever the processor says.
    pub zero: u64,
    /// Bits that a guest reads as one.
    pub one: u64,
}

/// 9 to 11, 16 to 18, 22, 23, 25 to 63.
const ARCH_CAPABILITIES_ZERO: u64 = 7 << 9 | 7 << 16 | 3 << 22 | u64::MAX << 25;

const V1_5_01: Rules = Rules {
    cpuid: CpuidTable::V1_5_01,
    reported_cpuid: ReportedCpuid::Configurable,
    topology: Support::Absent,
    max_vcpus: u16::MAX,
    immutable_state_pages: 3,
    arch_capabilities: ArchCapabilities {
        configurable: 0x0044_d060,
        zero: ARCH_CAPABILITIES_ZERO & !(1 << 16 | 1 << 22) | 1 << 21,
        one: 0,
    },
    cr4_reserved: 1 << 15 | u64::MAX << 26,
    monitor_mwait: Intercept::VirtualisationException,
    debugctl_features: Check::Omitted,
    rbp_after_async_exit: HostRbp::Cleared,
    untracked_unblock: Operand::SEPT_TREE,
    bundle_origin: Check::Omitted,
    dynamic_pamt: Support::Absent,
};

const V1_5_05: Rules = Rules {
    cpuid: CpuidTable::V1_5_05,
    reported_cpuid: ReportedCpuid::ConfigurableAndNative,
    topology: Support::Present,
    max_vcpus: 576,
    immutable_state_pages: 4,
    // SSB_NO, RRSBA, BHI_NO, and bit 24.
    arch_capabilities: ArchCapabilities {
        configurable: 1 << 4 | 1 << 19 | 1 << 20 | 1 << 24,
        zero: ARCH_CAPABILITIES_ZERO,
        one: 1 << 21,
    },
    // Bits 27, 28 and 32 (LASS, LAM, FRED) are the processor's affair.
    cr4_reserved: 1 << 15 | 1 << 26 | 7 << 29 | u64::MAX << 33,
    monitor_mwait: Intercept::UndefinedOpcode,
    debugctl_features: Check::Made,
    bundle_origin: Check::Made,
    untracked_unblock: Operand::RCX,
    ..V1_5_01
};

const V2_0: Rules = Rules { dynamic_pamt: Support::Present, ..V1_5_05 };

impl Rules {
    /// The rules of a release.
    pub const fn of(profile: ModuleProfile) -> &'static Self {
        match profile {
            ModuleProfile::V1_5_01 => &V1_5_01,
            ModuleProfile::V1_5_05 | ModuleProfile::V1_5Late => &V1_5_05,
            ModuleProfile::V2_0 => &V2_0,
        }
    }

    /// The rules of a release as a machine has them. What no host could live with, the recorded modules do only where
    /// recordings are compared: a host that is compiled without frame pointers, as Linux is, needs its RBP after
    /// every exit.
    pub const fn on_machine(profile: ModuleProfile, features: FeatureSet) -> Self {
        let release = *Self::of(profile);
        match features {
            FeatureSet::Recorded => release,
            FeatureSet::Offered | FeatureSet::Partitioned => {
                Self { rbp_after_async_exit: HostRbp::Kept, ..release }
            }
        }
    }
}
