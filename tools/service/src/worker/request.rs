//! What a TD of the service is asked for with.

use std::path::Path;

use seam_emu::inject::FaultPlan;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tdvisor_runtime::dump::Secrecy;

use crate::config::{ConfigError, TdPolicy, VmConfig, built_in};

/// Bytes of memory of a TD that asks for none in particular.
const MEMORY: u64 = 512 << 20;
/// Pages of guest memory whose headers in a dump are no longer than one page.
const PAGES_OF_HEADERS: u64 = 64;
/// Bytes of a dump beside the TD's memory: its image is the largest of it.
const DUMPED_BESIDE: u64 = 65 << 20;
/// Characters of the longest name.
pub const NAME_MAX: usize = 40;

/// A TD as a client asks for it. A key that is not one of these is refused.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TdRequest {
    /// The TD's name: small letters, digits and hyphens. One is given where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How many vCPUs the TD has.
    #[serde(default = "one")]
    pub vcpus: u32,
    /// Bytes of its memory.
    #[serde(default = "memory")]
    pub memory: u64,
    /// What boots.
    pub payload: TdPayload,
    /// The TD's disks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<TdDisk>,
    /// Whether the TD has a network card, on a network in user mode that reaches nothing outside.
    #[serde(default)]
    pub network: bool,
    /// SEAMCALLs that fail on purpose, in the grammar of `tdvisor run --inject`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inject: Option<String>,
    /// Whether its SEAMCALLs are written down, with their registers.
    #[serde(default)]
    pub trace: bool,
    /// Whether the inspector's page of it can be had: its last calls are kept while it runs.
    #[serde(default)]
    pub inspector: bool,
    /// Whether the host may look at what it holds. Only an emulated TD can be looked into.
    #[serde(default)]
    pub inspectable: bool,
    /// Whether it is dumped when it has ended, and can be while it is paused. It has to be inspectable.
    #[serde(default)]
    pub dump: bool,
    /// Whether gdb debugs it, at the socket `gdb` of its folder: it waits before its first instruction until gdb comes. It has to be
    /// inspectable.
    #[serde(default)]
    pub gdb: bool,
}

/// What boots.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TdPayload {
    /// A TDVF image: the absolute path of a file, or the name of a built-in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<String>,
    /// The absolute path of a Linux kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// The kernel's command line, or the command of a built-in guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmdline: Option<String>,
    /// The absolute path of the kernel's initial RAM disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initramfs: Option<String>,
    /// MRCONFIGID: 48 bytes, or a digest of 32, in hexadecimal or base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mrconfigid: Option<String>,
}

/// A disk.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TdDisk {
    /// The absolute path of its image, which is raw.
    pub path: String,
    /// Whether the guest may only read it.
    #[serde(default)]
    pub readonly: bool,
    /// What a guest finds it by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
}

const fn one() -> u32 {
    1
}

const fn memory() -> u64 {
    MEMORY
}

/// Whether a TD may have this name, which becomes one of a folder.
pub fn is_name(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(is_inner) && !name.starts_with('-')
}

fn invalid(key: impl Into<String>, problem: impl Into<String>) -> ConfigError {
    ConfigError::Invalid { key: key.into(), problem: problem.into() }
}

impl TdRequest {
    /// The plan of its faults.
    ///
    /// # Errors
    /// It is none.
    pub fn faults(&self) -> Result<Option<FaultPlan>, ConfigError> {
        let plan = self.inject.as_deref().map(str::parse).transpose();
        plan.map_err(|error: seam_emu::inject::PlanError| invalid("inject", error.to_string()))
    }

    /// Bytes that the TD's dump has at most, which is all of its memory, its image, and a header for each page.
    pub const fn dump_max(&self) -> u64 {
        if self.dump {
            self.memory.saturating_add(self.memory / PAGES_OF_HEADERS).saturating_add(DUMPED_BESIDE)
        } else {
            0
        }
    }

    /// Whether the TD may be looked into.
    pub const fn secrecy(&self) -> Secrecy {
        if self.inspectable { Secrecy::Inspectable } else { Secrecy::Kept }
    }

    /// Files of this machine that it names, by their keys.
    fn files(&self) -> Vec<(String, &str)> {
        let payload = &self.payload;
        let firmware = payload.firmware.as_deref().filter(|name| built_in(name).is_none());
        let named = [
            ("firmware", firmware),
            ("kernel", payload.kernel.as_deref()),
            ("initramfs", payload.initramfs.as_deref()),
        ];
        let named = named.into_iter().filter_map(|(key, path)| Some((format!("payload.{key}"), path?)));
        let disks = self.disks.iter().enumerate();
        named.chain(disks.map(|(index, disk)| (format!("disks[{index}].path"), disk.path.as_str()))).collect()
    }

    /// Files that a TD of this kind reads and does not write.
    pub fn read_only_files(&self) -> Vec<&str> {
        let written: Vec<&str> = self.written_files();
        self.files().into_iter().map(|(_, path)| path).filter(|path| !written.contains(path)).collect()
    }

    /// Files that it writes.
    pub fn written_files(&self) -> Vec<&str> {
        self.disks.iter().filter(|disk| !disk.readonly).map(|disk| disk.path.as_str()).collect()
    }

    /// Checks everything that can be checked without opening files, and gives the configuration of the VM.
    ///
    /// # Errors
    /// [`ConfigError`], of the first key that is wrong.
    pub fn check(&self) -> Result<VmConfig, ConfigError> {
        if self.name.as_deref().is_some_and(|name| !is_name(name)) {
            let problem = format!("1 to {NAME_MAX} small letters, digits and hyphens, the first no hyphen");
            return Err(invalid("name", problem));
        }
        for (key, path) in self.files() {
            if !Path::new(path).is_absolute() {
                return Err(invalid(key, "an absolute path is needed, or the name of a built-in image"));
            }
        }
        for (key, asked) in [("gdb", self.gdb), ("dump", self.dump)] {
            if asked && !self.inspectable {
                return Err(invalid(key, "it has what the TD holds: the TD has to be inspectable"));
            }
        }
        self.faults()?;
        let net = if self.network { json!([{"user": true}]) } else { json!([]) };
        let config = json!({
            "cpus": {"boot_vcpus": self.vcpus, "max_vcpus": self.vcpus},
            "memory": {"size": self.memory},
            "payload": self.payload,
            "disks": self.disks,
            "net": net,
            "console": {"mode": "Null"},
            "platform": {"tdx": true},
        });
        let mut config: VmConfig =
            serde_json::from_value(config).map_err(|error| invalid("payload", error.to_string()))?;
        config.check(TdPolicy::Always)?;
        config.name_devices();
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(request: serde_json::Value) -> String {
        match serde_json::from_value::<TdRequest>(request) {
            Ok(request) => request.check().map(|_| ()).unwrap_err().to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_is_refused_names_its_key() {
        for (request, words) in [
            (json!({}), "payload"),
            (json!({"payload": {"firmware": "hello-td"}, "inspectable": 1}), "boolean"),
            (json!({"payload": {"firmware": "hello-td"}, "gdb": true}), "gdb: "),
            (json!({"payload": {"firmware": "hello-td"}, "dump": true}), "dump: "),
            (json!({"payload": {"firmware": "hello-td", "igvm": "x"}}), "igvm"),
            (json!({"payload": {"firmware": "hello-td"}, "fs": []}), "fs"),
            (json!({"payload": {"firmware": "hello-td"}, "vsock": {"socket": "/s"}}), "vsock"),
            (json!({"payload": {"firmware": "hello-td"}, "net": [{"fds": [3]}]}), "net"),
            (json!({"payload": {"firmware": "hello-td"}, "backend": "kvm"}), "backend"),
            (json!({"payload": {"firmware": "OVMF.fd"}}), "payload.firmware: an absolute path"),
            (json!({"payload": {"kernel": "bzImage"}}), "payload.kernel: an absolute path"),
            (json!({"payload": {"firmware": "hello-td"}, "name": "../x"}), "name: "),
            (json!({"payload": {"firmware": "hello-td"}, "name": ""}), "name: "),
            (json!({"payload": {"firmware": "hello-td"}, "memory": 4097}), "memory.size: "),
            (json!({"payload": {"firmware": "hello-td"}, "vcpus": 0}), "cpus.boot_vcpus: "),
            (json!({"payload": {"firmware": "hello-td"}, "inject": "nonsense"}), "inject: "),
            (json!({"payload": {"firmware": "hello-td", "mrconfigid": "5a"}}), "payload: "),
            (json!({"payload": {"kernel": "/k"}, "disks": [{"path": "a"}]}), "disks[0].path: "),
        ] {
            let said = refused(request.clone());
            assert!(said.contains(words), "{request}: {said}");
        }
    }

    #[test]
    fn files_that_are_written_are_told_from_those_that_are_read() {
        let request = json!({"payload": {"kernel": "/k", "initramfs": "/i"},
            "disks": [{"path": "/a"}, {"path": "/b", "readonly": true}]});
        let request: TdRequest = serde_json::from_value(request).unwrap();
        assert_eq!(request.written_files(), ["/a"]);
        assert_eq!(request.read_only_files(), ["/k", "/i", "/b"]);
        request.check().unwrap();
    }
}
