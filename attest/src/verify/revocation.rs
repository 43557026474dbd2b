//! Revocation lists kept for many look-ups.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::{Item, VerifyError};
use crate::crypto::{Crypto, PublicKey, Signature};
use crate::time::Validity;
use crate::x509::{Certificate, RevocationList};

/// The longest serial number that RFC 5280 allows, in bytes.
const MAX_SERIAL: usize = 20;

/// A serial number: magnitude with its length, in a form that sorts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Serial {
    len: u8,
    bytes: [u8; MAX_SERIAL],
}

impl Serial {
    pub(super) fn new(magnitude: &[u8]) -> Option<Self> {
        let mut bytes = [0; MAX_SERIAL];
        bytes.get_mut(..magnitude.len())?.copy_from_slice(magnitude);
        u8::try_from(magnitude.len()).ok().map(|len| Self { len, bytes })
    }
}

/// A revocation list with its serial numbers sorted.
#[derive(Clone, Debug)]
pub(super) struct Revocations {
    pub(super) item: Item,
    pub(super) validity: Validity,
    pub(super) number: Option<u64>,
    pub(super) issuer_is_ca: bool,
    signed: Box<[u8]>,
    signature: Signature,
    issuer: Box<[u8]>,
    serials: Vec<Serial>,
    /// The key that this list's signature has been verified with.
    verified_with: Option<PublicKey>,
}

impl Revocations {
    pub(super) fn read(der: &[u8], item: Item) -> Result<Self, VerifyError> {
        let x509 = |error| VerifyError::X509 { item, error };
        let list = RevocationList::from_der(der).map_err(x509)?;
        let mut serials = Vec::new();
        for serial in list.serials() {
            let serial = Serial::new(serial.map_err(x509)?);
            serials.push(serial.ok_or(x509(crate::x509::X509Error::Unexpected))?);
        }
        serials.sort_unstable();
        Ok(Self {
            item,
            validity: list.validity,
            number: list.number,
            issuer_is_ca: list.issuer.common_name_contains(super::chain::CA_PHRASE),
            signed: list.signed.into(),
            signature: list.signature,
            issuer: list.issuer.der().into(),
            serials,
            verified_with: None,
        })
    }

    /// Checks that the certificate's subject issued this list. The signature is verified once per key.
    pub(super) fn check_issuer(
        &mut self,
        subject: &[u8],
        key: &PublicKey,
        crypto: &impl Crypto,
    ) -> Result<(), VerifyError> {
        if !self.issuer_is_ca || *self.issuer != *subject {
            return Err(VerifyError::WrongIssuer(self.item));
        }
        if self.verified_with.as_ref() == Some(key) {
            return Ok(());
        }
        if !crypto.verify(key, &self.signed, &self.signature) {
            return Err(VerifyError::BadSignature(self.item));
        }
        self.verified_with = Some(*key);
        Ok(())
    }

    /// Fails if the serial number is on the list.
    pub(super) fn check(&self, serial: &Serial, item: Item) -> Result<(), VerifyError> {
        match self.serials.binary_search(serial) {
            Ok(_) => Err(VerifyError::RevokedCertificate(item)),
            Err(_) => Ok(()),
        }
    }
}

/// The serial number of a certificate; one that RFC 5280 does not allow cannot be looked up.
pub(super) fn serial_of(certificate: &Certificate<'_>, item: Item) -> Result<Serial, VerifyError> {
    Serial::new(certificate.serial)
        .ok_or(VerifyError::X509 { item, error: crate::x509::X509Error::Unexpected })
}
