//! Identity of a quoting enclave, version 2: who may sign attestation keys, and its TCB levels.

use alloc::sync::Arc;
use alloc::vec::Vec;

use serde::Deserialize;

use super::json::{self, Text};
use super::level::{IsvSvn, RawLevel, highest_first};
use super::{CollateralError, Part, TcbStatus};
use crate::UnixSeconds;
use crate::quote::{EnclaveReport, TeeType};

const PART: Part = Part::QeIdentity;

/// Which enclave an identity is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QeKind {
    /// Quoting enclave of SGX.
    Qe,
    /// Quoting enclave of TDX.
    TdQe,
    /// Quote verification enclave: never signs quotes.
    Qve,
}

impl QeKind {
    /// The TEE whose quotes this enclave signs.
    #[must_use]
    pub const fn signs_for(self) -> Option<TeeType> {
        match self {
            Self::Qe => Some(TeeType::SGX),
            Self::TdQe => Some(TeeType::TDX),
            Self::Qve => None,
        }
    }
}

/// One TCB level of a quoting enclave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityLevel {
    /// Least security version of the enclave.
    pub isv_svn: u32,
    /// When this level was the newest.
    pub date: UnixSeconds,
    /// The status at this level.
    pub status: TcbStatus,
    /// Advisories that apply at this level.
    pub advisories: Vec<Arc<str>>,
}

/// A decoded QE identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QeIdentity {
    /// Which enclave.
    pub kind: QeKind,
    /// When the identity was issued.
    pub issued: UnixSeconds,
    /// Until when it may be used.
    pub next_update: UnixSeconds,
    /// Number of the TCB recovery that this reflects.
    pub evaluation_number: u32,
    /// MISCSELECT and which of its bits count, as the report's little-endian bytes.
    pub misc_select: ([u8; 4], [u8; 4]),
    /// ATTRIBUTES and which of their bits count.
    pub attributes: ([u8; 16], [u8; 16]),
    /// MRSIGNER.
    pub mr_signer: [u8; 32],
    /// ISVPRODID.
    pub isv_prod_id: u32,
    /// Levels, highest version first.
    pub levels: Vec<IdentityLevel>,
}

/// A field of a QE report that is not as the identity wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityMismatch {
    /// MISCSELECT.
    MiscSelect,
    /// ATTRIBUTES.
    Attributes,
    /// MRSIGNER.
    MrSigner,
    /// ISVPRODID.
    IsvProdId,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawIdentity<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    version: u32,
    #[serde(borrow)]
    issue_date: Text<'a>,
    #[serde(borrow)]
    next_update: Text<'a>,
    tcb_evaluation_data_number: u32,
    #[serde(borrow)]
    miscselect: Text<'a>,
    #[serde(borrow)]
    miscselect_mask: Text<'a>,
    #[serde(borrow)]
    attributes: Text<'a>,
    #[serde(borrow)]
    attributes_mask: Text<'a>,
    #[serde(borrow)]
    mrsigner: Text<'a>,
    isvprodid: u32,
    #[serde(borrow)]
    tcb_levels: Vec<RawLevel<'a, IsvSvn>>,
}

impl QeIdentity {
    /// Decodes the inner object of a QE identity, as served.
    ///
    /// # Errors
    /// Anything that Intel's library refuses: unknown enclaves, other versions than 2, statuses and
    /// dates that do not exist, no or duplicate levels.
    pub fn parse(text: &str) -> Result<Self, CollateralError> {
        let raw: RawIdentity<'_> = json::decode_object(text, PART)?;
        let kind = match raw.id.as_str() {
            "QE" => QeKind::Qe,
            "TD_QE" => QeKind::TdQe,
            "QVE" => QeKind::Qve,
            _ => return Err(CollateralError::Field { part: PART, field: "id" }),
        };
        if raw.version != 2 {
            return Err(CollateralError::Version { part: PART, version: raw.version });
        }
        let mut levels = Vec::with_capacity(raw.tcb_levels.len());
        for level in &raw.tcb_levels {
            levels.push(IdentityLevel {
                isv_svn: level.tcb.isvsvn,
                date: level.date(PART, "tcbDate")?,
                status: level.known_status(PART)?,
                advisories: level.advisories(),
            });
        }
        Ok(Self {
            kind,
            issued: raw.issue_date.date(PART, "issueDate")?,
            next_update: raw.next_update.date(PART, "nextUpdate")?,
            evaluation_number: raw.tcb_evaluation_data_number,
            misc_select: (
                raw.miscselect.hex(PART, "miscselect")?,
                raw.miscselect_mask.hex(PART, "miscselectMask")?,
            ),
            attributes: (
                raw.attributes.hex(PART, "attributes")?,
                raw.attributes_mask.hex(PART, "attributesMask")?,
            ),
            mr_signer: raw.mrsigner.hex(PART, "mrsigner")?,
            isv_prod_id: raw.isvprodid,
            levels: highest_first(levels, |level| (level.isv_svn, level.date), PART, "tcbLevels")?,
        })
    }

    /// Compares a QE report's identity, in the order of Intel's library.
    ///
    /// # Errors
    /// The first field that differs.
    pub fn check(&self, report: &EnclaveReport) -> Result<(), IdentityMismatch> {
        let (value, mask) = &self.misc_select;
        if !masked_equal(&report.misc_select.to_bytes(), mask, value) {
            return Err(IdentityMismatch::MiscSelect);
        }
        let (value, mask) = &self.attributes;
        if !masked_equal(&report.attributes, mask, value) {
            return Err(IdentityMismatch::Attributes);
        }
        if report.mr_signer != self.mr_signer {
            return Err(IdentityMismatch::MrSigner);
        }
        if u32::from(report.isv_prod_id.get()) != self.isv_prod_id {
            return Err(IdentityMismatch::IsvProdId);
        }
        Ok(())
    }
}

/// Whether `actual & mask == expected`, byte by byte.
fn masked_equal(actual: &[u8], mask: &[u8], expected: &[u8]) -> bool {
    actual.iter().zip(mask).zip(expected).all(|((actual, mask), expected)| actual & mask == *expected)
}
