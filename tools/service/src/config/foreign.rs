//! Keys that Cloud Hypervisor has and a TD here has not.
//!
//! A client that writes such a key with the value that it has anyway asks for nothing, and is not refused for it: many write
//! every key that they know. What asks for something is refused, with the key's name.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// Values of a key that ask for nothing. `null` is one of each key.
#[derive(Clone, Copy, Debug)]
pub(super) enum Harmless {
    /// Whatever stands there has no meaning for a TD here.
    Any,
    /// `false`.
    False,
    /// 0.
    Zero,
    /// A list or an object without anything in it.
    Empty,
    /// One of these texts.
    Texts(&'static [&'static str]),
    /// An object in which these keys ask for nothing.
    Object(&'static [(&'static str, Harmless)]),
}

/// The keys of one object.
pub(super) type Keys = &'static [(&'static str, Harmless)];

/// The keys of an object that its own struct does not have.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Foreign(BTreeMap<String, Value>);

impl<'de> Deserialize<'de> for Foreign {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        BTreeMap::deserialize(deserializer).map(Self)
    }
}

impl Harmless {
    /// Whether this value asks for nothing; the key inside that asks for something, if it is an object.
    fn asks(self, value: &Value) -> Result<(), String> {
        let of = |harmless: bool| if harmless { Ok(()) } else { Err(String::new()) };
        match (self, value) {
            (_, Value::Null) | (Self::Any, _) => Ok(()),
            (Self::False, value) => of(*value == Value::Bool(false)),
            (Self::Zero, value) => of(value.as_u64() == Some(0)),
            (Self::Empty, Value::Array(list)) => of(list.is_empty()),
            (Self::Empty, Value::Object(object)) => of(object.is_empty()),
            (Self::Texts(texts), Value::String(text)) => of(texts.contains(&text.as_str())),
            (Self::Object(keys), Value::Object(object)) => keys.iter().try_for_each(|(key, harmless)| {
                let inner = object.get(*key).map_or(Ok(()), |value| harmless.asks(value));
                inner.map_err(|deeper| format!(".{key}{deeper}"))
            }),
            (Self::Empty | Self::Texts(_) | Self::Object(_), _) => Err(String::new()),
        }
    }
}

impl Foreign {
    /// Refuses what asks for something, and forgets the keys that nobody knows.
    ///
    /// # Errors
    /// The name of the key.
    pub(super) fn settle(&mut self, keys: Keys) -> Result<(), String> {
        self.0.retain(|name, _| keys.iter().any(|(key, _)| key == name));
        for (key, harmless) in keys {
            let asked = self.0.get(*key).map_or(Ok(()), |value| harmless.asks(value));
            asked.map_err(|deeper| format!("{key}{deeper}"))?;
        }
        Ok(())
    }
}

/// The console of a debugger's port: no mode of it but `Off`.
const DEBUG_CONSOLE: Keys = &[("mode", Harmless::Texts(&["Off", "Null"]))];

/// The keys beside those of [`super::VmConfig`].
pub(super) const OF_VM: Keys = &[
    ("balloon", Harmless::Empty),
    ("debug_console", Harmless::Object(DEBUG_CONSOLE)),
    ("devices", Harmless::Empty),
    ("gdb", Harmless::False),
    ("generic_vhost_user", Harmless::Empty),
    ("iommu", Harmless::False),
    ("ivshmem", Harmless::Empty),
    ("landlock_enable", Harmless::False),
    ("landlock_rules", Harmless::Empty),
    ("numa", Harmless::Empty),
    ("pci_segments", Harmless::Empty),
    ("pmem", Harmless::Empty),
    // Descriptors of a VMM that was upgraded under its VM.
    ("preserved_fds", Harmless::Empty),
    ("pvmemcontrol", Harmless::Empty),
    // Every board has both.
    ("pvpanic", Harmless::Any),
    ("rtc", Harmless::Object(OF_DEVICE)),
    ("rate_limit_groups", Harmless::Empty),
    ("sgx_epc", Harmless::Empty),
    ("tpm", Harmless::Empty),
    ("user_devices", Harmless::Empty),
    ("vdpa", Harmless::Empty),
    ("watchdog", Harmless::False),
];

/// The keys that every device has.
pub(super) const OF_DEVICE: Keys = &[
    ("id", Harmless::Any),
    ("iommu", Harmless::False),
    ("pci_device_id", Harmless::Empty),
    ("pci_segment", Harmless::Zero),
];

pub(super) const OF_CPUS: Keys = &[
    ("affinity", Harmless::Empty),
    // What the host's scheduler does with threads of the emulated machine says nothing about a guest.
    ("core_scheduling", Harmless::Texts(&["Vm", "Off"])),
    ("features", Harmless::Object(&[("amx", Harmless::False)])),
    ("kvm_hyperv", Harmless::False),
    // It allows a guest to have guests, and is on where nobody says so; a TD never may.
    ("nested", Harmless::Any),
    ("profile", Harmless::Texts(&["host", "Host"])),
];

pub(super) const OF_MEMORY: Keys = &[
    ("hotplug_method", Harmless::Texts(&["Acpi", "VirtioMem"])),
    ("hotplug_size", Harmless::Zero),
    ("hotplugged_size", Harmless::Zero),
    ("hugepage_size", Harmless::Zero),
    ("hugepages", Harmless::False),
    ("mergeable", Harmless::False),
    ("prefault", Harmless::False),
    ("reserve", Harmless::False),
    // Both say how the host maps what other processes share, and there are none.
    ("shared", Harmless::Any),
    ("thp", Harmless::Any),
    ("zones", Harmless::Empty),
];

pub(super) const OF_PAYLOAD: Keys = &[("fw_cfg_config", Harmless::Empty), ("igvm", Harmless::Empty)];

pub(super) const OF_PLATFORM: Keys = &[
    ("iommu_address_width_bits", Harmless::Any),
    ("iommu_segments", Harmless::Empty),
    ("iommufd", Harmless::False),
    ("iommufd_fd", Harmless::Empty),
    ("oem_strings", Harmless::Empty),
    ("sev_snp", Harmless::False),
    ("chassis_asset_tag", Harmless::Empty),
    ("serial_number", Harmless::Empty),
    ("system_family", Harmless::Empty),
    ("system_manufacturer", Harmless::Empty),
    ("system_product_name", Harmless::Empty),
    ("system_serial_number", Harmless::Empty),
    ("system_sku_number", Harmless::Empty),
    ("system_uuid", Harmless::Empty),
    ("system_version", Harmless::Empty),
    ("uuid", Harmless::Empty),
    // It is of devices that are passed through.
    ("vfio_p2p_dma", Harmless::Any),
];

pub(super) const OF_DISK: Keys = &[
    ("backing_files", Harmless::False),
    ("direct", Harmless::False),
    // How the host reads the file is its own affair.
    ("disable_aio", Harmless::Any),
    ("disable_io_uring", Harmless::Any),
    ("iommu", Harmless::False),
    ("lock_granularity", Harmless::Any),
    ("pci_device_id", Harmless::Empty),
    ("pci_segment", Harmless::Zero),
    ("queue_affinity", Harmless::Empty),
    ("rate_limit_group", Harmless::Empty),
    ("rate_limiter_config", Harmless::Empty),
    ("sparse", Harmless::Any),
    ("vhost_socket", Harmless::Empty),
    ("vhost_user", Harmless::False),
];

pub(super) const OF_NET: Keys = &[
    ("host_mac", Harmless::Empty),
    ("iommu", Harmless::False),
    // They allow a card to offer what ours does not offer.
    ("offload_csum", Harmless::Any),
    ("offload_tso", Harmless::Any),
    ("offload_ufo", Harmless::Any),
    ("pci_device_id", Harmless::Empty),
    ("pci_segment", Harmless::Zero),
    ("rate_limiter_config", Harmless::Empty),
    ("tap", Harmless::Empty),
    ("vhost_mode", Harmless::Any),
    ("vhost_socket", Harmless::Empty),
    ("vhost_user", Harmless::False),
];

pub(super) const OF_FS: Keys =
    &[("pci_device_id", Harmless::Empty), ("pci_segment", Harmless::Zero), ("socket", Harmless::Empty)];

pub(super) const OF_CONSOLE: Keys = &[
    ("id", Harmless::Any),
    ("iommu", Harmless::False),
    ("pci_device_id", Harmless::Empty),
    ("pci_segment", Harmless::Zero),
    ("url", Harmless::Empty),
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settle(value: Value, keys: Keys) -> Result<Value, String> {
        let mut foreign: Foreign = serde_json::from_value(value).unwrap();
        foreign.settle(keys)?;
        Ok(serde_json::to_value(foreign).unwrap())
    }

    #[test]
    fn what_asks_for_nothing_is_kept_and_what_nobody_knows_is_forgotten() {
        let asked = json!({"iommu": false, "numa": [], "tpm": null, "pvpanic": true, "a_key_of_tomorrow": 1});
        let kept = json!({"iommu": false, "numa": [], "tpm": null, "pvpanic": true});
        assert_eq!(settle(asked, OF_VM), Ok(kept));
        assert!(settle(json!({"features": {"amx": false}, "core_scheduling": "Vm"}), OF_CPUS).is_ok());
    }

    #[test]
    fn what_asks_for_something_is_named() {
        for (asked, keys, key) in [
            (json!({"iommu": true}), OF_VM, "iommu"),
            (json!({"numa": [{}]}), OF_VM, "numa"),
            (json!({"tpm": {"socket": "x"}}), OF_VM, "tpm"),
            (json!({"debug_console": {"mode": "File"}}), OF_VM, "debug_console.mode"),
            (json!({"features": {"amx": true}}), OF_CPUS, "features.amx"),
            (json!({"hotplug_size": 1}), OF_MEMORY, "hotplug_size"),
            (json!({"hotplug_size": "0"}), OF_MEMORY, "hotplug_size"),
            (json!({"igvm": "a.igvm"}), OF_PAYLOAD, "igvm"),
            (json!({"fw_cfg_config": {"e820": true}}), OF_PAYLOAD, "fw_cfg_config"),
            (json!({"pvmemcontrol": {"id": "x"}}), OF_VM, "pvmemcontrol"),
            (json!({"profile": "skylake"}), OF_CPUS, "profile"),
            (json!({"iommufd_fd": 3}), OF_PLATFORM, "iommufd_fd"),
            (json!({"pci_segment": 1}), OF_NET, "pci_segment"),
        ] {
            assert_eq!(settle(asked, keys), Err(key.to_owned()));
        }
    }
}
