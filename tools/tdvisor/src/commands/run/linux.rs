//! The files of a boot: read, bounded, and checked as far as a host can, before a machine is made.
//!
//! The firmware checks them again, for it does not trust its host; but what is plainly unusable is the user's bad
//! input, and is named here.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tdvisor_devices::virtio::blk::Disk;
use tdvisor_runtime::board::Transport;
use tdvisor_runtime::board::boot_files::LinuxFiles;
use tdvisor_runtime::board::disk::FileDisk;
use tdvisor_runtime::board::disk_worker::DiskWorker;
use tdvisor_runtime::board::kernel;
use tdvisor_runtime::worker::StopFlag;

use super::devices::DeviceArgs;
use super::in_guest::CommandArgs;
use super::memory_size::MemorySize;
use crate::commands::kernel_tree;
use crate::files::Claims;
use crate::outcome::Failure;
use crate::read_bounded::read_bounded;

/// The largest kernel or initrd that is read.
const MAX_FILE: u64 = 1 << 30;
/// The longest command line that Linux takes, without its final NUL.
const MAX_CMDLINE: usize = 2047;
/// The command line of who gives none: the console, and a reboot right after a panic instead of a hang.
const DEFAULT_CMDLINE: &str = "console=ttyS0 panic=-1";

/// What a kernel and a command get beside the room for their files, in steps of this.
const BESIDE_A_COMMAND: u64 = 256 << 20;
const MEMORY_STEP: u64 = 128 << 20;

/// The console that a kernel's users are at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MainConsole {
    /// The serial port.
    Serial,
    /// The virtio console.
    Hvc,
}

impl MainConsole {
    /// The one that a kernel with this command line makes /dev/console: the last that it names, the serial port if it names
    /// none.
    pub fn of(command_line: &str) -> Self {
        let mut named =
            command_line.split_ascii_whitespace().filter_map(|word| word.strip_prefix("console="));
        match named.next_back() {
            Some(console) if console.starts_with("hvc") => Self::Hvc,
            _ => Self::Serial,
        }
    }
}

/// Options that boot a Linux kernel or a disk instead of running a TDVF image.
#[derive(Debug, clap::Args)]
pub struct LinuxArgs {
    /// Boot this Linux kernel (bzImage or vmlinux), instead of running IMAGE: through the built-in firmware, or through UEFI
    /// with --firmware (then a bzImage with an EFI stub).
    ///
    /// In a kernel tree that was built, arch/x86/boot/bzImage if nothing else to boot is given.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["image", "elf", "command"])]
    kernel: Option<PathBuf>,
    /// UEFI firmware with TDX support (OVMF) that boots --kernel or --disk. Without it and without --kernel, --disk takes
    /// the firmware of an installed package.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["image", "elf", "command"])]
    firmware: Option<PathBuf>,
    /// The kernel's initial RAM disk.
    #[arg(long, value_name = "FILE", conflicts_with = "image")]
    initrd: Option<PathBuf>,
    /// The kernel's command line.
    #[arg(long, value_name = "TEXT", conflicts_with = "image", default_value = DEFAULT_CMDLINE)]
    cmdline: String,
    /// Text to add to the kernel's command line, the one above or the usual one; may be repeated.
    #[arg(long, value_name = "TEXT", conflicts_with = "image")]
    append: Vec<String>,
    /// How virtio devices are attached: as PCI functions, or in virtio-mmio slots for kernels without PCI. Firmware
    /// drives PCI only. mmio with --kernel alone, pci otherwise, if not given.
    #[arg(long, value_name = "TRANSPORT", value_enum)]
    virtio: Option<VirtioTransport>,
}

/// How virtio devices are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum VirtioTransport {
    Pci,
    Mmio,
}

/// What a run was asked for, beside a kernel.
#[derive(Clone, Copy, Debug)]
pub struct WhatToRun<'a> {
    /// A TDVF image or a built-in guest was named.
    pub image: bool,
    /// The command after `--`.
    pub command: &'a CommandArgs,
    /// What is attached: a disk boots by itself.
    pub devices: &'a DeviceArgs,
}

/// A kernel to boot.
pub struct LinuxBoot {
    /// What the firmware gets.
    pub files: LinuxFiles,
    /// Bytes of memory that suit a RAM disk made for a command, if they are more than is usual.
    pub for_command: Option<u64>,
}

impl LinuxArgs {
    /// The kernel: the one that was named, or the one of the tree in which one stands where nothing else was asked for.
    fn find_kernel(&self, of: WhatToRun<'_>) -> Result<Option<PathBuf>, Failure> {
        let boots_otherwise =
            of.image || (!of.command.is_given() && (self.firmware.is_some() || of.devices.has_disk()));
        if self.kernel.is_some() || boots_otherwise {
            return Ok(self.kernel.clone());
        }
        let tree = std::env::current_dir().ok().and_then(|folder| kernel_tree::kernel_of(&folder));
        if let Some(kernel) = &tree {
            let command: &[_] = if of.command.is_given() { &kernel_tree::OF_A_COMMAND } else { &[] };
            kernel_tree::check(kernel, &[&kernel_tree::OF_A_TD, command])?;
        }
        let needs_one = [
            (of.command.is_given(), "a command"),
            (self.initrd.is_some(), "--initrd"),
            (!self.append.is_empty(), "--append"),
            (self.cmdline != DEFAULT_CMDLINE, "--cmdline"),
        ];
        match (tree, needs_one.iter().find(|(given, _)| *given)) {
            (None, Some((_, what))) => Err(Failure::input(
                what,
                "it is for a Linux kernel: name one with --kernel, or start in a kernel tree that was built",
            )),
            (tree, _) => Ok(tree),
        }
    }

    /// Reads and checks the files; `None` where no kernel was asked for.
    ///
    /// # Errors
    /// A file that is not there, or is not what it should be.
    pub fn load(&self, of: WhatToRun<'_>) -> Result<Option<LinuxBoot>, Failure> {
        let Some(kernel) = self.find_kernel(of)? else { return Ok(None) };
        let bytes = read_bounded(&kernel, MAX_FILE)?;
        kernel::check(&bytes).map_err(|problem| Failure::input(kernel.display(), problem))?;
        let mut initrd = self.initrd.as_deref().map(read_initrd).transpose()?;
        let mut words = vec![self.cmdline.as_str()];
        words.extend(self.append.iter().map(String::as_str));
        if of.command.is_given() {
            initrd = Some(of.command.initrd(initrd)?);
            words.push(of.command.kernel_parameters());
        }
        let command_line = words.join(" ");
        if command_line.len() > MAX_CMDLINE || command_line.contains('\0') {
            let what = if self.append.is_empty() { "--cmdline" } else { "--cmdline with --append" };
            return Err(Failure::input(what, format!("at most {MAX_CMDLINE} bytes, without a NUL")));
        }
        let initrd: Option<Arc<[u8]>> = initrd.map(Into::into);
        let for_command = of.command.is_given().then(|| {
            // The archive, what is unpacked of it, and the kernel's own.
            let archive = 2 * initrd.as_deref().map_or(0, <[u8]>::len) as u64;
            (kernel::room(&bytes) + archive + BESIDE_A_COMMAND).next_multiple_of(MEMORY_STEP)
        });
        Ok(Some(LinuxBoot { files: LinuxFiles { kernel: bytes.into(), initrd, command_line }, for_command }))
    }

    /// Whether a kernel or firmware boots, instead of a guest that takes commands.
    pub const fn is_given(&self) -> bool {
        self.kernel.is_some() || self.firmware.is_some()
    }

    /// The firmware that was asked for.
    pub fn firmware(&self) -> Option<&Path> {
        self.firmware.as_deref()
    }

    /// How virtio devices are attached for this image.
    pub fn transport(&self, boots_by_shim: bool) -> Transport {
        match self.virtio {
            Some(VirtioTransport::Pci) => Transport::Pci,
            Some(VirtioTransport::Mmio) => Transport::Mmio,
            None if boots_by_shim => Transport::Mmio,
            None => Transport::Pci,
        }
    }

    /// The console that what is typed goes to.
    pub fn main_console(&self) -> MainConsole {
        MainConsole::of(&self.cmdline)
    }

    /// Notes which files are used, and how.
    ///
    /// # Errors
    /// One file is used in two ways.
    pub fn claim(&self, claims: &mut Claims) -> Result<(), Failure> {
        let read = [("--kernel", &self.kernel), ("--initrd", &self.initrd), ("--firmware", &self.firmware)];
        for (what, path) in read {
            if let Some(path) = path {
                claims.reads(what, path)?;
            }
        }
        Ok(())
    }
}

/// Opens the disk in a file. Its requests end when the flag is set.
///
/// # Errors
/// It cannot be one.
pub(in crate::commands) fn open_disk(path: &Path, stop: StopFlag) -> Result<Box<dyn Disk>, Failure> {
    match FileDisk::open(path) {
        Ok(disk) => Ok(Box::new(DiskWorker::new(disk, stop))),
        Err(error) => Err(Failure::input(path.display(), error)),
    }
}

/// Checks that the files fit into a TD's memory, unpacked kernel included.
///
/// # Errors
/// They do not.
pub fn check_memory(files: &LinuxFiles, memory: MemorySize) -> Result<(), Failure> {
    kernel::check_room(files, memory.bytes()).map_err(|error| {
        Failure::Input(format!(
            "kernel and initrd need {} MiB, and the TD has {memory}: give it more with --memory",
            error.needed.div_ceil(1 << 20)
        ))
    })
}

fn read_initrd(path: &Path) -> Result<Vec<u8>, Failure> {
    let bytes = read_bounded(path, MAX_FILE)?;
    if bytes.is_empty() {
        return Err(Failure::input(path.display(), "the file is empty"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_goes_to_the_console_that_the_kernel_gives_its_users() {
        for (command_line, console) in [
            ("", MainConsole::Serial),
            ("console=ttyS0 panic=-1", MainConsole::Serial),
            ("console=ttyS0 console=hvc0", MainConsole::Hvc),
            ("console=hvc0 console=ttyS0,115200", MainConsole::Serial),
            ("root=/dev/vda earlyconsole=hvc0", MainConsole::Serial),
        ] {
            assert_eq!(MainConsole::of(command_line), console, "{command_line}");
        }
    }
}
