//! The collateral that a verifier holds, and what is chosen from it for a quote.
//!
//! Every choice depends on the quote and on the collateral that was added, and never on quotes seen before.

use alloc::vec::Vec;

use super::Item;
use super::VerifyError;
use super::chain::PCK_PHRASE;
use super::known::VerifiedCollateral;
use crate::crypto::{Crypto, Signature};
use crate::pck::PckExtension;
use crate::quote::{CertificationType, PlatformId, Quote, TeeType};
use crate::x509::{Certificate, pem};

/// How many sets of collateral a verifier keeps.
const MAX_SETS: usize = 32;

/// What a set is for: TEE, FMSPC, PCE id.
type Key = (u32, [u8; 6], [u8; 2]);

/// Sets of collateral, one for each platform family and TEE, in the order of their keys.
#[derive(Clone, Debug, Default)]
pub(super) struct Sets {
    /// The second is when it was added.
    sets: Vec<(VerifiedCollateral, u64)>,
    added: u64,
}

fn key(set: &VerifiedCollateral) -> Key {
    (set.tcb_info.tee.0, set.tcb_info.fmspc, set.tcb_info.pce_id)
}

impl Sets {
    pub(super) const fn new() -> Self {
        Self { sets: Vec::new(), added: 0 }
    }

    /// Adds a set in place of the one for the same platforms; when there are too many, the longest held one goes.
    pub(super) fn add(&mut self, new: VerifiedCollateral) {
        self.sets.retain(|(old, _)| key(old) != key(&new));
        if self.sets.len() >= MAX_SETS
            && let Some(oldest) = self.sets.iter().map(|(_, added)| *added).min()
        {
            self.sets.retain(|(_, added)| *added != oldest);
        }
        self.added += 1;
        let place = self.sets.partition_point(|(old, _)| key(old) < key(&new));
        self.sets.insert(place, (new, self.added));
    }

    /// The sets for a TEE.
    fn of_tee(&self, tee: TeeType) -> impl Iterator<Item = &VerifiedCollateral> {
        self.sets.iter().map(|(set, _)| set).filter(move |set| set.tcb_info.tee == tee)
    }

    /// The set for a platform; failing that, the last that was added for the TEE, whose mismatch then is the error.
    pub(super) fn select(
        &mut self,
        tee: TeeType,
        platform: &PckExtension,
    ) -> Result<&mut VerifiedCollateral, VerifyError> {
        let wanted = (tee.0, platform.fmspc, platform.pce_id);
        let candidates = self.sets.iter_mut().filter(|(set, _)| set.tcb_info.tee == tee);
        candidates
            .max_by_key(|(set, added)| (key(set) == wanted, *added))
            .map(|(set, _)| set)
            .ok_or(VerifyError::NoCollateral(tee))
    }

    /// The PCK chain for a quote that carries none or its leaf only.
    pub(super) fn pck_chain(
        &self,
        quote: &Quote<'_>,
        crypto: &impl Crypto,
    ) -> Result<Vec<Vec<u8>>, VerifyError> {
        let certification = &quote.signature.certification;
        let tee = quote.header().tee_type();
        if self.of_tee(tee).next().is_none() {
            return Err(VerifyError::NoCollateral(tee));
        }
        if certification.kind == CertificationType::PCK_CERTIFICATE {
            let x509 = |error| VerifyError::X509 { item: Item::PckCertificate, error };
            let chain = pem::chain(certification.data).map_err(x509)?;
            return Ok(match chain.as_slice() {
                [leaf] => self.with_issuers(leaf, tee)?,
                _ => chain,
            });
        }
        let platform = certification.platform_id();
        let fits: Vec<&Vec<Vec<u8>>> = self
            .of_tee(tee)
            .map(|set| &set.pck_chain)
            .filter(|chain| !chain.is_empty() && platform.is_none_or(|platform| may_be_of(chain, &platform)))
            .collect();
        // Of several, the quote tells its own: that PCK signed the report of its quoting enclave.
        let signed = fits.iter().find(|chain| signed_by(chain, quote, crypto));
        let chain = signed.or(fits.first()).ok_or(VerifyError::NoPckChain(certification.kind))?;
        Ok((*chain).clone())
    }

    /// A leaf with the issuers that the collateral has for it.
    fn with_issuers(&self, leaf: &[u8], tee: TeeType) -> Result<Vec<Vec<u8>>, VerifyError> {
        let decoded = Certificate::from_der(leaf)
            .map_err(|error| VerifyError::X509 { item: Item::PckCertificate, error })?;
        let issuers = |set: &'_ VerifiedCollateral| -> Vec<Vec<u8>> {
            let issuers = set.pck_chain.get(1..).filter(|issuers| !issuers.is_empty());
            issuers.unwrap_or(&set.pck_crl_chain).to_vec()
        };
        let is_issuer =
            |der: &Vec<u8>| Certificate::from_der(der).is_ok_and(|issuer| issuer.subject == decoded.issuer);
        let all: Vec<Vec<Vec<u8>>> = self.of_tee(tee).map(issuers).collect();
        let own = all.iter().find(|issuers| issuers.iter().any(is_issuer)).or(all.first());
        let mut chain = alloc::vec![leaf.to_vec()];
        chain.extend(own.into_iter().flatten().cloned());
        Ok(chain)
    }
}

/// The leaf of a chain, wherever it stands.
fn leaf(chain: &[Vec<u8>]) -> Option<Certificate<'_>> {
    chain
        .iter()
        .filter_map(|der| Certificate::from_der(der).ok())
        .find(|certificate| certificate.subject.common_name_contains(PCK_PHRASE))
}

/// Whether a chain may be of the platform that a quote names. An encrypted PPID cannot be compared, and the versions
/// of a PCK may be lower than the platform's.
fn may_be_of(chain: &[Vec<u8>], platform: &PlatformId<'_>) -> bool {
    let extension = leaf(chain).and_then(|leaf| leaf.extensions.sgx).map(PckExtension::parse);
    match extension {
        Some(Ok(pck)) => {
            let in_clear = platform.ppid.len() == pck.ppid.len();
            pck.pce_id == platform.pce_id && (!in_clear || pck.ppid == *platform.ppid)
        }
        // What is wrong with it is said when it is verified.
        _ => true,
    }
}

/// Whether the chain's leaf signed the report of the quote's quoting enclave.
fn signed_by(chain: &[Vec<u8>], quote: &Quote<'_>, crypto: &impl Crypto) -> bool {
    let signature = Signature(*quote.signature.qe_report_signature);
    leaf(chain)
        .is_some_and(|leaf| crypto.verify(&leaf.public_key, quote.signature.qe_report_bytes, &signature))
}
