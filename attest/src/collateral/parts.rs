//! Parts of collateral from any number of files, and the bundle that a quote needs from them.
//!
//! The order of the files never matters: parts that are the same count once, and of different ones exactly one must
//! be for the quote. A body that comes without its issuer chain never takes away the chain that another has.

use alloc::string::String;
use alloc::vec::Vec;

use super::{Bundle, CollateralError, Part, QeIdentity, SignedBody, TcbInfo};
use crate::crypto::Signature;
use crate::pck::PckExtension;
use crate::quote::{Quote, TeeType};
use crate::x509::{Certificate, RevocationList, X509Error, pem};

/// Certificates, DER.
type Chain = Vec<Vec<u8>>;

/// A signed body and its signature, as a file states them.
pub(super) type StatedBody = (String, Signature);

/// The most revocation lists that are files of their own; a bundle has two.
const MAX_LOOSE_CRLS: usize = 16;

/// A part, and the file that it is from.
#[derive(Clone, Debug)]
struct Found<T> {
    part: T,
    file: usize,
}

/// A signed body, with the chain that was stated with it.
#[derive(Clone, Debug)]
struct FoundBody {
    body: StatedBody,
    chain: Option<Chain>,
}

/// The evidence that collateral is wanted for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The TEE of the quote.
    pub tee: TeeType,
    /// The quote's platform, if that is known before anything is verified.
    pub platform: Option<WantedPlatform>,
}

/// The platform that collateral is wanted for, as a PCK certificate names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedPlatform {
    /// Platform family.
    pub fmspc: [u8; 6],
    /// Provisioning certification enclave.
    pub pce_id: [u8; 2],
    /// Name of the certification authority (DER): whose revocation list counts.
    pub ca: Vec<u8>,
}

impl WantedPlatform {
    /// The platform of a PCK certificate (DER); `None` for other certificates.
    #[must_use]
    pub fn of_certificate(der: &[u8]) -> Option<Self> {
        let certificate = Certificate::from_der(der).ok()?;
        let pck = PckExtension::parse(certificate.extensions.sgx?).ok()?;
        Some(Self { fmspc: pck.fmspc, pce_id: pck.pce_id, ca: certificate.issuer.der().to_vec() })
    }
}

impl Wanted {
    /// What a quote wants. Its certificate is taken at its word: if it lies, verification fails.
    #[must_use]
    pub fn of(quote: &Quote<'_>) -> Self {
        let text = quote.signature.certification.pem();
        let chain = text.and_then(|text| pem::chain(text).ok());
        let platform = chain.iter().flatten().find_map(|der| WantedPlatform::of_certificate(der));
        Self { tee: quote.header().tee_type(), platform }
    }
}

/// Collects a [`Bundle`] from files of any supported form, in any order.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    files: usize,
    tcb_infos: Vec<Found<FoundBody>>,
    qe_identities: Vec<Found<FoundBody>>,
    /// Chains that sign bodies, from files without a body.
    signing_chains: Vec<Found<Chain>>,
    root_crls: Vec<Found<Vec<u8>>>,
    pck_crls: Vec<Found<Vec<u8>>>,
    /// Revocation lists from files of their own: whose they are is known when all chains are.
    loose_crls: Vec<Found<Vec<u8>>>,
    pck_crl_chains: Vec<Found<Chain>>,
    pck_chains: Vec<Found<Chain>>,
}

/// Adds what is not there yet.
fn put<T>(list: &mut Vec<Found<T>>, files: usize, part: T, is_same: impl Fn(&T, &T) -> bool) {
    if !list.iter().any(|found| is_same(&found.part, &part)) {
        list.push(Found { part, file: files.saturating_sub(1) });
    }
}

/// Whether two chains have the same certificates; their order says nothing.
fn same_chain(a: &Chain, b: &Chain) -> bool {
    a.len() == b.len() && a.iter().all(|der| b.contains(der))
}

fn put_body(list: &mut Vec<Found<FoundBody>>, files: usize, body: StatedBody, chain: Option<Chain>) {
    let same = list.iter_mut().filter(|found| found.part.body == body);
    for found in same {
        match (&mut found.part.chain, &chain) {
            (_, None) => return,
            (Some(have), Some(chain)) if same_chain(have, chain) => return,
            (have @ None, Some(_)) => {
                *have = chain;
                return;
            }
            (Some(_), Some(_)) => {}
        }
    }
    list.push(Found { part: FoundBody { body, chain }, file: files.saturating_sub(1) });
}

/// The one of `list` that counts: the only one there is, or the only one that fits.
fn one<T>(
    list: &[Found<T>],
    part: Part,
    fits: impl Fn(&T) -> Result<bool, CollateralError>,
) -> Result<&T, CollateralError> {
    if let [only] = list {
        return Ok(&only.part);
    }
    let mut fitting: Option<&Found<T>> = None;
    for found in list {
        if !fits(&found.part)? {
            continue;
        }
        if let Some(Found { file, .. }) = fitting {
            let files = (*file, found.file);
            return Err(CollateralError::Ambiguous {
                part,
                files: (files.0.min(files.1), files.0.max(files.1)),
            });
        }
        fitting = Some(found);
    }
    match (fitting, list.is_empty()) {
        (Some(found), _) => Ok(&found.part),
        (None, true) => Err(CollateralError::Missing(part)),
        (None, false) => Err(CollateralError::NoneFits(part)),
    }
}

/// The name of who issued a revocation list (DER).
fn issuer(crl: &[u8]) -> Result<Vec<u8>, X509Error> {
    RevocationList::from_der(crl).map(|list| list.issuer.der().to_vec())
}

impl Parts {
    pub(super) fn next_file(&mut self) {
        self.files += 1;
    }

    pub(super) fn put_tcb_info(&mut self, body: StatedBody, chain: Option<Chain>) {
        put_body(&mut self.tcb_infos, self.files, body, chain);
    }

    pub(super) fn put_qe_identity(&mut self, body: StatedBody, chain: Option<Chain>) {
        put_body(&mut self.qe_identities, self.files, body, chain);
    }

    pub(super) fn put_signing_chain(&mut self, chain: Chain) {
        put(&mut self.signing_chains, self.files, chain, same_chain);
    }

    pub(super) fn put_pck_crl_chain(&mut self, chain: Chain) {
        put(&mut self.pck_crl_chains, self.files, chain, same_chain);
    }

    pub(super) fn put_pck_chain(&mut self, chain: Chain) {
        put(&mut self.pck_chains, self.files, chain, same_chain);
    }

    pub(super) fn put_root_crl(&mut self, der: Vec<u8>) {
        put(&mut self.root_crls, self.files, der, PartialEq::eq);
    }

    pub(super) fn put_pck_crl(&mut self, der: Vec<u8>) {
        put(&mut self.pck_crls, self.files, der, PartialEq::eq);
    }

    pub(super) fn put_loose_crl(&mut self, der: Vec<u8>) -> Result<(), CollateralError> {
        if self.loose_crls.len() == MAX_LOOSE_CRLS {
            return Err(CollateralError::TooLarge(Part::Bundle));
        }
        put(&mut self.loose_crls, self.files, der, PartialEq::eq);
        Ok(())
    }

    /// Every certificate that any part brings.
    fn certificates(&self) -> impl Iterator<Item = &Vec<u8>> {
        let bodies = self.tcb_infos.iter().chain(&self.qe_identities);
        let of_bodies = bodies.filter_map(|found| found.part.chain.as_ref());
        let loose = self.signing_chains.iter().chain(&self.pck_crl_chains).chain(&self.pck_chains);
        of_bodies.chain(loose.map(|found| &found.part)).flatten()
    }

    /// The revocation lists of root and certification authorities: a loose one is the root's if its issuer is at the
    /// end of a chain.
    fn crls(&self) -> Result<[Vec<Found<Vec<u8>>>; 2], CollateralError> {
        let [mut root, mut pck] = [self.root_crls.clone(), self.pck_crls.clone()];
        for Found { part: der, file } in &self.loose_crls {
            let list = RevocationList::from_der(der)
                .map_err(|error| CollateralError::X509 { part: Part::Bundle, error })?;
            let is_of_root = self.certificates().any(|der| {
                Certificate::from_der(der)
                    .is_ok_and(|one| one.is_self_issued() && one.subject.der() == list.issuer.der())
            });
            let place = if is_of_root { &mut root } else { &mut pck };
            put(place, file + 1, der.clone(), PartialEq::eq);
        }
        Ok([root, pck])
    }

    /// The chain of a body: the one that it came with, else a loose one, else the one of the other body.
    fn chain_of(&self, body: &FoundBody, part: Part) -> Result<Chain, CollateralError> {
        if let Some(chain) = &body.chain {
            return Ok(chain.clone());
        }
        if !self.signing_chains.is_empty() {
            return one(&self.signing_chains, part, |_| Ok(true)).cloned();
        }
        let mut others: Vec<Found<Chain>> = Vec::new();
        for Found { part, file } in self.tcb_infos.iter().chain(&self.qe_identities) {
            if let Some(chain) = &part.chain {
                put(&mut others, file + 1, chain.clone(), same_chain);
            }
        }
        one(&others, part, |_| Ok(true)).cloned()
    }

    /// Every part that no file has.
    #[must_use]
    pub fn missing(&self) -> Vec<Part> {
        let [root, pck] = self.crls().unwrap_or_default();
        let has_chain = |list: &[Found<FoundBody>]| list.iter().any(|found| found.part.chain.is_some());
        let no_chain = self.signing_chains.is_empty();
        let none = no_chain && !has_chain(&self.tcb_infos) && !has_chain(&self.qe_identities);
        [
            (Part::TcbInfo, self.tcb_infos.is_empty()),
            (Part::TcbInfoChain, none),
            (Part::QeIdentity, self.qe_identities.is_empty()),
            (Part::QeIdentityChain, none),
            (Part::RootCrl, root.is_empty()),
            (Part::PckCrl, pck.is_empty()),
        ]
        .into_iter()
        .filter_map(|(part, is_missing)| is_missing.then_some(part))
        .collect()
    }

    /// The bundle, where it is the same for every quote.
    ///
    /// # Errors
    /// The first part that no file has; parts of which there are two.
    pub fn build(&self) -> Result<Bundle, CollateralError> {
        self.choose(None)
    }

    /// The bundle for a quote.
    ///
    /// # Errors
    /// The first part that no file has; of several parts of a kind, that none fits the quote or that two do.
    pub fn build_for(&self, wanted: &Wanted) -> Result<Bundle, CollateralError> {
        self.choose(Some(wanted))
    }

    fn choose(&self, wanted: Option<&Wanted>) -> Result<Bundle, CollateralError> {
        let pck_chain = self.pck_chain(wanted)?;
        let own = pck_chain.iter().find_map(|der| WantedPlatform::of_certificate(der));
        let platform = wanted.and_then(|wanted| wanted.platform.as_ref()).or(own.as_ref());
        let tcb_info = one(&self.tcb_infos, Part::TcbInfo, |found| {
            let info = TcbInfo::parse(&found.body.0)?;
            Ok(wanted.is_none_or(|wanted| wanted.tee == info.tee)
                && platform
                    .is_none_or(|platform| (platform.fmspc, platform.pce_id) == (info.fmspc, info.pce_id)))
        })?;
        let qe_identity = one(&self.qe_identities, Part::QeIdentity, |found| {
            let kind = QeIdentity::parse(&found.body.0)?.kind;
            Ok(wanted.is_none_or(|wanted| kind.signs_for() == Some(wanted.tee)))
        })?;
        let [root_crls, pck_crls] = self.crls()?;
        let (tcb_info, qe_identity) =
            (self.signed(tcb_info, Part::TcbInfoChain)?, self.signed(qe_identity, Part::QeIdentityChain)?);
        let root_crl = one(&root_crls, Part::RootCrl, |_| Ok(true))?.clone();
        let pck_crl = one(&pck_crls, Part::PckCrl, |der| {
            let issuer = issuer(der).map_err(|error| CollateralError::X509 { part: Part::PckCrl, error })?;
            Ok(platform.is_none_or(|platform| platform.ca == issuer))
        })?
        .clone();
        let pck_crl_chain = self.pck_crl_chain_of(&pck_crl)?;
        Ok(Bundle { tcb_info, qe_identity, root_crl, pck_crl, pck_crl_chain, pck_chain })
    }

    /// A body with the chain that goes with it.
    fn signed(&self, found: &FoundBody, part: Part) -> Result<SignedBody, CollateralError> {
        let (body, signature) = found.body.clone();
        Ok(SignedBody { body, signature, chain: self.chain_of(found, part)? })
    }

    pub(super) fn signed_tcb_infos(&self) -> impl Iterator<Item = Result<SignedBody, CollateralError>> {
        self.tcb_infos.iter().map(|found| self.signed(&found.part, Part::TcbInfoChain))
    }

    pub(super) fn signed_qe_identities(&self) -> impl Iterator<Item = Result<SignedBody, CollateralError>> {
        self.qe_identities.iter().map(|found| self.signed(&found.part, Part::QeIdentityChain))
    }

    /// The revocation lists of roots, and those of everybody else.
    pub(super) fn all_crls(&self) -> Result<[Vec<Vec<u8>>; 2], CollateralError> {
        let parts = |list: Vec<Found<Vec<u8>>>| list.into_iter().map(|found| found.part).collect();
        Ok(self.crls()?.map(parts))
    }

    pub(super) fn all_pck_chains(&self) -> Vec<Vec<Vec<u8>>> {
        self.pck_chains.iter().map(|found| found.part.clone()).collect()
    }

    /// The certificates that issued a revocation list; empty if no file has any.
    pub(super) fn pck_crl_chain_of(&self, pck_crl: &[u8]) -> Result<Chain, CollateralError> {
        match self.pck_crl_chains.as_slice() {
            [] => Ok(Vec::new()),
            several => one(several, Part::PckCrlChain, |chain| {
                let issuer = issuer(pck_crl).unwrap_or_default();
                let is_issuer = |der: &Vec<u8>| {
                    Certificate::from_der(der).is_ok_and(|one| one.subject.der() == issuer.as_slice())
                };
                Ok(chain.iter().any(is_issuer))
            })
            .cloned(),
        }
    }

    /// The PCK chain; empty if there is none.
    fn pck_chain(&self, wanted: Option<&Wanted>) -> Result<Chain, CollateralError> {
        if self.pck_chains.is_empty() {
            return Ok(Vec::new());
        }
        let platform = wanted.and_then(|wanted| wanted.platform.as_ref());
        let chain = one(&self.pck_chains, Part::PckChain, |chain| {
            let own = chain.iter().find_map(|der| WantedPlatform::of_certificate(der));
            Ok(platform.is_none_or(|wanted| own.as_ref() == Some(wanted)))
        });
        match chain {
            // A quote that names its platform brings what these do not have.
            Err(CollateralError::NoneFits(_)) => Ok(Vec::new()),
            chain => chain.cloned(),
        }
    }
}
