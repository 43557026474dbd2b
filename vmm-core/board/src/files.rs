//! Names of the files that the boot shim takes from fw_cfg.

/// The kernel: a bzImage or an ELF vmlinux.
pub const KERNEL: &str = "opt/org.tdvisor/kernel";
/// The initial RAM disk; not there if there is none.
pub const INITRD: &str = "opt/org.tdvisor/initrd";
/// The command line: text without a NUL.
pub const COMMAND_LINE: &str = "opt/org.tdvisor/cmdline";
