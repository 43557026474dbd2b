//! Names the sources that a saved state depends on, so that a snapshot of another build is refused.
//!
//! In the repository these are the files themselves. A crate that was published has only its own; there the version says
//! the same, since crates of one release ask for exactly each other's version.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What saved states are made of, from the repository's root.
const SOURCES: [&str; 11] = [
    "base/src",
    "x86-arch/src",
    "tdx-module-iface/src",
    "vmm-core/vm/src",
    "vmm-core/board/src",
    "vmm-core/devices/src",
    "vmm-core/runtime/src",
    "tools/phys-memory/src",
    "tools/x86-emu/src",
    "tools/seam-emu/src",
    "tools/server-emu/src",
];

/// FNV-1a, 64 bits: it tells builds apart, and protects nothing.
struct Hash(u64);

impl Hash {
    const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes.len().to_le_bytes().iter().chain(bytes) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

fn main() -> ExitCode {
    match fingerprint() {
        Ok(hash) => {
            println!("cargo::rustc-env=TDVISOR_STATE_BUILD={hash:#x}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("the sources of saved states cannot be read: {error}");
            ExitCode::FAILURE
        }
    }
}

fn fingerprint() -> io::Result<u64> {
    println!("cargo::rerun-if-changed=build.rs");
    let here = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let root = here.ancestors().nth(2).unwrap_or(&here);
    let mut hash = Hash::new();
    if !root.join(SOURCES[0]).is_dir() {
        hash.add(env!("CARGO_PKG_VERSION").as_bytes());
        add_folder(&here.join("src"), &mut hash)?;
        return Ok(hash.0);
    }
    for source in SOURCES {
        let folder = root.join(source);
        println!("cargo::rerun-if-changed={}", folder.display());
        add_folder(&folder, &mut hash)?;
    }
    let lock = root.join("Cargo.lock");
    println!("cargo::rerun-if-changed={}", lock.display());
    hash.add(&fs::read(lock)?);
    Ok(hash.0)
}

fn add_folder(folder: &Path, hash: &mut Hash) -> io::Result<()> {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    entries.sort();
    for entry in entries {
        if entry.is_dir() {
            add_folder(&entry, hash)?;
        } else {
            hash.add(entry.file_name().unwrap_or_default().as_encoded_bytes());
            hash.add(&fs::read(&entry)?);
        }
    }
    Ok(())
}
