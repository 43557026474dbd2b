//! The schemas of the description. A test compares that of a request with its type.

use serde_json::{Map, Value, json};
use tdvisor_runtime::backend::BackendKind;

use super::asked::{self, maybe};
use crate::fleet::Phase;
use crate::worker::NAME_MAX;

pub(super) fn of(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

fn object(required: &[&str], properties: Value) -> Value {
    json!({"type": "object", "properties": properties, "required": required})
}

/// A schema that says more.
fn with(word: &str, more: Value, mut schema: Value) -> Value {
    schema[word] = more;
    schema
}

/// An object that takes no other keys.
pub(super) fn closed(required: &[&str], properties: Value) -> Value {
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

fn text(what: &str) -> Value {
    json!({"type": "string", "description": what})
}

/// The absolute path of something.
pub(super) fn path(of: &str) -> Value {
    json!({"type": "string", "description": format!("The absolute path of {of}"), "pattern": "^/"})
}

fn number() -> Value {
    json!({"type": "integer", "minimum": 0})
}

fn counts() -> Value {
    json!({"type": "object", "additionalProperties": {"type": "integer", "minimum": 0}})
}

fn list(items: Value) -> Value {
    json!({"type": "array", "items": items})
}

/// All schemas by their names.
pub(super) fn schemas() -> Map<String, Value> {
    let phases: Vec<&str> = Phase::ALL.iter().map(|phase| phase.name()).collect();
    let backends = BackendKind::ALL.map(BackendKind::name);
    let all = [
        (
            "Error",
            json!({"type": "array", "items": {"type": "string"}, "minItems": 1,
            "description": "Sentences, the outermost first"}),
        ),
        ("Document", json!({"type": "object", "description": "An OpenAPI 3.1 document"})),
        ("Name", json!({"type": "string", "pattern": format!("^[a-z0-9][a-z0-9-]{{0,{}}}$", NAME_MAX - 1)})),
        (
            "Service",
            object(
                &["version", "limits", "used", "tds"],
                json!({"version": text("The release"), "limits": counts(), "used": counts(), "tds": number()}),
            ),
        ),
        ("Tds", object(&["tds"], json!({"tds": list(of("Td"))}))),
        (
            "Td",
            object(
                &[
                    "name",
                    "phase",
                    "request",
                    "backend",
                    "inspectable",
                    "saved",
                    "gdb",
                    "pid",
                    "confinement",
                    "reason",
                    "report",
                ],
                json!({
                    "name": of("Name"),
                    "phase": {"type": "string", "enum": phases},
                    "request": of("TdRequest"),
                    "backend": {"type": "string", "enum": backends, "description": "What runs the TD"},
                    "inspectable": {"type": "boolean",
                        "description": "Whether the host may look at what the TD holds; nobody may where KVM runs it"},
                    "saved": {"type": ["integer", "null"], "description": "Bytes of its last snapshot, if it was saved"},
                    "gdb": {"type": ["string", "null"], "description": "The socket of its debugger, while it runs"},
                    "pid": {"type": ["integer", "null"], "description": "Its worker, while it has one"},
                    "confinement": {"type": ["object", "null"],
                        "description": "What of seccomp, landlock, rlimits and no-new-privileges could be applied"},
                    "reason": {"type": ["string", "null"], "description": "Why it died"},
                    "report": {"type": ["object", "null"], "description": "What there was to say at its end"},
                }),
            ),
        ),
        (
            "TdRequest",
            with(
                "allOf",
                asked::together(),
                closed(
                    &["payload"],
                    json!({
                        "name": asked::name(),
                        "backend": {"type": "string", "enum": backends, "default": BackendKind::default(),
                            "description": "What runs the TD: the emulated machine, or this machine's KVM, where it offers TDs. With kvm, trace, inspector, inspectable, deterministic, snapshot, dump, gdb and inject are refused"},
                        "vcpus": asked::vcpus(),
                        "memory": asked::memory(512 << 20),
                        "payload": of("TdPayload"),
                        "disks": list(of("TdDisk")),
                        "network": {"type": "boolean", "default": false,
                            "description": "A network in user mode that reaches nothing outside"},
                        "trace": {"type": "boolean", "default": false,
                            "description": "Whether its SEAMCALLs are written down, with their registers"},
                        "inspector": {"type": "boolean", "default": false,
                            "description": "Whether the inspector's page of it can be had: its last calls are kept while it runs"},
                        "inspectable": {"type": "boolean", "default": false,
                            "description": "Whether the host may look at what the TD holds"},
                        "deterministic": {"type": ["integer", "null"], "minimum": 0, "maximum": u64::MAX,
                            "description": "What the order of turns and the virtual time follow from; without it vCPUs run at the same time, in real time"},
                        "snapshot": {"type": "boolean", "default": false,
                            "description": "Whether it can be saved and restored; it has to be inspectable and deterministic, of an image, without disks and network"},
                        "dump": {"type": "boolean", "default": false,
                            "description": "Whether it is dumped when it has ended, and can be while it is paused; it has to be inspectable"},
                        "gdb": {"type": "boolean", "default": false,
                            "description": "Whether gdb debugs it, which has to be inspectable: it waits before its first instruction until gdb comes"},
                        "inject": maybe(text("SEAMCALLs that fail on purpose, in the grammar of `tdvisor run --inject`")),
                    }),
                ),
            ),
        ),
        ("TdPayload", asked::payload()),
        ("TdDisk", asked::disk()),
        (
            "Measurements",
            object(
                &["mrtd", "predicted_mrtd", "rtmrs"],
                json!({
                    "mrtd": {"type": ["string", "null"], "description": "As the emulated module has it; of a TD on KVM its quotes tell"},
                    "predicted_mrtd": text("By calculation alone"),
                    "rtmrs": {"type": ["array", "null"], "items": {"type": "string"}},
                }),
            ),
        ),
        (
            "Quotes",
            object(
                &["quotes"],
                json!({"quotes": list(object(
                    &["quote", "collateral", "root"],
                    json!({
                        "quote": text("In base64"),
                        "collateral": {"type": ["string", "null"], "description": "JSON; null where a quote-generation service issued it"},
                        "root": {"type": ["string", "null"], "description": "PEM; null likewise"},
                    }),
                ))}),
            ),
        ),
        ("Exits", json!({"oneOf": [of("EmulatedExits"), of("KvmExits")]})),
        (
            "EmulatedExits",
            object(
                &["vcpus", "private_pages", "shared_pages", "frames_converted"],
                json!({
                    "vcpus": list(object(&["exits"], json!({"exits": counts()}))),
                    "private_pages": counts(),
                    "shared_pages": counts(),
                    "frames_converted": number(),
                }),
            ),
        ),
        (
            "KvmExits",
            object(
                &["kvm_exits", "frames_converted"],
                json!({
                    "kvm_exits": {"type": "object", "additionalProperties": {"type": "integer", "minimum": 0},
                        "description": "How often KVM came back from the TD's vCPUs, all of them together"},
                    "frames_converted": number(),
                }),
            ),
        ),
        ("Seamcalls", object(&["seamcalls"], json!({"seamcalls": counts()}))),
        (
            "Audit",
            object(
                &["verdict"],
                json!({
                    "verdict": {"type": "string", "enum": ["agreed", "not-possible", "failed"]},
                    "entries": number(),
                    "reason": text("What differs"),
                }),
            ),
        ),
        (
            "Saved",
            object(
                &["bytes"],
                json!({"bytes": {"type": "integer", "minimum": 1, "description": "Bytes of the snapshot"}}),
            ),
        ),
        (
            "Dump",
            object(
                &["bytes", "memory", "vmcoreinfo"],
                json!({
                    "bytes": number(),
                    "memory": {"type": "integer", "minimum": 0, "description": "Bytes of the TD's memory in it"},
                    "vmcoreinfo": {"type": "boolean",
                        "description": "Whether the guest's kernel keeps a VMCOREINFO, by which crash and drgn find their way"},
                }),
            ),
        ),
        (
            "PageTables",
            object(
                &["tdr", "entries", "next"],
                json!({
                    "tdr": text("The page of the TD's root"),
                    "entries": list(json!({"type": "object"})),
                    "next": {"type": ["integer", "null"], "description": "What `from` has to be for more"},
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
    use crate::worker::TdRequest;

    #[test]
    fn the_schema_of_a_request_is_that_of_its_type() {
        let whole = json!({"name": "n", "payload": {"firmware": "f", "kernel": "k", "cmdline": "c", "initramfs": "i",
            "mrconfigid": "m"}, "disks": [{"path": "p", "serial": "s"}], "inject": "i", "deterministic": 1});
        let whole: TdRequest = serde_json::from_value(whole).unwrap();
        let whole = serde_json::to_value(whole).unwrap();
        let schemas = schemas();
        let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
        for (pointer, schema) in [("", "TdRequest"), ("/payload", "TdPayload"), ("/disks/0", "TdDisk")] {
            let value = whole.pointer(pointer).unwrap();
            let forms = schemas[schema]["oneOf"].as_array();
            for form in forms.into_iter().flatten() {
                assert_eq!(keys(value), keys(&form["properties"]), "{schema}");
            }
            if forms.is_some() {
                continue;
            }
            let properties = &schemas[schema]["properties"];
            assert_eq!(keys(value), keys(properties), "{schema}");
            for (key, property) in properties.as_object().unwrap() {
                if let Some(default) = property.get("default") {
                    assert_eq!(*default, value[key], "{schema}.{key}");
                }
            }
        }
    }
}
