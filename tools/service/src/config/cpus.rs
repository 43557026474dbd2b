//! `cpus`.

use serde::{Deserialize, Serialize};

use super::foreign::Foreign;

/// Bits of an address that Cloud Hypervisor gives a guest at most, where nobody says otherwise.
const PHYS_BITS: u8 = 46;

/// The vCPUs.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct CpusConfig {
    /// How many run from the beginning.
    pub boot_vcpus: u32,
    /// How many there may be later: as many, for a TD has all of its vCPUs before it is measured.
    pub max_vcpus: u32,
    /// How a guest sees them put together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology: Option<CpuTopology>,
    /// Bits of the highest address that may be used.
    #[serde(default = "phys_bits")]
    pub max_phys_bits: u8,
    /// What else Cloud Hypervisor knows.
    #[serde(flatten)]
    pub foreign: Foreign,
}

const fn phys_bits() -> u8 {
    PHYS_BITS
}

impl Default for CpusConfig {
    fn default() -> Self {
        let (boot_vcpus, max_vcpus) = (1, 1);
        Self { boot_vcpus, max_vcpus, topology: None, max_phys_bits: PHYS_BITS, foreign: Foreign::default() }
    }
}

/// How vCPUs are put together.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct CpuTopology {
    /// Threads of a core.
    pub threads_per_core: u16,
    /// Cores of a die.
    pub cores_per_die: u16,
    /// Dies of a package.
    pub dies_per_package: u16,
    /// Packages.
    pub packages: u16,
}
