//! Builds the guest workspace, packs its binaries, and tells who depends on this crate where the default TD is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use freestanding_build::{Workspace, variable};

#[path = "src/pack.rs"]
#[allow(dead_code, missing_docs, reason = "shared with the library, which documents and tests it")]
mod pack;

const GUESTS: [&str; 5] = ["hello-td", "fault-td", "boot-shim", "compliance", "l1-vmm"];
/// What the guests are built from, below `tools/guests`.
const SOURCES: [&str; 11] = [
    "Cargo.toml",
    "Cargo.lock",
    ".cargo/config.toml",
    "board",
    "guest-rt",
    "hello-td",
    "fault-td",
    "boot-shim",
    "compliance",
    "l1-vmm",
    BOARD,
];
/// What they share with the hosted workspace.
const BOARD: &str = "../../vmm-core/board";

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("the guests cannot be built: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let here = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(variable("OUT_DIR")?);
    let guests = here.parent().ok_or("this crate has no parent folder")?.join("guests");
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", guests.join(source).display());
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/pack.rs");

    let board = guests.join(BOARD).canonicalize().map_err(|error| format!("{BOARD}: {error}"))?;
    let mapped = [(&*guests, "/guests"), (&*board, "/board")];
    let workspace = Workspace { folder: &guests, mapped: &mapped, variables: &[] };
    let built = workspace.build("guests")?;
    for guest in GUESTS {
        let elf = built.read(guest)?;
        let image = pack::pack(&elf).map_err(|error| format!("{guest}: {error}"))?;
        write(&out.join(format!("{guest}.elf")), &elf)?;
        write(&out.join(format!("{guest}.fd")), &image)?;
    }
    println!("cargo::metadata=hello_td={}", out.join("hello-td.fd").display());
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    fs::write(path, bytes).map_err(|error| format!("{}: {error}", path.display()))
}
