//! Puts the linker script where the linker looks for it.

fn main() {
    println!("cargo::rerun-if-changed=host.x");
    println!("cargo::rerun-if-env-changed=TDVISOR_DEFAULT_TD");
    if let Some(manifest) = std::env::var_os("CARGO_MANIFEST_DIR") {
        println!("cargo::rustc-link-search={}", manifest.display());
    }
}
