//! The file systems that programs expect. What a kernel does not have is left out.

use std::fs;

use rustix::mount::{MountFlags, mount};

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

/// Mounts all that this kernel has.
pub fn mount_all() {
    for (kind, place, options) in MOUNTS {
        // Folders below /sys are the kernel's to make: where one is missing, so is the file system.
        let _ = fs::create_dir_all(place);
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
