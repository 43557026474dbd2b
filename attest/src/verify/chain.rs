//! Links of certificate chains: roles found by name, issuer by name and signature, root by identity.
//!
//! Chains of this PKI are short and fixed: a signing chain is signer and root, a PCK chain is leaf,
//! certification authority and root. The order in the text does not matter, as in Intel's library.

use alloc::vec::Vec;

use super::{Item, TrustAnchor, VerifyError};
use crate::collateral::Part;
use crate::crypto::Crypto;
use crate::x509::Certificate;

/// What Intel's library looks for in a common name, by role.
pub(super) const PCK_PHRASE: &str = "SGX PCK Certificate";
/// The phrase in names of certification authorities.
pub(super) const CA_PHRASE: &str = "CA";
/// The phrase in the name of the signer of JSON collateral.
pub(super) const SIGNER_PHRASE: &str = "SGX TCB Signing";

/// Certificates of a chain of JSON collateral.
pub(super) struct SigningChain<'a> {
    pub(super) signer: Certificate<'a>,
    pub(super) root: Certificate<'a>,
}

/// Certificates of a PCK chain.
pub(super) struct PckChain<'a> {
    pub(super) leaf: Certificate<'a>,
    pub(super) ca: Certificate<'a>,
}

fn decode(der: &[u8], item: Item) -> Result<Certificate<'_>, VerifyError> {
    Certificate::from_der(der).map_err(|error| VerifyError::X509 { item, error })
}

/// The chain's certificates without the root, which must be the trusted one.
fn split_root<'a>(
    ders: &'a [Vec<u8>],
    anchor: &TrustAnchor,
    part: Part,
) -> Result<impl Iterator<Item = &'a [u8]>, VerifyError> {
    let root = ders.iter().position(|der| der.as_slice() == anchor.der());
    let root = root.ok_or(VerifyError::Untrusted(part))?;
    Ok(ders.iter().enumerate().filter(move |(at, _)| *at != root).map(|(_, der)| der.as_slice()))
}

impl<'a> SigningChain<'a> {
    /// Reads and verifies the chain of a signed JSON body.
    pub(super) fn verify(
        ders: &'a [Vec<u8>],
        anchor: &'a TrustAnchor,
        crypto: &impl Crypto,
        (part, item): (Part, Item),
    ) -> Result<Self, VerifyError> {
        if ders.len() != 2 {
            return Err(VerifyError::ChainLength { part, length: ders.len() });
        }
        let der = split_root(ders, anchor, part)?.next().ok_or(VerifyError::RoleMissing(item))?;
        let signer = decode(der, item)?;
        if !signer.subject.common_name_contains(SIGNER_PHRASE) {
            return Err(VerifyError::RoleMissing(item));
        }
        let root = decode(anchor.der(), Item::RootCertificate)?;
        if !anchor.has_issued(signer.der) {
            check_link(&signer, &root, crypto, item)?;
        }
        Ok(Self { signer, root })
    }
}

impl<'a> PckChain<'a> {
    /// Reads a PCK chain and finds the roles; signatures are not verified yet.
    pub(super) fn read(ders: &'a [Vec<u8>], anchor: &TrustAnchor) -> Result<Self, VerifyError> {
        if ders.len() != 3 {
            return Err(VerifyError::ChainLength { part: Part::PckChain, length: ders.len() });
        }
        let (mut leaf, mut ca) = (None, None);
        for der in split_root(ders, anchor, Part::PckChain)? {
            let certificate = decode(der, Item::PckCertificate)?;
            if certificate.subject.common_name_contains(PCK_PHRASE) {
                leaf = Some(certificate);
            } else if certificate.subject.common_name_contains(CA_PHRASE) && !certificate.is_self_issued() {
                ca = Some(certificate);
            }
        }
        Ok(Self {
            leaf: leaf.ok_or(VerifyError::RoleMissing(Item::PckCertificate))?,
            ca: ca.ok_or(VerifyError::RoleMissing(Item::PckCaCertificate))?,
        })
    }
}

/// Checks that `issuer` issued `certificate`, and was allowed to.
pub(super) fn check_link(
    certificate: &Certificate<'_>,
    issuer: &Certificate<'_>,
    crypto: &impl Crypto,
    item: Item,
) -> Result<(), VerifyError> {
    if certificate.issuer != issuer.subject {
        return Err(VerifyError::WrongIssuer(item));
    }
    if !issuer.may_issue() {
        return Err(VerifyError::NotAnIssuer(item));
    }
    if !crypto.verify(&issuer.public_key, certificate.signed, &certificate.signature) {
        return Err(VerifyError::BadSignature(item));
    }
    Ok(())
}
