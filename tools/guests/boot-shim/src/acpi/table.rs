//! An area that fills with tables, each with the header that all tables have.

use crate::bytes::put;

/// The area is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

pub const OEM_ID: [u8; 6] = *b"TDVISR";
const OEM_TABLE_ID: [u8; 8] = *b"BOOTSHIM";
const CREATOR: [u8; 4] = *b"TDVI";
const HEADER_LENGTH: usize = 36;
const LENGTH_OFFSET: usize = 4;
const CHECKSUM_OFFSET: usize = 9;
const ALIGNMENT: usize = 16;

/// The byte that makes the sum of `bytes`, which has zero in that byte's place, zero.
pub fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte))
}

/// Memory for tables.
#[derive(Debug)]
pub struct Area<'a> {
    bytes: &'a mut [u8],
    base: u64,
    used: usize,
}

impl<'a> Area<'a> {
    pub fn new(bytes: &'a mut [u8], base: u64) -> Self {
        Self { bytes, base, used: 0 }
    }

    /// Sets bytes aside and says at which offset.
    pub fn reserve(&mut self, length: usize) -> Result<usize, NoRoom> {
        let at = self.used.next_multiple_of(ALIGNMENT);
        let end = at.checked_add(length).filter(|end| *end <= self.bytes.len()).ok_or(NoRoom)?;
        self.used = end;
        Ok(at)
    }

    /// Writes at an offset.
    pub fn put(&mut self, at: usize, value: &[u8]) -> Result<(), NoRoom> {
        put(self.bytes, at, value).ok_or(NoRoom)
    }

    /// Adds a table whose body `fill` writes, and gives its GPA.
    pub fn table(
        &mut self,
        signature: &[u8; 4],
        revision: u8,
        fill: impl FnOnce(&mut Self) -> Result<(), NoRoom>,
    ) -> Result<u64, NoRoom> {
        let start = self.reserve(0)?;
        self.push(signature)?;
        self.push(&[0; 4])?;
        self.push(&[revision, 0])?;
        self.push(&OEM_ID)?;
        self.push(&OEM_TABLE_ID)?;
        self.push(&1u32.to_le_bytes())?;
        self.push(&CREATOR)?;
        self.push(&1u32.to_le_bytes())?;
        debug_assert_eq!(self.used, start + HEADER_LENGTH);
        fill(self)?;
        let length = u32::try_from(self.used - start).map_err(|_| NoRoom)?;
        self.put(start + LENGTH_OFFSET, &length.to_le_bytes())?;
        let sum = checksum(self.bytes.get(start..self.used).ok_or(NoRoom)?);
        self.put(start + CHECKSUM_OFFSET, &[sum])?;
        Ok(self.base + start as u64)
    }

    /// Appends bytes.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), NoRoom> {
        put(self.bytes, self.used, bytes).ok_or(NoRoom)?;
        self.used += bytes.len();
        Ok(())
    }

    /// Where the next byte goes.
    pub fn used(&self) -> usize {
        self.used
    }
}
