//! What a TD of the service is asked for with.

use std::path::Path;

use machine_emu::Pace;
use seam_emu::inject::FaultPlan;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tdvisor_runtime::backend::BackendKind;
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
    /// What runs the TD.
    #[serde(default)]
    pub backend: BackendKind,
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
    /// What the order of its turns and its virtual time follow from: with the same seed it does the same again. Without one its
    /// vCPUs run at the same time, in real time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deterministic: Option<u64>,
    /// Whether it can be saved and restored. It has to be inspectable and deterministic, and of an image.
    #[serde(default)]
    pub snapshot: bool,
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
        if self.dump { self.holds_max() } else { 0 }
    }

    /// Bytes that a snapshot of the TD has at most, which holds no more than a dump.
    pub const fn snapshot_max(&self) -> u64 {
        if self.snapshot { self.holds_max() } else { 0 }
    }

    /// Bytes of all that the TD holds.
    const fn holds_max(&self) -> u64 {
        self.memory.saturating_add(self.memory / PAGES_OF_HEADERS).saturating_add(DUMPED_BESIDE)
    }

    /// How its time passes.
    pub fn pace(&self) -> Pace {
        self.deterministic.map_or(Pace::Real, |seed| Pace::Deterministic { seed })
    }

    /// The first key that asks for what no snapshot has.
    fn not_saved(&self) -> Option<(&'static str, &'static str)> {
        const VIRTIO: &str = "virtio devices are not saved: leave it out, or snapshot";
        let asked = [
            (
                "payload.kernel",
                self.payload.kernel.is_some(),
                "only a TD of an image is saved: take firmware, or leave snapshot out",
            ),
            ("disks", !self.disks.is_empty(), VIRTIO),
            ("network", self.network, VIRTIO),
            (
                "inject",
                self.inject.is_some(),
                "where a plan of faults stands is not saved: leave it out, or snapshot",
            ),
            ("gdb", self.gdb, "what a debugger has set is not saved: leave it out, or snapshot"),
            (
                "snapshot",
                self.deterministic.is_none(),
                "only a TD in virtual time stops where it can be saved: add deterministic",
            ),
        ];
        asked.into_iter().find(|(_, asked, _)| self.snapshot && *asked).map(|(key, _, why)| (key, why))
    }

    /// The first key that asks for what passes in real time alone.
    fn not_deterministic(&self) -> Option<(&'static str, &'static str)> {
        let asked = [
            ("network", self.network, "a network passes in real time: leave it out, or deterministic"),
            (
                "gdb",
                self.gdb && self.vcpus > 1,
                "a vCPU that gdb halts keeps its turn: take one vCPU, or leave deterministic out",
            ),
        ];
        let found = asked.into_iter().find(|(_, asked, _)| self.deterministic.is_some() && *asked);
        found.map(|(key, _, why)| (key, why))
    }

    /// Whether the TD may be looked into.
    pub const fn secrecy(&self) -> Secrecy {
        if self.inspectable { Secrecy::Inspectable } else { Secrecy::Kept }
    }

    /// The first key that asks for what only the emulated machine can do.
    fn only_emulated(&self) -> Option<&'static str> {
        let asked = [
            ("inject", self.inject.is_some()),
            ("trace", self.trace),
            ("inspector", self.inspector),
            ("inspectable", self.inspectable),
            ("deterministic", self.deterministic.is_some()),
            ("snapshot", self.snapshot),
            ("dump", self.dump),
            ("gdb", self.gdb),
        ];
        asked.into_iter().find(|(_, asked)| *asked).map(|(key, _)| key)
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
        if let (BackendKind::Kvm, Some(key)) = (self.backend, self.only_emulated()) {
            let problem = "only the emulated machine can do it: leave it out, or take the backend 'emulated'";
            return Err(invalid(key, problem));
        }
        for (key, asked) in [("gdb", self.gdb), ("dump", self.dump), ("snapshot", self.snapshot)] {
            if asked && !self.inspectable {
                return Err(invalid(key, "it has what the TD holds: the TD has to be inspectable"));
            }
        }
        if let Some((key, why)) = self.not_saved().or_else(|| self.not_deterministic()) {
            return Err(invalid(key, why));
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
            (json!({"payload": {"firmware": "hello-td"}, "backend": "auto"}), "expected `emulated` or `kvm`"),
            (json!({"payload": {"firmware": "hello-td"}, "backend": "KVM"}), "expected `emulated` or `kvm`"),
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
    fn what_only_the_emulated_machine_can_do_is_refused_of_a_td_on_kvm_by_its_key() {
        let on_kvm = json!({"payload": {"firmware": "hello-td"}, "backend": "kvm"});
        let request: TdRequest = serde_json::from_value(on_kvm.clone()).unwrap();
        request.check().unwrap();
        for (key, value) in [
            ("inject", json!("chaos:1/50")),
            ("trace", json!(true)),
            ("inspector", json!(true)),
            ("inspectable", json!(true)),
            ("deterministic", json!(1)),
            ("snapshot", json!(true)),
            ("dump", json!(true)),
            ("gdb", json!(true)),
        ] {
            let mut request = on_kvm.clone();
            request[key] = value;
            let said = refused(request);
            assert!(said.starts_with(&format!("{key}: only the emulated machine")), "{said}");
        }
    }

    #[test]
    fn what_no_snapshot_has_is_refused_of_a_td_that_is_to_be_saved_by_its_key() {
        let saved = json!({"payload": {"firmware": "hello-td"}, "inspectable": true, "deterministic": 1, "snapshot": true});
        let request: TdRequest = serde_json::from_value(saved.clone()).unwrap();
        request.check().unwrap();
        for (key, value, words) in [
            ("payload", json!({"kernel": "/k"}), "payload.kernel: only a TD of an image"),
            ("disks", json!([{"path": "/d"}]), "disks: virtio devices"),
            ("network", json!(true), "network: virtio devices"),
            ("inject", json!("chaos:1/50"), "inject: "),
            ("gdb", json!(true), "gdb: "),
            ("deterministic", json!(null), "snapshot: only a TD in virtual time"),
            ("inspectable", json!(false), "snapshot: it has what the TD holds"),
        ] {
            let mut request = saved.clone();
            request[key] = value;
            let said = refused(request);
            assert!(said.starts_with(words), "{key}: {said}");
        }
    }

    #[test]
    fn what_passes_in_real_time_alone_is_refused_of_a_deterministic_td_by_its_key() {
        let request = json!({"payload": {"firmware": "hello-td"}, "deterministic": 1, "inspectable": true, "gdb": true});
        let one: TdRequest = serde_json::from_value(request.clone()).unwrap();
        one.check().unwrap();
        for (key, value, words) in [
            ("network", json!(true), "network: a network passes"),
            ("vcpus", json!(2), "gdb: a vCPU that gdb halts"),
        ] {
            let mut request = request.clone();
            request[key] = value;
            let said = refused(request);
            assert!(said.starts_with(words), "{said}");
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
