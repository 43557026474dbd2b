//! The TD HOB: what the loader tells the guest's firmware about its memory.
//!
//! A list of hand-off blocks (UEFI PI specification, volume 3): one PHIT, one resource descriptor per
//! memory range, optionally GUID extensions, and an end marker. The list is written into the TD_HOB section,
//! which is not measured, so a guest must check what it reads. Memory that the loader added is resource
//! type 0 (system memory), memory that the guest still has to accept is type 7 (unaccepted).

use alloc::vec::Vec;
use core::fmt;

use base::Gpa;

const TYPE_PHIT: u16 = 1;
const TYPE_RESOURCE: u16 = 3;
const TYPE_GUID_EXTENSION: u16 = 4;
const TYPE_END: u16 = 0xffff;

const PHIT_BYTES: usize = 56;
const RESOURCE_BYTES: usize = 48;
const END_BYTES: usize = 8;
const PHIT_VERSION: u32 = 9;

/// PRESENT, INITIALIZED, TESTED.
const RESOURCE_ATTRIBUTES: u32 = 7;

/// Whether the loader has added a range or leaves it to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HobMemory {
    /// Added at build time: the guest may use it at once.
    Accepted,
    /// The guest has to accept it first.
    Unaccepted,
}

impl HobMemory {
    const fn resource_type(self) -> u32 {
        match self {
            Self::Accepted => 0,
            Self::Unaccepted => 7,
        }
    }
}

/// The section is too small for the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HobTooLarge {
    /// Bytes that the list needs.
    pub needed: usize,
    /// Bytes that the section has.
    pub available: usize,
}

impl fmt::Display for HobTooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the TD HOB needs {} bytes, its section has {}", self.needed, self.available)
    }
}

impl core::error::Error for HobTooLarge {}

/// Writes one list.
#[derive(Debug)]
pub struct HobList {
    bytes: Vec<u8>,
}

impl Default for HobList {
    fn default() -> Self {
        Self::new()
    }
}

impl HobList {
    /// A list with nothing but its PHIT, which [`finish`](Self::finish) completes.
    pub fn new() -> Self {
        let mut bytes = Vec::with_capacity(512);
        header(&mut bytes, TYPE_PHIT, PHIT_BYTES);
        bytes.extend_from_slice(&PHIT_VERSION.to_le_bytes());
        bytes.resize(PHIT_BYTES, 0);
        Self { bytes }
    }

    /// Adds a range of memory.
    pub fn memory(&mut self, kind: HobMemory, base: Gpa, bytes: u64) {
        header(&mut self.bytes, TYPE_RESOURCE, RESOURCE_BYTES);
        self.bytes.extend_from_slice(&[0; 16]);
        self.bytes.extend_from_slice(&kind.resource_type().to_le_bytes());
        self.bytes.extend_from_slice(&RESOURCE_ATTRIBUTES.to_le_bytes());
        self.bytes.extend_from_slice(&base.get().to_le_bytes());
        self.bytes.extend_from_slice(&bytes.to_le_bytes());
    }

    /// Adds data under a GUID (in the byte order of memory), padded to 8 bytes. Data beyond 60 KiB is cut,
    /// since a block's length field has 16 bits.
    pub fn guid_extension(&mut self, guid: [u8; 16], data: &[u8]) {
        let data = data.get(..60 << 10).unwrap_or(data);
        let length = (24 + data.len()).next_multiple_of(8);
        let start = self.bytes.len();
        header(&mut self.bytes, TYPE_GUID_EXTENSION, length);
        self.bytes.extend_from_slice(&guid);
        self.bytes.extend_from_slice(data);
        self.bytes.resize(start + length, 0);
    }

    /// The finished list for a section of `available` bytes at `base`.
    ///
    /// # Errors
    /// [`HobTooLarge`].
    pub fn finish(mut self, base: Gpa, available: usize) -> Result<Vec<u8>, HobTooLarge> {
        header(&mut self.bytes, TYPE_END, END_BYTES);
        let needed = self.bytes.len();
        if needed > available {
            return Err(HobTooLarge { needed, available });
        }
        // PHIT: the list ends where its END block ends (EfiEndOfHobList at offset 48).
        let end = base.wrapping_add(needed as u64).get();
        if let Some(field) = self.bytes.get_mut(48..56) {
            field.copy_from_slice(&end.to_le_bytes());
        }
        Ok(self.bytes)
    }
}

fn header(bytes: &mut Vec<u8>, kind: u16, length: usize) {
    bytes.extend_from_slice(&kind.to_le_bytes());
    bytes.extend_from_slice(&(length as u16).to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_a_chain_of_lengths_that_ends_where_the_phit_says() {
        let mut list = HobList::new();
        list.memory(HobMemory::Accepted, Gpa::new(0x1000), 0x2000);
        list.memory(HobMemory::Unaccepted, Gpa::new(0x10_0000), 0x100_0000);
        list.guid_extension([7; 16], b"quote");
        let base = Gpa::new(0x80_9000);
        let bytes = list.finish(base, 4096).unwrap();
        let mut at = 0;
        let mut kinds = Vec::new();
        while at < bytes.len() {
            let kind = u16::from_le_bytes([bytes[at], bytes[at + 1]]);
            let length = u16::from_le_bytes([bytes[at + 2], bytes[at + 3]]) as usize;
            assert_eq!(length % 8, 0);
            kinds.push(kind);
            at += length;
        }
        assert_eq!(kinds, [TYPE_PHIT, TYPE_RESOURCE, TYPE_RESOURCE, TYPE_GUID_EXTENSION, TYPE_END]);
        let end = u64::from_le_bytes(bytes[48..56].try_into().unwrap());
        assert_eq!(end, base.get() + bytes.len() as u64);
        assert_eq!(&bytes[56 + 24..56 + 28], &0u32.to_le_bytes(), "accepted memory is type 0");
    }

    #[test]
    fn a_list_larger_than_its_section_is_refused() {
        let error = HobList::new().finish(Gpa::new(0), 32).unwrap_err();
        assert_eq!(error, HobTooLarge { needed: 64, available: 32 });
    }
}
