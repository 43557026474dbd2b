//! What a verifier has already verified and need not verify again.
//!
//! Signatures do not depend on the time, so they are kept; dates and revocation are looked at every time.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::chain::{PckChain, SigningChain, check_link};
use super::revocation::{Revocations, Serial, serial_of};
use super::{Item, TrustAnchor, VerifyError};
use crate::collateral::{Bundle, Part, QeIdentity, SignedBody, TcbInfo};
use crate::crypto::{Crypto, PublicKey};
use crate::pck::PckExtension;
use crate::quote::{EnclaveReport, SignatureData};
use crate::time::Validity;
use crate::x509::{Certificate, X509Error};

/// Collateral whose signatures have been verified.
#[derive(Clone, Debug)]
pub struct VerifiedCollateral {
    pub(super) tcb_info: TcbInfo,
    pub(super) qe_identity: QeIdentity,
    pub(super) root_crl: Revocations,
    pub(super) pck_crl: Revocations,
    pub(super) root: Validity,
    pub(super) tcb_info_signer: Validity,
    pub(super) qe_identity_signer: Validity,
    /// PCK chain of the bundle, for quotes without one.
    pub(super) pck_chain: Vec<Vec<u8>>,
    /// Issuers of the PCK revocation list, for quotes that carry a leaf only.
    pub(super) pck_crl_chain: Vec<Vec<u8>>,
}

impl VerifiedCollateral {
    /// Verifies every signature of `bundle` that does not need a quote.
    ///
    /// # Errors
    /// The first part that is malformed or not signed by the root's PKI.
    pub fn new(bundle: &Bundle, anchor: &TrustAnchor, crypto: &impl Crypto) -> Result<Self, VerifyError> {
        let tcb_info = TcbInfo::parse(&bundle.tcb_info.body)?;
        let qe_identity = QeIdentity::parse(&bundle.qe_identity.body)?;
        let chain = SigningChain::verify(
            &bundle.tcb_info.chain,
            anchor,
            crypto,
            (Part::TcbInfoChain, Item::TcbInfoSigner),
        )?;
        let qe_chain = if bundle.qe_identity.chain == bundle.tcb_info.chain {
            None
        } else {
            Some(SigningChain::verify(
                &bundle.qe_identity.chain,
                anchor,
                crypto,
                (Part::QeIdentityChain, Item::QeIdentitySigner),
            )?)
        };
        let qe_signer = qe_chain.as_ref().map_or(&chain.signer, |chain| &chain.signer);

        let mut root_crl = Revocations::read(&bundle.root_crl, Item::RootCrl)?;
        root_crl.check_issuer(chain.root.subject.der(), &chain.root.public_key, crypto)?;
        // A root on its own list has withdrawn itself.
        root_crl.check(&serial_of(&chain.root, Item::RootCertificate)?, Item::RootCertificate)?;
        root_crl.check(&serial_of(&chain.signer, Item::TcbInfoSigner)?, Item::TcbInfoSigner)?;
        root_crl.check(&serial_of(qe_signer, Item::QeIdentitySigner)?, Item::QeIdentitySigner)?;

        check_body(&bundle.tcb_info, &chain.signer.public_key, crypto, Item::TcbInfo)?;
        check_body(&bundle.qe_identity, &qe_signer.public_key, crypto, Item::QeIdentity)?;
        Ok(Self {
            root: chain.root.validity,
            tcb_info_signer: chain.signer.validity,
            qe_identity_signer: qe_signer.validity,
            pck_crl: Revocations::read(&bundle.pck_crl, Item::PckCrl)?,
            pck_chain: bundle.pck_chain.clone(),
            pck_crl_chain: bundle.pck_crl_chain.clone(),
            tcb_info,
            qe_identity,
            root_crl,
        })
    }

    /// Verifies the issuer and the signature of the bundle's PCK revocation list against the issuers that the bundle has for
    /// it. A verifier does not need that, it takes the issuer from the quote's chain; whoever keeps collateral for later
    /// does.
    ///
    /// # Errors
    /// There are no issuers, they are not the root's, or have not signed the list.
    pub fn check_pck_crl(
        bundle: &Bundle,
        anchor: &TrustAnchor,
        crypto: &impl Crypto,
    ) -> Result<(), VerifyError> {
        let x509 = |error| VerifyError::X509 { item: Item::PckCaCertificate, error };
        let root = anchor.certificate().map_err(x509)?;
        let issuers = bundle.pck_crl_chain.iter().filter(|der| der.as_slice() != anchor.der());
        let mut issuers = issuers.map(|der| Certificate::from_der(der).map_err(x509));
        let ca = issuers.next().ok_or(VerifyError::RoleMissing(Item::PckCaCertificate))??;
        check_link(&ca, &root, crypto, Item::PckCaCertificate)?;
        Revocations::read(&bundle.pck_crl, Item::PckCrl)?.check_issuer(
            ca.subject.der(),
            &ca.public_key,
            crypto,
        )
    }

    /// The TCB info.
    #[must_use]
    pub const fn tcb_info(&self) -> &TcbInfo {
        &self.tcb_info
    }

    /// The identity of the quoting enclave.
    #[must_use]
    pub const fn qe_identity(&self) -> &QeIdentity {
        &self.qe_identity
    }
}

fn check_body(
    body: &SignedBody,
    key: &PublicKey,
    crypto: &impl Crypto,
    item: Item,
) -> Result<(), VerifyError> {
    if crypto.verify(key, body.body.as_bytes(), &body.signature) {
        Ok(())
    } else {
        Err(VerifyError::BadSignature(item))
    }
}

/// A quoting enclave's key, bound by a report that the platform's PCK signed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct KnownQe {
    report: [u8; EnclaveReport::SIZE],
    report_signature: [u8; 64],
    attestation_key: [u8; 64],
    auth: Box<[u8]>,
}

/// A platform whose PCK chain has been verified up to the root.
#[derive(Clone, Debug)]
pub(super) struct Platform {
    pub(super) extension: PckExtension,
    pub(super) key: PublicKey,
    pub(super) leaf: Validity,
    pub(super) leaf_serial: Serial,
    pub(super) ca: Validity,
    pub(super) ca_serial: Serial,
    pub(super) ca_subject: Box<[u8]>,
    pub(super) ca_key: PublicKey,
    qe: Option<KnownQe>,
}

impl Platform {
    /// Verifies a PCK chain. `known_cas` are certification authorities that the root is known to have issued.
    pub(super) fn verify(
        ders: &[Vec<u8>],
        anchor: &TrustAnchor,
        known_cas: &mut Known<Box<[u8]>>,
        crypto: &impl Crypto,
    ) -> Result<Self, VerifyError> {
        let chain = PckChain::read(ders, anchor)?;
        if !anchor.has_issued(chain.ca.der) && !known_cas.iter().any(|ca| **ca == *chain.ca.der) {
            let root = anchor
                .certificate()
                .map_err(|error| VerifyError::X509 { item: Item::RootCertificate, error })?;
            check_link(&chain.ca, &root, crypto, Item::PckCaCertificate)?;
            known_cas.push(chain.ca.der.into());
        }
        check_link(&chain.leaf, &chain.ca, crypto, Item::PckCertificate)?;
        let x509 = |error| VerifyError::X509 { item: Item::PckCertificate, error };
        let extension = chain.leaf.extensions.sgx.ok_or(x509(X509Error::Unexpected))?;
        Ok(Self {
            extension: PckExtension::parse(extension).map_err(x509)?,
            key: chain.leaf.public_key,
            leaf: chain.leaf.validity,
            leaf_serial: serial_of(&chain.leaf, Item::PckCertificate)?,
            ca: chain.ca.validity,
            ca_serial: serial_of(&chain.ca, Item::PckCaCertificate)?,
            ca_subject: chain.ca.subject.der().into(),
            ca_key: chain.ca.public_key,
            qe: None,
        })
    }

    /// Checks that this platform's PCK signed the QE report and that the report binds the attestation key.
    pub(super) fn check_qe(
        &mut self,
        signature: &SignatureData<'_>,
        crypto: &impl Crypto,
    ) -> Result<(), VerifyError> {
        let is_known = self.qe.as_ref().is_some_and(|known| {
            known.report == *signature.qe_report_bytes
                && known.report_signature == *signature.qe_report_signature
                && known.attestation_key == *signature.attestation_key
                && *known.auth == *signature.qe_auth
        });
        if is_known {
            return Ok(());
        }
        let report_signature = crate::crypto::Signature(*signature.qe_report_signature);
        if !crypto.verify(&self.key, signature.qe_report_bytes, &report_signature) {
            return Err(VerifyError::BadSignature(Item::QeReport));
        }
        let binding = crypto.sha256(&[signature.attestation_key, signature.qe_auth]);
        if !signature.qe_report.report_data.starts_with(&binding) {
            return Err(VerifyError::KeyBinding);
        }
        self.qe = Some(KnownQe {
            report: *signature.qe_report_bytes,
            report_signature: *signature.qe_report_signature,
            attestation_key: *signature.attestation_key,
            auth: signature.qe_auth.into(),
        });
        Ok(())
    }
}

/// A short list of known things, the most recent first; the oldest is forgotten when it is full.
#[derive(Clone, Debug)]
pub(super) struct Known<T> {
    items: Vec<T>,
    limit: usize,
}

impl<T> Known<T> {
    pub(super) const fn new(limit: usize) -> Self {
        Self { items: Vec::new(), limit }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.items.iter()
    }

    /// Moves the first item that `is_it` names to the front and returns it.
    pub(super) fn find(&mut self, is_it: impl FnMut(&T) -> bool) -> Option<&mut T> {
        let at = self.items.iter().position(is_it)?;
        self.items.get_mut(..=at)?.rotate_right(1);
        self.items.first_mut()
    }

    pub(super) fn front(&mut self) -> Option<&mut T> {
        self.items.first_mut()
    }

    pub(super) fn push(&mut self, item: T) {
        self.items.truncate(self.limit.saturating_sub(1));
        self.items.insert(0, item);
    }

    pub(super) fn retain(&mut self, keep: impl FnMut(&T) -> bool) {
        self.items.retain(keep);
    }
}
