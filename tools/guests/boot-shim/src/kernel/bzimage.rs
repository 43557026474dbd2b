//! bzImage: the setup header of the Linux/x86 boot protocol, and the part that runs in protected mode.
//!
//! Linux Documentation/arch/x86/boot.rst. The file begins with the real-mode setup code, `setup_sects + 1` sectors
//! of it, with the header inside; what follows is loaded as one piece and entered 0x200 bytes from its start in
//! 64-bit mode. It decompresses itself to the preferred address or, if it is relocatable and was loaded above it,
//! to where it was loaded, and needs `init_size` bytes from there on.

use super::{KernelError, LOAD_LIMIT, Part, Parts, Plan, claim};
use crate::bytes::{u16_at, u32_at, u64_at};
use crate::hob::Range;
use crate::memory_map::MemoryMap;

/// Offset of the setup header in the file and in boot_params.
pub const HEADER_START: usize = 0x1F1;
/// boot_params has room for a header up to here.
pub const HEADER_LIMIT: usize = 0x290;

const SECTOR: usize = 512;
const SETUP_SECTS: usize = 0x1F1;
const SYSSIZE: usize = 0x1F4;
const BOOT_FLAG: usize = 0x1FE;
const HEADER_LENGTH: usize = 0x201;
const SIGNATURE: usize = 0x202;
const VERSION: usize = 0x206;
const LOADFLAGS: usize = 0x211;
const INITRD_ADDR_MAX: usize = 0x22C;
const KERNEL_ALIGNMENT: usize = 0x230;
const RELOCATABLE: usize = 0x234;
const XLOADFLAGS: usize = 0x236;
const CMDLINE_SIZE: usize = 0x238;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24C;
const PREF_ADDRESS: usize = 0x258;
const INIT_SIZE: usize = 0x260;
/// Where the fields of protocol 2.12 end.
const LAST_FIELD_END: usize = 0x264;

const VERSION_2_12: u16 = 0x020C;
const LOADED_HIGH: u8 = 1;
const XLF_KERNEL_64: u16 = 1;
const ENTRY_64: u64 = 0x200;
const SYSSIZE_UNIT: u64 = 16;
const DEFAULT_SETUP_SECTS: u8 = 4;
/// Nothing is loaded below this address, where the shim and the BIOS area are.
const LOWEST: u64 = 0x10_0000;
const PAGE: u64 = 4096;
/// Largest alignment that is believed.
const MAX_ALIGNMENT: u64 = 1 << 30;

/// Whether a file has the marks of a bzImage.
pub fn has_signature(file: &[u8]) -> bool {
    u16_at(file, BOOT_FLAG) == Some(0xAA55)
        && file.get(SIGNATURE..).is_some_and(|rest| rest.starts_with(b"HdrS"))
}

/// A bzImage whose header makes sense.
#[derive(Clone, Debug)]
pub struct BzImage<'a> {
    /// The setup header, from [`HEADER_START`] on.
    pub header: &'a [u8],
    /// Highest address that a byte of an initrd may have.
    pub initrd_max: u32,
    /// Longest command line, bytes without the final zero.
    pub command_line_max: u32,
    code: &'a [u8],
    preferred: u64,
    init_size: u64,
    alignment: u64,
    relocatable: bool,
}

impl<'a> BzImage<'a> {
    /// Checks a file that [`has_signature`].
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn parse(file: &'a [u8]) -> Result<Self, KernelError> {
        const CUT: KernelError = KernelError::CorruptBzImage("it ends inside its header");
        let byte = |at: usize| file.get(at).copied().ok_or(CUT);
        let word = |at: usize| u16_at(file, at).ok_or(CUT);
        let dword = |at: usize| u32_at(file, at).ok_or(CUT);
        if word(VERSION)? < VERSION_2_12 {
            return Err(KernelError::UnsupportedBzImage("boot protocol before 2.12"));
        }
        if byte(LOADFLAGS)? & LOADED_HIGH == 0 || word(XLOADFLAGS)? & XLF_KERNEL_64 == 0 {
            return Err(KernelError::UnsupportedBzImage("no 64-bit entry point"));
        }
        let header_end = SIGNATURE + usize::from(byte(HEADER_LENGTH)?);
        if !(LAST_FIELD_END..=HEADER_LIMIT).contains(&header_end) {
            return Err(KernelError::CorruptBzImage("impossible header length"));
        }
        let header = file.get(HEADER_START..header_end).ok_or(CUT)?;
        let sectors = match byte(SETUP_SECTS)? {
            0 => DEFAULT_SETUP_SECTS,
            sectors => sectors,
        };
        let setup = (usize::from(sectors) + 1) * SECTOR;
        if setup < header_end {
            return Err(KernelError::CorruptBzImage("its code begins inside its header"));
        }
        let length = u64::from(dword(SYSSIZE)?) * SYSSIZE_UNIT;
        let code = file.get(setup..).unwrap_or_default();
        let code = usize::try_from(length).ok().and_then(|length| code.get(..length));
        let code = code.ok_or(KernelError::CorruptBzImage("the file is shorter than its header says"))?;
        if length <= ENTRY_64 {
            return Err(KernelError::CorruptBzImage("no code"));
        }
        let payload = u64::from(dword(PAYLOAD_OFFSET)?) + u64::from(dword(PAYLOAD_LENGTH)?);
        if payload > length {
            return Err(KernelError::CorruptBzImage("its payload reaches beyond its code"));
        }
        let alignment = u64::from(dword(KERNEL_ALIGNMENT)?);
        if !alignment.is_power_of_two() || !(PAGE..=MAX_ALIGNMENT).contains(&alignment) {
            return Err(KernelError::CorruptBzImage("impossible alignment"));
        }
        let preferred = u64_at(file, PREF_ADDRESS).ok_or(CUT)?;
        if !(LOWEST..LOAD_LIMIT).contains(&preferred) {
            return Err(KernelError::CorruptBzImage("impossible preferred address"));
        }
        Ok(Self {
            header,
            initrd_max: dword(INITRD_ADDR_MAX)?,
            command_line_max: dword(CMDLINE_SIZE)?,
            code,
            preferred,
            init_size: u64::from(dword(INIT_SIZE)?).max(length),
            alignment,
            relocatable: byte(RELOCATABLE)? != 0,
        })
    }

    /// At the preferred address or, if that is not free and the kernel is relocatable, at the next free place above
    /// it: a kernel that is loaded below moves itself up.
    pub fn place(&self, map: &mut MemoryMap) -> Result<Plan<'a>, KernelError> {
        let range = |start: u64| Range { start, end: start + self.init_size };
        let mut start = self.preferred;
        let aligned = start.is_multiple_of(self.alignment);
        if self.relocatable && !(aligned && map.is_free(range(start))) {
            start = map
                .lowest(self.init_size, self.alignment, self.preferred)
                .filter(|start| *start < LOAD_LIMIT)
                .ok_or(KernelError::NoRoom { needed: self.init_size, from: self.preferred })?;
        }
        let range = range(start);
        if range.end > LOAD_LIMIT {
            return Err(KernelError::NoRoom { needed: self.init_size, from: self.preferred });
        }
        claim(map, range)?;
        let part = Part { address: start, bytes: self.code, length: self.code.len() as u64 };
        Ok(Plan { parts: Parts::from_array([part]), entry: start + ENTRY_64, range })
    }
}
