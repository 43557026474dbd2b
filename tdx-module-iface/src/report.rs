//! TDREPORT_STRUCT: 1024 bytes that a TD gets from TDG.MR.REPORT and a quoting enclave turns into a quote.
//!
//! ```text
//!    0  REPORTMACSTRUCT  type, CPUSVN, two hashes, REPORTDATA, MAC over the first 224 bytes
//!  256  TEE_TCB_INFO     239 bytes: what runs below the TD, the TDX module, its signer, its versions
//!  495  reserved         17 bytes
//!  512  TDINFO           the TD itself: attributes, measurements
//! ```
//!
//! The hashes bind the two lower structures to the MAC'd one. With the feature `seal`, the hashes and the MAC of
//! an emulated platform can be made and checked.

#[cfg(feature = "seal")]
mod seal;

use core::fmt;

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::td_params::TdAttributes;

#[cfg(feature = "seal")]
pub use seal::ReportKey;

/// A SHA-384 measurement.
pub type Measurement = [u8; 48];

/// REPORTTYPE.TYPE of a TD report.
pub const REPORT_TYPE_TDX: u8 = 0x81;

/// REPORTTYPE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ReportType {
    /// 0x81: TDX.
    pub kind: u8,
    /// 0.
    pub subtype: u8,
    /// 0, or 1 when service TDs are bound.
    pub version: u8,
    /// Reserved.
    pub reserved: u8,
}

/// REPORTMACSTRUCT, 256 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ReportMac {
    /// What kind of report this is.
    pub report_type: ReportType,
    /// Reserved.
    pub reserved1: [u8; 12],
    /// Security versions of the processor's components.
    pub cpu_svn: [u8; 16],
    /// SHA-384 of [`TeeTcbInfo`]: of its 239 bytes, and not of the reserved ones behind them.
    pub tee_tcb_info_hash: Measurement,
    /// SHA-384 of [`TdInfo`].
    pub tee_info_hash: Measurement,
    /// Data chosen by the TD.
    pub report_data: [u8; 64],
    /// Reserved.
    pub reserved2: [u8; 32],
    /// MAC over everything before it, of a key that only the platform has.
    pub mac: [u8; 32],
}

/// TEE_TCB_INFO, 239 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct TeeTcbInfo {
    /// Which fields are valid.
    pub valid: U64,
    /// TEE_TCB_SVN when the TD was launched.
    pub tee_tcb_svn: [u8; 16],
    /// Measurement of the TDX module.
    pub mr_seam: Measurement,
    /// Signer of the TDX module; zero for Intel's.
    pub mr_signer_seam: Measurement,
    /// Attributes of the TDX module.
    pub attributes: U64,
    /// TEE_TCB_SVN now (TDX 1.5).
    pub tee_tcb_svn2: [u8; 16],
    /// Reserved.
    pub reserved: [u8; 95],
}

/// TDINFO, 512 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct TdInfo {
    /// TDATTRIBUTES.
    pub attributes: TdAttributes,
    /// Extended features the TD may use.
    pub xfam: U64,
    /// Measurement of the TD's initial contents.
    pub mr_td: Measurement,
    /// Software-defined configuration identifier.
    pub mr_config_id: Measurement,
    /// Software-defined owner.
    pub mr_owner: Measurement,
    /// Software-defined configuration of the owner.
    pub mr_owner_config: Measurement,
    /// RTMR0 to RTMR3.
    pub rtmr: [Measurement; 4],
    /// Hash of the bound service TDs (TDX 1.5).
    pub servtd_hash: Measurement,
    /// Reserved.
    pub reserved: [u8; 64],
}

/// TDREPORT_STRUCT.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct TdReport {
    /// The MAC'd part.
    pub mac: ReportMac,
    /// What runs below the TD.
    pub tee_tcb_info: TeeTcbInfo,
    /// Reserved; covered by no hash.
    pub reserved: [u8; 17],
    /// The TD itself.
    pub td_info: TdInfo,
}

const _: () = assert!(size_of::<ReportMac>() == 256);
const _: () = assert!(size_of::<TeeTcbInfo>() == 239);
const _: () = assert!(size_of::<TdInfo>() == 512);
const _: () = assert!(size_of::<TdReport>() == TdReport::SIZE);

/// Why a report does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReportError {
    /// Not 1024 bytes.
    Size(usize),
    /// Not a report of a TD.
    Type(ReportType),
    /// The hash of TEE_TCB_INFO is not the one in the MAC'd part.
    TeeTcbInfoHash,
    /// The hash of TDINFO is not the one in the MAC'd part.
    TdInfoHash,
    /// The MAC is not of this key.
    Mac,
}

impl ReportError {
    /// A stable name, for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Size(_) => "report-size",
            Self::Type(_) => "report-type",
            Self::TeeTcbInfoHash => "report-tcb-info-hash",
            Self::TdInfoHash => "report-td-info-hash",
            Self::Mac => "report-mac",
        }
    }
}

impl fmt::Display for ReportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size(size) => write!(f, "a TDREPORT has 1024 bytes, not {size}"),
            Self::Type(kind) => write!(f, "report type {:#04x} is not that of a TD", kind.kind),
            Self::TeeTcbInfoHash => f.write_str("TEE_TCB_INFO is not what the report's hash covers"),
            Self::TdInfoHash => f.write_str("TDINFO is not what the report's hash covers"),
            Self::Mac => f.write_str("the report's MAC is not of this platform"),
        }
    }
}

impl core::error::Error for ReportError {}

impl TdReport {
    /// Bytes of a report.
    pub const SIZE: usize = 1024;
    /// The alignment in bytes that `TDG.MR.REPORT` demands of the report's address.
    pub const ALIGN: u64 = 1024;
    /// The alignment in bytes that it demands of the report data's address.
    pub const REPORTDATA_ALIGN: u64 = 64;

    /// Views bytes as a report of a TD; nothing is checked but size and type.
    ///
    /// # Errors
    /// Another size, or a report of another TEE.
    pub fn from_bytes(bytes: &[u8]) -> Result<&Self, ReportError> {
        let report = Self::ref_from_bytes(bytes).map_err(|_| ReportError::Size(bytes.len()))?;
        let kind = report.mac.report_type;
        if kind.kind != REPORT_TYPE_TDX || kind.subtype != 0 {
            return Err(ReportError::Type(kind));
        }
        Ok(report)
    }

    /// A report of zeros, to be filled in and sealed.
    #[must_use]
    pub fn zeroed() -> Self {
        Self::new_zeroed()
    }
}

impl ReportMac {
    /// The bytes that the MAC covers: everything before it.
    #[must_use]
    pub fn signed(&self) -> &[u8] {
        let bytes = self.as_bytes();
        bytes.get(..bytes.len() - size_of_val(&self.mac)).unwrap_or_default()
    }
}
