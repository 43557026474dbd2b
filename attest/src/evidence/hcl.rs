//! Azure's HCL report: the TDREPORT that the paravisor made at boot, and the run-time data that its REPORTDATA binds.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 32 | header: "HCLA", version, size, request type, status, reserved |
//! | 32 | 1184 | hardware report: a TDREPORT, then zeros |
//! | 1216 | 20 | of the run-time data: size with these 20 bytes, version, report type (4: TDX), hash, size of the claims |
//! | 1236 | | the claims, as JSON |
//!
//! REPORTDATA is the hash of the claims, and zeros where that is shorter.

use core::fmt;

use crate::bytes::{Cursor, Truncated};
use crate::report::{ReportError, TdReport};

/// How an HCL report begins.
pub(super) const SIGNATURE: &[u8] = b"HCLA";
const HEADER: usize = 32;
const HARDWARE_REPORT: usize = 1184;
const REPORT_TYPE_TDX: u32 = 4;
const HASH_SHA256: u32 = 1;

/// Why an HCL report is none of a TD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HclError {
    /// The data ended early.
    Truncated(Truncated),
    /// The report is of another TEE.
    ReportType(u32),
    /// The report's run-time data are hashed in a way that this crate does not know.
    Hash(u32),
    /// The report's TDREPORT is none.
    Report(ReportError),
}

impl From<Truncated> for HclError {
    fn from(truncated: Truncated) -> Self {
        Self::Truncated(truncated)
    }
}

impl fmt::Display for HclError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated(Truncated { offset, needed, left }) => {
                write!(f, "it ends early: {needed} bytes needed at offset {offset}, {left} left")
            }
            Self::ReportType(kind) => write!(f, "report type {kind} is not that of a TD"),
            Self::Hash(hash) => write!(f, "hash {hash} of the run-time data is not known"),
            Self::Report(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for HclError {}

/// What the paravisor says about its run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuntimeData<'a>(pub &'a [u8]);

/// An HCL report, borrowed from its bytes.
#[derive(Clone, Copy, Debug)]
pub struct HclReport<'a> {
    /// The TDREPORT.
    pub report: &'a TdReport,
    /// The claims that its REPORTDATA binds.
    pub runtime_data: RuntimeData<'a>,
}

impl<'a> HclReport<'a> {
    /// Reads an HCL report of a TD; whether it binds its claims is asked of [`Self::binds_runtime_data`].
    ///
    /// # Errors
    /// [`HclError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, HclError> {
        let mut cursor = Cursor::new(bytes);
        cursor.bytes(HEADER)?;
        let hardware = cursor.bytes(HARDWARE_REPORT)?;
        let report = hardware.get(..TdReport::SIZE).unwrap_or_default();
        let (_size, _version, kind, hash) = (cursor.u32()?, cursor.u32()?, cursor.u32()?, cursor.u32()?);
        if kind != REPORT_TYPE_TDX {
            return Err(HclError::ReportType(kind));
        }
        if hash != HASH_SHA256 {
            return Err(HclError::Hash(hash));
        }
        let claims = cursor.sized_u32()?;
        Ok(Self {
            report: TdReport::from_bytes(report).map_err(HclError::Report)?,
            runtime_data: RuntimeData(claims),
        })
    }

    /// Whether REPORTDATA is the SHA-256 of the run-time data, followed by zeros.
    #[must_use]
    pub fn binds_runtime_data(&self) -> bool {
        let hash: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(self.runtime_data.0).into();
        let (head, tail) = self.report.mac.report_data.split_at(hash.len());
        head == hash && tail.iter().all(|byte| *byte == 0)
    }
}
