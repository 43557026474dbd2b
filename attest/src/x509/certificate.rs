//! Certificates: the signed bytes, names, validity, key and the extensions that matter.

use der::Tag;

use super::asn1::{Element, Walk, context, positive};
use super::{Name, X509Error, check_signature_algorithm, read_time, signature_from_der};
use crate::crypto::{PublicKey, Signature};
use crate::time::Validity;

/// id-ecPublicKey, 1.2.840.10045.2.1.
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// prime256v1, 1.2.840.10045.3.1.7.
const PRIME256V1: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// subjectKeyIdentifier, keyUsage, basicConstraints, cRLDistributionPoints, authorityKeyIdentifier: 2.5.29.x.
const SUBJECT_KEY_ID: &[u8] = &[0x55, 0x1d, 14];
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 15];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 19];
const CRL_DISTRIBUTION: &[u8] = &[0x55, 0x1d, 31];
const AUTHORITY_KEY_ID: &[u8] = &[0x55, 0x1d, 35];
/// Intel SGX extensions, 1.2.840.113741.1.13.1.
const SGX: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 0x01, 0x0d, 0x01];

/// The extensions of a certificate that this crate reads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extensions<'a> {
    /// basicConstraints: the certificate may issue others.
    pub is_ca: bool,
    /// basicConstraints: how many intermediate certificates may follow.
    pub path_length: Option<u64>,
    /// keyUsage: may sign certificates. `None` without the extension.
    pub may_sign_certificates: Option<bool>,
    /// keyUsage: may sign revocation lists. `None` without the extension.
    pub may_sign_crls: Option<bool>,
    /// Contents of Intel's SGX extension (a SEQUENCE), as PCK certificates carry it.
    pub sgx: Option<&'a [u8]>,
}

/// A certificate, borrowed from its DER encoding.
#[derive(Clone, Copy, Debug)]
pub struct Certificate<'a> {
    /// The whole encoding.
    pub der: &'a [u8],
    /// The bytes that the issuer signs.
    pub signed: &'a [u8],
    /// Serial number: magnitude, without leading zeros.
    pub serial: &'a [u8],
    /// Who issued it.
    pub issuer: Name<'a>,
    /// Whom the certificate names.
    pub subject: Name<'a>,
    /// When the certificate is valid.
    pub validity: Validity,
    /// The subject's P-256 key.
    pub public_key: PublicKey,
    /// Extensions.
    pub extensions: Extensions<'a>,
    /// The issuer's signature.
    pub signature: Signature,
}

impl<'a> Certificate<'a> {
    /// Reads a version 3 certificate with a P-256 key and an ecdsa-with-SHA256 signature.
    ///
    /// # Errors
    /// Anything else, and critical extensions that this crate does not know.
    pub fn from_der(der: &'a [u8]) -> Result<Self, X509Error> {
        let mut outer = Element::only(der)?.inside(Tag::Sequence)?;
        let signed = outer.next()?;
        check_signature_algorithm(&outer.next()?)?;
        let signature = signature_from_der(outer.next()?.bits()?)?;
        outer.end()?;

        let mut fields = signed.inside(Tag::Sequence)?;
        let mut version = fields.next()?.inside(context(0))?;
        if version.next()?.unsigned()? != 2 {
            return Err(X509Error::Unexpected);
        }
        let serial = positive(fields.next()?.expect(Tag::Integer)?)?;
        check_signature_algorithm(&fields.next()?)?;
        let issuer = Name::read(&fields.next()?)?;
        let mut dates = fields.next()?.inside(Tag::Sequence)?;
        let validity = Validity { from: read_time(&dates.next()?)?, until: read_time(&dates.next()?)? };
        dates.end()?;
        let subject = Name::read(&fields.next()?)?;
        let public_key = read_key(&fields.next()?)?;
        let extensions = match fields.next_if(context(3))? {
            Some(list) => read_extensions(Element::only(list.value)?.inside(Tag::Sequence)?)?,
            None => Extensions::default(),
        };
        fields.end()?;
        Ok(Self {
            der,
            signed: signed.whole,
            serial,
            issuer,
            subject,
            validity,
            public_key,
            extensions,
            signature,
        })
    }

    /// Whether issuer and subject are the same name.
    #[must_use]
    pub fn is_self_issued(&self) -> bool {
        self.issuer == self.subject
    }

    /// Whether the extensions allow this certificate to issue others.
    #[must_use]
    pub fn may_issue(&self) -> bool {
        self.extensions.is_ca && self.extensions.may_sign_certificates != Some(false)
    }
}

fn read_key(info: &Element<'_>) -> Result<PublicKey, X509Error> {
    let mut info = info.inside(Tag::Sequence)?;
    let mut algorithm = info.next()?.inside(Tag::Sequence)?;
    let (kind, curve) = (algorithm.next()?, algorithm.next()?);
    if kind.expect(Tag::ObjectIdentifier)? != EC_PUBLIC_KEY
        || curve.expect(Tag::ObjectIdentifier)? != PRIME256V1
    {
        return Err(X509Error::Algorithm);
    }
    algorithm.end()?;
    let key = info.next()?.bits()?;
    info.end()?;
    match key.split_first() {
        // Uncompressed point.
        Some((4, point)) => point.try_into().map(PublicKey).map_err(|_| X509Error::Algorithm),
        _ => Err(X509Error::Algorithm),
    }
}

fn read_extensions<'a>(mut list: Walk<'a>) -> Result<Extensions<'a>, X509Error> {
    let mut extensions = Extensions::default();
    while !list.is_empty() {
        let mut parts = list.next()?.inside(Tag::Sequence)?;
        let oid = parts.next()?.expect(Tag::ObjectIdentifier)?;
        let critical = match parts.next_if(Tag::Boolean)? {
            Some(flag) => flag.value == [0xff],
            None => false,
        };
        let value = parts.next()?.expect(Tag::OctetString)?;
        parts.end()?;
        match oid {
            BASIC_CONSTRAINTS => {
                let mut parts = Element::only(value)?.inside(Tag::Sequence)?;
                if let Some(flag) = parts.next_if(Tag::Boolean)? {
                    extensions.is_ca = flag.value == [0xff];
                }
                if let Some(length) = parts.next_if(Tag::Integer)? {
                    extensions.path_length = Some(length.unsigned()?);
                }
                parts.end()?;
            }
            KEY_USAGE => {
                // BIT STRING with unused bits: keyCertSign is bit 5, cRLSign bit 6 of the first byte.
                let bits = Element::only(value)?.expect(Tag::BitString)?;
                let first = bits.get(1).copied().unwrap_or(0);
                extensions.may_sign_certificates = Some(first & 0x04 != 0);
                extensions.may_sign_crls = Some(first & 0x02 != 0);
            }
            SGX => extensions.sgx = Some(value),
            SUBJECT_KEY_ID | CRL_DISTRIBUTION | AUTHORITY_KEY_ID => {}
            _ if critical => return Err(X509Error::CriticalExtension),
            _ => {}
        }
    }
    Ok(extensions)
}
