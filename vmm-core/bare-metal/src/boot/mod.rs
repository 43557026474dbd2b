//! What boot loaders say: memory, the TD's image, the command line, where ACPI begins.
//!
//! | entered by | structure | magic |
//! |---|---|---|
//! | the 64-bit entry of the Linux boot protocol (kexec, `tdvisor server`) | the zero page | `HdrS` at 0x202 |
//! | PVH (QEMU `-kernel`) | `hvm_start_info` | 0x336EC578 |
//! | multiboot2 (GRUB) | a list of tags | 0x36D76289 in EAX |
//!
//! A structure that is not what its entry promises is refused; nothing in it can make the reader run without end.

mod linux;
mod map;
mod multiboot2;
mod pvh;

use heapless::{String, Vec};
use td_host::host::MemoryRange;
use tdvisor_base::Hpa;

use crate::physical::Physical;

pub use map::MemoryMap;

/// The longest command line that is read; a longer one is refused.
pub const COMMAND_LINE: usize = 1024;

/// How the image was entered. The numbers are those that `entry.s` passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loader {
    /// The 64-bit entry of the Linux boot protocol.
    Linux,
    /// PVH.
    Pvh,
    /// Multiboot2.
    Multiboot2,
}

impl Loader {
    /// The loader with this number.
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Linux),
            1 => Some(Self::Pvh),
            2 => Some(Self::Multiboot2),
            _ => None,
        }
    }
}

impl core::fmt::Display for Loader {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Linux => "the Linux boot protocol",
            Self::Pvh => "PVH",
            Self::Multiboot2 => "multiboot2",
        })
    }
}

/// What a boot loader said.
#[derive(Clone, Debug)]
pub struct BootInfo {
    /// Memory that may be used, firmware's holes taken out.
    pub memory: MemoryMap,
    /// The physical address of ACPI's root pointer, if the loader knows it.
    pub root_pointer: Option<u64>,
    /// The file that came along: the initial RAM disk, or the first module.
    pub file: Option<MemoryRange>,
    /// The command line.
    pub command_line: String<COMMAND_LINE>,
}

/// Why a boot structure cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadBoot {
    /// The magic number is missing.
    Magic,
    /// The information ends too early, or points to where nothing is.
    CutOff,
    /// The information names no memory.
    NoMemory,
    /// The command line is too long or not ASCII.
    CommandLine,
}

impl core::fmt::Display for BadBoot {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Magic => f.write_str("the boot structure has the wrong magic number"),
            Self::CutOff => f.write_str("the boot structure is cut off"),
            Self::NoMemory => f.write_str("the boot structure has no memory map"),
            Self::CommandLine => {
                write!(f, "the command line is longer than {COMMAND_LINE} bytes, or not ASCII")
            }
        }
    }
}

impl BootInfo {
    /// Reads the structure at `at`.
    ///
    /// # Errors
    /// [`BadBoot`].
    pub fn read(loader: Loader, at: u64, memory: &impl Physical) -> Result<Self, BadBoot> {
        let info = match loader {
            Loader::Linux => linux::read(at, memory),
            Loader::Pvh => pvh::read(at, memory),
            Loader::Multiboot2 => multiboot2::read(at, memory),
        }?;
        if info.memory.ranges().is_empty() { Err(BadBoot::NoMemory) } else { Ok(info) }
    }
}

/// Entries of a firmware's memory map, as E820 numbers them: usable ones first, then everything else is taken out.
#[derive(Default)]
struct Entries {
    usable: MemoryMap,
    other: Vec<MemoryRange, { 2 * map::RANGES }>,
}

/// The E820 type of usable memory; multiboot2 and PVH use the same number.
const USABLE: u32 = 1;

impl Entries {
    fn note(&mut self, base: u64, bytes: u64, kind: u32) {
        if kind == USABLE {
            self.usable.add(base, bytes);
        } else {
            let _ = self.other.push(MemoryRange { base: Hpa::new(base), size: bytes });
        }
    }

    fn finish(mut self) -> MemoryMap {
        for range in &self.other {
            self.usable.remove(range.base.get(), range.size);
        }
        self.usable
    }
}

/// A zero-terminated command line.
fn command_line(at: u64, memory: &impl Physical) -> Result<String<COMMAND_LINE>, BadBoot> {
    let mut line = String::new();
    if at == 0 {
        return Ok(line);
    }
    for at in at.. {
        let byte = memory.u8(at).ok_or(BadBoot::CutOff)?;
        if byte == 0 {
            break;
        }
        if !byte.is_ascii() || line.push(byte.into()).is_err() {
            return Err(BadBoot::CommandLine);
        }
    }
    Ok(line)
}

/// A file, unless it has no bytes.
fn file(base: u64, bytes: u64) -> Option<MemoryRange> {
    (bytes != 0).then_some(MemoryRange { base: Hpa::new(base), size: bytes })
}
