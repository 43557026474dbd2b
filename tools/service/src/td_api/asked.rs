//! The schemas of what a TD is asked for with: also which keys go together, as far as JSON Schema can say it.
//!
//! What it cannot say is refused with 400 and a sentence that names the key: a disk that is there twice, faults that are no plan, a
//! command line of more bytes than characters, a whole number that is written with a fraction. Files are looked for at boot.

use machine_emu::{MAX_TD_MEMORY, MAX_TD_VCPUS};
use serde_json::{Value, json};
use tdvisor_guest_images::COMMAND_MAX;
use tdvisor_runtime::backend::BackendKind;

use super::schemas::{closed, of, path};
use crate::config::{CMDLINE_MAX, ID_PATTERN, SERIAL_PATTERN, built_in, built_ins, is_boot_shim};

/// A key that may be `null`, which is as if it were not there.
pub(super) fn maybe(mut schema: Value) -> Value {
    schema["type"] = json!([schema["type"], "null"]);
    schema
}

/// Bytes of a TD's memory.
pub(super) fn memory(default: u64) -> Value {
    json!({"type": "integer", "minimum": 4096, "maximum": MAX_TD_MEMORY, "multipleOf": 4096, "default": default})
}

/// The number of a TD's vCPUs.
pub(super) fn vcpus() -> Value {
    json!({"type": "integer", "minimum": 1, "maximum": MAX_TD_VCPUS, "default": 1})
}

/// The keys of a TD that go together, and those that do not.
pub(super) fn together() -> Value {
    let no = || json!({"const": false});
    let none = || json!({"type": "null"});
    let on_kvm = json!({
        "if": is("backend", json!({"const": BackendKind::Kvm})),
        "then": {"properties": {"inject": none(), "trace": no(), "inspector": no(), "inspectable": no(),
            "deterministic": none(), "snapshot": no(), "dump": no(), "gdb": no()}},
    });
    let saved = json!({
        "if": is("snapshot", json!({"const": true})),
        "then": {
            "properties": {"deterministic": {"type": "integer"}, "payload": {"properties": {"kernel": none()}},
                "disks": {"const": []}, "network": no(), "inject": none(), "gdb": no()},
            "required": ["deterministic"],
        },
    });
    let in_turns = json!({
        "if": is("deterministic", json!({"type": "integer"})),
        "then": {
            "properties": {"network": no()},
            "if": is("gdb", json!({"const": true})),
            "then": {"properties": {"vcpus": {"const": 1}}},
        },
    });
    // These have what the TD holds.
    let looks_inside = ["dump", "gdb", "snapshot"].map(|key| needs(key, "inspectable"));
    Value::Array(looks_inside.into_iter().chain([on_kvm, saved, in_turns]).collect())
}

/// A TD that has a key, with a value of this kind.
fn is(key: &str, value: Value) -> Value {
    json!({"properties": {key: value}, "required": [key]})
}

/// A key that a TD has with another one only.
fn needs(key: &str, other: &str) -> Value {
    let yes = || json!({"const": true});
    json!({"if": is(key, yes()), "then": is(other, yes())})
}

/// What boots: a built-in guest, a kernel, or a firmware alone.
pub(super) fn payload() -> Value {
    let shims = |is_shim: bool| -> Vec<&str> {
        let all = built_ins().into_iter();
        all.filter(|name| built_in(name).is_some_and(is_boot_shim) == is_shim).collect()
    };
    let none = || json!({"type": "null"});
    let mrconfigid = || {
        maybe(json!({"type": "string", "pattern": ID_PATTERN,
            "description": "48 bytes, or a digest of 32, in hexadecimal or base64"}))
    };
    let command = json!({"type": "string", "pattern": "^[\\u0001-\\u007f]*$", "maxLength": COMMAND_MAX,
        "description": "The guest's command, in ASCII"});
    let cmdline = json!({"type": "string", "pattern": "^[^\\u0000]*$", "maxLength": CMDLINE_MAX,
        "description": format!("The kernel's command line: at most {CMDLINE_MAX} bytes")});
    let guest = closed(
        &["firmware"],
        json!({
            "firmware": {"type": "string", "enum": shims(false), "description": "The name of a built-in guest"},
            "kernel": none(),
            "cmdline": maybe(command),
            "initramfs": none(),
            "mrconfigid": mrconfigid(),
        }),
    );
    let kernel = closed(
        &["kernel"],
        json!({
            "firmware": maybe(json!({"type": "string", "pattern": format!("^(/|({})$)", shims(true).join("|")),
                "description": "The absolute path of a TDVF image that boots the kernel, or the name of the built-in one, which is meant where there is none"})),
            "kernel": path("a Linux kernel"),
            "cmdline": maybe(cmdline),
            "initramfs": maybe(path("the kernel's initial RAM disk")),
            "mrconfigid": mrconfigid(),
        }),
    );
    let firmware = closed(
        &["firmware"],
        json!({
            "firmware": path("a TDVF image that finds by itself what it boots"),
            "kernel": none(),
            "cmdline": none(),
            "initramfs": none(),
            "mrconfigid": mrconfigid(),
        }),
    );
    json!({"oneOf": [guest, kernel, firmware]})
}

/// A disk.
pub(super) fn disk() -> Value {
    closed(
        &["path"],
        json!({
            "path": path("its image, which is raw"),
            "readonly": {"type": "boolean", "default": false},
            "serial": maybe(json!({"type": "string", "pattern": SERIAL_PATTERN,
                "description": "What a guest finds it by: 1 to 20 printable ASCII characters"})),
        }),
    )
}

/// The name that a TD is asked for with.
pub(super) fn name() -> Value {
    json!({"anyOf": [of("Name"), {"type": "null"}]})
}
