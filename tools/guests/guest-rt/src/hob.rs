//! Reading the TD HOB: what memory there is, and the command for this guest.
//!
//! The host writes the list, so nothing in it is believed beyond its bounds: every length is checked against the
//! bytes that are left, the number of ranges is capped, and ranges are cut to whole pages below [`ADDRESS_LIMIT`].
//! Only memory to be accepted counts: that a range is memory already is nothing that a host may say.
//! Formats: UEFI Platform Initialization specification, volume 3 (HOB); resource type 7 is "unaccepted memory".
//!
//! This file uses `core` and `heapless` only, so that the host-side tests can include it.

use heapless::{CapacityError, Vec};

/// Marks the GUID extension HOB that carries a command: 1f125834-4e85-407c-a7db-af170eae8df7.
pub const COMMAND_GUID: [u8; 16] =
    [0x34, 0x58, 0x12, 0x1f, 0x85, 0x4e, 0x7c, 0x40, 0xa7, 0xdb, 0xaf, 0x17, 0x0e, 0xae, 0x8d, 0xf7];
/// Longest command, bytes; the rest of a longer one is not read.
pub const MAX_COMMAND: usize = 128;
/// Most ranges of unaccepted memory that are kept; further ones stay unused.
pub const MAX_RANGES: usize = 32;
/// Private memory lies below this address in every TD: with a GPA width of 48 the SHARED bit is bit 47.
pub const ADDRESS_LIMIT: u64 = 1 << 47;

const TYPE_HANDOFF: u16 = 0x0001;
const TYPE_RESOURCE: u16 = 0x0003;
const TYPE_GUID: u16 = 0x0004;
const TYPE_END: u16 = 0xFFFF;
const HEADER: usize = 8;
const GUID: usize = 16;
const RESOURCE_LENGTH: usize = 48;
const RESOURCE_UNACCEPTED: u32 = 7;
const PAGE: u64 = 4096;

/// Why a list cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HobError {
    /// The first entry is not the hand-off information.
    NoHandOff,
    /// An entry is shorter than its kind, no multiple of eight, or longer than what is left.
    BadLength {
        /// Offset of the entry from the start of the list, bytes.
        offset: usize,
    },
    /// The list ends without an end entry.
    NoEnd,
}

/// A range of guest-physical memory, `start..end`, whole 4K pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub start: u64,
    /// First byte after the range.
    pub end: u64,
}

/// What the list says, copied out of it.
#[derive(Clone, Debug)]
pub struct Hob {
    ranges: Vec<Range, MAX_RANGES>,
    command: Vec<u8, MAX_COMMAND>,
    length: usize,
}

impl Hob {
    /// Reads a list that starts at the first byte of `bytes`.
    ///
    /// # Errors
    /// [`HobError`] when the list is not well formed.
    pub fn parse(bytes: &[u8]) -> Result<Self, HobError> {
        let mut hob = Self { ranges: Vec::new(), command: Vec::new(), length: 0 };
        let mut offset = 0;
        loop {
            let rest = bytes.get(offset..).unwrap_or_default();
            let (Some(kind), Some(length)) = (read_u16(rest, 0), read_u16(rest, 2)) else {
                return Err(HobError::NoEnd);
            };
            if offset == 0 && kind != TYPE_HANDOFF {
                return Err(HobError::NoHandOff);
            }
            let length = usize::from(length);
            let entry = match rest.get(..length) {
                Some(entry) if length >= HEADER && length.is_multiple_of(8) => entry,
                _ => return Err(HobError::BadLength { offset }),
            };
            match kind {
                TYPE_END => {
                    hob.length = offset + length;
                    return Ok(hob);
                }
                TYPE_RESOURCE => hob.add_resource(entry).ok_or(HobError::BadLength { offset })?,
                TYPE_GUID => hob.add_guid(entry).ok_or(HobError::BadLength { offset })?,
                _ => {}
            }
            offset += length;
        }
    }

    /// Memory that the guest must accept before use, in the order of the list.
    pub fn unaccepted(&self) -> &[Range] {
        &self.ranges
    }

    /// Bytes of the list, the end entry included.
    pub fn length(&self) -> usize {
        self.length
    }

    /// The command, without the padding; empty when there is none or it is not ASCII text.
    pub fn command(&self) -> &str {
        match core::str::from_utf8(&self.command) {
            Ok(text) if text.is_ascii() => text.trim(),
            _ => "",
        }
    }

    fn add_resource(&mut self, entry: &[u8]) -> Option<()> {
        if entry.len() < RESOURCE_LENGTH {
            return None;
        }
        let kind = read_u32(entry, 24)?;
        let start = read_u64(entry, 32)?;
        let end = start.saturating_add(read_u64(entry, 40)?).min(ADDRESS_LIMIT) & !(PAGE - 1);
        let start = start.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX);
        if kind == RESOURCE_UNACCEPTED && start < end {
            // What finds no room stays unused.
            let _ = self.ranges.push(Range { start, end });
        }
        Some(())
    }

    fn add_guid(&mut self, entry: &[u8]) -> Option<()> {
        let guid = entry.get(HEADER..HEADER + GUID)?;
        let data = entry.get(HEADER + GUID..)?;
        if guid == COMMAND_GUID {
            let text = data.split(|byte| *byte == 0).next().unwrap_or_default();
            self.command.clear();
            let _: Result<(), CapacityError> =
                self.command.extend_from_slice(text.get(..MAX_COMMAND).unwrap_or(text));
        }
        Some(())
    }
}

fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn read_u64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
