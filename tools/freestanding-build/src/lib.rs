//! Builds a freestanding workspace from the build script of the crate that embeds it.
//!
//! Cargo runs inside cargo here, with an environment of its own: what the outer build was told by RUSTFLAGS, a
//! wrapper, a target folder or a profile must change neither the result nor its measurement. Only what is needed
//! to find the tools and the registry passes through. The flags come from the workspace's `.cargo/config.toml` and go
//! back as the only ones, so that a user's own cargo configuration adds none either; paths of this machine are
//! mapped away, since panic messages carry them into the result.
//!
//! What is compiled is kept in one folder of the outer build's target folder, for every profile and tool of it: lints, tests and
//! releases embed the same binaries, and the second of them finds everything built.

#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// The target of every freestanding workspace: the one that is always installed.
const TARGET: &str = "x86_64-unknown-linux-gnu";

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

/// A freestanding workspace.
#[derive(Clone, Debug)]
pub struct Workspace<'a> {
    /// The workspace's folder.
    pub folder: &'a Path,
    /// Folders, and what stands for them in the result.
    pub mapped: &'a [(&'a Path, &'a str)],
    /// Variables that its sources read.
    pub variables: &'a [(&'a str, &'a OsStr)],
}

impl Workspace<'_> {
    /// Builds it for release, in the folder that has this name among those of embedded workspaces.
    ///
    /// # Errors
    /// What cargo said.
    pub fn build(&self, name: &str) -> Result<Built, String> {
        let target_folder = &embedded(&PathBuf::from(variable("OUT_DIR")?)).join(name);
        let lock = hold(target_folder).map_err(|error| format!("{}: {error}", target_folder.display()))?;
        // Unpacks the sources, whose folders are then known and can be mapped away.
        run(self.cargo()?.args(["fetch", "--locked", "--target", TARGET]))?;
        let flags = self.flags()?;
        run(self
            .cargo()?
            .args(["build", "--release", "--locked", "--target", TARGET, "--target-dir"])
            .arg(target_folder)
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
            // An empty wrapper overrides one from a user's configuration file.
            .env("RUSTC_WRAPPER", "")
            .env("RUSTC_WORKSPACE_WRAPPER", ""))?;
        Ok(Built { binaries: target_folder.join(TARGET).join("release"), _lock: lock })
    }

    /// Cargo, in the workspace and with a clean environment.
    fn cargo(&self) -> Result<Command, String> {
        let mut command = Command::new(variable("CARGO")?);
        command.current_dir(self.folder).env_clear();
        command.envs(PASSED.iter().filter_map(|name| Some((name, env::var_os(name)?))));
        command.envs(self.variables.iter().copied());
        Ok(command)
    }

    /// The flags of the workspace's configuration, and the mappings that keep this machine's paths out of the result.
    fn flags(&self) -> Result<Vec<String>, String> {
        // As cargo itself looks for it, but the nearest one only.
        let configurations = self.folder.ancestors().map(|folder| folder.join(".cargo/config.toml"));
        let path = configurations
            .into_iter()
            .find(|path| path.is_file())
            .ok_or_else(|| format!("{}: no .cargo/config.toml", self.folder.display()))?;
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
        for (folder, shown) in self.mapped {
            flags.push(format!("--remap-path-prefix={}={shown}", folder.display()));
        }
        for folder in registry_folders()? {
            flags.push(format!("--remap-path-prefix={}=/registry", folder.display()));
        }
        Ok(flags)
    }
}

/// A workspace that is built. Nobody else builds it while this is held.
#[derive(Debug)]
pub struct Built {
    binaries: PathBuf,
    _lock: File,
}

impl Built {
    /// The contents of one of its binaries.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(&self, binary: &str) -> Result<Vec<u8>, String> {
        let path = self.binaries.join(binary);
        fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))
    }
}

/// Where embedded workspaces are compiled: beside the profiles of the outer build, or in the script's own folder where that is
/// not where cargo has had it so far (`PROFILE/build/PACKAGE/out`).
fn embedded(out: &Path) -> PathBuf {
    let mut above = out.ancestors().skip(2);
    match (above.next().and_then(Path::file_name), above.nth(1)) {
        (Some(build), Some(target)) if build == "build" => target.join("embedded"),
        _ => out.join("embedded"),
    }
}

/// A file that an embedded workspace is built with, at a path that is the same for every profile; it is written where it is not there
/// yet, or differs.
///
/// # Errors
/// It cannot be written.
pub fn file(name: &str, contents: &[u8]) -> Result<PathBuf, String> {
    let folder = embedded(&PathBuf::from(variable("OUT_DIR")?));
    let path = folder.join(name);
    let problem = |error| format!("{}: {error}", path.display());
    let _lock = hold(&folder).map_err(problem)?;
    if fs::read(&path).ok().as_deref() != Some(contents) {
        fs::write(&path, contents).map_err(problem)?;
    }
    Ok(path)
}

/// Makes a folder and waits until it is this process's alone.
fn hold(folder: &Path) -> std::io::Result<File> {
    fs::create_dir_all(folder)?;
    let lock = File::create(folder.join("in-use"))?;
    lock.lock()?;
    Ok(lock)
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

/// A variable that cargo sets for build scripts.
///
/// # Errors
/// It did not.
pub fn variable(name: &str) -> Result<OsString, String> {
    env::var_os(name).ok_or_else(|| format!("cargo did not set {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_of_a_target_folder_has_the_same_place_and_an_unknown_layout_its_own() {
        let of = |out: &str| embedded(Path::new(out));
        let shared = Path::new("/t/embedded");
        assert_eq!(of("/t/debug/build/images-0123/out"), shared);
        assert_eq!(of("/t/release/build/images-4567/out"), shared);
        assert_eq!(
            of("/t/x86_64-unknown-linux-gnu/debug/build/a-1/out"),
            Path::new("/t/x86_64-unknown-linux-gnu/embedded")
        );
        assert_eq!(of("/elsewhere/out"), Path::new("/elsewhere/out/embedded"));
    }
}
