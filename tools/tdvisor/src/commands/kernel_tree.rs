//! A kernel that was built in the folder where one stands, and whether its configuration suits.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::outcome::Failure;

/// Where a build leaves the kernel.
const BZIMAGE: &str = "arch/x86/boot/bzImage";
/// The configuration that it was built with.
const CONFIG: &str = ".config";
/// A configuration is some hundred KiB.
const MAX_CONFIG: u64 = 8 << 20;

/// What a configuration has to have, and what for.
#[derive(Clone, Copy, Debug)]
pub struct Needed {
    option: &'static str,
    why: &'static str,
}

const fn needed(option: &'static str, why: &'static str) -> Needed {
    Needed { option, why }
}

/// For every TD.
pub const OF_A_TD: [Needed; 3] = [
    needed("CONFIG_INTEL_TDX_GUEST", "to run as a TD"),
    needed("CONFIG_SERIAL_8250_CONSOLE", "to show its console"),
    needed("CONFIG_ACPI", "to find its processors and devices"),
];
/// For a command in a TD.
pub const OF_A_COMMAND: [Needed; 3] = [
    needed("CONFIG_BLK_DEV_INITRD", "to unpack the initial RAM disk with the command"),
    needed("CONFIG_BINFMT_ELF", "to run programs"),
    needed("CONFIG_PROC_FS", "for most programs"),
];
/// For a TDX host.
pub const OF_A_HOST: [Needed; 4] = [
    needed("CONFIG_INTEL_TDX_HOST", "to initialise the TDX module"),
    needed("CONFIG_KVM_INTEL", "to offer TDs"),
    needed("CONFIG_KVM_INTEL_TDX", "to offer TDs"),
    needed("CONFIG_SERIAL_8250_CONSOLE", "to show its console"),
];

/// The kernel of the tree that begins in `folder`, if it is one and was built.
pub fn kernel_of(folder: &Path) -> Option<PathBuf> {
    let kernel = folder.join(BZIMAGE);
    (folder.join("Kbuild").is_file() && folder.join("arch/x86").is_dir() && kernel.is_file())
        .then_some(kernel)
}

/// Checks the configuration beside a kernel that was found in a tree.
///
/// # Errors
/// The options that are missing, and how to turn them on.
pub fn check(kernel: &Path, needed: &[&[Needed]]) -> Result<(), Failure> {
    let Some(tree) = kernel.ancestors().nth(Path::new(BZIMAGE).components().count()) else { return Ok(()) };
    let path = tree.join(CONFIG);
    let is_small = fs::metadata(&path).is_ok_and(|data| data.len() <= MAX_CONFIG);
    let Some(text) = is_small.then(|| fs::read_to_string(&path).ok()).flatten() else { return Ok(()) };
    let missing = missing(&text, needed);
    if missing.is_empty() {
        return Ok(());
    }
    let reasons: Vec<_> = missing.iter().map(|needed| format!("{} {}", needed.option, needed.why)).collect();
    let turn_on: Vec<_> =
        missing.iter().map(|needed| format!("-e {}", needed.option.trim_start_matches("CONFIG_"))).collect();
    Err(Failure::input(
        path.display(),
        format!(
            "the kernel needs {}; turn them on with scripts/config {}, and build it again",
            reasons.join(", "),
            turn_on.join(" ")
        ),
    ))
}

/// What of it a configuration does not have built in.
fn missing(text: &str, needed: &[&[Needed]]) -> Vec<Needed> {
    let set: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let is_missing = |needed: &Needed| match set.get(needed.option) {
        Some(&"y") => false,
        // KVM may be loaded later.
        Some(&"m") => !needed.option.starts_with("CONFIG_KVM"),
        _ => true,
    };
    needed.iter().copied().flatten().copied().filter(is_missing).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_off_or_a_module_is_missing_and_kvm_may_be_a_module() {
        let text = "CONFIG_INTEL_TDX_HOST=y\nCONFIG_KVM_INTEL=m\n# CONFIG_KVM_INTEL_TDX is not set\nCONFIG_SERIAL_8250_CONSOLE=m\n";
        let missing: Vec<_> = missing(text, &[&OF_A_HOST]).iter().map(|needed| needed.option).collect();
        assert_eq!(missing, ["CONFIG_KVM_INTEL_TDX", "CONFIG_SERIAL_8250_CONSOLE"]);
    }
}
