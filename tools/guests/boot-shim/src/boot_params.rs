//! The page that Linux is given ("zero page"): setup header, command line, initrd, memory map, RSDP.
//!
//! Linux Documentation/arch/x86/{boot,zero-page}.rst. All addresses are below 4 GiB, so the fields for their upper
//! halves stay zero.
//!
//! This file uses `core` only, so that the host-side tests can include it.

use crate::bytes::put;
use crate::hob::Range;
use crate::kernel::{ELF_ALIGNMENT, ELF_COMMAND_LINE, ELF_INITRD_MAX, Kernel};
use crate::memory_map::{MemoryMap, Use};

/// Bytes of the page.
pub const LENGTH: usize = 4096;
/// Entries that its memory map has room for.
pub const MAX_E820: usize = 128;

const ACPI_RSDP_ADDR: usize = 0x070;
const E820_ENTRIES: usize = 0x1E8;
const SETUP_HEADER: usize = 0x1F1;
const BOOT_FLAG: usize = 0x1FE;
const SIGNATURE: usize = 0x202;
const VERSION: usize = 0x206;
const TYPE_OF_LOADER: usize = 0x210;
const LOADFLAGS: usize = 0x211;
const CODE32_START: usize = 0x214;
const RAMDISK_IMAGE: usize = 0x218;
const RAMDISK_SIZE: usize = 0x21C;
const CMD_LINE_PTR: usize = 0x228;
const INITRD_ADDR_MAX: usize = 0x22C;
const KERNEL_ALIGNMENT: usize = 0x230;
const CMDLINE_SIZE: usize = 0x238;
const E820_TABLE: usize = 0x2D0;
const E820_ENTRY: usize = 20;

/// A boot loader without a number of its own.
const LOADER_UNDEFINED: u8 = 0xFF;
const LOADED_HIGH: u8 = 1;
const PROTOCOL_2_12: u16 = 0x020C;

/// What goes into the page beside the kernel's own header.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Where the kernel was loaded.
    pub load_address: u64,
    /// GPA of the command line, which ends with a zero.
    pub command_line: u64,
    /// Where the initrd is; an empty range if there is none.
    pub initrd: Range,
    /// GPA of the RSDP.
    pub rsdp: u64,
    /// All memory.
    pub map: &'a MemoryMap,
}

/// Something does not fit the page: a range beyond its memory map, or an address above 4 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoesNotFit;

/// Fills a page of zeros.
///
/// # Errors
/// [`DoesNotFit`].
pub fn write(page: &mut [u8; LENGTH], kernel: &Kernel<'_>, inputs: &Inputs<'_>) -> Result<(), DoesNotFit> {
    match kernel {
        Kernel::BzImage(image) => set(page, SETUP_HEADER, image.header)?,
        Kernel::Elf(_) => elf_header(page)?,
    }
    set(page, TYPE_OF_LOADER, &[LOADER_UNDEFINED])?;
    set(page, CODE32_START, &low(inputs.load_address)?)?;
    set(page, RAMDISK_IMAGE, &low(inputs.initrd.start)?)?;
    set(page, RAMDISK_SIZE, &low(inputs.initrd.end.wrapping_sub(inputs.initrd.start))?)?;
    set(page, CMD_LINE_PTR, &low(inputs.command_line)?)?;
    set(page, ACPI_RSDP_ADDR, &inputs.rsdp.to_le_bytes())?;
    e820(page, inputs.map)
}

/// The header of a kernel whose file has none.
fn elf_header(page: &mut [u8; LENGTH]) -> Result<(), DoesNotFit> {
    set(page, BOOT_FLAG, &[0x55, 0xAA])?;
    set(page, SIGNATURE, b"HdrS")?;
    set(page, VERSION, &PROTOCOL_2_12.to_le_bytes())?;
    set(page, LOADFLAGS, &[LOADED_HIGH])?;
    set(page, INITRD_ADDR_MAX, &ELF_INITRD_MAX.to_le_bytes())?;
    set(page, KERNEL_ALIGNMENT, &ELF_ALIGNMENT.to_le_bytes())?;
    set(page, CMDLINE_SIZE, &ELF_COMMAND_LINE.to_le_bytes())
}

fn e820(page: &mut [u8; LENGTH], map: &MemoryMap) -> Result<(), DoesNotFit> {
    let mut count = 0;
    let mut pending: Option<(Range, u32)> = None;
    for entry in map.entries() {
        let kind = e820_type(entry.usage);
        match &mut pending {
            Some((range, known)) if *known == kind && range.end == entry.range.start => {
                range.end = entry.range.end;
                continue;
            }
            _ => {}
        }
        if let Some((range, kind)) = pending.replace((entry.range, kind)) {
            e820_entry(page, &mut count, range, kind)?;
        }
    }
    if let Some((range, kind)) = pending {
        e820_entry(page, &mut count, range, kind)?;
    }
    set(page, E820_ENTRIES, &[count as u8])
}

fn e820_entry(page: &mut [u8; LENGTH], count: &mut usize, range: Range, kind: u32) -> Result<(), DoesNotFit> {
    if *count >= MAX_E820 {
        return Err(DoesNotFit);
    }
    let at = E820_TABLE + *count * E820_ENTRY;
    set(page, at, &range.start.to_le_bytes())?;
    set(page, at + 8, &range.end.wrapping_sub(range.start).to_le_bytes())?;
    set(page, at + 16, &kind.to_le_bytes())?;
    *count += 1;
    Ok(())
}

/// Address range types (ACPI 6.5, table 15.1).
fn e820_type(usage: Use) -> u32 {
    match usage {
        Use::Free | Use::Loaded => 1,
        Use::Reserved => 2,
        Use::AcpiTables => 3,
        Use::AcpiNvs => 4,
    }
}

fn low(value: u64) -> Result<[u8; 4], DoesNotFit> {
    u32::try_from(value).map(u32::to_le_bytes).map_err(|_| DoesNotFit)
}

fn set(page: &mut [u8; LENGTH], at: usize, value: &[u8]) -> Result<(), DoesNotFit> {
    put(page, at, value).ok_or(DoesNotFit)
}
