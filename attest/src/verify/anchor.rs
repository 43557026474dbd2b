//! The root that verification ends at.

use alloc::vec::Vec;

use crate::x509::{Certificate, X509Error, pem};

/// Intel's SGX Root CA (public; served at the CRL distribution point of every certificate it issued).
const INTEL_ROOT: &[u8] = include_bytes!("intel-sgx-root-ca.der");

/// A trusted root certificate. A chain is trusted if its root is this certificate, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustAnchor {
    der: Vec<u8>,
}

impl TrustAnchor {
    /// Intel's SGX Root CA.
    #[must_use]
    pub fn intel() -> Self {
        Self { der: INTEL_ROOT.to_vec() }
    }

    /// Another root, as DER or PEM.
    ///
    /// # Errors
    /// Bytes that are no self-issued P-256 certificate.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, X509Error> {
        let der = pem::certificate(bytes)?;
        if !Certificate::from_der(&der)?.is_self_issued() {
            return Err(X509Error::Unexpected);
        }
        Ok(Self { der })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_root_is_intels_and_signs_itself() {
        let anchor = TrustAnchor::intel();
        let root = anchor.certificate().unwrap();
        assert_eq!(root.subject.common_name(), Some("Intel SGX Root CA"));
        assert!(root.is_self_issued() && root.may_issue());
        use crate::crypto::Crypto;
        assert!(crate::crypto::DefaultCrypto::default().verify(
            &root.public_key,
            root.signed,
            &root.signature
        ));
    }
}
