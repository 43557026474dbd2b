//! The zero page (`struct boot_params`) and the setup header in it, field by field.

use crate::layout::MemoryRange;

/// The longest command line: one less than what a kernel's buffer holds.
pub const COMMAND_LINE_LIMIT: usize = 2047;

const BYTES: usize = 4096;

/// Offsets in the zero page; the setup header's are the same in a bzImage.
mod field {
    pub const ACPI_RSDP_ADDR: usize = 0x70;
    pub const EXT_RAMDISK_IMAGE: usize = 0xC0;
    pub const EXT_RAMDISK_SIZE: usize = 0xC4;
    pub const E820_ENTRIES: usize = 0x1E8;
    pub const SETUP_SECTS: usize = 0x1F1;
    pub const BOOT_FLAG: usize = 0x1FE;
    pub const JUMP_LENGTH: usize = 0x201;
    pub const MAGIC: usize = 0x202;
    pub const VERSION: usize = 0x206;
    pub const TYPE_OF_LOADER: usize = 0x210;
    pub const LOADFLAGS: usize = 0x211;
    pub const RAMDISK_IMAGE: usize = 0x218;
    pub const RAMDISK_SIZE: usize = 0x21C;
    pub const CMD_LINE_PTR: usize = 0x228;
    pub const XLOADFLAGS: usize = 0x236;
    pub const PREF_ADDRESS: usize = 0x258;
    pub const INIT_SIZE: usize = 0x260;
    /// One past the last field that is read here.
    pub const END: usize = 0x264;
    pub const E820_TABLE: usize = 0x2D0;
}

const HEADER_START: usize = field::SETUP_SECTS;
/// The setup header ends before the page's next field at the latest.
const HEADER_LIMIT: usize = 0x290;
const MAGIC: &[u8; 4] = b"HdrS";
const BOOT_FLAG: u16 = 0xAA55;
/// Protocol 2.15.
const VERSION: u16 = 0x20F;
/// A loader without a number of its own.
const UNDEFINED_LOADER: u8 = 0xFF;
/// The kernel was loaded high.
const LOADED_HIGH: u8 = 1;
const XLF_KERNEL_64: u16 = 1;
const SECTOR: usize = 512;
/// Entries that the table in the page has room for.
const E820_LIMIT: usize = 128;

/// Whether a file has the mark of a bzImage.
pub(super) fn is_bzimage(file: &[u8]) -> bool {
    file.get(field::MAGIC..field::MAGIC + MAGIC.len()) == Some(MAGIC)
}

/// The setup header of a bzImage.
#[derive(Clone, Copy)]
pub(super) struct SetupHeader<'a> {
    file: &'a [u8],
    bytes: &'a [u8],
}

impl<'a> SetupHeader<'a> {
    /// The header of a file that [`is_bzimage`]; `None` where it is cut off.
    pub(super) fn of(file: &'a [u8]) -> Option<Self> {
        let jump = usize::from(*file.get(field::JUMP_LENGTH)?);
        let end = (field::MAGIC + jump).min(HEADER_LIMIT);
        let bytes = file.get(HEADER_START..end)?;
        (end >= field::END).then_some(Self { file, bytes })
    }

    fn number<const N: usize>(&self, at: usize) -> [u8; N] {
        self.file.get(at..at + N).and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; N])
    }

    /// The header as it is copied into the zero page.
    pub(super) const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The boot protocol's version, major in the high byte.
    pub(super) fn protocol(&self) -> u16 {
        u16::from_le_bytes(self.number(field::VERSION))
    }

    /// Whether the protected-mode part can be entered in 64-bit mode.
    pub(super) fn has_64_bit_entry(&self) -> bool {
        u16::from_le_bytes(self.number(field::XLOADFLAGS)) & XLF_KERNEL_64 != 0
    }

    /// Where the protected-mode part begins in the file.
    pub(super) fn protected_mode_offset(&self) -> usize {
        let [sectors] = self.number(field::SETUP_SECTS);
        // 0 stands for 4, for kernels older than the header.
        (usize::from(if sectors == 0 { 4 } else { sectors }) + 1) * SECTOR
    }

    /// Where the kernel would like to be.
    pub(super) fn preferred_address(&self) -> u64 {
        u64::from_le_bytes(self.number(field::PREF_ADDRESS))
    }

    /// Bytes that the kernel needs from there on until it looks at the memory map.
    pub(super) fn init_size(&self) -> u32 {
        u32::from_le_bytes(self.number(field::INIT_SIZE))
    }
}

/// The zero page.
pub(super) struct ZeroPage(Box<[u8; BYTES]>);

impl ZeroPage {
    /// A page with a bzImage's setup header, or with one for a kernel that has none.
    pub(super) fn new(header: Option<&[u8]>) -> Self {
        let mut page = Self(Box::new([0; BYTES]));
        match header {
            Some(header) => page.put(HEADER_START, header),
            None => {
                page.put(field::BOOT_FLAG, &BOOT_FLAG.to_le_bytes());
                page.put(field::MAGIC, MAGIC);
                page.put(field::VERSION, &VERSION.to_le_bytes());
            }
        }
        page.put(field::TYPE_OF_LOADER, &[UNDEFINED_LOADER]);
        let flags = page.0[field::LOADFLAGS] | LOADED_HIGH;
        page.put(field::LOADFLAGS, &[flags]);
        page
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0[..]
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.0.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }

    pub(super) fn set_memory_map(&mut self, map: &[MemoryRange]) {
        let entries = map.len().min(E820_LIMIT);
        self.put(field::E820_ENTRIES, &[entries as u8]);
        for (index, range) in map.iter().take(entries).enumerate() {
            let mut entry = [0; 20];
            entry[..8].copy_from_slice(&range.base.to_le_bytes());
            entry[8..16].copy_from_slice(&range.bytes.to_le_bytes());
            entry[16..].copy_from_slice(&(range.kind as u32).to_le_bytes());
            self.put(field::E820_TABLE + 20 * index, &entry);
        }
    }

    pub(super) fn set_root_pointer(&mut self, rsdp: u64) {
        self.put(field::ACPI_RSDP_ADDR, &rsdp.to_le_bytes());
    }

    pub(super) fn set_command_line(&mut self, at: u64) {
        self.put(field::CMD_LINE_PTR, &(at as u32).to_le_bytes());
    }

    pub(super) fn set_initrd(&mut self, at: u64, bytes: u64) {
        for (low, high, value) in [
            (field::RAMDISK_IMAGE, field::EXT_RAMDISK_IMAGE, at),
            (field::RAMDISK_SIZE, field::EXT_RAMDISK_SIZE, bytes),
        ] {
            self.put(low, &(value as u32).to_le_bytes());
            self.put(high, &((value >> 32) as u32).to_le_bytes());
        }
    }
}
