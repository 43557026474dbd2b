//! What of a configuration can be had.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use machine_emu::{MAX_TD_MEMORY, MAX_TD_VCPUS};
use td_host::td::config::TdConfig;
use tdvisor_devices::virtio::blk::Serial;
use tdvisor_devices::virtio::fs::Tag;
use tdvisor_devices::virtio::net::MTU;
use tdvisor_devices::virtio::vsock::FIRST_GUEST_CID;
use tdvisor_guest_images::{COMMAND_MAX, GUESTS, GuestImage};

use super::foreign::{
    Keys, OF_CONSOLE, OF_CPUS, OF_DEVICE, OF_DISK, OF_FS, OF_MEMORY, OF_NET, OF_PAYLOAD, OF_PLATFORM, OF_VM,
};
use super::{
    ConsoleConfig, ConsoleMode, DiskConfig, Foreign, FsConfig, NetConfig, TdPolicy, VmConfig, VsockConfig,
};

/// Places of the queues of our devices.
pub(crate) const QUEUE_PLACES: u32 = 128;
/// The most places that a queue may have (virtio 1.3, section 2.7).
pub(crate) const QUEUE_MAX: u32 = 32_768;
/// Everything under here is below 4 GiB: memory that is more continues above.
const FOUR_GIB: u64 = 1 << 32;
/// The longest command line that Linux takes, without its final NUL.
pub(crate) const CMDLINE_MAX: usize = 2047;
/// Devices of this machine that give random bytes: all of them are the kernel's generator.
pub(crate) const RANDOM: [&str; 2] = ["/dev/urandom", "/dev/random"];
/// What a disk's serial number looks like, as a regular expression (virtio 1.3, section 5.2.6.1, has 20 bytes for it).
pub(crate) const SERIAL_PATTERN: &str = "^[ -~]{1,20}$";
/// Characters of the longest name of a device.
pub(crate) const ID_MAX: usize = 64;

/// A configuration that cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// A key asks for what a TD here does not have.
    Unsupported {
        /// The key, with those that it is in.
        key: String,
        /// What to do, if there is something.
        hint: &'static str,
    },
    /// A key has a value that cannot be.
    Invalid {
        /// The key, with those that it is in.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Two devices have one name.
    SameId(String),
    /// One file is behind two devices.
    SamePath(String),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported { key, hint: "" } => write!(f, "{key}: not supported"),
            Self::Unsupported { key, hint } => write!(f, "{key}: not supported: {hint}"),
            Self::Invalid { key, problem } => write!(f, "{key}: {problem}"),
            Self::SameId(id) => write!(f, "two devices have the id '{id}'"),
            Self::SamePath(path) => write!(f, "two disks have the path '{path}'"),
        }
    }
}

impl std::error::Error for ConfigError {}

fn unsupported(key: impl Into<String>, hint: &'static str) -> ConfigError {
    ConfigError::Unsupported { key: key.into(), hint }
}

fn invalid(key: impl Into<String>, problem: impl Into<String>) -> ConfigError {
    ConfigError::Invalid { key: key.into(), problem: problem.into() }
}

fn settle(foreign: &mut Foreign, of: &str, keys: Keys) -> Result<(), ConfigError> {
    foreign.settle(keys).map_err(|key| unsupported(format!("{of}{key}"), ""))
}

/// Queues and their places.
fn check_queues(key: &str, queues: (u32, u32), size: u32) -> Result<(), ConfigError> {
    let (asked, there) = queues;
    if asked != there {
        return Err(unsupported(format!("{key}.num_queues"), "the device has a fixed number of queues"));
    }
    if !size.is_power_of_two() || size > QUEUE_MAX {
        return Err(invalid(format!("{key}.queue_size"), "a power of two, at most 32768"));
    }
    if size < QUEUE_PLACES {
        return Err(unsupported(format!("{key}.queue_size"), "the device has 128 places"));
    }
    Ok(())
}

impl VmConfig {
    /// Checks everything that can be checked without opening files, and forgets keys that nobody knows.
    ///
    /// # Errors
    /// [`ConfigError`], of the first key that is wrong.
    pub fn check(&mut self, policy: TdPolicy) -> Result<(), ConfigError> {
        settle(&mut self.foreign, "", OF_VM)?;
        self.check_platform(policy)?;
        self.check_cpus()?;
        self.check_memory()?;
        self.check_payload()?;
        for (index, disk) in self.disks.iter_mut().flatten().enumerate() {
            check_disk(&format!("disks[{index}]"), disk)?;
        }
        for (index, net) in self.net.iter_mut().flatten().enumerate() {
            check_net(&format!("net[{index}]"), net)?;
        }
        for (index, fs) in self.fs.iter_mut().flatten().enumerate() {
            check_fs(&format!("fs[{index}]"), fs)?;
        }
        self.vsock.as_mut().map_or(Ok(()), check_vsock)?;
        settle(&mut self.rng.foreign, "rng.", OF_DEVICE)?;
        if !RANDOM.iter().any(|source| self.rng.src == Path::new(source)) {
            return Err(unsupported("rng.src", "random bytes come from /dev/urandom"));
        }
        check_console("serial", &mut self.serial)?;
        check_console("console", &mut self.console)?;
        if self.serial.mode == ConsoleMode::Tty && self.console.mode == ConsoleMode::Tty {
            return Err(invalid("console.mode", "serial and console cannot both be the terminal"));
        }
        self.check_names()
    }

    fn check_platform(&mut self, policy: TdPolicy) -> Result<(), ConfigError> {
        let platform = &mut self.platform;
        settle(&mut platform.foreign, "platform.", OF_PLATFORM)?;
        if !platform.tdx && policy == TdPolicy::WhenAsked {
            let hint = "every VM here is a TD: ask for one, or start the VMM with --always-td";
            return Err(unsupported("platform.tdx", hint));
        }
        platform.tdx = true;
        // More segments than are used do no harm.
        if platform.num_pci_segments == 0 {
            return Err(invalid("platform.num_pci_segments", "at least 1"));
        }
        Ok(())
    }

    fn check_cpus(&mut self) -> Result<(), ConfigError> {
        let cpus = &mut self.cpus;
        settle(&mut cpus.foreign, "cpus.", OF_CPUS)?;
        let (boot, most) = (cpus.boot_vcpus, cpus.max_vcpus);
        if boot == 0 || boot > MAX_TD_VCPUS {
            return Err(invalid("cpus.boot_vcpus", format!("1 to {MAX_TD_VCPUS}")));
        }
        if most < boot {
            return Err(invalid("cpus.max_vcpus", "less than cpus.boot_vcpus"));
        }
        if most > boot {
            return Err(unsupported("cpus.max_vcpus", "a TD gets no vCPUs later: make it cpus.boot_vcpus"));
        }
        if let Some(topology) = cpus.topology {
            let [threads, dies, packages] =
                [topology.threads_per_core, topology.dies_per_package, topology.packages];
            if [threads, dies, packages] != [1; 3] || u32::from(topology.cores_per_die) != boot {
                return Err(unsupported("cpus.topology", "every vCPU is a core of one die of one package"));
            }
        }
        let end = self.memory.size.saturating_add(FOUR_GIB);
        let bits = 1u64.checked_shl(cpus.max_phys_bits.into()).unwrap_or(u64::MAX);
        if bits < end {
            return Err(unsupported("cpus.max_phys_bits", "the memory needs more address bits"));
        }
        Ok(())
    }

    fn check_memory(&mut self) -> Result<(), ConfigError> {
        settle(&mut self.memory.foreign, "memory.", OF_MEMORY)?;
        self.td_config()
            .check(MAX_TD_MEMORY, MAX_TD_VCPUS)
            .map_err(|error| invalid("memory.size", error.to_string()))
    }

    fn check_payload(&mut self) -> Result<(), ConfigError> {
        let payload = &mut self.payload;
        settle(&mut payload.foreign, "payload.", OF_PAYLOAD)?;
        if let (Some(one), Some(other)) = (&payload.mrconfigid, &payload.host_data)
            && one.id() != other.id()
        {
            return Err(invalid("payload.host_data", "it differs from payload.mrconfigid, and a TD has one"));
        }
        let payload = &self.payload;
        let built_in = payload.firmware.as_deref().and_then(built_in);
        match (&payload.firmware, &payload.kernel) {
            (None, None) if self.disks().is_empty() => {
                return Err(invalid("payload", "give it a kernel, or a firmware"));
            }
            (None, None) => return Err(invalid("payload.firmware", "a disk needs firmware that boots it")),
            (Some(_), Some(_)) if built_in.is_some_and(|guest| !is_boot_shim(guest)) => {
                return Err(invalid("payload.firmware", "this built-in guest boots no kernel"));
            }
            (Some(_), None) if built_in.is_some_and(is_boot_shim) => {
                return Err(invalid("payload.kernel", "boot-shim needs a kernel"));
            }
            _ => {}
        }
        if payload.initramfs.is_some() && payload.kernel.is_none() {
            return Err(invalid("payload.initramfs", "it is of a kernel, and there is none"));
        }
        if let Some(cmdline) = &payload.cmdline {
            let is_command = payload.kernel.is_none();
            if is_command && built_in.is_none() {
                return Err(invalid("payload.cmdline", "it is of a kernel, and there is none"));
            }
            let most = if is_command { COMMAND_MAX } else { CMDLINE_MAX };
            if cmdline.len() > most || cmdline.contains('\0') || (is_command && !cmdline.is_ascii()) {
                return Err(invalid("payload.cmdline", format!("at most {most} bytes, without a NUL")));
            }
        }
        Ok(())
    }

    /// No two devices have one name, and no two disks that are written one file.
    fn check_names(&self) -> Result<(), ConfigError> {
        let mut names = BTreeSet::new();
        for id in self.ids() {
            if id.is_empty() || id.len() > ID_MAX {
                return Err(invalid("id", format!("1 to {ID_MAX} bytes")));
            }
            if !names.insert(id) {
                return Err(ConfigError::SameId(id.to_owned()));
            }
        }
        let mut paths = BTreeSet::new();
        for path in self.disks().iter().filter_map(|disk| disk.path.as_ref()) {
            if !paths.insert(path) {
                return Err(ConfigError::SamePath(path.display().to_string()));
            }
        }
        let mut tags = BTreeSet::new();
        for (index, fs) in self.fs().iter().enumerate() {
            if !tags.insert(&fs.tag) {
                return Err(invalid(format!("fs[{index}].tag"), "another folder has it"));
            }
        }
        Ok(())
    }

    /// What the TD is.
    pub fn td_config(&self) -> TdConfig {
        let mut config =
            TdConfig { memory: self.memory.size, vcpus: self.cpus.boot_vcpus, ..TdConfig::default() };
        if let Some(id) = self.payload.mrconfigid.as_ref().or(self.payload.host_data.as_ref()) {
            config.ids.config_id = id.id();
        }
        if let (None, Some(command)) = (&self.payload.kernel, &self.payload.cmdline) {
            let guid = tdvisor_guest_images::COMMAND_HOB_GUID;
            config.hob_extensions.push((guid, command.clone().into_bytes()));
        }
        config
    }
}

/// The built-in image of this name.
pub(crate) fn built_in(name: &str) -> Option<&'static GuestImage> {
    GUESTS.iter().copied().find(|guest| guest.name == name)
}

/// The names of built-in images.
pub(crate) fn built_ins() -> Vec<&'static str> {
    GUESTS.iter().map(|guest| guest.name).collect()
}

/// Whether a built-in image is the one that boots kernels.
pub(crate) fn is_boot_shim(guest: &GuestImage) -> bool {
    guest.name == tdvisor_guest_images::BOOT_SHIM.name
}

fn check_disk(key: &str, disk: &mut DiskConfig) -> Result<(), ConfigError> {
    settle(&mut disk.foreign, &format!("{key}."), OF_DISK)?;
    check_queues(key, (disk.num_queues, 1), disk.queue_size)?;
    if disk.path.is_none() {
        return Err(invalid(format!("{key}.path"), "a disk needs its image"));
    }
    if disk.serial.as_deref().is_some_and(|serial| Serial::new(serial).is_none()) {
        return Err(invalid(format!("{key}.serial"), "1 to 20 printable ASCII characters"));
    }
    match disk.image_type.as_deref() {
        None | Some("Raw" | "Unknown") => Ok(()),
        Some(_) => Err(unsupported(format!("{key}.image_type"), "images are raw: convert it with qemu-img")),
    }
}

fn check_net(key: &str, net: &mut NetConfig) -> Result<(), ConfigError> {
    settle(&mut net.foreign, &format!("{key}."), OF_NET)?;
    check_queues(key, (net.num_queues, 2), net.queue_size)?;
    if net.mtu.is_some_and(|mtu| mtu != MTU) {
        return Err(unsupported(format!("{key}.mtu"), "the card's is 1500"));
    }
    Ok(())
}

fn check_fs(key: &str, fs: &mut FsConfig) -> Result<(), ConfigError> {
    let no_socket = || {
        let hint = "there are no vhost-user sockets: name a folder with 'dir', which the guest may read";
        unsupported(format!("{key}.socket"), hint)
    };
    if fs.foreign.settle(OF_FS).is_err_and(|of| of == "socket") {
        return Err(no_socket());
    }
    settle(&mut fs.foreign, &format!("{key}."), OF_FS)?;
    check_queues(key, (fs.num_queues, 1), fs.queue_size)?;
    if Tag::new(&fs.tag).is_none() {
        return Err(invalid(format!("{key}.tag"), "1 to 36 bytes of text"));
    }
    if fs.dir.is_none() {
        return Err(no_socket());
    }
    Ok(())
}

fn check_vsock(vsock: &mut VsockConfig) -> Result<(), ConfigError> {
    settle(&mut vsock.foreign, "vsock.", OF_DEVICE)?;
    // The largest 32-bit number means any context.
    if !(FIRST_GUEST_CID..u64::from(u32::MAX)).contains(&vsock.cid) {
        let problem = format!("{FIRST_GUEST_CID} to {}", u32::MAX - 1);
        return Err(invalid("vsock.cid", problem));
    }
    Ok(())
}

fn check_console(key: &str, console: &mut ConsoleConfig) -> Result<(), ConfigError> {
    settle(&mut console.foreign, &format!("{key}."), OF_CONSOLE)?;
    match console.mode {
        ConsoleMode::Off | ConsoleMode::Null | ConsoleMode::Tty => Ok(()),
        ConsoleMode::File if console.file.is_some() => Ok(()),
        ConsoleMode::Socket if console.socket.is_some() => Ok(()),
        ConsoleMode::File => Err(invalid(format!("{key}.file"), "the mode File needs it")),
        ConsoleMode::Socket => Err(invalid(format!("{key}.socket"), "the mode Socket needs it")),
        ConsoleMode::Pty | ConsoleMode::Tcp => {
            Err(unsupported(format!("{key}.mode"), "there are Off, Null, Tty, File and Socket"))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn checked(mut config: Value, policy: TdPolicy) -> Result<VmConfig, ConfigError> {
        let object = config.as_object_mut().unwrap();
        object.entry("payload").or_insert(json!({"firmware": "hello-td"}));
        object.entry("platform").or_insert(json!({"tdx": true}));
        let mut config: VmConfig = serde_json::from_value(config).unwrap();
        config.check(policy)?;
        Ok(config)
    }

    #[test]
    fn what_is_refused_names_its_key() {
        for (config, key) in [
            (json!({"platform": {}}), "platform.tdx"),
            (json!({"platform": {"tdx": true, "sev_snp": true}}), "platform.sev_snp"),
            (json!({"cpus": {"boot_vcpus": 0, "max_vcpus": 0}}), "cpus.boot_vcpus"),
            (json!({"cpus": {"boot_vcpus": 2, "max_vcpus": 1}}), "cpus.max_vcpus"),
            (json!({"cpus": {"boot_vcpus": 1, "max_vcpus": 2}}), "cpus.max_vcpus"),
            (json!({"cpus": {"boot_vcpus": 1, "max_vcpus": 1, "max_phys_bits": 32}}), "cpus.max_phys_bits"),
            (
                json!({"cpus": {"boot_vcpus": 2, "max_vcpus": 2, "topology": {"threads_per_core": 2,
                "cores_per_die": 1, "dies_per_package": 1, "packages": 1}}}),
                "cpus.topology",
            ),
            (json!({"memory": {"size": 4097}}), "memory.size"),
            (json!({"memory": {"size": 0}}), "memory.size"),
            (json!({"memory": {"size": 1 << 30, "hugepages": true}}), "memory.hugepages"),
            (json!({"payload": {}}), "payload"),
            (json!({"payload": {"firmware": "hello-td", "kernel": "vmlinux"}}), "payload.firmware"),
            (json!({"payload": {"firmware": "boot-shim"}}), "payload.kernel"),
            (json!({"payload": {"firmware": "hello-td", "initramfs": "initrd"}}), "payload.initramfs"),
            (json!({"payload": {"firmware": "OVMF.fd", "cmdline": "quiet"}}), "payload.cmdline"),
            (json!({"payload": {"kernel": "vmlinux", "cmdline": "a\0b"}}), "payload.cmdline"),
            (json!({"payload": {"kernel": "vmlinux", "igvm": "x"}}), "payload.igvm"),
            (json!({"disks": [{}]}), "disks[0].path"),
            (json!({"disks": [{"path": "a"}, {"path": "b", "num_queues": 2}]}), "disks[1].num_queues"),
            (json!({"disks": [{"path": "a", "queue_size": 64}]}), "disks[0].queue_size"),
            (json!({"disks": [{"path": "a", "queue_size": 129}]}), "disks[0].queue_size"),
            (json!({"disks": [{"path": "a", "image_type": "Qcow2"}]}), "disks[0].image_type"),
            (json!({"disks": [{"path": "a", "serial": "123456789012345678901"}]}), "disks[0].serial"),
            (json!({"disks": [{"path": "a", "direct": true}]}), "disks[0].direct"),
            (json!({"net": [{"tap": "tap0"}]}), "net[0].tap"),
            (json!({"net": [{"num_queues": 4}]}), "net[0].num_queues"),
            (json!({"net": [{"mtu": 9000}]}), "net[0].mtu"),
            (json!({"fs": [{"tag": "a", "socket": "b"}]}), "fs[0].socket"),
            (json!({"fs": [{"tag": "", "dir": "b"}]}), "fs[0].tag"),
            (json!({"fs": [{"tag": "a", "dir": "b"}, {"tag": "a", "dir": "c"}]}), "fs[1].tag"),
            (json!({"vsock": {"cid": 2, "socket": "v"}}), "vsock.cid"),
            (json!({"vsock": {"cid": 4294967295u32, "socket": "v"}}), "vsock.cid"),
            (json!({"rng": {"src": "/dev/zero"}}), "rng.src"),
            (json!({"serial": {"mode": "Pty"}}), "serial.mode"),
            (json!({"serial": {"mode": "File"}}), "serial.file"),
            (json!({"console": {"mode": "Socket"}}), "console.socket"),
            (json!({"serial": {"mode": "Tty"}}), "console.mode"),
            (json!({"iommu": true}), "iommu"),
        ] {
            let error = checked(config.clone(), TdPolicy::WhenAsked).expect_err(&config.to_string());
            let said = error.to_string();
            assert!(said.starts_with(&format!("{key}: ")), "{config}: {said}");
        }
    }

    #[test]
    fn a_folder_behind_a_socket_is_refused_with_what_to_do_instead() {
        for fs in [
            json!({"tag": "a", "socket": "b"}),
            json!({"tag": "a"}),
            json!({"tag": "a", "socket": "b", "dir": "c"}),
        ] {
            let error = checked(json!({"fs": [fs]}), TdPolicy::WhenAsked).unwrap_err().to_string();
            assert!(error.contains("name a folder with 'dir'"), "{error}");
        }
    }

    #[test]
    fn one_name_or_one_file_for_two_is_a_conflict() {
        let disks = json!({"disks": [{"path": "a", "id": "x"}], "net": [{"id": "x"}]});
        assert_eq!(checked(disks, TdPolicy::WhenAsked), Err(ConfigError::SameId("x".into())));
        let disks = json!({"disks": [{"path": "a"}, {"path": "a", "readonly": true}]});
        assert_eq!(checked(disks, TdPolicy::WhenAsked), Err(ConfigError::SamePath("a".into())));
    }

    #[test]
    fn a_vm_that_does_not_ask_to_be_a_td_is_one_where_all_are() {
        let config = checked(json!({"platform": {"tdx": false}}), TdPolicy::Always).unwrap();
        assert!(config.platform.tdx);
    }

    #[test]
    fn a_configuration_comes_back_with_its_defaults() {
        let id = "5a".repeat(48);
        let payload = json!({"kernel": "vmlinux", "mrconfigid": id, "host_data": id});
        let config = json!({"payload": payload, "disks": [{"path": "a", "some_day": 1}], "net": [{}],
            "memory": {"size": 1u32 << 30, "shared": true, "hotplug_method": "Acpi"}});
        let mut config = checked(config, TdPolicy::WhenAsked).unwrap();
        config.name_devices();
        assert_eq!(config.td_config().ids.config_id, [0x5a; 48]);
        let expected = json!({
            "cpus": {"boot_vcpus": 1, "max_vcpus": 1, "max_phys_bits": 46},
            "memory": {"size": 1u32 << 30, "shared": true, "hotplug_method": "Acpi"},
            "payload": payload,
            "disks": [{"path": "a", "readonly": false, "num_queues": 1, "queue_size": 128, "id": "_disk0"}],
            "net": [{"ip": "192.168.249.1", "mask": "255.255.255.0", "mac": "2e:74:64:76:69:73",
                "num_queues": 2, "queue_size": 256, "id": "_net0"}],
            "rng": {"src": "/dev/urandom"},
            "serial": {"mode": "Null"},
            "console": {"mode": "Tty"},
            "platform": {"num_pci_segments": 1, "tdx": true},
        });
        assert_eq!(serde_json::to_value(config).unwrap(), expected);
    }
}
