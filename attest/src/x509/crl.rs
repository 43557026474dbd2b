//! Certificate revocation lists: who issued them, when they hold, and which serial numbers they name.

use der::Tag;

use super::asn1::{Element, Walk, context, positive};
use super::{Name, X509Error, check_signature_algorithm, read_time, signature_from_der};
use crate::crypto::Signature;
use crate::time::Validity;

/// cRLNumber, 2.5.29.20.
const CRL_NUMBER: &[u8] = &[0x55, 0x1d, 20];
/// authorityKeyIdentifier, 2.5.29.35.
const AUTHORITY_KEY_ID: &[u8] = &[0x55, 0x1d, 35];

/// A revocation list, borrowed from its DER encoding.
#[derive(Clone, Copy, Debug)]
pub struct RevocationList<'a> {
    /// The bytes that the issuer signs.
    pub signed: &'a [u8],
    /// Who issued it.
    pub issuer: Name<'a>,
    /// thisUpdate to nextUpdate.
    pub validity: Validity,
    /// cRLNumber, if it is there and fits.
    pub number: Option<u64>,
    /// The issuer's signature.
    pub signature: Signature,
    /// Contents of revokedCertificates.
    revoked: &'a [u8],
}

impl<'a> RevocationList<'a> {
    /// Reads a version 2 revocation list signed with ecdsa-with-SHA256.
    ///
    /// # Errors
    /// Anything else, a list without nextUpdate, and critical extensions (indirect and partial lists
    /// have them, and reading one of those as a full list would miss revocations).
    pub fn from_der(der: &'a [u8]) -> Result<Self, X509Error> {
        let mut outer = Element::only(der)?.inside(Tag::Sequence)?;
        let signed = outer.next()?;
        check_signature_algorithm(&outer.next()?)?;
        let signature = signature_from_der(outer.next()?.bits()?)?;
        outer.end()?;

        let mut fields = signed.inside(Tag::Sequence)?;
        if fields.next()?.unsigned()? != 1 {
            return Err(X509Error::Unexpected);
        }
        check_signature_algorithm(&fields.next()?)?;
        let issuer = Name::read(&fields.next()?)?;
        let validity = Validity { from: read_time(&fields.next()?)?, until: read_time(&fields.next()?)? };
        let revoked = match fields.next_if(Tag::Sequence)? {
            Some(list) => list.value,
            None => &[],
        };
        let number = match fields.next_if(context(0))? {
            Some(list) => read_extensions(Element::only(list.value)?.inside(Tag::Sequence)?)?,
            None => None,
        };
        fields.end()?;
        let list = Self { signed: signed.whole, issuer, validity, number, signature, revoked };
        // Malformed entries must not hide behind the one that is looked for.
        list.serials().try_for_each(|serial| serial.map(drop))?;
        Ok(list)
    }

    /// The revoked serial numbers: magnitudes, without leading zeros.
    pub fn serials(&self) -> impl Iterator<Item = Result<&'a [u8], X509Error>> {
        let mut entries = Walk::new(self.revoked);
        core::iter::from_fn(move || {
            let walk = match &mut entries {
                Ok(walk) if walk.is_empty() => return None,
                Ok(walk) => walk,
                Err(error) => return Some(Err(*error)),
            };
            let serial = walk.next().and_then(|entry| {
                let mut parts = entry.inside(Tag::Sequence)?;
                let serial = positive(parts.next()?.expect(Tag::Integer)?)?;
                read_time(&parts.next()?)?;
                Ok(serial)
            });
            if serial.is_err() {
                // One error ends the walk.
                entries = Walk::new(&[]);
            }
            Some(serial)
        })
    }

    /// Whether `serial` (a magnitude without leading zeros) is on the list.
    #[must_use]
    pub fn revokes(&self, serial: &[u8]) -> bool {
        self.serials().any(|revoked| revoked == Ok(serial))
    }
}

fn read_extensions(mut list: Walk<'_>) -> Result<Option<u64>, X509Error> {
    let mut number = None;
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
            CRL_NUMBER => number = Element::only(value)?.unsigned().ok(),
            AUTHORITY_KEY_ID => {}
            _ if critical => return Err(X509Error::CriticalExtension),
            _ => {}
        }
    }
    Ok(number)
}
