//! `fw_cfg`: how a machine hands files to its firmware, as QEMU's machines do.
//!
//! # Protocol
//! The guest selects an item by its key and reads it from its start, byte by byte at the data register or as a
//! whole through a DMA descriptor in its memory. Item [`KEY_FILE_DIR`] lists the files with their keys and
//! sizes. A read beyond the end of an item, and of an item that does not exist, gives zeros.
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
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use super::{AccessSize, DeviceRequest, PortDevice, SharedBit, SharedMemory};

/// The first port.
pub const FW_CFG_BASE: u16 = 0x510;
/// Ports from the first to the last.
pub const FW_CFG_PORTS: u16 = 12;

/// The item "QEMU": how a guest finds out that there is a `fw_cfg`.
pub const KEY_SIGNATURE: u16 = 0x0000;
/// The item of four bytes, little-endian: bit 0 the registers, bit 1 DMA.
pub const KEY_FEATURES: u16 = 0x0001;
/// The item that lists the files.
pub const KEY_FILE_DIR: u16 = 0x0019;
/// The key of the first file; the others follow.
pub const KEY_FIRST_FILE: u16 = 0x0020;

/// Bytes of a file's name at most; the directory has room for these and a NUL.
pub const NAME_MAX: usize = 55;
/// Files at most.
pub const FILES_MAX: usize = 1024;

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
        let at = self.shared_bit.strip(at);
        let mut bytes = [0; Descriptor::BYTES];
        let outcome = match memory.read(at, &mut bytes) {
            Ok(()) => self.carry_out(Descriptor::parse(bytes), memory),
            Err(_) => Err(Refused),
        };
        let control = if outcome.is_ok() { 0 } else { control::ERROR };
        // A descriptor that cannot be written to has nobody who looks at it.
        let _ = memory.write(at, &control.to_be_bytes());
    }

    fn carry_out(&mut self, descriptor: Descriptor, memory: &dyn SharedMemory) -> Result<(), Refused> {
        let Descriptor { control, length, address } = descriptor;
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
        let mut at = self.shared_bit.strip(address);
        at.checked_add(length.into()).ok_or(Refused)?;
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

/// What a guest wants moved.
#[derive(Clone, Copy, Debug)]
struct Descriptor {
    control: u32,
    length: u32,
    address: u64,
}

impl Descriptor {
    const BYTES: usize = 16;

    fn parse(bytes: [u8; Self::BYTES]) -> Self {
        let value = u128::from_be_bytes(bytes);
        Self { control: (value >> 96) as u32, length: (value >> 64) as u32, address: value as u64 }
    }
}

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

/// The list of files: their number (u32), and for each its size (u32), key (u16), two bytes reserved and its
/// name in 56 bytes, all big-endian.
fn directory(files: &BTreeMap<String, Arc<[u8]>>) -> Arc<[u8]> {
    let mut out = Vec::new();
    out.extend((files.len() as u32).to_be_bytes());
    for (key, (name, contents)) in (KEY_FIRST_FILE..).zip(files) {
        out.extend((contents.len() as u32).to_be_bytes());
        out.extend(key.to_be_bytes());
        out.extend([0; 2]);
        let mut field = [0; NAME_MAX + 1];
        for (to, from) in field.iter_mut().zip(name.bytes()) {
            *to = from;
        }
        out.extend(field);
    }
    out.into()
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
            (SELECTOR, AccessSize::Word) => self.select(value as u16),
            (DMA_HIGH, AccessSize::Double) => self.dma_high = (value as u32).swap_bytes(),
            (DMA_LOW, AccessSize::Double) => {
                let high = core::mem::take(&mut self.dma_high);
                self.transfer(u64::from(high) << 32 | u64::from((value as u32).swap_bytes()), memory);
            }
            _ => {}
        }
        DeviceRequest::None
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::devices::NoMemory;
    use crate::devices::test_memory::TestMemory;

    const BASE: u64 = 0x10_0000;
    const BUFFER: u64 = BASE + 0x1000;
    const SHARED: u64 = 1 << 47;

    fn device() -> FwCfg {
        let file = |name: &str, contents: &[u8]| (String::from(name), Arc::from(contents));
        let large: Vec<u8> = (0..200_000u32).map(|at| at as u8).collect();
        let files = [file("opt/b", b"bee"), file("opt/a", &large), file("opt/empty", b"")];
        FwCfg::new(files, SharedBit::new(SHARED)).unwrap()
    }

    fn memory() -> TestMemory {
        TestMemory::new(BASE, 0x40_0000)
    }

    fn select(device: &mut FwCfg, key: u16) {
        let _ = device.write(SELECTOR, AccessSize::Word, key.into(), &NoMemory);
    }

    fn bytes(device: &mut FwCfg, count: usize) -> Vec<u8> {
        (0..count).map(|_| device.read(DATA, AccessSize::Byte) as u8).collect()
    }

    /// Puts a descriptor at `at`, starts it, and gives its control word afterwards.
    fn dma(device: &mut FwCfg, memory: &TestMemory, control: u32, length: u32, address: u64) -> u32 {
        memory.put(BASE, &control.to_be_bytes());
        memory.put(BASE + 4, &length.to_be_bytes());
        memory.put(BASE + 8, &address.to_be_bytes());
        start(device, memory, BASE | SHARED);
        u32::from_be_bytes(memory.get(BASE))
    }

    fn start(device: &mut FwCfg, memory: &dyn SharedMemory, at: u64) {
        let half = |value: u64| u64::from((value as u32).swap_bytes());
        let _ = device.write(DMA_HIGH, AccessSize::Double, half(at >> 32), memory);
        let _ = device.write(DMA_LOW, AccessSize::Double, half(at), memory);
    }

    #[test]
    fn a_guest_finds_the_device_by_its_signature_and_its_features() {
        let mut device = device();
        assert_eq!(bytes(&mut device, 6), b"QEMU\0\0", "selected at reset");
        select(&mut device, KEY_FEATURES);
        assert_eq!(bytes(&mut device, 4), [3, 0, 0, 0]);
        assert_eq!(device.read(DMA_HIGH, AccessSize::Double) as u32, u32::from_le_bytes(*b"QEMU"));
        assert_eq!(device.read(DMA_LOW, AccessSize::Double) as u32, u32::from_le_bytes(*b" CFG"));
    }

    #[test]
    fn the_directory_lists_files_by_name_with_size_and_key() {
        let mut device = device();
        select(&mut device, KEY_FILE_DIR);
        assert_eq!(bytes(&mut device, 4), [0, 0, 0, 3]);
        for (index, (name, size)) in
            [("opt/a", 200_000u32), ("opt/b", 3), ("opt/empty", 0)].iter().enumerate()
        {
            let entry = bytes(&mut device, 64);
            assert_eq!(entry[..4], size.to_be_bytes());
            assert_eq!(entry[4..8], [0, 0x20 + index as u8, 0, 0]);
            assert_eq!(&entry[8..8 + name.len()], name.as_bytes());
            assert!(entry[8 + name.len()..].iter().all(|byte| *byte == 0));
        }
        assert_eq!(bytes(&mut device, 2), [0, 0], "nothing after the last entry");
    }

    #[test]
    fn an_item_is_read_from_its_start_after_each_selection_and_zeros_follow_it() {
        let mut device = device();
        for _ in 0..2 {
            select(&mut device, 0x21);
            assert_eq!(bytes(&mut device, 5), b"bee\0\0");
        }
        for nothing in [0x23, 0x02, 0x8021, 0xffff] {
            select(&mut device, nothing);
            assert_eq!(bytes(&mut device, 2), [0, 0], "key {nothing:#x}");
        }
        select(&mut device, 0x4021);
        assert_eq!(bytes(&mut device, 3), b"bee", "the write channel's bit selects nothing else");
    }

    #[test]
    fn a_transfer_selects_and_copies_a_whole_file_and_clears_the_control_word() {
        let (mut device, memory) = (device(), memory());
        let select_a = 0x20 << 16 | control::SELECT | control::READ;
        for address in [BUFFER, BUFFER | SHARED] {
            memory.put(BUFFER, &vec![0xaa; 200_001]);
            assert_eq!(dma(&mut device, &memory, select_a, 200_000, address), 0);
            let copied: [u8; 200_001] = memory.get(BUFFER);
            assert!(copied[..200_000].iter().zip(0u32..).all(|(byte, at)| *byte == at as u8));
            assert_eq!(copied[200_000], 0xaa, "not a byte more");
        }
    }

    #[test]
    fn a_transfer_goes_on_where_the_last_one_or_a_skip_ended() {
        let (mut device, memory) = (device(), memory());
        assert_eq!(dma(&mut device, &memory, 0x20 << 16 | control::SELECT | control::SKIP, 0x1_0001, 0), 0);
        assert_eq!(dma(&mut device, &memory, control::READ, 2, BUFFER), 0);
        assert_eq!(memory.get(BUFFER), [1, 2]);
        assert_eq!(device.read(DATA, AccessSize::Byte), 3, "registers and DMA share one offset");
        assert_eq!(dma(&mut device, &memory, control::SKIP, u32::MAX, 0), 0);
        assert_eq!(dma(&mut device, &memory, control::READ, 2, BUFFER), 0);
        assert_eq!(memory.get(BUFFER), [0, 0], "a skip stops at the end");
    }

    #[test]
    fn a_transfer_longer_than_the_item_is_filled_with_zeros() {
        let (mut device, memory) = (device(), memory());
        memory.put(BUFFER, &[0xaa; 0x3001]);
        let read_b = 0x21 << 16 | control::SELECT | control::READ;
        assert_eq!(dma(&mut device, &memory, read_b, 0x3000, BUFFER), 0);
        let copied: [u8; 0x3001] = memory.get(BUFFER);
        assert_eq!(&copied[..3], b"bee");
        assert!(copied[3..0x3000].iter().all(|byte| *byte == 0));
        assert_eq!(copied[0x3000], 0xaa);
        let nothing = 0x7777 << 16 | control::SELECT | control::READ;
        assert_eq!(dma(&mut device, &memory, nothing, 2, BUFFER + 0x3000), 0);
        assert_eq!(memory.get(BUFFER + 0x3000), [0, 0], "an item that does not exist is empty");
    }

    #[test]
    fn a_transfer_to_memory_that_is_not_shared_ends_there_with_the_error_bit() {
        let (mut device, memory) = (device(), memory());
        let end = BASE + 0x40_0000;
        let read_a = 0x20 << 16 | control::SELECT | control::READ;
        for address in [end, end - 0x1000, BASE - 1, u64::MAX, u64::MAX - 100, 1 << 46] {
            assert_eq!(dma(&mut device, &memory, read_a, 0x2000, address), control::ERROR, "{address:#x}");
        }
        assert_eq!(memory.get(end - 2), [0xfe, 0xff], "what precedes the bad page was written");
        memory.take_moved();
        assert_eq!(dma(&mut device, &memory, read_a, u32::MAX, end - 0x1000), control::ERROR);
        assert!(memory.take_moved() < 0x1100, "no work beyond the first bad page");
    }

    #[test]
    fn a_descriptor_that_is_not_shared_is_no_transfer() {
        let (mut device, memory) = (device(), memory());
        start(&mut device, &memory, BASE - 8);
        start(&mut device, &memory, u64::MAX);
        start(&mut device, &NoMemory, BASE);
        let last = BASE + 0x40_0000 - 8;
        start(&mut device, &memory, last);
        assert_eq!(memory.get(last), control::ERROR.to_be_bytes(), "half a descriptor is an error");
    }

    #[test]
    fn nothing_can_be_written_to_an_item() {
        let (mut device, memory) = (device(), memory());
        let write_b = 0x21 << 16 | control::SELECT | control::WRITE;
        assert_eq!(dma(&mut device, &memory, write_b, 3, BUFFER), control::ERROR);
        let _ = device.write(DATA, AccessSize::Byte, 0xff, &memory);
        assert_eq!(bytes(&mut device, 3), b"bee");
    }

    #[test]
    fn the_high_half_of_the_dma_address_holds_for_one_transfer() {
        let (mut device, memory) = (device(), memory());
        assert_eq!(dma(&mut device, &memory, 0, 0, 0), 0);
        memory.put(BASE, &0xdead_0000u32.to_be_bytes());
        let _ = device.write(DMA_LOW, AccessSize::Double, u64::from((BASE as u32).swap_bytes()), &memory);
        assert_eq!(memory.get(BASE), [0; 4], "the high half was zero again");
    }

    #[test]
    fn accesses_of_another_size_reach_nothing() {
        let mut device = device();
        assert_eq!(device.read(DATA, AccessSize::Word), 0xffff);
        assert_eq!(device.read(SELECTOR, AccessSize::Byte), 0xff);
        let _ = device.write(SELECTOR, AccessSize::Byte, 0x21, &NoMemory);
        assert_eq!(bytes(&mut device, 4), b"QEMU");
    }

    #[test]
    fn files_that_the_directory_cannot_say_are_refused() {
        let bit = SharedBit::new(SHARED);
        let make = |names: &[&str]| {
            FwCfg::new(names.iter().map(|name| (String::from(*name), Arc::from([]))), bit).err()
        };
        let longest = "x".repeat(55);
        assert_eq!(make(&[&longest]), None);
        for bad in ["", "a\0b", "ä", &"x".repeat(56)] {
            assert_eq!(make(&[bad]), Some(FileError::BadName(bad.into())));
        }
        assert_eq!(make(&["a", "b", "a"]), Some(FileError::Duplicate("a".into())));
        let many: Vec<String> = (0..=FILES_MAX).map(|index| index.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(make(&many), Some(FileError::TooMany));
        assert_eq!(make(many.get(1..).unwrap()), None);
    }
}
