//! Builds the guests' init as a static program, in a clean environment: what the outer build was told by RUSTFLAGS, a
//! wrapper or a target folder changes nothing of it, for it is part of a measured initial RAM disk.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Variables that change how cargo compiles.
const NOT_PASSED: [&str; 8] = [
    "RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "CARGO_TARGET_DIR",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_TARGET_DIR",
    "CARGO_PROFILE_RELEASE_DEBUG",
];

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("the guests' init cannot be built: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let variable = |name| env::var_os(name).map(PathBuf::from).ok_or(format!("cargo did not set {name}"));
    let (here, out) = (variable("CARGO_MANIFEST_DIR")?, variable("OUT_DIR")?);
    for source in ["init/src", "init/Cargo.toml", "init/Cargo.lock", "src/protocol.rs", "build.rs"] {
        println!("cargo::rerun-if-changed={}", here.join(source).display());
    }
    let target = out.join("init");
    let flags = [
        "-Ctarget-feature=+crt-static".to_owned(),
        "-Crelocation-model=static".to_owned(),
        format!("--remap-path-prefix={}=/command-init", here.display()),
        format!("--remap-path-prefix={}=/registry", registry().display()),
    ];
    let mut cargo = Command::new(variable("CARGO")?);
    for name in NOT_PASSED {
        cargo.env_remove(name);
    }
    cargo
        .current_dir(here.join("init"))
        .args(["build", "--release", "--locked", "--target", TARGET, "--target-dir"])
        .arg(&target)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    let output = cargo.output().map_err(|error| format!("{cargo:?}: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo failed ({})\n{}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    let built = target.join(TARGET).join("release/command-init");
    fs::copy(&built, out.join("command-init")).map_err(|error| format!("{}: {error}", built.display()))?;
    Ok(())
}

/// Where cargo unpacks sources; panic messages would carry it into the program.
fn registry() -> PathBuf {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".cargo"))).unwrap_or_default();
    home.join("registry/src")
}
