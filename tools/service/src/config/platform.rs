//! `platform`.

use serde::{Deserialize, Serialize};

use super::foreign::Foreign;

/// What kind of VM it is.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct PlatformConfig {
    /// PCI segments. Devices are on the first.
    #[serde(default = "one")]
    pub num_pci_segments: u16,
    /// Whether the VM is a TD. There are no others here.
    #[serde(default)]
    pub tdx: bool,
    /// What else Cloud Hypervisor knows.
    #[serde(flatten)]
    pub foreign: Foreign,
}

const fn one() -> u16 {
    1
}

impl Default for PlatformConfig {
    fn default() -> Self {
        Self { num_pci_segments: one(), tdx: false, foreign: Foreign::default() }
    }
}

/// What becomes of a VM that is asked for without `platform.tdx`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TdPolicy {
    /// The VM is refused: whoever wants a TD says so.
    #[default]
    WhenAsked,
    /// The VM is a TD: for clients that cannot say so.
    Always,
}
