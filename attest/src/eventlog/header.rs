//! The first entry: TCG_PCClientPCREvent with a TCG_EfiSpecIdEvent.

use core::fmt;

use super::event::{AlgorithmId, EventType, MrIndex};
use crate::bytes::{Cursor, Truncated};

pub(super) const SIGNATURE: [u8; 16] = *b"Spec ID Event03\0";
/// How the ACPI table begins that points to the log.
const ACPI_SIGNATURE: [u8; 4] = *b"CCEL";
/// More algorithms than this are no list.
const MAX_ALGORITHMS: u32 = 16;

/// Why an area does not begin with a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogError {
    /// The area ended inside the header.
    Truncated(Truncated),
    /// Nothing was ever written: the area is empty or filled with one byte.
    Empty,
    /// The first entry is not an EV_NO_ACTION.
    FirstEvent(EventType),
    /// The first entry is not a "Spec ID Event03".
    Signature([u8; 16]),
    /// A list of algorithms beyond any real one.
    Algorithms(u32),
    /// The log has no SHA-384 digests, and nothing else extends an RTMR.
    NoSha384,
    /// The log is indexed by the PCRs of a TPM: an event extends what is no RTMR.
    OfPcrs(MrIndex),
    /// The ACPI table that points to the log, and not the log.
    AcpiTable,
}

impl From<Truncated> for LogError {
    fn from(truncated: Truncated) -> Self {
        Self::Truncated(truncated)
    }
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated(Truncated { offset, needed, left }) => write!(
                f,
                "no event log: its header ends at offset {offset} ({left} bytes where {needed} belong)"
            ),
            Self::Empty => f.write_str("the event log area is empty"),
            Self::FirstEvent(kind) => {
                write!(f, "no event log: it should begin with EV_NO_ACTION, not {kind}")
            }
            Self::Signature(found) => write!(
                f,
                "no event log: it should begin with a \"Spec ID Event03\", not \"{}\"",
                super::Printable(found)
            ),
            Self::NoSha384 => {
                f.write_str("no event log of a TD: it has no SHA-384 digests, which extend RTMRs")
            }
            Self::OfPcrs(MrIndex(index)) => write!(
                f,
                "the event log of a TPM: it extends PCR {index}, and its indices are no measurement registers of a TD"
            ),
            Self::AcpiTable => f.write_str(
                "this is the ACPI table CCEL, which only says where the log lies: dump the log area \
                 (in Linux /sys/firmware/acpi/tables/data/CCEL)",
            ),
            Self::Algorithms(count) => write!(f, "no event log: it declares {count} hash algorithms"),
        }
    }
}

impl core::error::Error for LogError {}

/// One line of the header's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlgorithmSize {
    /// The algorithm.
    pub algorithm: AlgorithmId,
    /// Bytes of its digests.
    pub bytes: u16,
}

/// What the first entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// The header's register index: 1 from OVMF, 0 from td-shim; the header is never extended.
    pub mr: MrIndex,
    /// Platform class; 0 is "client".
    pub platform_class: u32,
    /// Minor version, major version, errata of the specification.
    pub spec_version: [u8; 3],
    /// Size of a UINTN in 32-bit units: 1 or 2.
    pub uintn_size: u8,
    /// Bytes that the firmware's vendor added.
    pub vendor_info: &'a [u8],
    /// Whether the entry's SHA-1 digest is zero, as it should be.
    pub digest_is_zero: bool,
    algorithms: &'a [u8],
    pub(super) end: usize,
}

impl<'a> Header<'a> {
    pub(super) fn parse(area: &'a [u8]) -> Result<Self, LogError> {
        match area.first() {
            None => return Err(LogError::Empty),
            Some(first @ (0 | 0xff)) if area.iter().all(|byte| byte == first) => return Err(LogError::Empty),
            Some(_) => {}
        }
        if area.starts_with(&ACPI_SIGNATURE) {
            return Err(LogError::AcpiTable);
        }
        let mut entry = Cursor::new(area);
        let mr = MrIndex(entry.u32()?);
        let kind = EventType(entry.u32()?);
        if kind != EventType::NO_ACTION {
            return Err(LogError::FirstEvent(kind));
        }
        let digest = entry.array::<20>()?;
        let body = entry.sized_u32()?;
        let mut event = Cursor::new(body);
        let signature = event.array::<16>()?;
        if *signature != SIGNATURE {
            return Err(LogError::Signature(*signature));
        }
        let platform_class = event.u32()?;
        let [minor, major, errata, uintn_size] = *event.array::<4>()?;
        let count = event.u32()?;
        if count > MAX_ALGORITHMS {
            return Err(LogError::Algorithms(count));
        }
        let algorithms = event.bytes(count as usize * 4)?;
        let [vendor_len] = *event.array::<1>()?;
        let vendor_info = event.bytes(usize::from(vendor_len))?;
        Ok(Self {
            mr,
            platform_class,
            spec_version: [minor, major, errata],
            uintn_size,
            vendor_info,
            digest_is_zero: *digest == [0; 20],
            algorithms,
            end: entry.offset(),
        })
    }

    /// The algorithms of the log's digests.
    pub fn algorithms(&self) -> impl Iterator<Item = AlgorithmSize> + Clone + use<'a> {
        let (entries, _) = self.algorithms.as_chunks::<4>();
        entries.iter().map(|[a, b, c, d]| AlgorithmSize {
            algorithm: AlgorithmId(u16::from_le_bytes([*a, *b])),
            bytes: u16::from_le_bytes([*c, *d]),
        })
    }

    /// Bytes of a digest: as the header says, else as the algorithm is defined.
    pub(super) fn digest_bytes(&self, algorithm: AlgorithmId) -> Option<usize> {
        let listed = self.algorithms().find(|entry| entry.algorithm == algorithm);
        listed.map(|entry| usize::from(entry.bytes)).or_else(|| algorithm.digest_bytes())
    }
}
