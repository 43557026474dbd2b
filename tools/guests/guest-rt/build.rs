//! Puts the linker script where the linker of the guest binaries looks for it.

use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-changed=guest.x");
    println!("cargo::rerun-if-changed=src/boot/reset.s");
    println!("cargo::rerun-if-changed=src/cpu/exceptions.s");
    let manifest =
        PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    println!("cargo::rustc-link-search={}", manifest.display());
}
