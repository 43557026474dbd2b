//! The root that verification ends at, and the certificates it is known to have issued.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::VerifyError;
use super::chain::check_link;
use super::error::Item;
use crate::crypto::Crypto;
use crate::x509::{Certificate, X509Error, pem};

/// Intel's SGX Root CA (public; served at the CRL distribution point of every certificate it issued).
const INTEL_ROOT: &[u8] = include_bytes!("intel/root-ca.der");

/// The four certificates that Intel's root has issued: two PCK certification authorities, and the signer of
/// JSON collateral before and after its renewal of 2025. A test checks that the root signed them.
const INTEL_ISSUED: [&[u8]; 4] = [
    include_bytes!("intel/pck-platform-ca.der"),
    include_bytes!("intel/pck-processor-ca.der"),
    include_bytes!("intel/tcb-signing-2025.der"),
    include_bytes!("intel/tcb-signing-2018.der"),
];

/// The most certificates that an anchor knows to be issued by its root.
const MAX_ISSUED: usize = 16;

/// A trusted root certificate. A chain is trusted if its root is this certificate, byte for byte.
///
/// An anchor may know certificates that its root has issued: their signatures have been verified when the
/// anchor was made, and need not be again. Dates and revocation are looked at every time all the same, and
/// a certificate that is not known (a renewed one) is verified like any other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustAnchor {
    der: Vec<u8>,
    issued: Vec<Box<[u8]>>,
}

impl TrustAnchor {
    /// Intel's SGX Root CA, with the four certificates that it has issued.
    #[must_use]
    pub fn intel() -> Self {
        Self { der: INTEL_ROOT.to_vec(), issued: INTEL_ISSUED.iter().map(|der| Box::from(*der)).collect() }
    }

    /// An anchor of the caller's: a root certificate as DER or PEM.
    ///
    /// # Errors
    /// Bytes that are no self-issued P-256 certificate.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, X509Error> {
        let der = pem::certificate(bytes)?;
        if !Certificate::from_der(&der)?.is_self_issued() {
            return Err(X509Error::Unexpected);
        }
        Ok(Self { der, issued: Vec::new() })
    }

    /// Verifies certificates (DER) that this root has issued, and knows them from now on.
    ///
    /// # Errors
    /// A certificate that the root has not issued.
    pub fn with_issued(mut self, ders: &[Vec<u8>], crypto: &impl Crypto) -> Result<Self, VerifyError> {
        for der in ders.iter().take(MAX_ISSUED) {
            let x509 = |error| VerifyError::X509 { item: Item::RootCertificate, error };
            let certificate = Certificate::from_der(der).map_err(x509)?;
            check_link(&certificate, &self.certificate().map_err(x509)?, crypto, Item::RootCertificate)?;
            self.issued.push(der.as_slice().into());
        }
        Ok(self)
    }

    /// Whether the root is known to have issued exactly this certificate.
    #[must_use]
    pub fn has_issued(&self, der: &[u8]) -> bool {
        self.issued.iter().any(|issued| **issued == *der)
    }

    /// The certificate's encoding.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The decoded certificate.
    ///
    /// # Errors
    /// None in practice: construction has decoded it once.
    pub fn certificate(&self) -> Result<Certificate<'_>, X509Error> {
        Certificate::from_der(&self.der)
    }
}

#[cfg(all(test, feature = "p256"))]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_root_is_intels_and_signs_itself() {
        let anchor = TrustAnchor::intel();
        let root = anchor.certificate().unwrap();
        assert_eq!(root.subject.common_name(), Some("Intel SGX Root CA"));
        assert!(root.is_self_issued() && root.may_issue());
        let crypto = crate::crypto::RustCrypto;
        assert!(crypto.verify(&root.public_key, root.signed, &root.signature));
    }
    #[test]
    fn every_built_in_certificate_was_issued_by_the_root() {
        let bare = TrustAnchor { der: INTEL_ROOT.to_vec(), issued: Vec::new() };
        let issued: Vec<Vec<u8>> = INTEL_ISSUED.iter().map(|der| der.to_vec()).collect();
        let built_in = bare.clone().with_issued(&issued, &crate::crypto::RustCrypto);
        assert_eq!(built_in, Ok(TrustAnchor::intel()));
        let mut forged = issued;
        for der in &mut forged {
            let last = der.len() - 1;
            der[last] ^= 1;
        }
        assert!(bare.with_issued(&forged, &crate::crypto::RustCrypto).is_err());
    }
}
