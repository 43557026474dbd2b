//! Puts a host's kernel into memory, with what the 64-bit Linux boot protocol says that it finds there.
//!
//! | file | recognised by | loaded at | entered at |
//! |---|---|---|---|
//! | ELF (`vmlinux`, a freestanding host) | its magic | the physical addresses of its segments | its entry point |
//! | bzImage | `HdrS` at 0x202 | its preferred address | that + 0x200 |
//!
//! Source: Documentation/arch/x86/boot.rst and zero-page.rst of Linux.

mod zero_page;

use std::fmt;

use object::Endianness;
use object::elf::{FileHeader64, PT_LOAD};
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use seam_emu::Machine;
use tdvisor_base::{Hpa, PAGE_SIZE};

use crate::layout::{CONVERTIBLE, LOW_RAM_LIMIT, MemoryKind, TABLES, memory_map};
pub use zero_page::COMMAND_LINE_LIMIT;
use zero_page::ZeroPage;

/// Where the zero page and the command line lie: in conventional memory, which no kernel overwrites before it reads
/// them.
const ZERO_PAGE: u64 = 0x1_0000;
const COMMAND_LINE: u64 = 0x2_0000;

/// What boots.
#[derive(Clone, Copy, Debug)]
pub struct BootFiles<'a> {
    /// ELF or bzImage.
    pub kernel: &'a [u8],
    /// The initial RAM disk, or whatever else the kernel expects in its place.
    pub initrd: Option<&'a [u8]>,
    /// The kernel's command line.
    pub command_line: &'a str,
}

/// How the first processor begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boot {
    /// Physical address of its first instruction.
    pub entry: u64,
    /// Physical address of the zero page, for RSI.
    pub zero_page: u64,
}

/// Why files cannot be booted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// The file is neither ELF nor a bzImage.
    NotAKernel,
    /// An ELF file that is cut off or contradicts itself.
    BadElf(&'static str),
    /// A bzImage that is cut off, or older than protocol 2.12.
    BadBzImage(&'static str),
    /// The kernel's code for 64-bit processors cannot be entered directly.
    No64BitEntry,
    /// A part of the kernel does not lie in usable memory.
    NoRoomForKernel {
        /// First byte.
        base: u64,
        /// Bytes.
        bytes: u64,
    },
    /// The initrd does not fit below the end of memory and above the kernel.
    NoRoomForInitrd {
        /// Bytes.
        bytes: u64,
    },
    /// The command line is too long.
    CommandLine {
        /// Bytes.
        bytes: usize,
    },
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAKernel => f.write_str("neither an ELF file nor a bzImage"),
            Self::BadElf(what) => write!(f, "unusable ELF file: {what}"),
            Self::BadBzImage(what) => write!(f, "unusable bzImage: {what}"),
            Self::No64BitEntry => f.write_str(
                "the kernel has no 64-bit entry: it needs CONFIG_X86_64 and CONFIG_EFI_STUB or newer",
            ),
            Self::NoRoomForKernel { base, bytes } => {
                write!(
                    f,
                    "the kernel wants {bytes:#x} bytes at {base:#x}, where the machine has no memory; give it more"
                )
            }
            Self::NoRoomForInitrd { bytes } => {
                write!(f, "no room for an initrd of {bytes} bytes; give the machine more memory")
            }
            Self::CommandLine { bytes } => {
                write!(f, "the command line has {bytes} bytes; {COMMAND_LINE_LIMIT} are possible")
            }
        }
    }
}

impl core::error::Error for LoadError {}

/// A piece of the kernel and where it goes; the rest up to `bytes` is zero.
struct Piece<'a> {
    at: u64,
    data: &'a [u8],
    bytes: u64,
}

/// A kernel taken apart.
struct Kernel<'a> {
    pieces: Vec<Piece<'a>>,
    entry: u64,
    /// The setup header of a bzImage, which goes into the zero page.
    setup_header: Option<&'a [u8]>,
}

/// Puts the files into the machine's memory.
///
/// # Errors
/// [`LoadError`]; memory may have been written.
pub fn load(machine: &Machine, memory: u64, files: &BootFiles<'_>) -> Result<Boot, LoadError> {
    let kernel = take_apart(files.kernel)?;
    let map = memory_map(memory);
    let mut kernel_end = 0;
    for piece in &kernel.pieces {
        let end = piece.at.checked_add(piece.bytes).ok_or(LoadError::BadElf("a segment that wraps"))?;
        let fits = map.iter().any(|range| {
            range.kind == MemoryKind::Usable && piece.at >= range.base && end <= range.base + range.bytes
        });
        if !fits || piece.at < CONVERTIBLE {
            return Err(LoadError::NoRoomForKernel { base: piece.at, bytes: piece.bytes });
        }
        kernel_end = kernel_end.max(end);
        write(machine, piece.at, piece.data);
    }
    let initrd = match files.initrd {
        Some(initrd) => {
            let bytes = initrd.len() as u64;
            let at = place_initrd(memory, kernel_end, bytes).ok_or(LoadError::NoRoomForInitrd { bytes })?;
            write(machine, at, initrd);
            Some((at, bytes))
        }
        None => None,
    };
    let command_line = files.command_line.as_bytes();
    if command_line.len() > COMMAND_LINE_LIMIT {
        return Err(LoadError::CommandLine { bytes: command_line.len() });
    }
    write(machine, COMMAND_LINE, command_line);
    write(machine, COMMAND_LINE + command_line.len() as u64, &[0]);

    let mut zero_page = ZeroPage::new(kernel.setup_header);
    zero_page.set_memory_map(&map);
    zero_page.set_root_pointer(TABLES);
    zero_page.set_command_line(COMMAND_LINE);
    if let Some((at, bytes)) = initrd {
        zero_page.set_initrd(at, bytes);
    }
    write(machine, ZERO_PAGE, zero_page.as_bytes());
    Ok(Boot { entry: kernel.entry, zero_page: ZERO_PAGE })
}

/// The loader writes where the memory map says that there is memory, so that nothing can fail.
fn write(machine: &Machine, at: u64, data: &[u8]) {
    let _ = machine.host_write(Hpa::new(at), data);
}

/// As high as possible in the memory below 4 GiB, above the kernel.
fn place_initrd(memory: u64, kernel_end: u64, bytes: u64) -> Option<u64> {
    let range = memory_map(memory)
        .into_iter()
        .rfind(|range| range.kind == MemoryKind::Usable && range.base < LOW_RAM_LIMIT)?;
    let end = range.base + range.bytes;
    let at = end.checked_sub(bytes)? & !(PAGE_SIZE - 1);
    (at >= kernel_end.max(range.base)).then_some(at)
}

fn take_apart(file: &[u8]) -> Result<Kernel<'_>, LoadError> {
    if file.starts_with(b"\x7fELF") {
        elf(file)
    } else if zero_page::is_bzimage(file) {
        bzimage(file)
    } else {
        Err(LoadError::NotAKernel)
    }
}

fn elf(file: &[u8]) -> Result<Kernel<'_>, LoadError> {
    let bad = |_| LoadError::BadElf("its headers are not those of a 64-bit ELF file");
    let header = FileHeader64::<Endianness>::parse(file).map_err(bad)?;
    let endian = header.endian().map_err(bad)?;
    let mut pieces = Vec::new();
    for segment in header.program_headers(endian, file).map_err(bad)? {
        if segment.p_type(endian) != PT_LOAD || segment.p_memsz(endian) == 0 {
            continue;
        }
        let data = segment.data(endian, file).map_err(|()| LoadError::BadElf("a segment beyond its end"))?;
        let bytes = segment.p_memsz(endian);
        if data.len() as u64 > bytes {
            return Err(LoadError::BadElf("a segment larger in the file than in memory"));
        }
        pieces.push(Piece { at: segment.p_paddr(endian), data, bytes });
    }
    let entry = header.e_entry(endian);
    if !pieces.iter().any(|piece| (piece.at..piece.at.saturating_add(piece.bytes)).contains(&entry)) {
        return Err(LoadError::BadElf("an entry point outside of its segments"));
    }
    Ok(Kernel { pieces, entry, setup_header: None })
}

fn bzimage(file: &[u8]) -> Result<Kernel<'_>, LoadError> {
    /// The 64-bit entry is this far into the protected-mode part.
    const ENTRY_64: u64 = 0x200;
    let header = zero_page::SetupHeader::of(file).ok_or(LoadError::BadBzImage("it is cut off"))?;
    if header.protocol() < 0x20c {
        return Err(LoadError::BadBzImage("its boot protocol is older than 2.12"));
    }
    if !header.has_64_bit_entry() {
        return Err(LoadError::No64BitEntry);
    }
    let data = file.get(header.protected_mode_offset()..).ok_or(LoadError::BadBzImage("it is cut off"))?;
    let (at, bytes) = (header.preferred_address(), u64::from(header.init_size()).max(data.len() as u64));
    let entry = at.checked_add(ENTRY_64).ok_or(LoadError::BadBzImage("its preferred address wraps"))?;
    Ok(Kernel { pieces: vec![Piece { at, data, bytes }], entry, setup_header: Some(header.bytes()) })
}
