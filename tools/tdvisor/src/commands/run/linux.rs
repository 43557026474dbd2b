//! The files of a boot: read, bounded, and checked as far as a host can, before a machine is made.
//!
//! The firmware checks them again, for it does not trust its host; but what is plainly unusable is the user's bad
//! input, and is named here.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use td_image::linux::SetupHeader;
use tdvisor_devices::virtio::blk::Disk;
use tdvisor_runtime::board::Transport;
use tdvisor_runtime::board::boot_files::LinuxFiles;
use tdvisor_runtime::board::disk::FileDisk;
use tdvisor_runtime::board::disk_worker::DiskWorker;
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
        check_kernel(&bytes).map_err(|problem| Failure::input(kernel.display(), problem))?;
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
            (kernel_room(&bytes) + archive + BESIDE_A_COMMAND).next_multiple_of(MEMORY_STEP)
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
    /// What firmware keeps, and the room for tables and the transfer buffer.
    const FIRMWARE: u64 = 16 << 20;
    let initrd = files.initrd.as_deref().map_or(0, <[u8]>::len) as u64;
    let needed = kernel_room(&files.kernel) + initrd + FIRMWARE;
    if needed > memory.bytes() {
        return Err(Failure::Input(format!(
            "kernel and initrd need {} MiB, and the TD has {memory}: give it more with --memory",
            needed.div_ceil(1 << 20)
        )));
    }
    Ok(())
}

fn read_initrd(path: &Path) -> Result<Vec<u8>, Failure> {
    let bytes = read_bounded(path, MAX_FILE)?;
    if bytes.is_empty() {
        return Err(Failure::input(path.display(), "the file is empty"));
    }
    Ok(bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Whether this is a kernel that the firmware can boot, as far as its headers and its checksum say.
fn check_kernel(bytes: &[u8]) -> Result<(), String> {
    const ELF64_LITTLE_ENDIAN: &[u8] = b"\x7fELF\x02\x01";
    const MACHINE_X86_64: u16 = 62;
    if bytes.starts_with(ELF64_LITTLE_ENDIAN) {
        return match u16_at(bytes, 18) {
            Some(MACHINE_X86_64) => Ok(()),
            _ => Err("the ELF file is not for x86-64".to_owned()),
        };
    }
    let Some(header) = SetupHeader::of(bytes) else {
        return Err("this is neither a bzImage nor an ELF vmlinux".to_owned());
    };
    let version = header.version.get();
    if version < SetupHeader::VERSION_2_12 {
        return Err(format!(
            "its boot protocol {}.{:02} is too old: 2.12 is needed",
            version >> 8,
            version & 0xff
        ));
    }
    if header.xloadflags.get() & SetupHeader::XLF_KERNEL_64 == 0 {
        return Err("the kernel has no 64-bit entry".to_owned());
    }
    let end = header.setup_bytes() as u64 + header.system_bytes();
    let Some(image) = usize::try_from(end).ok().and_then(|end| bytes.get(..end)) else {
        return Err(format!(
            "the file is cut off: its header promises {end} bytes, and it has {}",
            bytes.len()
        ));
    };
    // The protocol appends a checksum that makes the CRC of the whole image, without the final inversion, zero.
    // Signing writes into the image afterwards.
    if !is_signed(bytes) && !crc32fast::hash(image) != 0 {
        return Err("its checksum is wrong: the file is damaged".to_owned());
    }
    Ok(())
}

/// Whether a PE signature was added: its certificate table (PE format, data directory 4) is not empty.
fn is_signed(bytes: &[u8]) -> bool {
    const OPTIONAL_HEADER: usize = 24;
    const CERTIFICATE_SIZE: usize = OPTIONAL_HEADER + 112 + 4 * 8 + 4;
    let pe = u32_at(bytes, 0x3c).unwrap_or_default() as usize;
    let is_pe = bytes.starts_with(b"MZ") && bytes.get(pe..).is_some_and(|pe| pe.starts_with(b"PE\0\0"));
    is_pe && pe.checked_add(CERTIFICATE_SIZE).and_then(|at| u32_at(bytes, at)).unwrap_or_default() != 0
}

/// Memory that the kernel needs around its image until it has looked at the memory map itself.
fn kernel_room(bytes: &[u8]) -> u64 {
    let unpacked = SetupHeader::of(bytes).map_or(0, |header| header.init_size.get());
    u64::from(unpacked) + bytes.len() as u64
}

#[cfg(test)]
mod tests {
    use td_image::linux::HEADER_OFFSET;
    use zerocopy::FromBytes;

    use super::*;

    /// A bzImage of one setup sector and 4 KiB of system, with its checksum.
    fn bzimage() -> Vec<u8> {
        let mut image = vec![0u8; 2 * 512 + 4096];
        let (header, _) =
            SetupHeader::mut_from_prefix(&mut image[HEADER_OFFSET..]).expect("room for a header");
        header.setup_sects = 1;
        header.syssize = (4096 / 16).into();
        header.boot_flag = SetupHeader::BOOT_FLAG.into();
        header.signature = SetupHeader::SIGNATURE;
        header.version = 0x020f.into();
        header.xloadflags = SetupHeader::XLF_KERNEL_64.into();
        let end = image.len() - 4;
        let checksum = !crc32fast::hash(&image[..end]);
        image[end..].copy_from_slice(&checksum.to_le_bytes());
        image
    }

    #[test]
    fn a_whole_bzimage_is_accepted_and_any_damage_is_named() {
        let image = bzimage();
        assert_eq!(check_kernel(&image), Ok(()));
        for (at, word) in [(0x900, "damaged"), (0x202, "neither"), (0x236, "64-bit")] {
            let mut bad = image.clone();
            bad[at] ^= 1;
            assert!(check_kernel(&bad).unwrap_err().contains(word), "{at:#x}");
        }
        assert!(check_kernel(&image[..3000]).unwrap_err().contains("cut off"));
        assert!(check_kernel(b"").is_err());
    }

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

    #[test]
    fn files_that_do_not_fit_are_refused_with_numbers() {
        let initrd = Some(vec![0; 32 << 20].into());
        let files = LinuxFiles { kernel: bzimage().into(), initrd, command_line: String::new() };
        assert!(check_memory(&files, "64M".parse().unwrap()).is_ok());
        let error = check_memory(&files, "40M".parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains("49 MiB") && error.contains("40M"), "{error}");
    }
}
