//! One file per subcommand.

use serde_json::{Value, json};

/// Version of what the attestation commands print with `--json`. It grows when a member changes its meaning or goes.
pub const JSON_VERSION: u32 = 1;

/// An answer with its version.
pub fn with_version(mut answer: Value) -> Value {
    if let Some(members) = answer.as_object_mut() {
        members.insert("schema_version".to_owned(), json!(JSON_VERSION));
    }
    answer
}

pub mod attest_serve;
pub mod collateral;
pub mod completions;
pub mod conformance;
pub mod decode;
pub mod doctor;
pub mod dump;
pub mod eventlog;
mod hardware;
pub mod image;
mod kernel_tree;
pub mod kvm_selftest;
pub mod list;
mod log;
mod machine_files;
pub mod man;
pub mod measure;
pub mod quote;
pub mod run;
pub mod serve;
pub mod serve_worker;
pub mod server;
pub mod test;
pub mod verify;
pub mod version;
pub mod vmm;
