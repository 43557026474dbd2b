//! `fw_cfg`: how a machine hands files to its firmware, as QEMU's machines do.
//!
//! # Protocol
//! The guest selects an item by its key and reads it from its start, byte by byte at the data register or as a
//! whole through a DMA descriptor in its memory. Item [`KEY_FILE_DIR`] lists the files with their keys and
//! sizes; items of other keys ([`key`]) have a meaning that firmware knows. A read beyond the end of an item, and of an item that does not exist, gives zeros.
//!
//! | port | register |
//! |---|---|
//! | 0x510 | selector: 16 bits, written |
//! | 0x511 | data: one byte, read |
//! | 0x514 | DMA address, high half: 32 bits, big-endian; reading it gives `QEMU` |
//! | 0x518 | DMA address, low half: starts the transfer; reading it gives ` CFG` |
//!
//! A DMA descriptor is 16 bytes, big-endian: control (u32), length (u32), address (u64). The transfer is complete when
//! the write to the register is; the control word is then zero, or [`control::ERROR`].
//!
//! # Invariants
//! - Every item is read-only: a DMA write is an error, a write to the data register vanishes.
//! - Contents are never copied on this side of guest memory, and a transfer moves them in pieces
//!   of at most 64 KiB.
//! - A transfer ends at the first byte that is not shared memory, with the error bit set. What precedes it was
//!   written.
//! - Only the control word of the descriptor that was read is ever written beside the buffer.
//!
//! Source: QEMU's interface specification `docs/specs/fw_cfg`.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use tdvisor_base::SharedBit;
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros as _, Immutable, IntoBytes};

use super::saved::{narrow, numbers};
use super::{AccessSize, BadState, DeviceRequest, PortDevice, SharedMemory, low};

/// The item "QEMU": how a guest finds out that there is a `fw_cfg`.
pub const KEY_SIGNATURE: u16 = 0x0000;
/// The item of four bytes, little-endian: bit 0 the registers, bit 1 DMA.
pub const KEY_FEATURES: u16 = 0x0001;
/// The item that lists the files.
pub const KEY_FILE_DIR: u16 = 0x0019;
/// The key of the first file; the others follow.
pub const KEY_FIRST_FILE: u16 = 0x0020;

/// Keys of items that firmware knows (QEMU's `standard-headers/linux/qemu_fw_cfg.h` and `hw/nvram/fw_cfg.h` name them).
pub mod key {
    /// Bytes of memory: u64.
    pub const MEMORY_BYTES: u16 = 0x03;
    /// Whether there is no display: u16.
    pub const NO_GRAPHIC: u16 = 0x04;
    /// How many processors run at first: u16.
    pub const PROCESSORS: u16 = 0x05;
    /// Bytes of the kernel without its set-up part: u32.
    pub const KERNEL_BYTES: u16 = 0x08;
    /// Bytes of the initial RAM disk: u32.
    pub const INITRD_BYTES: u16 = 0x0b;
    /// Whether a boot menu is wanted: u16.
    pub const BOOT_MENU: u16 = 0x0e;
    /// How many processors there may be: u16.
    pub const PROCESSORS_MAX: u16 = 0x0f;
    /// The kernel without its set-up part.
    pub const KERNEL: u16 = 0x11;
    /// The initial RAM disk.
    pub const INITRD: u16 = 0x12;
    /// Bytes of the command line, its NUL included: u32.
    pub const COMMAND_LINE_BYTES: u16 = 0x14;
    /// The command line, and a NUL.
    pub const COMMAND_LINE: u16 = 0x15;
    /// Bytes of the kernel's set-up part: u32.
    pub const SETUP_BYTES: u16 = 0x17;
    /// The kernel's set-up part.
    pub const SETUP: u16 = 0x18;
}

/// Bytes of a file's name at most; the directory has room for these and a NUL.
pub const NAME_MAX: usize = 55;
/// Files at most.
pub const FILES_MAX: usize = 1024;

/// In a snapshot: no key, which has 16 bits.
const NOTHING_SELECTED: u64 = u64::MAX;

const SELECTOR: u16 = 0;
const DATA: u16 = 1;
const DMA_HIGH: u16 = 4;
const DMA_LOW: u16 = 8;

const SIGNATURE: &[u8] = b"QEMU";
const FEATURES: u32 = 0b11;
/// What the DMA registers read as.
const DMA_SIGNATURE: [[u8; 4]; 2] = [*b"QEMU", *b" CFG"];

/// Bits of a key that select no item: the write channel of old, which is gone.
const KEY_WRITE_CHANNEL: u16 = 1 << 14;

const PIECE: usize = 64 << 10;
static ZEROS: [u8; 4096] = [0; 4096];

/// Bits of a descriptor's control word.
pub mod control {
    /// The transfer failed.
    pub const ERROR: u32 = 1 << 0;
    /// Copy the item into memory.
    pub const READ: u32 = 1 << 1;
    /// Move on in the item.
    pub const SKIP: u32 = 1 << 2;
    /// Select the item in bits 31:16 first.
    pub const SELECT: u32 = 1 << 3;
    /// Copy memory into the item: refused here.
    pub const WRITE: u32 = 1 << 4;
}

/// A file cannot be offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileError {
    /// The name is empty, too long, or has characters other than printable ASCII.
    BadName(String),
    /// Two files have this name.
    Duplicate(String),
    /// The file has 4 GiB or more.
    TooLarge(String),
    /// More than [`FILES_MAX`] files.
    TooMany,
    /// An item's key is one of those that this device gives out itself.
    BadKey(u16),
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadName(name) => {
                write!(
                    f,
                    "{name:?} cannot be the name of a fw_cfg file: 1 to {NAME_MAX} printable ASCII characters"
                )
            }
            Self::Duplicate(name) => write!(f, "two fw_cfg files are called {name}"),
            Self::TooLarge(name) => write!(f, "the fw_cfg file {name} is too large: less than 4 GiB"),
            Self::BadKey(key) => write!(f, "no fw_cfg item may have key {key:#x}"),
            Self::TooMany => write!(f, "too many fw_cfg files: at most {FILES_MAX}"),
        }
    }
}

impl core::error::Error for FileError {}

/// The device.
#[derive(Clone)]
pub struct FwCfg {
    items: BTreeMap<u16, Arc<[u8]>>,
    selected: Arc<[u8]>,
    offset: usize,
    dma_high: u32,
    shared_bit: SharedBit,
}

impl fmt::Debug for FwCfg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FwCfg")
            .field("items", &self.items.len())
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

impl FwCfg {
    /// The device with an item of a [`key`] that firmware knows.
    ///
    /// # Errors
    /// [`FileError::BadKey`], [`FileError::TooLarge`].
    pub fn with_item(mut self, key: u16, contents: Arc<[u8]>) -> Result<Self, FileError> {
        let is_own = matches!(key, KEY_SIGNATURE | KEY_FEATURES | KEY_FILE_DIR) || key >= KEY_FIRST_FILE;
        if is_own {
            return Err(FileError::BadKey(key));
        }
        if u32::try_from(contents.len()).is_err() {
            return Err(FileError::TooLarge(format!("of key {key:#x}")));
        }
        self.items.insert(key, contents);
        Ok(self)
    }

    /// A device that offers these files, by name.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn new(
        files: impl IntoIterator<Item = (String, Arc<[u8]>)>,
        shared_bit: SharedBit,
    ) -> Result<Self, FileError> {
        let mut by_name = BTreeMap::new();
        for (name, contents) in files {
            check(&name, contents.len())?;
            if by_name.contains_key(&name) {
                return Err(FileError::Duplicate(name));
            }
            if by_name.len() == FILES_MAX {
                return Err(FileError::TooMany);
            }
            by_name.insert(name, contents);
        }
        let mut items = BTreeMap::from([
            (KEY_SIGNATURE, Arc::from(SIGNATURE)),
            (KEY_FEATURES, Arc::from(FEATURES.to_le_bytes())),
            (KEY_FILE_DIR, directory(&by_name)),
        ]);
        items.extend((KEY_FIRST_FILE..).zip(by_name.into_values()));
        let mut device = Self { items, selected: Arc::from([]), offset: 0, dma_high: 0, shared_bit };
        device.select(KEY_SIGNATURE);
        Ok(device)
    }

    fn select(&mut self, key: u16) {
        let key = key & !KEY_WRITE_CHANNEL;
        self.selected = self.items.get(&key).cloned().unwrap_or_else(|| Arc::from([]));
        self.offset = 0;
    }

    /// What is left of the item, at most `limit` bytes.
    fn rest(&self, limit: usize) -> &[u8] {
        let rest = self.selected.get(self.offset..).unwrap_or_default();
        rest.get(..limit).unwrap_or(rest)
    }

    fn next_byte(&mut self) -> u8 {
        let byte = self.rest(1).first().copied();
        self.offset += usize::from(byte.is_some());
        byte.unwrap_or_default()
    }

    /// Carries out the descriptor at `at`.
    fn transfer(&mut self, at: u64, memory: &dyn SharedMemory) {
        let Some(at) = self.shared_bit.locate(at, size_of::<Descriptor>() as u64) else { return };
        let mut descriptor = Descriptor::new_zeroed();
        let outcome = match memory.read(at, descriptor.as_mut_bytes()) {
            Ok(()) => self.carry_out(&descriptor, memory),
            Err(_) => Err(Refused),
        };
        let control = if outcome.is_ok() { 0 } else { control::ERROR };
        // A descriptor that cannot be written to has nobody who looks at it.
        let _ = memory.write(at, &control.to_be_bytes());
    }

    fn carry_out(&mut self, descriptor: &Descriptor, memory: &dyn SharedMemory) -> Result<(), Refused> {
        let (control, length) = (descriptor.control.get(), descriptor.length.get());
        let address = descriptor.address.get();
        if control & control::SELECT != 0 {
            self.select((control >> 16) as u16);
        }
        if control & control::READ != 0 {
            self.copy_out(address, length, memory)
        } else if control & control::WRITE != 0 {
            if length == 0 { Ok(()) } else { Err(Refused) }
        } else {
            if control & control::SKIP != 0 {
                self.offset += self.rest(length as usize).len();
            }
            Ok(())
        }
    }

    /// Copies `length` bytes to the guest: the item, then zeros.
    fn copy_out(&mut self, address: u64, length: u32, memory: &dyn SharedMemory) -> Result<(), Refused> {
        let mut at = self.shared_bit.locate(address, length.into()).ok_or(Refused)?;
        let mut left = length as usize;
        while left > 0 {
            let piece = match self.rest(left.min(PIECE)) {
                [] => ZEROS.get(..left).unwrap_or(&ZEROS),
                piece => piece,
            };
            let (moved, from_item) = (piece.len(), self.offset < self.selected.len());
            memory.write(at, piece).map_err(|_| Refused)?;
            at = at.wrapping_add(moved as u64);
            left = left.saturating_sub(moved);
            self.offset += if from_item { moved } else { 0 };
        }
        Ok(())
    }
}

/// A descriptor cannot be carried out.
struct Refused;

/// What a guest wants moved, big-endian.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Descriptor {
    control: U32,
    length: U32,
    address: U64,
}

/// An entry of the list of files, big-endian; the name has a NUL behind it.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct DirectoryEntry {
    bytes: U32,
    key: U16,
    reserved: [u8; 2],
    name: [u8; NAME_MAX + 1],
}

const _: () = assert!(size_of::<Descriptor>() == 16 && size_of::<DirectoryEntry>() == 64);

fn check(name: &str, bytes: usize) -> Result<(), FileError> {
    let printable = name.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    if name.is_empty() || name.len() > NAME_MAX || !printable {
        return Err(FileError::BadName(name.into()));
    }
    if u32::try_from(bytes).is_err() {
        return Err(FileError::TooLarge(name.into()));
    }
    Ok(())
}

/// The list of files: their number, big-endian, and an entry for each.
fn directory(files: &BTreeMap<String, Arc<[u8]>>) -> Arc<[u8]> {
    let mut out = Vec::new();
    out.extend(U32::new(saturated(files.len())).as_bytes());
    for (key, (name, contents)) in (KEY_FIRST_FILE..).zip(files) {
        let mut entry = DirectoryEntry {
            bytes: saturated(contents.len()).into(),
            key: key.into(),
            reserved: [0; 2],
            name: [0; NAME_MAX + 1],
        };
        for (to, from) in entry.name.iter_mut().zip(name.bytes()) {
            *to = from;
        }
        out.extend(entry.as_bytes());
    }
    out.into()
}

/// A length or number in 32 bits; [`check`] has refused what needs more.
fn saturated(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

impl PortDevice for FwCfg {
    fn read(&mut self, offset: u16, size: AccessSize) -> u64 {
        match (offset, size) {
            (DATA, AccessSize::Byte) => self.next_byte().into(),
            (DMA_HIGH, AccessSize::Double) => u32::from_le_bytes(DMA_SIGNATURE[0]).into(),
            (DMA_LOW, AccessSize::Double) => u32::from_le_bytes(DMA_SIGNATURE[1]).into(),
            _ => size.all_ones(),
        }
    }

    fn write(
        &mut self,
        offset: u16,
        size: AccessSize,
        value: u64,
        memory: &dyn SharedMemory,
    ) -> DeviceRequest {
        match (offset, size) {
            (SELECTOR, AccessSize::Word) => self.select(low::word(value)),
            (DMA_HIGH, AccessSize::Double) => self.dma_high = low::double(value).swap_bytes(),
            (DMA_LOW, AccessSize::Double) => {
                let high = core::mem::take(&mut self.dma_high);
                self.transfer(u64::from(high) << 32 | u64::from(low::double(value).swap_bytes()), memory);
            }
            _ => {}
        }
        DeviceRequest::None
    }

    /// The items are whoever's makes the device again: which of them is selected, how far it is read, and half an address.
    fn save(&self) -> Option<Vec<u64>> {
        let Self { items, selected, offset, dma_high, shared_bit: _ } = self;
        let key = items.iter().find(|(_, item)| Arc::ptr_eq(item, selected)).map(|(key, _)| *key);
        if key.is_none() && !selected.is_empty() {
            return None;
        }
        let key = key.map_or(NOTHING_SELECTED, u64::from);
        Some(alloc::vec![key, u64::try_from(*offset).ok()?, (*dma_high).into()])
    }

    fn restore(&mut self, saved: &[u64]) -> Result<(), BadState> {
        let [key, offset, dma_high] = numbers(saved)?;
        let (offset, dma_high) = (narrow(offset)?, narrow(dma_high)?);
        let selected = match key {
            NOTHING_SELECTED => Arc::from([]),
            key => self.items.get(&narrow(key)?).cloned().ok_or(BadState)?,
        };
        (self.selected, self.offset, self.dma_high) = (selected, offset, dma_high);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
