//! `payload`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::foreign::Foreign;
use super::ids::ConfigIdText;

/// What boots.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct PayloadConfig {
    /// A TDVF image: a file, or the name of a built-in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<String>,
    /// A Linux kernel, which the firmware boots; the built-in firmware where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<PathBuf>,
    /// The kernel's command line, or the command of a built-in guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmdline: Option<String>,
    /// The kernel's initial RAM disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initramfs: Option<PathBuf>,
    /// MRCONFIGID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mrconfigid: Option<ConfigIdText>,
    /// What the host says of the guest's initial data: MRCONFIGID too, for a TD has no other place for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_data: Option<ConfigIdText>,
    /// What else Cloud Hypervisor knows.
    #[serde(flatten)]
    pub foreign: Foreign,
}
