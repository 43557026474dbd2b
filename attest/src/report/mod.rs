//! TDREPORT_STRUCT: 1024 bytes that a TD gets from TDG.MR.REPORT and a quoting enclave turns into a quote.
//!
//! ```text
//!    0  REPORTMACSTRUCT  type, CPUSVN, two hashes, REPORTDATA, MAC over the first 224 bytes
//!  256  TEE_TCB_INFO     what runs below the TD: TDX module, its signer, its versions
//!  512  TDINFO           the TD itself: attributes, measurements
//! ```
//!
//! The hashes bind the two lower structures to the MAC'd one. On real processors the MAC key never leaves
//! the CPU, so only it can check a report; an emulated module has a key of its own, given here by the caller.

mod convert;

use core::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256, Sha384};
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::quote::{Measurement, TdAttributes};

/// REPORTTYPE.TYPE of a TD report.
pub const REPORT_TYPE_TDX: u8 = 0x81;

/// Key of a report MAC. Real processors never give theirs out; this is for emulated ones.
#[derive(Clone, PartialEq, Eq)]
pub struct ReportKey(pub [u8; 32]);

impl fmt::Debug for ReportKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReportKey(..)")
    }
}

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
    /// SHA-384 of TEE_TCB_INFO.
    pub tee_tcb_info_hash: Measurement,
    /// SHA-384 of TDINFO.
    pub tee_info_hash: Measurement,
    /// Data chosen by the TD.
    pub report_data: [u8; 64],
    /// Reserved.
    pub reserved2: [u8; 32],
    /// MAC over everything before it.
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
    /// Reserved.
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

    /// SHA-384 of TEE_TCB_INFO.
    #[must_use]
    pub fn tee_tcb_info_hash(&self) -> Measurement {
        Sha384::digest(self.tee_tcb_info.as_bytes()).into()
    }

    /// SHA-384 of TDINFO.
    #[must_use]
    pub fn td_info_hash(&self) -> Measurement {
        Sha384::digest(self.td_info.as_bytes()).into()
    }

    /// The MAC of an emulated processor: HMAC-SHA-256 over the 224 bytes before the MAC.
    #[must_use]
    pub fn mac_with(&self, key: &ReportKey) -> [u8; 32] {
        hmac(key, self.mac.as_bytes().get(..224).unwrap_or_default()).finalize().into_bytes().into()
    }

    /// Checks that both lower structures are what the MAC'd part says.
    ///
    /// # Errors
    /// The hash that differs.
    pub fn check_hashes(&self) -> Result<(), ReportError> {
        if self.tee_tcb_info_hash() != self.mac.tee_tcb_info_hash {
            return Err(ReportError::TeeTcbInfoHash);
        }
        if self.td_info_hash() != self.mac.tee_info_hash {
            return Err(ReportError::TdInfoHash);
        }
        Ok(())
    }

    /// Checks hashes and MAC; the MAC in constant time.
    ///
    /// # Errors
    /// What does not hold.
    pub fn check(&self, key: &ReportKey) -> Result<(), ReportError> {
        self.check_hashes()?;
        hmac(key, self.mac.as_bytes().get(..224).unwrap_or_default())
            .verify_slice(&self.mac.mac)
            .map_err(|_| ReportError::Mac)
    }

    /// Fills in type, hashes and MAC: what an emulated processor does last.
    pub fn seal(&mut self, key: &ReportKey) {
        let version = u8::from(self.td_info.servtd_hash != [0; 48]);
        self.mac.report_type = ReportType { kind: REPORT_TYPE_TDX, subtype: 0, version, reserved: 0 };
        self.mac.tee_tcb_info_hash = self.tee_tcb_info_hash();
        self.mac.tee_info_hash = self.td_info_hash();
        self.mac.mac = self.mac_with(key);
    }

    /// A report of zeros, to be filled in and sealed.
    #[must_use]
    pub fn zeroed() -> Self {
        Self::new_zeroed()
    }
}

/// HMAC-SHA-256 over `data`, not finished.
fn hmac(key: &ReportKey, data: &[u8]) -> Hmac<Sha256> {
    // HMAC takes keys of any length; the block-sized form cannot fail.
    let mut block = [0; 64];
    for (place, byte) in block.iter_mut().zip(key.0) {
        *place = byte;
    }
    let mut mac = <Hmac<Sha256> as KeyInit>::new(&block.into());
    mac.update(data);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_report_holds_and_any_changed_bit_shows() {
        let key = ReportKey([7; 32]);
        let mut report = TdReport::zeroed();
        report.td_info.mr_td = [3; 48];
        report.mac.report_data = [9; 64];
        report.seal(&key);
        assert_eq!(report.check(&key), Ok(()));
        assert_eq!(report.check(&ReportKey([8; 32])), Err(ReportError::Mac));
        for bit in 0..TdReport::SIZE * 8 {
            let mut bytes = [0; TdReport::SIZE];
            bytes.copy_from_slice(report.as_bytes());
            bytes[bit / 8] ^= 1 << (bit % 8);
            let holds = TdReport::from_bytes(&bytes).is_ok_and(|report| report.check(&key).is_ok());
            // Bytes 495..512 lie between the hashed structures and are covered by nothing.
            assert_eq!(holds, (495..512).contains(&(bit / 8)), "bit {bit}");
        }
    }

    #[test]
    fn the_mac_is_hmac_sha256_as_rfc_4231_computes_it() {
        // Test case 2 has a key shorter than 32 bytes; zero padding is what HMAC does itself.
        let mut key = [0; 32];
        key[..4].copy_from_slice(b"Jefe");
        let mac = hmac(&ReportKey(key), b"what do ya want for nothing?").finalize().into_bytes();
        assert_eq!(mac[..8], [0x5b, 0xdc, 0xc1, 0x46, 0xbf, 0x60, 0x75, 0x4e]);
    }
}
