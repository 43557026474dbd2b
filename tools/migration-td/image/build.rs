//! Builds the migration TD's workspace and packs its binary.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use freestanding_build::{Workspace, variable};

#[path = "../../guest-images/src/pack.rs"]
#[allow(
    dead_code,
    missing_docs,
    reason = "shared with the other images' crate, which documents and tests it"
)]
mod pack;

/// What the guest is built from, below the repository's root.
const SOURCES: [&str; 14] = [
    "Cargo.toml",
    "tools/guests/Cargo.toml",
    "tools/guests/.cargo/config.toml",
    "tools/guests/guest-rt",
    "tools/guests/mig-td/Cargo.toml",
    "tools/guests/mig-td/Cargo.lock",
    "tools/guests/mig-td/src",
    "tools/migration-td/Cargo.toml",
    "tools/migration-td/src",
    "attest/src",
    "base/src",
    "td-image/src",
    "tdx-module-iface/src",
    "x86-arch/src",
];

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("the migration TD cannot be built: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let here = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(variable("OUT_DIR")?);
    let root = here.ancestors().nth(3).ok_or("this crate is not in the repository")?;
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../../guest-images/src/pack.rs");

    let workspace = Workspace {
        folder: &root.join("tools/guests/mig-td"),
        mapped: &[(root, "/tdvisor")],
        variables: &[],
    };
    let elf = workspace.build("migration-td")?.read("mig-td")?;
    let image = pack::pack(&elf).map_err(|error| format!("mig-td: {error}"))?;
    let path = out.join("mig-td.fd");
    fs::write(&path, image).map_err(|error| format!("{}: {error}", path.display()))
}
