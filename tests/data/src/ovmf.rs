//! Firmware of Debian's package `ovmf`.

use std::path::{Path, PathBuf};

use crate::{existing, required};

/// VARS and CODE in one image of 2 MiB, built for TDX.
pub const COMBINED: &str = "/usr/share/ovmf/OVMF.fd";
/// CODE of the same build, without the variable store in front of it.
pub const CODE: &str = "/usr/share/OVMF/OVMF_CODE.fd";
/// The variable store that belongs in front of [`CODE`].
pub const VARS: &str = "/usr/share/OVMF/OVMF_VARS.fd";

/// A file of the package, for a test that is ignored where it is not installed.
///
/// # Panics
/// Where there is no such file.
#[must_use]
#[track_caller]
pub fn file(path: &str) -> PathBuf {
    required(existing(Path::new(path).to_path_buf(), "Debian's package ovmf (scripts/install-packages)"))
}
