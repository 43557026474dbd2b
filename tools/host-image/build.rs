//! Builds the bootable host, with the default TD inside.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use freestanding_build::{Workspace, variable};

/// What the image is built from.
const SOURCES: [&str; 12] = [
    "base",
    "x86-arch",
    "tdx-module-iface",
    "mirror-ept",
    "td-image",
    "vmm-core/board",
    "vmm-core/vm",
    "vmm-core/devices",
    "vmm-core/monitor",
    "vmm-core/td-host",
    "vmm-core/bare-metal",
    "tools/guests/guest-rt/src/mem_functions.rs",
];
const BINARY: &str = "bare-metal-host";

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!(
                "the host image cannot be built: {problem}\n\
                 (where its lock file is out of date: cargo update --workspace in vmm-core/bare-metal/image)"
            );
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let here = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(variable("OUT_DIR")?);
    let default_td = variable("DEP_TDVISOR_GUEST_IMAGES_HELLO_TD")?;
    let root = here.ancestors().nth(2).ok_or("this crate is not two folders below the repository's root")?;
    for source in SOURCES {
        for part in ["src", "Cargo.toml", "image"] {
            let part = root.join(source).join(part);
            if part.exists() {
                println!("cargo::rerun-if-changed={}", part.display());
            }
        }
    }
    println!("cargo::rerun-if-changed={}", root.join("tools/guests/guest-rt/src/mem_functions.rs").display());
    println!("cargo::rerun-if-changed=build.rs");

    // One path for every profile: the image is compiled anew where the path is another.
    let default_td = fs::read(&default_td).map_err(|error| format!("the default TD: {error}"))?;
    let default_td = freestanding_build::file("default-td.fd", &default_td)?;
    let workspace = Workspace {
        folder: &root.join("vmm-core/bare-metal/image"),
        mapped: &[(root, "/tdvisor")],
        variables: &[("TDVISOR_DEFAULT_TD", default_td.as_os_str())],
    };
    let image = workspace.build("host")?.read(BINARY)?;
    let to = out.join("host.elf");
    fs::write(&to, image).map_err(|error| format!("{}: {error}", to.display()))
}
