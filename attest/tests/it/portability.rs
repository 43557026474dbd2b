//! What the crate depends on where there is no operating system: asked of cargo, so that neither the target's
//! standard library nor a second toolchain has to be installed.

use std::process::Command;

/// Packages that need an operating system, a C compiler, or a browser around them.
const FOREIGN: [&str; 8] =
    ["ring", "getrandom", "libc", "cc", "wasm-bindgen", "js-sys", "windows-sys", "windows-targets"];

/// Every package and feature in the build of the crate with `features` for `target`, one in a line.
fn tree(features: &str, target: &str) -> String {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--manifest-path", manifest, "--offline", "--locked", "--prefix", "none"])
        .args(["--no-default-features", "--features", features, "--target", target])
        .args(["--edges", "normal,features,no-proc-macro"])
        .output()
        .expect("cargo starts");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo tree for {target} with '{features}': {complaint}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn nothing_without_the_std_feature_depends_on_an_operating_system_on_wasm32_or_bare_metal() {
    for target in ["wasm32-unknown-unknown", "x86_64-unknown-none"] {
        for features in ["", "alloc", "p256"] {
            let tree = tree(features, target);
            assert!(tree.starts_with("tdvisor-attest "), "the tree begins with the crate itself:\n{tree}");
            for line in tree.lines() {
                let package = line.split_whitespace().next().unwrap_or_default();
                let with_std = line.ends_with("feature \"std\"") || line.contains("feature \"std\" ");
                assert!(!FOREIGN.contains(&package), "{target}, features '{features}': {line}");
                assert!(!with_std, "{target}, features '{features}': {line}");
            }
        }
    }
}

#[test]
fn the_check_sees_what_it_looks_for() {
    let tree = tree("ring", "wasm32-unknown-unknown");
    assert!(tree.lines().any(|line| line.starts_with("ring ")), "{tree}");
    assert!(tree.lines().any(|line| line.starts_with("getrandom ")), "{tree}");
}
