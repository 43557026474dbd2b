//! The CCEL ACPI table: where a confidential guest's event log is.
//!
//! 56 bytes (ACPI 6.5, "CC Event Log ACPI Table"): the usual table header, the kind of TEE, and length and
//! address of the log area.

use core::fmt;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Kind of TEE; unknown numbers are kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CcType(pub u8);

impl CcType {
    /// AMD SEV.
    pub const SEV: Self = Self(1);
    /// Intel TDX.
    pub const TDX: Self = Self(2);
}

impl fmt::Display for CcType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::SEV => f.write_str("SEV"),
            Self::TDX => f.write_str("TDX"),
            Self(other) => write!(f, "TEE type {other}"),
        }
    }
}

impl fmt::Debug for CcType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A guest-physical address as an ACPI table has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogAddress(pub u64);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw {
    signature: [u8; 4],
    length: U32,
    revision: u8,
    checksum: u8,
    oem_id: [u8; 6],
    oem_table_id: [u8; 8],
    oem_revision: U32,
    creator_id: [u8; 4],
    creator_revision: U32,
    cc_type: u8,
    cc_subtype: u8,
    reserved: U16,
    log_area_minimum_length: U64,
    log_area_start_address: U64,
}

const BYTES: usize = size_of::<Raw>();
const _: () = assert!(BYTES == 56);

/// A CCEL table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ccel {
    /// Revision of the table.
    pub revision: u8,
    /// Who made the table.
    pub oem_id: [u8; 6],
    /// Kind of TEE.
    pub cc_type: CcType,
    /// Kind of TEE within its type; 0 for TDX.
    pub cc_subtype: u8,
    /// Bytes of the log area.
    pub log_area_bytes: u64,
    /// Where the log area begins.
    pub log_area: LogAddress,
    /// Whether the table's bytes sum to zero, as those of every ACPI table should.
    pub checksum_holds: bool,
}

/// Why bytes are not a CCEL table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CcelError {
    /// Fewer bytes than a table.
    Truncated {
        /// Bytes given.
        size: usize,
    },
    /// The bytes are an ACPI table with another signature.
    Signature([u8; 4]),
    /// A declared length that is less than a table or more than what was given.
    Length {
        /// The declared length.
        declared: u32,
        /// Bytes given.
        size: usize,
    },
}

impl fmt::Display for CcelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { size } => write!(f, "{size} bytes are too few for a CCEL table ({BYTES})"),
            Self::Signature(found) => {
                write!(f, "not a CCEL table but \"{}\"", crate::eventlog::Printable(found))
            }
            Self::Length { declared, size } => {
                write!(f, "the CCEL table declares {declared} bytes; it has {BYTES}, and {size} are here")
            }
        }
    }
}

impl core::error::Error for CcelError {}

impl Ccel {
    /// Reads a table; bytes behind its declared length are ignored.
    ///
    /// # Errors
    /// [`CcelError`]. A wrong checksum is no error: see [`Self::checksum_holds`].
    pub fn parse(bytes: &[u8]) -> Result<Self, CcelError> {
        let (raw, _) = Raw::ref_from_prefix(bytes).map_err(|_| CcelError::Truncated { size: bytes.len() })?;
        if raw.signature != *b"CCEL" {
            return Err(CcelError::Signature(raw.signature));
        }
        let declared = raw.length.get();
        let table = usize::try_from(declared).ok().filter(|length| *length >= BYTES);
        let table = table.and_then(|length| bytes.get(..length));
        let table = table.ok_or(CcelError::Length { declared, size: bytes.len() })?;
        Ok(Self {
            revision: raw.revision,
            oem_id: raw.oem_id,
            cc_type: CcType(raw.cc_type),
            cc_subtype: raw.cc_subtype,
            log_area_bytes: raw.log_area_minimum_length.get(),
            log_area: LogAddress(raw.log_area_start_address.get()),
            checksum_holds: table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)) == 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..4].copy_from_slice(b"CCEL");
        bytes[4] = BYTES as u8;
        bytes[36] = 2;
        bytes[41] = 0x10;
        bytes[50] = 0x40;
        bytes[9] = 0u8.wrapping_sub(bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte)));
        bytes
    }

    #[test]
    fn a_table_says_where_the_log_is() {
        let ccel = Ccel::parse(&table()).unwrap();
        assert_eq!((ccel.cc_type, ccel.log_area_bytes), (CcType::TDX, 0x1000));
        assert_eq!(ccel.log_area, LogAddress(0x40_0000));
        assert!(ccel.checksum_holds);
    }

    #[test]
    fn a_wrong_checksum_is_told_and_a_wrong_length_refused() {
        let mut bytes = table();
        bytes[37] = 1;
        assert!(!Ccel::parse(&bytes).unwrap().checksum_holds);
        for declared in [0u8, 55, 57] {
            bytes[4] = declared;
            let error = CcelError::Length { declared: u32::from(declared), size: BYTES };
            assert_eq!(Ccel::parse(&bytes), Err(error));
        }
        bytes[0] = b'X';
        assert_eq!(Ccel::parse(&bytes), Err(CcelError::Signature(*b"XCEL")));
        assert_eq!(Ccel::parse(&bytes[..55]), Err(CcelError::Truncated { size: 55 }));
    }
}
