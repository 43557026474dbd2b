//! The unsigned tail of a quote: signatures, attestation key, QE report and certification data.

use core::fmt;

use crate::bytes::{Cursor, Truncated};

use super::QuoteError;
use super::body::EnclaveReport;

/// What certification data holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CertificationType(pub u16);

impl CertificationType {
    /// PPID in the clear, CPUSVN, PCESVN, PCEID.
    pub const PPID_CLEARTEXT: Self = Self(1);
    /// PPID encrypted with RSA-2048-OAEP, CPUSVN, PCESVN, PCEID.
    pub const PPID_RSA2048: Self = Self(2);
    /// PPID encrypted with RSA-3072-OAEP, CPUSVN, PCESVN, PCEID.
    pub const PPID_RSA3072: Self = Self(3);
    /// PCK certificate (PEM).
    pub const PCK_CERTIFICATE: Self = Self(4);
    /// PCK certificate chain (PEM: leaf, intermediate, root).
    pub const PCK_CHAIN: Self = Self(5);
    /// QE report with its own certification data: the outer type of versions 4 and 5.
    pub const QE_REPORT: Self = Self(6);
    /// Platform manifest; nothing verifies it.
    pub const PLATFORM_MANIFEST: Self = Self(7);
}

impl fmt::Display for CertificationType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::PPID_CLEARTEXT => f.write_str("PPID in the clear"),
            Self::PPID_RSA2048 => f.write_str("PPID encrypted with RSA-2048"),
            Self::PPID_RSA3072 => f.write_str("PPID encrypted with RSA-3072"),
            Self::PCK_CERTIFICATE => f.write_str("PCK certificate"),
            Self::PCK_CHAIN => f.write_str("PCK certificate chain"),
            Self::QE_REPORT => f.write_str("QE report certification data"),
            Self::PLATFORM_MANIFEST => f.write_str("platform manifest"),
            Self(other) => write!(f, "unknown certification data type {other}"),
        }
    }
}

/// Identity of a platform as certification types 1 to 3 carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlatformId<'a> {
    /// PPID: 16 bytes in the clear, 256 or 384 encrypted.
    pub ppid: &'a [u8],
    /// Security versions of the processor's components.
    pub cpu_svn: &'a [u8; 16],
    /// Security version of the provisioning certification enclave.
    pub pce_svn: u16,
    /// Identity of the provisioning certification enclave.
    pub pce_id: [u8; 2],
}

/// Certification data of the QE report: its type and its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificationData<'a> {
    /// What `data` holds.
    pub kind: CertificationType,
    /// The bytes.
    pub data: &'a [u8],
}

impl<'a> CertificationData<'a> {
    fn read(cursor: &mut Cursor<'a>) -> Result<Self, Truncated> {
        let kind = CertificationType(cursor.u16()?);
        let data = cursor.sized_u32()?;
        Ok(Self { kind, data })
    }

    /// The PEM text of a PCK certificate or chain (types 4 and 5), without closing NULs.
    #[must_use]
    pub fn pem(&self) -> Option<&'a [u8]> {
        match self.kind {
            CertificationType::PCK_CERTIFICATE | CertificationType::PCK_CHAIN => {
                let end = self.data.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
                self.data.get(..end)
            }
            _ => None,
        }
    }

    /// The platform identity of types 1, 2 and 3.
    #[must_use]
    pub fn platform_id(&self) -> Option<PlatformId<'a>> {
        let ppid = match self.kind {
            CertificationType::PPID_CLEARTEXT => 16,
            CertificationType::PPID_RSA2048 => 256,
            CertificationType::PPID_RSA3072 => 384,
            _ => return None,
        };
        let (ppid, tail) = self.data.split_at_checked(ppid)?;
        let mut tail = Cursor::new(tail);
        let id = PlatformId {
            ppid,
            cpu_svn: tail.array().ok()?,
            pce_svn: tail.u16().ok()?,
            pce_id: *tail.array().ok()?,
        };
        tail.rest().is_empty().then_some(id)
    }
}

/// Signature data of a quote with an ECDSA-P256 attestation key.
#[derive(Clone, Copy, Debug)]
pub struct SignatureData<'a> {
    /// r‖s of the attestation key over header and body.
    pub quote_signature: &'a [u8; 64],
    /// x‖y of the attestation key.
    pub attestation_key: &'a [u8; 64],
    /// Report of the quoting enclave.
    pub qe_report: &'a EnclaveReport,
    /// The quoting enclave's report as bytes: what the PCK signs.
    pub qe_report_bytes: &'a [u8; EnclaveReport::SIZE],
    /// r‖s of the PCK over the QE report.
    pub qe_report_signature: &'a [u8; 64],
    /// QE authentication data; any length, 32 bytes in production.
    pub qe_auth: &'a [u8],
    /// Type of the outer certification data: 6 in versions 4 and 5, absent in version 3.
    pub outer: Option<CertificationType>,
    /// Certification data of the QE report.
    pub certification: CertificationData<'a>,
}

impl<'a> SignatureData<'a> {
    /// Reads the signature data of a version 3 quote.
    pub(super) fn read_v3(data: &'a [u8]) -> Result<Self, QuoteError> {
        let mut cursor = Cursor::new(data);
        let quote_signature = cursor.array()?;
        let attestation_key = cursor.array()?;
        Self::read_qe(quote_signature, attestation_key, None, cursor)
    }

    /// Reads the signature data of a version 4 or 5 quote.
    pub(super) fn read_v4(data: &'a [u8]) -> Result<Self, QuoteError> {
        let mut cursor = Cursor::new(data);
        let quote_signature = cursor.array()?;
        let attestation_key = cursor.array()?;
        let outer = CertificationData::read(&mut cursor)?;
        if outer.kind != CertificationType::QE_REPORT {
            return Err(QuoteError::OuterCertificationType(outer.kind));
        }
        exhausted(&cursor)?;
        Self::read_qe(quote_signature, attestation_key, Some(outer.kind), Cursor::new(outer.data))
    }

    /// Reads what versions share: QE report, its signature, QE authentication and certification data.
    fn read_qe(
        quote_signature: &'a [u8; 64],
        attestation_key: &'a [u8; 64],
        outer: Option<CertificationType>,
        mut cursor: Cursor<'a>,
    ) -> Result<Self, QuoteError> {
        let qe_report_bytes = cursor.array()?;
        let qe_report_signature = cursor.array()?;
        let auth_len = cursor.u16()?;
        let qe_auth = cursor.bytes(usize::from(auth_len))?;
        let certification = CertificationData::read(&mut cursor)?;
        exhausted(&cursor)?;
        Ok(Self {
            quote_signature,
            attestation_key,
            qe_report: zerocopy::transmute_ref!(qe_report_bytes),
            qe_report_bytes,
            qe_report_signature,
            qe_auth,
            outer,
            certification,
        })
    }
}

/// Bytes that no length accounts for are a malformed structure, not padding.
fn exhausted(cursor: &Cursor<'_>) -> Result<(), QuoteError> {
    match cursor.rest().len() {
        0 => Ok(()),
        extra => Err(QuoteError::UnaccountedBytes { extra }),
    }
}
