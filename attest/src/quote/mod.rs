//! Quotes of versions 3, 4 and 5: a parser that borrows, allocates nothing and keeps unknown values.
//!
//! A quote is `header ‖ [body descriptor, version 5] ‖ body ‖ signature length ‖ signature data ‖ padding`.
//! Everything up to the body's end is signed by the attestation key; the rest is not. Padding after the
//! signature data is legal (guests hand out fixed buffers) and is kept; bytes *inside* the signature data
//! that no length accounts for are refused.
//!
//! [`Quote::parse`] takes what has a structure; [`Quote::check_supported`] applies the rules of Intel's
//! library about which values a verifier accepts.

mod body;
mod header;
mod signature;

use core::fmt;

use zerocopy::FromBytes;

use crate::bytes::{Cursor, Truncated};

pub use body::{Body, BodyType, EnclaveReport, Measurement, TdReport10, TdReport15, TdReport15Ex};
pub use header::{AttestationKeyType, Header, INTEL_QE_VENDOR_ID, TeeType};
pub use signature::{CertificationData, CertificationType, PlatformId, SignatureData};
pub use tdx_module_iface::td_params::TdAttributes;

/// Why bytes are not a quote that this crate reads, or one that a verifier accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QuoteError {
    /// The data ended early.
    Truncated(Truncated),
    /// A version other than 3, 4 and 5.
    Version(u16),
    /// A TEE type other than SGX and TDX, or one the version does not have.
    TeeType {
        /// Version of the quote.
        version: u16,
        /// The quote's TEE type.
        tee: TeeType,
    },
    /// Version 5: a body type that is not known.
    BodyType(BodyType),
    /// Version 5: the body's declared size is not the size of its type.
    BodySize {
        /// The type.
        body: BodyType,
        /// The declared size.
        declared: u32,
    },
    /// Version 5: an enclave body in a TDX quote or the reverse.
    BodyForOtherTee {
        /// The type.
        body: BodyType,
        /// TEE type of the header.
        tee: TeeType,
    },
    /// The signature length is larger than what follows it.
    SignatureLength {
        /// The declared length.
        declared: u32,
        /// Bytes that follow.
        left: usize,
    },
    /// Bytes inside the signature data that no length accounts for.
    UnaccountedBytes {
        /// How many.
        extra: usize,
    },
    /// Versions 4 and 5: the outer certification data is not of type 6.
    OuterCertificationType(CertificationType),
    /// The QE report's certification data is not of type 1 to 5.
    CertificationType(CertificationType),
    /// An attestation key that is not ECDSA-P256.
    AttestationKeyType(AttestationKeyType),
    /// A quoting enclave that is not Intel's.
    QeVendor([u8; 16]),
}

impl QuoteError {
    /// A stable name of the error, for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Truncated(_) => "quote-truncated",
            Self::Version(_) => "quote-version",
            Self::TeeType { .. } => "quote-tee-type",
            Self::BodyType(_) => "quote-body-type",
            Self::BodySize { .. } => "quote-body-size",
            Self::BodyForOtherTee { .. } => "quote-body-tee",
            Self::SignatureLength { .. } => "quote-signature-length",
            Self::UnaccountedBytes { .. } => "quote-unaccounted-bytes",
            Self::OuterCertificationType(_) => "quote-outer-certification-type",
            Self::CertificationType(_) => "quote-certification-type",
            Self::AttestationKeyType(_) => "quote-attestation-key-type",
            Self::QeVendor(_) => "quote-qe-vendor",
        }
    }
}

impl From<Truncated> for QuoteError {
    fn from(truncated: Truncated) -> Self {
        Self::Truncated(truncated)
    }
}

impl fmt::Display for QuoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated(Truncated { offset, needed, left }) => {
                write!(f, "the quote ends early: {needed} bytes needed at offset {offset}, {left} left")
            }
            Self::Version(version) => write!(f, "quote version {version} is not 3, 4 or 5"),
            Self::TeeType { version, tee } => write!(f, "version {version} quotes do not carry {tee}"),
            Self::BodyType(body) => write!(f, "{body}"),
            Self::BodySize { body, declared } => write!(f, "a {body} does not have {declared} bytes"),
            Self::BodyForOtherTee { body, tee } => write!(f, "a {body} in a quote for {tee}"),
            Self::SignatureLength { declared, left } => {
                write!(f, "signature data of {declared} bytes declared, {left} bytes follow")
            }
            Self::UnaccountedBytes { extra } => {
                write!(f, "{extra} bytes inside the signature data belong to no field")
            }
            Self::OuterCertificationType(kind) => {
                write!(f, "outer certification data must be of type 6, it is {} ({kind})", kind.0)
            }
            Self::CertificationType(kind) => {
                write!(
                    f,
                    "certification data of the QE report must be of type 1 to 5, it is {} ({kind})",
                    kind.0
                )
            }
            Self::AttestationKeyType(kind) => write!(f, "{kind} attestation keys are not supported"),
            Self::QeVendor(vendor) => {
                write!(f, "quoting enclave of unknown vendor {}", crate::bytes::Hex(vendor))
            }
        }
    }
}

impl core::error::Error for QuoteError {}

/// The signed part of a quote, and what follows it.
#[derive(Clone, Copy, Debug)]
pub struct SignedPart<'a> {
    /// The header.
    pub header: &'a Header,
    /// The body.
    pub body: Body<'a>,
    /// Exactly the bytes that the attestation key signs.
    pub bytes: &'a [u8],
    /// What follows the body.
    pub rest: &'a [u8],
}

impl<'a> SignedPart<'a> {
    /// Reads header and body; signature data may be absent or of any kind.
    ///
    /// # Errors
    /// Truncation, and versions, TEE types, body types and body sizes that have no layout.
    pub fn parse(data: &'a [u8]) -> Result<Self, QuoteError> {
        let mut cursor = Cursor::new(data);
        let header: &Header = view(cursor.bytes(Header::SIZE)?)?;
        let version = header.version.get();
        let tee = header.tee_type();
        let body = match (version, tee) {
            (3 | 4, TeeType::SGX) => BodyType::SGX,
            (4, TeeType::TDX) => BodyType::TD10,
            (5, TeeType::SGX | TeeType::TDX) => {
                let body = BodyType(cursor.u16()?);
                let declared = cursor.u32()?;
                match body.size() {
                    None => return Err(QuoteError::BodyType(body)),
                    Some(size) if size != declared => {
                        return Err(QuoteError::BodySize { body, declared });
                    }
                    Some(_) => {}
                }
                if (tee == TeeType::SGX) != (body == BodyType::SGX) {
                    return Err(QuoteError::BodyForOtherTee { body, tee });
                }
                body
            }
            (3..=5, _) => return Err(QuoteError::TeeType { version, tee }),
            _ => return Err(QuoteError::Version(version)),
        };
        let body = match body {
            BodyType::SGX => Body::Sgx(view(cursor.bytes(size_of::<EnclaveReport>())?)?),
            BodyType::TD10 => Body::Td10(view(cursor.bytes(size_of::<TdReport10>())?)?),
            BodyType::TD15 => Body::Td15(view(cursor.bytes(size_of::<TdReport15>())?)?),
            _ => Body::Td15Ex(view(cursor.bytes(size_of::<TdReport15Ex>())?)?),
        };
        let bytes = data.get(..cursor.offset()).unwrap_or_default();
        Ok(Self { header, body, bytes, rest: cursor.rest() })
    }
}

/// Views bytes of the right length as a layout; every bit pattern is one.
fn view<T>(bytes: &[u8]) -> Result<&T, QuoteError>
where
    T: FromBytes + zerocopy::KnownLayout + zerocopy::Immutable + zerocopy::Unaligned,
{
    T::ref_from_bytes(bytes).map_err(|_| {
        QuoteError::Truncated(Truncated { offset: 0, needed: size_of::<T>(), left: bytes.len() })
    })
}

/// A whole quote, borrowed from its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Quote<'a> {
    /// Header, body and the bytes that are signed.
    pub signed: SignedPart<'a>,
    /// Signatures, attestation key, QE report, certification data.
    pub signature: SignatureData<'a>,
    /// Bytes after the signature data: padding of fixed buffers, covered by nothing.
    pub trailing: &'a [u8],
}

impl<'a> Quote<'a> {
    /// Reads a quote. Values without influence on the layout are kept as they are.
    ///
    /// # Errors
    /// Everything that [`SignedPart::parse`] refuses, and signature data whose lengths do not agree.
    pub fn parse(data: &'a [u8]) -> Result<Self, QuoteError> {
        let signed = SignedPart::parse(data)?;
        let mut cursor = Cursor::new(signed.rest);
        let declared = cursor.u32().map_err(|at| Truncated { offset: signed.bytes.len(), ..at })?;
        let left = cursor.rest().len();
        let len = usize::try_from(declared).ok().filter(|len| *len <= left);
        let len = len.ok_or(QuoteError::SignatureLength { declared, left })?;
        let data = cursor.bytes(len)?;
        let signature = match signed.header.version.get() {
            3 => SignatureData::read_v3(data)?,
            _ => SignatureData::read_v4(data)?,
        };
        Ok(Self { signed, signature, trailing: cursor.rest() })
    }

    /// The header.
    #[must_use]
    pub const fn header(&self) -> &'a Header {
        self.signed.header
    }

    /// The body.
    #[must_use]
    pub const fn body(&self) -> &Body<'a> {
        &self.signed.body
    }

    /// Applies the rules that Intel's library has beyond the layout.
    ///
    /// # Errors
    /// Attestation keys other than ECDSA-P256, quoting enclaves other than Intel's, certification data
    /// of types other than 1 to 5.
    pub fn check_supported(&self) -> Result<(), QuoteError> {
        let header = self.header();
        if header.attestation_key_type() != AttestationKeyType::ECDSA_P256 {
            return Err(QuoteError::AttestationKeyType(header.attestation_key_type()));
        }
        if header.qe_vendor_id != INTEL_QE_VENDOR_ID {
            return Err(QuoteError::QeVendor(header.qe_vendor_id));
        }
        match self.signature.certification.kind {
            CertificationType(1..=5) => Ok(()),
            other => Err(QuoteError::CertificationType(other)),
        }
    }
}

#[cfg(test)]
mod tests;
