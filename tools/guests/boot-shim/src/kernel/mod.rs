//! The kernel file: which of the two forms it has, where its parts go, and where it is entered.
//!
//! The file comes from the host, so every number in it is checked before it is used: against the file's length,
//! against the map of memory that is free, and parts against each other. Nothing here touches memory; the result is
//! a [`Plan`] that the shim carries out.
//!
//! This folder uses `core` only, so that the host-side tests can include it.

mod bzimage;
mod elf;

use core::fmt;

pub use bzimage::BzImage;
pub use elf::Elf;

use crate::hob::Range;
use crate::memory_map::{MapError, MemoryMap, Use};

/// Most parts that a kernel may have.
pub const MAX_PARTS: usize = 16;
/// Everything that the kernel gets lies below this address, where the shim's identity map ends.
pub const LOAD_LIMIT: u64 = 1 << 32;
/// Longest command line for an ELF kernel, whose file does not say (Linux's COMMAND_LINE_SIZE for x86, less the
/// final zero).
pub const ELF_COMMAND_LINE: u32 = 2047;
/// Highest address of an initrd for an ELF kernel.
pub const ELF_INITRD_MAX: u32 = 0x7FFF_FFFF;
/// Alignment that an ELF kernel is told that it has.
pub const ELF_ALIGNMENT: u32 = 0x20_0000;

/// Why a kernel file cannot be booted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelError {
    /// The file is neither a bzImage nor an ELF file.
    Unknown,
    /// A bzImage that is not whole or contradicts itself.
    CorruptBzImage(&'static str),
    /// A bzImage that this shim cannot boot.
    UnsupportedBzImage(&'static str),
    /// An ELF file that is not whole or contradicts itself.
    CorruptElf(&'static str),
    /// An ELF file that is no kernel for this machine.
    UnsupportedElf(&'static str),
    /// Two segments of an ELF file want the same memory.
    Overlap {
        /// Where.
        address: u64,
    },
    /// Memory that the kernel must have is not there or not free.
    Occupied(Range),
    /// No place that is large enough.
    NoRoom {
        /// Bytes that it needs in one piece.
        needed: u64,
        /// The lowest address that it accepts.
        from: u64,
    },
    /// The map of memory has become too long.
    Map(MapError),
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Unknown => f.write_str("the kernel is neither a bzImage nor an ELF file"),
            Self::CorruptBzImage(what) => write!(f, "corrupt bzImage: {what}"),
            Self::UnsupportedBzImage(what) => write!(f, "unsupported bzImage: {what}"),
            Self::CorruptElf(what) => write!(f, "corrupt ELF kernel: {what}"),
            Self::UnsupportedElf(what) => write!(f, "unsupported ELF kernel: {what}"),
            Self::Overlap { address } => {
                write!(f, "corrupt ELF kernel: segments overlap at {address:#x}")
            }
            Self::Occupied(range) => {
                write!(f, "no memory for the kernel at {:#x}..{:#x}", range.start, range.end)
            }
            Self::NoRoom { needed, from } => {
                write!(f, "too little memory: kernel needs {} KiB above {:#x}", needed.div_ceil(1024), from)
            }
            Self::Map(error) => write!(f, "memory map: {error:?}"),
        }
    }
}

impl From<MapError> for KernelError {
    fn from(error: MapError) -> Self {
        Self::Map(error)
    }
}

/// Bytes that go to one place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part<'a> {
    /// Where, in guest-physical memory.
    pub address: u64,
    /// What.
    pub bytes: &'a [u8],
    /// Bytes of memory; what `bytes` do not fill is zero.
    pub length: u64,
}

/// The parts of one kernel.
type Parts<'a> = heapless::Vec<Part<'a>, MAX_PARTS>;

/// How to load a kernel.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    parts: Parts<'a>,
    /// Where the kernel is entered.
    pub entry: u64,
    /// The memory from its first to its last byte.
    pub range: Range,
}

impl<'a> Plan<'a> {
    /// What goes where.
    pub fn parts(&self) -> &[Part<'a>] {
        &self.parts
    }
}

/// A kernel file that was understood.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one of them, and no heap to put it on")]
pub enum Kernel<'a> {
    /// The form that distributions install.
    BzImage(BzImage<'a>),
    /// The form that the linker leaves.
    Elf(Elf<'a>),
}

impl<'a> Kernel<'a> {
    /// Understands a kernel file.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn parse(file: &'a [u8]) -> Result<Self, KernelError> {
        if file.starts_with(&elf::MAGIC) {
            return Elf::parse(file).map(Self::Elf);
        }
        if bzimage::has_signature(file) {
            return BzImage::parse(file).map(Self::BzImage);
        }
        Err(KernelError::Unknown)
    }

    /// Decides where its parts go, and marks that memory as used.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn place(&self, map: &mut MemoryMap) -> Result<Plan<'a>, KernelError> {
        match self {
            Self::BzImage(image) => image.place(map),
            Self::Elf(elf) => elf.place(map),
        }
    }

    /// The address below which an initrd must end.
    pub fn initrd_limit(&self) -> u64 {
        let max = match self {
            Self::BzImage(image) => image.initrd_max,
            Self::Elf(_) => ELF_INITRD_MAX,
        };
        u64::from(max).saturating_add(1).min(LOAD_LIMIT)
    }

    /// Longest command line, bytes without the final zero.
    pub fn command_line_limit(&self) -> u64 {
        u64::from(match self {
            Self::BzImage(image) => image.command_line_max,
            Self::Elf(_) => ELF_COMMAND_LINE,
        })
    }

    /// The name of the form.
    pub fn form(&self) -> &'static str {
        match self {
            Self::BzImage(_) => "bzImage",
            Self::Elf(_) => "ELF",
        }
    }
}

/// Marks a range that must be free as used by the kernel.
fn claim(map: &mut MemoryMap, range: Range) -> Result<(), KernelError> {
    if !map.is_free(range) {
        return Err(KernelError::Occupied(range));
    }
    Ok(map.mark(range, Use::Loaded)?)
}
