//! The file systems that programs expect. What a kernel does not have is left out.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, mount, mount_bind_recursive};
use rustix::process::{chdir, chroot};

use crate::protocol::ROOT_TAG;

/// Type, place, options.
const MOUNTS: [(&str, &str, &str); 12] = [
    ("devtmpfs", "/dev", "mode=0755"),
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("tmpfs", "/tmp", "mode=1777"),
    ("tmpfs", "/run", "mode=0755"),
    ("devpts", "/dev/pts", "mode=0620,ptmxmode=0666"),
    ("tmpfs", "/dev/shm", "mode=1777"),
    ("configfs", "/sys/kernel/config", ""),
    ("debugfs", "/sys/kernel/debug", ""),
    ("tracefs", "/sys/kernel/tracing", ""),
    ("securityfs", "/sys/kernel/security", ""),
    ("cgroup2", "/sys/fs/cgroup", ""),
];

/// Folders that are mounted over, and in which a user may have what the command needs.
const USERS: [(&str, u32); 3] = [("/tmp", 0o1777), ("/run", 0o755), ("/dev/shm", 0o1777)];
/// Where what the RAM disk has of such a folder waits until it is mounted.
const KEPT: &str = "/tdvisor/kept";

/// Puts aside what the RAM disk has of a folder that is about to be mounted over.
fn put_aside((place, permissions): (&'static str, u32)) -> Option<(&'static str, PathBuf)> {
    fs::read_dir(place).ok()?.next()?.ok()?;
    let kept = Path::new(KEPT).join(place.trim_start_matches('/').replace('/', "-"));
    fs::create_dir_all(KEPT).ok()?;
    fs::rename(place, &kept).ok()?;
    fs::set_permissions(&kept, Permissions::from_mode(permissions)).ok()?;
    Some((place, kept))
}

/// Mounts all that this kernel has. What the RAM disk has of a user's folders stays to be seen.
pub fn mount_all() {
    let kept: Vec<_> = USERS.into_iter().filter_map(put_aside).collect();
    for (kind, place, options) in MOUNTS {
        // Folders below /sys are the kernel's to make: where one is missing, so is the file system.
        let _ = fs::create_dir_all(place);
        if let Some((_, kept)) = kept.iter().find(|(folder, _)| *folder == place) {
            let _ = mount_bind_recursive(kept, place);
            continue;
        }
        let options = std::ffi::CString::new(options).unwrap_or_default();
        let _ = mount(kind, place, kind, MountFlags::empty(), Some(options.as_c_str()));
    }
    // Shells and test programs look for these.
    for (link, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
    ] {
        let _ = std::os::unix::fs::symlink(target, link);
    }
}

/// Where the other root is before it is entered.
const ROOT: &str = "/tdvisor/root";
/// What the other root has of this one: devices, the kernel's own file systems, and where programs may write.
const TAKEN_ALONG: [&str; 5] = ["dev", "proc", "sys", "tmp", "run"];

/// Makes the virtio-fs file system of the host the root of this process and its children: read-only, with this one's
/// devices, kernel file systems, /tmp and /run where it has folders for them.
///
/// # Errors
/// What was to be done, and the kernel's answer.
pub fn enter_shared_root() -> Result<(), (&'static str, io::Error)> {
    fs::create_dir_all(ROOT).map_err(|error| (ROOT, error))?;
    mount(ROOT_TAG, ROOT, "virtiofs", MountFlags::RDONLY, None)
        .map_err(|error| ("mounting virtiofs (CONFIG_VIRTIO_FS)", error.into()))?;
    for folder in TAKEN_ALONG {
        let place = Path::new(ROOT).join(folder);
        if fs::symlink_metadata(&place).is_ok_and(|found| found.is_dir()) {
            mount_bind_recursive(Path::new("/").join(folder), place)
                .map_err(|error| (folder, error.into()))?;
        }
    }
    chroot(ROOT).map_err(|error| ("chroot", error.into()))?;
    chdir("/").map_err(|error| ("chdir", error.into()))
}
