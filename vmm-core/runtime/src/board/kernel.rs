//! Whether a file is a Linux kernel that firmware can boot, and whether it fits.
//!
//! The firmware checks it again, for it does not trust its host; but what is plainly unusable is a user's bad input, and is
//! named here, before a machine is made.

use std::fmt;

use td_image::linux::SetupHeader;

use super::boot_files::LinuxFiles;

/// Why a file is no kernel that can be booted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadKernel {
    /// An ELF file for another processor.
    OtherMachine,
    /// The file is neither a bzImage nor an ELF file.
    NoKernel,
    /// A bzImage whose boot protocol is too old: this one.
    OldProtocol(u16),
    /// A bzImage without a 64-bit entry.
    No64Bit,
    /// A bzImage that is cut off.
    CutOff {
        /// Bytes that its header promises.
        promised: u64,
        /// Bytes that there are.
        there: u64,
    },
    /// The kernel's checksum is wrong.
    Damaged,
}

impl fmt::Display for BadKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherMachine => f.write_str("the ELF file is not for x86-64"),
            Self::NoKernel => f.write_str("this is neither a bzImage nor an ELF vmlinux"),
            Self::OldProtocol(version) => write!(
                f,
                "its boot protocol {}.{:02} is too old: 2.12 is needed",
                version >> 8,
                version & 0xff
            ),
            Self::No64Bit => f.write_str("the kernel has no 64-bit entry"),
            Self::CutOff { promised, there } => {
                write!(f, "the file is cut off: its header promises {promised} bytes, and it has {there}")
            }
            Self::Damaged => f.write_str("its checksum is wrong: the file is damaged"),
        }
    }
}

impl std::error::Error for BadKernel {}

/// Kernel and RAM disk do not fit into a TD's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom {
    /// Bytes that they need.
    pub needed: u64,
    /// Bytes that the TD has.
    pub memory: u64,
}

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (needed, memory) = (self.needed.div_ceil(1 << 20), self.memory >> 20);
        write!(f, "kernel and initrd need {needed} MiB, and the TD has {memory}: give it more memory")
    }
}

impl std::error::Error for NoRoom {}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Whether this is a kernel that firmware can boot, as far as its headers and its checksum say.
///
/// # Errors
/// [`BadKernel`].
pub fn check(bytes: &[u8]) -> Result<(), BadKernel> {
    const ELF64_LITTLE_ENDIAN: &[u8] = b"\x7fELF\x02\x01";
    const MACHINE_X86_64: u16 = 62;
    if bytes.starts_with(ELF64_LITTLE_ENDIAN) {
        return match u16_at(bytes, 18) {
            Some(MACHINE_X86_64) => Ok(()),
            _ => Err(BadKernel::OtherMachine),
        };
    }
    let header = SetupHeader::of(bytes).ok_or(BadKernel::NoKernel)?;
    let version = header.version.get();
    if version < SetupHeader::VERSION_2_12 {
        return Err(BadKernel::OldProtocol(version));
    }
    if header.xloadflags.get() & SetupHeader::XLF_KERNEL_64 == 0 {
        return Err(BadKernel::No64Bit);
    }
    let promised = header.setup_bytes() as u64 + header.system_bytes();
    let Some(image) = usize::try_from(promised).ok().and_then(|end| bytes.get(..end)) else {
        return Err(BadKernel::CutOff { promised, there: bytes.len() as u64 });
    };
    // The protocol appends a checksum that makes the CRC of the whole image, without the final inversion, zero.
    // Signing writes into the image afterwards.
    if !is_signed(bytes) && !crc32fast::hash(image) != 0 {
        return Err(BadKernel::Damaged);
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

/// Bytes of memory that a kernel needs around its image until it has looked at the memory map itself.
#[must_use]
pub fn room(kernel: &[u8]) -> u64 {
    let unpacked = SetupHeader::of(kernel).map_or(0, |header| header.init_size.get());
    u64::from(unpacked) + kernel.len() as u64
}

/// Checks that the files fit into so many bytes of memory, unpacked kernel included.
///
/// # Errors
/// [`NoRoom`].
pub fn check_room(files: &LinuxFiles, memory: u64) -> Result<(), NoRoom> {
    /// What firmware keeps, and the room for tables and the transfer buffer.
    const FIRMWARE: u64 = 16 << 20;
    let initrd = files.initrd.as_deref().map_or(0, <[u8]>::len) as u64;
    let needed = room(&files.kernel) + initrd + FIRMWARE;
    if needed > memory { Err(NoRoom { needed, memory }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use td_image::linux::HEADER_OFFSET;

    use super::*;

    /// Offsets in the setup header that a bzImage has at 0x1f1 (Documentation/arch/x86/boot.rst).
    const XLOADFLAGS: usize = 0x236;

    /// A bzImage of one setup sector and 4 KiB of system, with its checksum.
    fn bzimage() -> Vec<u8> {
        let mut image = vec![0u8; 2 * 512 + 4096];
        let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
        put(HEADER_OFFSET, &[1]);
        put(0x1f4, &(4096u32 / 16).to_le_bytes());
        put(0x1fe, &SetupHeader::BOOT_FLAG.to_le_bytes());
        put(0x202, b"HdrS");
        put(0x206, &0x020fu16.to_le_bytes());
        put(XLOADFLAGS, &SetupHeader::XLF_KERNEL_64.to_le_bytes());
        let end = image.len() - 4;
        let checksum = !crc32fast::hash(&image[..end]);
        image[end..].copy_from_slice(&checksum.to_le_bytes());
        image
    }

    #[test]
    fn a_whole_bzimage_is_accepted_and_any_damage_is_named() {
        let image = bzimage();
        assert_eq!(check(&image), Ok(()));
        for (at, expected) in
            [(0x900, BadKernel::Damaged), (0x202, BadKernel::NoKernel), (XLOADFLAGS, BadKernel::No64Bit)]
        {
            let mut bad = image.clone();
            bad[at] ^= 1;
            assert_eq!(check(&bad), Err(expected), "{at:#x}");
        }
        assert!(matches!(check(&image[..3000]), Err(BadKernel::CutOff { there: 3000, .. })));
        assert_eq!(check(b""), Err(BadKernel::NoKernel));
    }

    #[test]
    fn files_that_do_not_fit_are_refused_with_numbers() {
        let initrd = Some(vec![0; 32 << 20].into());
        let files = LinuxFiles { kernel: bzimage().into(), initrd, command_line: String::new() };
        assert_eq!(check_room(&files, 64 << 20), Ok(()));
        let error = check_room(&files, 40 << 20).unwrap_err().to_string();
        assert!(error.contains("49 MiB") && error.contains("has 40"), "{error}");
    }
}
