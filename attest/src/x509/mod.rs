//! X.509 certificates and revocation lists, as far as Intel's PKI uses them.
//!
//! Readers borrow from DER and keep the exact signed bytes. Only ecdsa-with-SHA256 over P-256 exists in
//! this PKI, so any other algorithm is an error, not a fallback. Names are compared by their encoding,
//! as this PKI always writes the same name the same way.

pub(crate) mod asn1;
mod certificate;
mod crl;
mod name;
pub mod pem;

use core::fmt;

pub use certificate::{Certificate, Extensions};
pub use crl::RevocationList;
pub use name::Name;

use crate::crypto::Signature;
use asn1::{Element, positive};
use der::Tag;

/// Why DER is not a certificate or revocation list that this crate reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum X509Error {
    /// The encoding is not DER.
    Der,
    /// The encoding is DER, but not of this structure.
    Unexpected,
    /// A date that does not exist, or before 1970.
    Date,
    /// A signature or key algorithm other than ECDSA P-256 with SHA-256.
    Algorithm,
    /// A critical extension that this crate does not know.
    CriticalExtension,
    /// The text is not PEM, base64 or hexadecimal of a DER structure.
    Text,
    /// More certificates or bytes than this field ever has.
    TooLarge,
}

impl fmt::Display for X509Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Der => "not valid DER",
            Self::Unexpected => "not of the expected structure",
            Self::Date => "a date that cannot be",
            Self::Algorithm => "not ECDSA P-256 with SHA-256",
            Self::CriticalExtension => "an unknown critical extension",
            Self::Text => "neither PEM nor hexadecimal nor DER",
            Self::TooLarge => "larger than anything of its kind",
        })
    }
}

impl core::error::Error for X509Error {}

/// ecdsa-with-SHA256, 1.2.840.10045.4.3.2.
const ECDSA_WITH_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];

/// Checks an AlgorithmIdentifier for ecdsa-with-SHA256 without parameters.
fn check_signature_algorithm(algorithm: &Element<'_>) -> Result<(), X509Error> {
    let mut parts = algorithm.inside(Tag::Sequence)?;
    let oid = parts.next()?;
    if oid.expect(Tag::ObjectIdentifier)? != ECDSA_WITH_SHA256 || !parts.is_empty() {
        return Err(X509Error::Algorithm);
    }
    Ok(())
}

/// Turns a DER ECDSA-Sig-Value into r‖s. A value of zero or wider than the curve is refused.
pub(crate) fn signature_from_der(der: &[u8]) -> Result<Signature, X509Error> {
    let mut parts = Element::only(der)?.inside(Tag::Sequence)?;
    let mut fixed = [0; 64];
    for half in fixed.chunks_exact_mut(32) {
        let integer = parts.next()?;
        let value = positive(integer.expect(Tag::Integer)?)?;
        let at = half.len().checked_sub(value.len()).ok_or(X509Error::Unexpected)?;
        if let Some(place) = half.get_mut(at..) {
            place.copy_from_slice(value);
        }
    }
    parts.end()?;
    Ok(Signature(fixed))
}

/// Reads UTCTime or GeneralizedTime.
fn read_time(element: &Element<'_>) -> Result<crate::UnixSeconds, X509Error> {
    match element.tag {
        Tag::UtcTime => crate::UnixSeconds::from_utc_time(element.value),
        Tag::GeneralizedTime => crate::UnixSeconds::from_generalized_time(element.value),
        _ => return Err(X509Error::Unexpected),
    }
    .ok_or(X509Error::Date)
}
