//! The Linux that boots as a TD: `bzImage`, `vmlinux` and `initrd`.
//!
//! `TDVISOR_LINUX` names their folder; without it, `target/linux` of the workspace, where
//! `tools/guests/linux/build.sh` leaves them.

use std::path::PathBuf;

use crate::{Missing, existing, named, required, workspace};

const ORIGIN: &str = "tools/guests/linux/build.sh builds it, or TDVISOR_LINUX names its folder";

/// One of the files.
///
/// # Errors
/// [`Missing`] where it was not built.
pub fn find(name: &str) -> Result<PathBuf, Missing> {
    let folder = named("TDVISOR_LINUX").unwrap_or_else(|| workspace().join("target/linux"));
    existing(folder.join(name), ORIGIN)
}

/// The kernel of a distribution, as `tools/guests/linux/distribution.sh` leaves it in `target/linux-distribution`;
/// `TDVISOR_DISTRIBUTION_KERNEL` names another.
///
/// # Errors
/// [`Missing`] where there is none.
pub fn find_distribution_kernel() -> Result<PathBuf, Missing> {
    let built = || workspace().join("target/linux-distribution/bzImage");
    let kernel = named("TDVISOR_DISTRIBUTION_KERNEL").unwrap_or_else(built);
    existing(kernel, "tools/guests/linux/distribution.sh brings it, or TDVISOR_DISTRIBUTION_KERNEL names it")
}

/// The initrd of a distribution's programs, as `tools/guests/programs/build.sh` leaves it.
///
/// # Errors
/// [`Missing`] where there is none.
pub fn guest_programs() -> Result<PathBuf, Missing> {
    existing(workspace().join("target/guest-programs/initrd"), "tools/guests/programs/build.sh makes it")
}

/// One of the files, for a test that is ignored where they were not built.
///
/// # Panics
/// Where it was not built.
#[must_use]
#[track_caller]
pub fn file(name: &str) -> PathBuf {
    required(find(name))
}

/// One of the files of the Linux that boots as a TDX host: `vmlinux`, `bzImage`, `initrd`, in `target/hosts/linux`, where
/// `tools/hosts/linux/build.sh` leaves them; for a test that is ignored where they were not built.
///
/// # Panics
/// Where it was not built.
#[must_use]
#[track_caller]
pub fn host_file(name: &str) -> PathBuf {
    required(existing(
        workspace().join("target/hosts/linux").join(name),
        "tools/hosts/linux/build.sh builds it",
    ))
}
