//! `memory`.

use serde::{Deserialize, Serialize};

use super::foreign::Foreign;

/// Bytes that a VM gets that asks for nothing, as with Cloud Hypervisor.
const DEFAULT_BYTES: u64 = 512 << 20;

/// The memory.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct MemoryConfig {
    /// Bytes.
    pub size: u64,
    /// What else Cloud Hypervisor knows.
    #[serde(flatten)]
    pub foreign: Foreign,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self { size: DEFAULT_BYTES, foreign: Foreign::default() }
    }
}
