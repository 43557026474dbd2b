//! Builds the guest workspace and packs its binaries.
//!
//! Cargo runs inside cargo here, with an environment of its own: what the outer build was told by RUSTFLAGS, a
//! wrapper, a target folder or a profile must change neither the guests nor their measurement. Only what is needed
//! to find the tools and the registry passes through. The flags come from the guests' `.cargo/config.toml` and go
//! back as the only ones, so that a user's own cargo configuration adds none either; paths of this machine are
//! mapped away, since panic messages carry them into the image.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

#[path = "src/pack.rs"]
#[allow(dead_code, missing_docs, reason = "shared with the library, which documents and tests it")]
mod pack;

const TARGET: &str = "x86_64-unknown-linux-gnu";
const GUESTS: [&str; 3] = ["hello-td", "fault-td", "boot-shim"];
/// What the guests are built from, below `tools/guests`.
const SOURCES: [&str; 7] =
    ["Cargo.toml", "Cargo.lock", ".cargo/config.toml", "guest-rt", "hello-td", "fault-td", "boot-shim"];
/// Variables that pass through: tools, registry, network. None of them changes what is compiled.
const PASSED: [&str; 23] = [
    "PATH",
    "HOME",
    "USER",
    "TMPDIR",
    "CARGO_HOME",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    "RUSTUP_AUTO_INSTALL",
    "RUSTC",
    "CARGO_NET_OFFLINE",
    "CARGO_NET_GIT_FETCH_WITH_CLI",
    "CARGO_HTTP_CAINFO",
    "CARGO_HTTP_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
];

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

    let target_folder = out.join("guests");
    // Unpacks the sources, whose folders are then known and can be mapped away.
    run(cargo(&guests)?.args(["fetch", "--locked", "--target", TARGET]))?;
    let flags = flags(&guests)?;
    run(cargo(&guests)?
        .args(["build", "--release", "--locked", "--target", TARGET, "--target-dir"])
        .arg(&target_folder)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        // An empty wrapper overrides one from a user's configuration file.
        .env("RUSTC_WRAPPER", "")
        .env("RUSTC_WORKSPACE_WRAPPER", ""))?;
    for guest in GUESTS {
        let built = target_folder.join(TARGET).join("release").join(guest);
        let elf = fs::read(&built).map_err(|error| format!("{}: {error}", built.display()))?;
        let image = pack::pack(&elf).map_err(|error| format!("{guest}: {error}"))?;
        write(&out.join(format!("{guest}.elf")), &elf)?;
        write(&out.join(format!("{guest}.fd")), &image)?;
    }
    Ok(())
}

/// Cargo, in the guest workspace and with a clean environment.
fn cargo(guests: &Path) -> Result<Command, String> {
    let mut command = Command::new(variable("CARGO")?);
    command.current_dir(guests).env_clear();
    command.envs(PASSED.iter().filter_map(|name| Some((name, env::var_os(name)?))));
    Ok(command)
}

/// The flags of the guests' configuration, and the mappings that keep this machine's paths out of the image.
fn flags(guests: &Path) -> Result<Vec<String>, String> {
    let path = guests.join(".cargo/config.toml");
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let config: toml::Table = text.parse().map_err(|error| format!("{}: {error}", path.display()))?;
    let configured = config
        .get("target")
        .and_then(|targets| targets.get(TARGET)?.get("rustflags")?.as_array())
        .ok_or_else(|| format!("{}: no rustflags for {TARGET}", path.display()))?;
    let mut flags: Vec<String> =
        configured.iter().filter_map(|flag| Some(flag.as_str()?.to_owned())).collect();
    if flags.len() != configured.len() {
        return Err(format!("{}: a flag is not a string", path.display()));
    }
    flags.push(format!("--remap-path-prefix={}=/guests", guests.display()));
    for folder in registry_folders()? {
        flags.push(format!("--remap-path-prefix={}=/registry", folder.display()));
    }
    Ok(flags)
}

/// The folders into which cargo unpacks registry sources, one per registry.
fn registry_folders() -> Result<Vec<PathBuf>, String> {
    let home = match (env::var_os("CARGO_HOME"), env::var_os("HOME")) {
        (Some(home), _) => PathBuf::from(home),
        (None, Some(home)) => PathBuf::from(home).join(".cargo"),
        (None, None) => return Err("neither CARGO_HOME nor HOME is set".to_owned()),
    };
    let unpacked = home.join("registry/src");
    // A vendored or replaced source has no such folder, and nothing to map.
    let Ok(entries) = fs::read_dir(&unpacked) else { return Ok(Vec::new()) };
    let mut folders: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    folders.sort();
    Ok(folders)
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("cargo failed ({})\n{}", output.status, String::from_utf8_lossy(&output.stderr)))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    fs::write(path, bytes).map_err(|error| format!("{}: {error}", path.display()))
}

fn variable(name: &str) -> Result<OsString, String> {
    env::var_os(name).ok_or_else(|| format!("cargo did not set {name}"))
}
