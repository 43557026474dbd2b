//! The schemas of the description. A test compares them with the types.

use machine_emu::{MAX_TD_MEMORY, MAX_TD_VCPUS};
use serde_json::{Map, Value, json};
use tdvisor_devices::virtio::vsock::FIRST_GUEST_CID;

use crate::config::{ID_MAX, ID_PATTERN, QUEUE_MAX, QUEUE_PLACES, RANDOM, SERIAL_PATTERN, built_ins};

/// Characters of a folder's tag, at most (virtio 1.3, section 5.11.4).
const TAG_MAX: usize = 36;

/// An object with these properties, of which some have to be there.
fn object(required: &[&str], properties: Value) -> Value {
    let mut schema = json!({"type": "object", "properties": properties});
    if let (false, Some(schema)) = (required.is_empty(), schema.as_object_mut()) {
        schema.insert("required".to_owned(), json!(required));
    }
    schema
}

fn of(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

fn list(schema: &str) -> Value {
    json!({"type": "array", "items": of(schema)})
}

fn text(what: &str) -> Value {
    json!({"type": "string", "description": what})
}

fn number(default: u64, least: u64, most: u64) -> Value {
    json!({"type": "integer", "format": "int64", "minimum": least, "maximum": most, "default": default})
}

/// A device's fixed number of queues.
fn queues(count: u64) -> Value {
    number(count, count, count)
}

/// Places of a queue: a power of two from those that the device has to the most that virtio has.
fn places(default: u32) -> Value {
    let all: Vec<u32> = (QUEUE_PLACES.ilog2()..=QUEUE_MAX.ilog2()).map(|bit| 1 << bit).collect();
    json!({"type": "integer", "enum": all, "default": default})
}

/// Text of so many characters.
fn word(what: &str, least: usize, most: usize) -> Value {
    json!({"type": "string", "description": what, "minLength": least, "maxLength": most})
}

/// Text that is one of these.
fn one_of(what: &str, all: &[&str]) -> Value {
    json!({"type": "string", "description": what, "enum": all})
}

fn flag(default: bool, what: &str) -> Value {
    json!({"type": "boolean", "default": default, "description": what})
}

/// 48 or 32 bytes as text.
fn config_id(what: &str) -> Value {
    json!({"type": "string", "description": what, "pattern": ID_PATTERN})
}

/// A key that may be `null`, which is as if it were not there.
fn maybe(schema: Value) -> Value {
    // What stands beside a reference does not count in OpenAPI 3.0.
    let mut schema = if schema.get("$ref").is_some() { json!({"allOf": [schema]}) } else { schema };
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("nullable".to_owned(), json!(true));
        // It does not add `null` to the values that are named.
        if let Some(Value::Array(values)) = schema.get_mut("enum") {
            values.push(Value::Null);
        }
    }
    schema
}

/// All schemas by their names.
pub(super) fn schemas() -> Map<String, Value> {
    let id = || word("Its name; one is given where there is none", 1, ID_MAX);
    let address = json!({"type": "string", "format": "ipv4",
        "description": "Of tap devices that the VMM makes: it makes none"});
    let all = [
        (
            "Error",
            json!({"type": "array", "items": {"type": "string"}, "minItems": 1,
            "description": "Sentences, the outermost first"}),
        ),
        (
            "VmmPingResponse",
            object(
                &["version", "build_version", "pid", "features"],
                json!({
                    "version": text("The release of Cloud Hypervisor whose API this is a part of"),
                    "build_version": text("The release of tdvisor"),
                    "pid": {"type": "integer", "format": "int64"},
                    "features": {"type": "array", "items": {"type": "string"}},
                }),
            ),
        ),
        (
            "VmState",
            json!({"type": "string", "enum": ["Created", "Running", "Shutdown", "Paused"],
            "description": "Shutdown: the guest ended by itself, and the process was told to stay"}),
        ),
        (
            "VmInfo",
            object(
                &["config", "state", "memory_actual_size"],
                json!({
                    "config": of("VmConfig"),
                    "state": of("VmState"),
                    "memory_actual_size": {"type": "integer", "format": "int64"},
                }),
            ),
        ),
        (
            "VmCounters",
            json!({"type": "object", "additionalProperties":
            {"type": "object", "additionalProperties": {"type": "integer", "format": "int64"}}}),
        ),
        ("VmRemoveDevice", object(&["id"], json!({"id": text("The device's name")}))),
        (
            "VmResize",
            object(
                &[],
                json!({
                    "desired_vcpus": {"type": "integer", "minimum": 1, "maximum": MAX_TD_VCPUS, "nullable": true},
                    "desired_ram": {"type": "integer", "format": "int64", "minimum": 4096, "maximum": MAX_TD_MEMORY,
                        "multipleOf": 4096, "nullable": true},
                    "desired_balloon": {"type": "integer", "format": "int64", "minimum": 0, "nullable": true,
                        "description": "Nothing but 0: there is no balloon"},
                }),
            ),
        ),
        (
            "VmConfig",
            object(
                &[],
                json!({
                    "cpus": of("CpusConfig"),
                    "memory": of("MemoryConfig"),
                    "payload": of("PayloadConfig"),
                    "disks": maybe(list("DiskConfig")),
                    "net": maybe(list("NetConfig")),
                    "rng": of("RngConfig"),
                    "fs": maybe(list("FsConfig")),
                    "serial": of("ConsoleConfig"),
                    "console": of("ConsoleConfig"),
                    "vsock": maybe(of("VsockConfig")),
                    "platform": of("PlatformConfig"),
                }),
            ),
        ),
        (
            "CpusConfig",
            object(
                &["boot_vcpus", "max_vcpus"],
                json!({
                    "boot_vcpus": number(1, 1, MAX_TD_VCPUS.into()),
                    "max_vcpus": number(1, 1, MAX_TD_VCPUS.into()),
                    "topology": maybe(of("CpuTopology")),
                    "max_phys_bits": {"type": "integer", "default": 46, "maximum": 255, "minimum": 0},
                }),
            ),
        ),
        (
            "CpuTopology",
            object(
                &["threads_per_core", "cores_per_die", "dies_per_package", "packages"],
                json!({
                    "threads_per_core": number(1, 1, 1),
                    "cores_per_die": number(1, 1, MAX_TD_VCPUS.into()),
                    "dies_per_package": number(1, 1, 1),
                    "packages": number(1, 1, 1),
                }),
            ),
        ),
        (
            "MemoryConfig",
            object(
                &["size"],
                json!({
                    "size": {"type": "integer", "format": "int64", "minimum": 4096, "maximum": MAX_TD_MEMORY, "default": 512u64 << 20,
                        "multipleOf": 4096, "description": "Bytes"},
                }),
            ),
        ),
        (
            "PayloadConfig",
            object(
                &[],
                json!({
                    "firmware": maybe(text(&format!("A TDVF image: a file, or the name of a built-in one ({})", built_ins().join(", ")))),
                    "kernel": maybe(text("A Linux kernel; the built-in firmware boots it where none is named")),
                    "cmdline": maybe(text("The kernel's command line, or the command of a built-in guest")),
                    "initramfs": maybe(text("The kernel's initial RAM disk")),
                    "mrconfigid": maybe(config_id("MRCONFIGID: 48 bytes, or a digest of 32, in hexadecimal or base64")),
                    "host_data": maybe(config_id("MRCONFIGID too, for clients that know this name")),
                }),
            ),
        ),
        (
            "DiskConfig",
            object(
                &["path"],
                json!({
                    "path": text("The image: raw"),
                    "readonly": flag(false, "Whether the guest may only read it"),
                    "num_queues": queues(1),
                    "queue_size": places(128),
                    "serial": maybe(json!({"type": "string", "pattern": SERIAL_PATTERN,
                        "description": "What a guest finds it by: 1 to 20 printable ASCII characters"})),
                    "image_type": maybe(one_of("What the image is", &["Raw", "Unknown"])),
                    "id": maybe(id()),
                }),
            ),
        ),
        (
            "NetConfig",
            object(
                &[],
                json!({
                    "ip": maybe(address.clone()),
                    "mask": maybe(address),
                    "mac": maybe(json!({"type": "string", "description": "The card's address, of no group",
                        "pattern": "^[0-9a-fA-F][02468aceACE](:[0-9a-fA-F]{2}){5}$"})),
                    "mtu": maybe(json!({"type": "integer", "minimum": 1500, "maximum": 1500})),
                    "num_queues": queues(2),
                    "queue_size": places(256),
                    "fds": maybe(json!({"type": "array", "items": {"type": "integer"},
                        "description": "Means nothing: the descriptor comes with the request (SCM_RIGHTS)"})),
                    "user": flag(false, "A network in user mode, without a descriptor"),
                    "id": maybe(id()),
                }),
            ),
        ),
        (
            "FsConfig",
            object(
                &["tag", "dir"],
                json!({
                    "tag": word("What a guest finds it by: 1 to 36 bytes", 1, TAG_MAX),
                    "dir": text("A folder of this machine, which the guest may read"),
                    "num_queues": queues(1),
                    "queue_size": places(1024),
                    "id": maybe(id()),
                }),
            ),
        ),
        (
            "VsockConfig",
            object(
                &["socket"],
                json!({
                    "cid": number(FIRST_GUEST_CID, FIRST_GUEST_CID, (u32::MAX - 1).into()),
                    "socket": text("The socket of the host's programs"),
                    "id": maybe(id()),
                }),
            ),
        ),
        ("RngConfig", object(&[], json!({"src": one_of("Where random bytes come from", &RANDOM)}))),
        (
            "ConsoleConfig",
            object(
                &["mode"],
                json!({
                    "mode": {"type": "string", "enum": ["Off", "Null", "Tty", "File", "Socket"],
                        "description": "Cloud Hypervisor's Pty and Tcp are refused"},
                    "file": maybe(text("The file of File")),
                    "socket": maybe(text("The socket of Socket")),
                }),
            ),
        ),
        (
            "PlatformConfig",
            object(
                &[],
                json!({
                    "num_pci_segments": number(1, 1, u16::MAX.into()),
                    "tdx": flag(false, "Whether the VM is a TD: there are no others, so that it has to be true"),
                }),
            ),
        ),
    ];
    all.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::{TdPolicy, VmConfig};

    /// A configuration in which every key stands.
    fn whole() -> Value {
        let config = json!({
            "cpus": {"boot_vcpus": 1, "max_vcpus": 1, "max_phys_bits": 46,
                "topology": {"threads_per_core": 1, "cores_per_die": 1, "dies_per_package": 1, "packages": 1}},
            "memory": {"size": 1 << 30},
            "payload": {"firmware": "f", "kernel": "k", "cmdline": "c", "initramfs": "i",
                "mrconfigid": "00".repeat(48), "host_data": "00".repeat(32)},
            "disks": [{"path": "p", "serial": "s", "image_type": "Raw", "id": "d"}],
            "net": [{"mtu": 1500, "fds": [3], "user": true, "id": "n"}],
            "rng": {"src": "/dev/urandom"},
            "fs": [{"tag": "t", "dir": "d", "id": "f"}],
            "serial": {"mode": "Null", "file": "f", "socket": "s"},
            "console": {"mode": "Off", "file": "f", "socket": "s"},
            "vsock": {"socket": "s", "id": "v"},
            "platform": {"tdx": true},
        });
        // Read and written by the types: what they do not know is gone, and what they add is there.
        let mut read: VmConfig = serde_json::from_value(config).unwrap();
        read.foreign = Default::default();
        serde_json::to_value(read).unwrap()
    }

    /// A schema itself, where it is named by another one.
    fn named<'s>(schema: &'s Value, schemas: &'s Map<String, Value>) -> &'s Value {
        let reference = schema.pointer("/allOf/0").unwrap_or(schema).get("$ref").and_then(Value::as_str);
        reference.map_or(schema, |name| &schemas[name.rsplit('/').next().unwrap()])
    }

    /// Compares the keys of a value with those of its schema, all the way down.
    fn compare(value: &Value, schema: &Value, at: &str, schemas: &Map<String, Value>) {
        let schema = named(schema, schemas);
        match value {
            Value::Object(object) => {
                let properties =
                    schema["properties"].as_object().unwrap_or_else(|| panic!("{at}: no object"));
                let keys = |map: &Map<String, Value>| map.keys().cloned().collect::<BTreeSet<_>>();
                assert_eq!(keys(object), keys(properties), "{at}");
                for (key, value) in object {
                    compare(value, &properties[key], &format!("{at}.{key}"), schemas);
                }
            }
            Value::Array(list) => {
                assert_eq!(schema["type"], "array", "{at}");
                list.iter().for_each(|value| compare(value, &schema["items"], at, schemas));
            }
            Value::String(_) => assert_eq!(schema["type"], "string", "{at}"),
            Value::Number(_) => assert_eq!(schema["type"], "integer", "{at}"),
            Value::Bool(_) => assert_eq!(schema["type"], "boolean", "{at}"),
            Value::Null => panic!("{at} is null"),
        }
    }

    #[test]
    fn the_schemas_are_those_of_the_types() {
        let schemas = schemas();
        compare(&whole(), &of("VmConfig"), "VmConfig", &schemas);
    }

    /// The places of all keys in a value, whose schemas say whether they may be null.
    fn places(
        value: &Value,
        schema: &Value,
        at: &str,
        schemas: &Map<String, Value>,
        all: &mut Vec<(String, bool)>,
    ) {
        let schema = named(schema, schemas);
        match value {
            Value::Object(object) => {
                for (key, value) in object {
                    let (property, at) = (&schema["properties"][key], format!("{at}/{key}"));
                    all.push((at.clone(), property["nullable"] == true));
                    places(value, property, &at, schemas, all);
                }
            }
            Value::Array(list) if list.first().is_some_and(Value::is_object) => {
                places(&list[0], &schema["items"], &format!("{at}/0"), schemas, all);
            }
            _ => {}
        }
    }

    #[test]
    fn a_key_that_may_be_null_and_has_one_of_some_values_has_null_among_them() {
        let value = maybe(one_of("what", &["a"]));
        assert_eq!((&value["nullable"], &value["enum"]), (&json!(true), &json!(["a", null])));
    }

    #[test]
    fn a_key_may_be_null_where_its_schema_says_so_and_nowhere_else() {
        let whole = whole();
        let mut all = Vec::new();
        places(&whole, &of("VmConfig"), "", &schemas(), &mut all);
        assert!(all.iter().any(|(_, nullable)| *nullable) && all.iter().any(|(_, nullable)| !nullable));
        for (place, nullable) in all {
            let mut config = whole.clone();
            *config.pointer_mut(&place).unwrap() = Value::Null;
            // Whether there may be no kernel depends on what else boots.
            let is_good = if place.starts_with("/payload/") {
                serde_json::from_value::<VmConfig>(config).is_ok()
            } else {
                is_had(config)
            };
            assert_eq!(is_good, nullable, "{place}");
        }
    }

    /// Whether a configuration can be had.
    fn is_had(config: Value) -> bool {
        let read = serde_json::from_value::<VmConfig>(config);
        read.is_ok_and(|mut config| config.check(TdPolicy::WhenAsked).is_ok())
    }

    #[test]
    fn what_a_schema_bounds_is_refused_beyond_its_bounds_and_had_at_them() {
        let good = json!({
            "cpus": {"boot_vcpus": 1, "max_vcpus": 1},
            "memory": {"size": 1 << 30},
            "payload": {"firmware": "hello-td", "mrconfigid": "00".repeat(48)},
            "disks": [{"path": "p", "serial": "s", "id": "d"}],
            "net": [{"mac": "02:00:00:00:00:01", "ip": "10.0.0.1", "user": true}],
            "fs": [{"tag": "t", "dir": "d"}],
            "rng": {"src": "/dev/urandom"},
            "serial": {"mode": "Off"},
            "vsock": {"socket": "s", "cid": 3},
            "platform": {"tdx": true, "num_pci_segments": 1},
        });
        assert!(is_had(good.clone()));
        for (place, had, refused) in [
            ("/cpus/boot_vcpus", json!(1), json!(MAX_TD_VCPUS + 1)),
            ("/memory/size", json!(4096), json!(0)),
            ("/memory/size", json!(1u64 << 30), json!((1u64 << 30) + 1)),
            ("/memory/size", json!(1u64 << 30), json!(MAX_TD_MEMORY + 4096)),
            ("/payload/mrconfigid", json!("A".repeat(64)), json!("0".repeat(65))),
            (
                "/payload/mrconfigid",
                json!(format!("{}=", "A".repeat(43))),
                json!(format!("{}B=", "A".repeat(42))),
            ),
            ("/disks/0/serial", json!("s".repeat(20)), json!("s".repeat(21))),
            ("/disks/0/serial", json!(" ~"), json!("")),
            ("/disks/0/serial", json!(" ~"), json!("\t")),
            ("/disks/0/id", json!("i".repeat(ID_MAX)), json!("i".repeat(ID_MAX + 1))),
            ("/disks/0/id", json!("i"), json!("")),
            ("/net/0/mac", json!("fE:00:00:00:00:01"), json!("ff:00:00:00:00:01")),
            ("/net/0/ip", json!("0.0.0.0"), json!("0.0.0")),
            ("/fs/0/tag", json!("t".repeat(TAG_MAX)), json!("t".repeat(TAG_MAX + 1))),
            ("/fs/0/tag", json!("t"), json!("")),
            ("/rng/src", json!("/dev/random"), json!("/dev/zero")),
            ("/serial/mode", json!("Null"), json!("Pty")),
            ("/vsock/cid", json!(u32::MAX - 1), json!(u32::MAX)),
            ("/vsock/cid", json!(3), json!(2)),
            ("/platform/num_pci_segments", json!(u16::MAX), json!(0)),
        ] {
            for (value, is_good) in [(had, true), (refused, false)] {
                let mut config = good.clone();
                *config.pointer_mut(place).unwrap() = value.clone();
                assert_eq!(is_had(config), is_good, "{place}: {value}");
            }
        }
        for (key, places) in [("disks", 64), ("disks", 192), ("net", QUEUE_MAX * 2), ("fs", 0)] {
            let mut config = good.clone();
            config[key][0]["queue_size"] = json!(places);
            assert!(!is_had(config), "{key}: {places}");
        }
    }

    #[test]
    fn a_default_of_a_schema_is_that_of_the_type() {
        let config = json!({"cpus": {"boot_vcpus": 1, "max_vcpus": 1}, "disks": [{}], "net": [{}],
            "fs": [{"tag": "t"}], "vsock": {"socket": "s"}, "serial": {"mode": "Off"}});
        let config: VmConfig = serde_json::from_value(config).unwrap();
        let config = serde_json::to_value(config).unwrap();
        let schemas = schemas();
        for (pointer, schema) in [
            ("/cpus", "CpusConfig"),
            ("/memory", "MemoryConfig"),
            ("/disks/0", "DiskConfig"),
            ("/net/0", "NetConfig"),
            ("/fs/0", "FsConfig"),
            ("/vsock", "VsockConfig"),
            ("/platform", "PlatformConfig"),
        ] {
            for (key, property) in schemas[schema]["properties"].as_object().unwrap() {
                let (default, value) = (property.get("default"), config.pointer(pointer).unwrap().get(key));
                if let (Some(default), Some(value)) = (default, value) {
                    assert_eq!(default, value, "{schema}.{key}");
                }
            }
        }
    }
}
