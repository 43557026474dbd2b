//! Recordings: calls of Intel's module, quotes with their collateral, event logs.
//!
//! `TDVISOR_VECTORS` names the folder that holds all of them; without it, `../shared/vectors` beside the workspace.

use std::path::PathBuf;

use crate::{Missing, existing, named, required, workspace};

/// Calls of Intel's module 1.5.01.
pub const MODULE: &str = "tdx-module";
/// Calls of Intel's module 1.5.05.
pub const MODULE_1_5_05: &str = "tdx-module-1.5.05";
/// Calls of Intel's module 1.5.01 that TD partitioning and migration are about.
pub const PARTITION_MIGRATION: &str = "tdx-module-partition-migration";
/// Quotes, collateral, event logs and the verdicts on them.
pub const ATTESTATION: &str = "attest";

const ORIGIN: &str = "TDVISOR_VECTORS names the folder of the recordings (CONTRIBUTING.md, 'Recordings')";

/// A part of the recordings.
///
/// # Errors
/// [`Missing`] where there is no such folder.
pub fn find(part: &str) -> Result<PathBuf, Missing> {
    let folder = named("TDVISOR_VECTORS").unwrap_or_else(|| workspace().join("../shared/vectors"));
    existing(folder.join(part), ORIGIN)
}

/// A part of the recordings, for a test that is ignored where there are none.
///
/// # Panics
/// Where there is no such folder.
#[must_use]
#[track_caller]
pub fn folder(part: &str) -> PathBuf {
    required(find(part))
}
