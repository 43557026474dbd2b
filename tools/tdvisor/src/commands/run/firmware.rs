//! The UEFI firmware that boots a disk where the user names none: that of an installed package.

use std::path::Path;

use crate::outcome::Failure;

/// Where packages put firmware with TDX support: builds made for it first, and such that enforce Secure Boot before others.
const PLACES: [&str; 5] = [
    "/usr/share/ovmf/OVMF.inteltdx.ms.fd",
    "/usr/share/ovmf/OVMF.inteltdx.fd",
    "/usr/share/edk2/ovmf/OVMF.inteltdx.secboot.fd",
    "/usr/share/edk2/ovmf/OVMF.inteltdx.fd",
    "/usr/share/ovmf/OVMF.fd",
];

/// The first that there is.
///
/// # Errors
/// There is none; the sentence names the packages.
pub fn installed() -> Result<&'static Path, Failure> {
    first(|path| path.is_file())
}

fn first(there: impl Fn(&Path) -> bool) -> Result<&'static Path, Failure> {
    PLACES.iter().map(Path::new).find(|path| there(path)).ok_or_else(|| {
        Failure::input(
            "--disk",
            "no UEFI firmware with TDX support is installed: install the package ovmf-inteltdx (Debian, Ubuntu; before \
             them ovmf) or edk2-ovmf (Fedora), or name one with --firmware",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn firmware_made_for_tdx_is_preferred_and_packages_are_named_where_there_is_none() {
        assert_eq!(first(|_| true).ok(), Some(Path::new("/usr/share/ovmf/OVMF.inteltdx.ms.fd")));
        let last = Path::new("/usr/share/ovmf/OVMF.fd");
        assert_eq!(first(|path| path == last).ok(), Some(last));
        let words = first(|_| false).unwrap_err().to_string();
        assert!(words.contains("ovmf-inteltdx") && words.contains("--firmware"), "{words}");
    }
}
