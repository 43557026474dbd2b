//! What a VM is asked for with: Cloud Hypervisor's `VmConfig`, as far as a TD here has it.
//!
//! # Protocol
//! JSON is read into [`VmConfig`], which has every default filled in; [`VmConfig::check`] refuses what cannot be had and
//! names the key. A key that Cloud Hypervisor has and a TD here has not (`foreign`) may be there with a value that asks for
//! nothing; a key that Cloud Hypervisor does not have is ignored, as it ignores it.
//!
//! # What is ours
//! `payload.firmware` takes the name of a built-in image too; `payload.mrconfigid`; `net[].user`; `fs[].dir`.

mod check;
mod cpus;
mod devices;
mod foreign;
mod ids;
mod memory;
mod payload;
mod platform;

use serde::{Deserialize, Serialize};

pub use check::ConfigError;
pub(crate) use check::{
    CMDLINE_MAX, ID_MAX, QUEUE_MAX, QUEUE_PLACES, RANDOM, SERIAL_PATTERN, built_in, built_ins, is_boot_shim,
};
pub use cpus::{CpuTopology, CpusConfig};
pub use devices::{
    ConsoleConfig, ConsoleMode, DiskConfig, FsConfig, MacText, NetConfig, RngConfig, VsockConfig,
};
pub use foreign::Foreign;
pub(crate) use ids::ID_PATTERN;
pub use ids::{ConfigIdText, MEASUREMENT_BYTES};
pub use memory::MemoryConfig;
pub use payload::PayloadConfig;
pub use platform::{PlatformConfig, TdPolicy};

/// A VM as it is asked for.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct VmConfig {
    /// The VM's vCPUs.
    #[serde(default)]
    pub cpus: CpusConfig,
    /// The VM's memory.
    #[serde(default)]
    pub memory: MemoryConfig,
    /// What boots.
    #[serde(default)]
    pub payload: PayloadConfig,
    /// The VM's disks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disks: Option<Vec<DiskConfig>>,
    /// The VM's network cards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub net: Option<Vec<NetConfig>>,
    /// The device of random bytes, which every VM has.
    #[serde(default)]
    pub rng: RngConfig,
    /// Folders of this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fs: Option<Vec<FsConfig>>,
    /// The first serial port.
    #[serde(default = "ConsoleConfig::null")]
    pub serial: ConsoleConfig,
    /// The virtio console.
    #[serde(default = "ConsoleConfig::tty")]
    pub console: ConsoleConfig,
    /// Streams between guest and host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vsock: Option<VsockConfig>,
    /// What kind of VM it is.
    #[serde(default)]
    pub platform: PlatformConfig,
    /// What else Cloud Hypervisor knows.
    #[serde(flatten)]
    pub foreign: Foreign,
}

impl VmConfig {
    /// The disks.
    pub fn disks(&self) -> &[DiskConfig] {
        self.disks.as_deref().unwrap_or_default()
    }

    /// The network cards.
    pub fn net(&self) -> &[NetConfig] {
        self.net.as_deref().unwrap_or_default()
    }

    /// The folders.
    pub fn fs(&self) -> &[FsConfig] {
        self.fs.as_deref().unwrap_or_default()
    }

    /// Gives every device that has none an id, as Cloud Hypervisor does when it boots.
    pub fn name_devices(&mut self) {
        let mut taken: Vec<String> = self.ids().into_iter().map(str::to_owned).collect();
        let mut name = |id: &mut Option<String>, kind: &str| {
            if id.is_none() {
                let free = (0..).map(|number| format!("_{kind}{number}")).find(|name| !taken.contains(name));
                taken.extend(free.clone());
                *id = free;
            }
        };
        self.disks.iter_mut().flatten().for_each(|disk| name(&mut disk.id, "disk"));
        self.net.iter_mut().flatten().for_each(|net| name(&mut net.id, "net"));
        self.fs.iter_mut().flatten().for_each(|fs| name(&mut fs.id, "fs"));
        self.vsock.iter_mut().for_each(|vsock| name(&mut vsock.id, "vsock"));
    }

    /// The ids that devices were given.
    pub fn ids(&self) -> Vec<&str> {
        let disks = self.disks().iter().map(|disk| &disk.id);
        let net = self.net().iter().map(|net| &net.id);
        let fs = self.fs().iter().map(|fs| &fs.id);
        let vsock = self.vsock.iter().map(|vsock| &vsock.id);
        disks.chain(net).chain(fs).chain(vsock).filter_map(|id| id.as_deref()).collect()
    }
}
