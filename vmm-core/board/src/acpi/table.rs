//! An area that fills with tables, each with the header that all tables have.

/// The area is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

impl core::fmt::Display for NoRoom {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the ACPI tables do not fit their place")
    }
}

impl core::error::Error for NoRoom {}

/// What has to change where tables are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fixup {
    /// `bytes` bytes at offset `at` are an address in the area, little-endian.
    Pointer {
        /// Offset of the address.
        at: usize,
        /// The size of the address: 4 or 8 bytes.
        bytes: u8,
    },
    /// A table lies from `start`, and its checksum covers `length` bytes.
    Table {
        /// Offset of the table.
        start: usize,
        /// Bytes of the table.
        length: usize,
    },
}

/// Who makes the tables.
pub(super) const OEM_ID: [u8; 6] = *b"TDVISR";
const OEM_TABLE_ID: [u8; 8] = *b"TDVBOARD";
const CREATOR: [u8; 4] = *b"TDVI";
const HEADER_LENGTH: usize = 36;
const LENGTH_OFFSET: usize = 4;
/// Offset of a table's checksum.
pub const CHECKSUM_OFFSET: usize = 9;
const ALIGNMENT: u64 = 16;

/// The byte that makes the sum of `bytes`, which has zero in that byte's place, zero.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte))
}

/// Memory for tables.
pub struct Area<'a> {
    bytes: &'a mut [u8],
    base: u64,
    used: usize,
    fixups: &'a mut dyn FnMut(Fixup),
}

impl core::fmt::Debug for Area<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Area").field("base", &self.base).field("used", &self.used).finish_non_exhaustive()
    }
}

impl<'a> Area<'a> {
    /// An area at GPA `base`; `fixups` hears what has to change where the tables are moved afterwards.
    pub fn new(bytes: &'a mut [u8], base: u64, fixups: &'a mut dyn FnMut(Fixup)) -> Self {
        Self { bytes, base, used: 0, fixups }
    }

    /// Adds a table whose body `fill` writes, and gives its GPA.
    pub(super) fn table(
        &mut self,
        signature: &[u8; 4],
        revision: u8,
        fill: impl FnOnce(&mut Self) -> Result<(), NoRoom>,
    ) -> Result<u64, NoRoom> {
        let address = self.align(ALIGNMENT)?;
        let start = self.used;
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
        let length = self.used - start;
        let of_header = u32::try_from(length).map_err(|_| NoRoom)?;
        self.put(start + LENGTH_OFFSET, &of_header.to_le_bytes())?;
        let sum = checksum(self.bytes.get(start..self.used).ok_or(NoRoom)?);
        self.put(start + CHECKSUM_OFFSET, &[sum])?;
        (self.fixups)(Fixup::Table { start, length });
        Ok(address)
    }

    /// Goes on at the next GPA that is a multiple of this, and gives it.
    pub(super) fn align(&mut self, alignment: u64) -> Result<u64, NoRoom> {
        let next = self.base.wrapping_add(self.used as u64);
        let aligned = next.checked_next_multiple_of(alignment).ok_or(NoRoom)?;
        self.used += usize::try_from(aligned - next).map_err(|_| NoRoom)?;
        Ok(aligned)
    }

    /// Appends bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), NoRoom> {
        let at = self.used;
        self.put(at, bytes)?;
        self.used += bytes.len();
        Ok(())
    }

    /// Appends the address of a table of this area, in eight bytes.
    pub(super) fn push_address(&mut self, address: u64) -> Result<(), NoRoom> {
        (self.fixups)(Fixup::Pointer { at: self.used, bytes: 8 });
        self.push(&address.to_le_bytes())
    }

    /// Appends the address of a table of this area, in four bytes.
    pub(super) fn push_short_address(&mut self, address: u64) -> Result<(), NoRoom> {
        (self.fixups)(Fixup::Pointer { at: self.used, bytes: 4 });
        self.push(&u32::try_from(address).map_err(|_| NoRoom)?.to_le_bytes())
    }

    /// Appends zeros until so many bytes follow `start`.
    pub(super) fn pad(&mut self, start: usize, bytes: usize) -> Result<(), NoRoom> {
        let end = start + bytes;
        self.bytes.get_mut(self.used..end).ok_or(NoRoom)?.fill(0);
        self.used = end;
        Ok(())
    }

    /// Writes at an offset.
    pub(super) fn put(&mut self, at: usize, value: &[u8]) -> Result<(), NoRoom> {
        let end = at.checked_add(value.len()).ok_or(NoRoom)?;
        self.bytes.get_mut(at..end).ok_or(NoRoom)?.copy_from_slice(value);
        Ok(())
    }

    /// Where the next byte goes.
    #[must_use]
    pub const fn used(&self) -> usize {
        self.used
    }
}
