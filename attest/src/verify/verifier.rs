//! The verifier object, and the order in which a quote is verified.

use super::known::{Known, Platform, VerifiedCollateral};
use super::sets::Sets;
use super::tcb::{Inputs, TcbVerdict, qe_svn};
use super::window::{self, ValidityWindow};
use super::{Item, TrustAnchor, VerifyError};
use crate::UnixSeconds;
use crate::collateral::{Bundle, TcbInfo};
use crate::crypto::{Crypto, PublicKey, Signature};
use crate::pck::PckExtension;
use crate::quote::{Body, CertificationType, Quote, TeeType};
use crate::time::Validity;
use crate::x509::pem;
use alloc::boxed::Box;
use alloc::vec::Vec;

/// How many platforms a verifier keeps.
const MAX_PLATFORMS: usize = 256;
/// How many certification authorities a verifier keeps; Intel has two.
const MAX_CAS: usize = 8;

/// A quote whose cryptography holds, with everything that the other verdicts look at.
#[derive(Clone, Debug)]
pub struct Verification<'a> {
    /// The quote.
    pub quote: Quote<'a>,
    /// The time it was verified for.
    pub at: UnixSeconds,
    /// The platform, from its PCK certificate.
    pub platform: PckExtension,
    /// Intel's opinion about the TCB.
    pub tcb: TcbVerdict,
    /// When all of the evidence is valid.
    pub window: ValidityWindow,
    /// Evaluation number of the TCB info.
    pub tcb_info_number: u32,
    /// Evaluation number of the QE identity.
    pub qe_identity_number: u32,
    /// Number of the root's revocation list.
    pub root_crl_number: Option<u64>,
    /// Number of the PCK revocation list.
    pub pck_crl_number: Option<u64>,
}

impl Verification<'_> {
    /// The smaller evaluation number of TCB info and QE identity: what the verdict as a whole reflects.
    #[must_use]
    pub fn evaluation_number(&self) -> u32 {
        self.tcb_info_number.min(self.qe_identity_number)
    }
}

/// When evidence has to be valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Moment {
    /// At a time that the caller knows.
    At(UnixSeconds),
    /// When the newest piece of it was issued.
    Issued,
}

/// Verifies quotes and keeps what it has verified: a verdict comes sooner for it, and is never another.
#[derive(Clone, Debug)]
pub struct Verifier<C> {
    anchor: TrustAnchor,
    crypto: C,
    collateral: Sets,
    /// Platforms by the text of their chain.
    platforms: Known<(Box<[u8]>, Platform)>,
    cas: Known<Box<[u8]>>,
}

#[cfg(any(feature = "ring", feature = "p256"))]
impl Verifier<crate::crypto::DefaultCrypto> {
    /// A verifier that trusts `anchor`, with this build's default crypto.
    #[must_use]
    pub fn new(anchor: TrustAnchor) -> Self {
        Self::with_crypto(anchor, crate::crypto::DefaultCrypto::default())
    }
}

impl<C: Crypto> Verifier<C> {
    /// A verifier that trusts `anchor` and computes with `crypto`.
    #[must_use]
    pub const fn with_crypto(anchor: TrustAnchor, crypto: C) -> Self {
        Self {
            anchor,
            crypto,
            collateral: Sets::new(),
            platforms: Known::new(MAX_PLATFORMS),
            cas: Known::new(MAX_CAS),
        }
    }

    /// Verifies the signatures of `bundle` and keeps it, in place of older collateral for the same platforms.
    ///
    /// # Errors
    /// The first part that is malformed or not signed by the root's PKI.
    pub fn add_collateral(&mut self, bundle: &Bundle) -> Result<(), VerifyError> {
        self.collateral.add(VerifiedCollateral::new(bundle, &self.anchor, &self.crypto)?);
        Ok(())
    }

    /// Forgets every platform; collateral and its issuers stay known.
    pub fn forget_platforms(&mut self) {
        self.platforms.retain(|_| false);
    }

    /// Verifies a quote at a time against the collateral that was added.
    ///
    /// ```
    /// use tdvisor_attest::UnixSeconds;
    /// use tdvisor_attest::issue::{PlatformSpec, TestPlatform};
    /// use tdvisor_attest::policy::{Context, Policy};
    /// use tdvisor_attest::report::{ReportKey, TdReport};
    /// use tdvisor_attest::verify::{TrustAnchor, Verifier};
    /// use zerocopy::IntoBytes;
    ///
    /// // A guest's report, and a quote for it by a platform that nobody but this example trusts.
    /// let mut report = TdReport::zeroed();
    /// report.mac.report_data = [0x22; 64];
    /// report.seal(&ReportKey([9; 32]));
    /// let platform = TestPlatform::new([1; 32], PlatformSpec::default());
    /// let now = UnixSeconds(1_790_000_000);
    /// let issued = platform.quote_for_report(report.as_bytes(), 5, now).expect("a consistent report");
    ///
    /// let root = TrustAnchor::from_bytes(issued.root_pem.as_bytes()).expect("a certificate");
    /// let mut verifier = Verifier::new(root);
    /// verifier.add_collateral(&issued.collateral)?;
    /// let verified = verifier.verify(&issued.quote, now)?;
    /// assert_eq!(verified.quote.body().report_data(), &[0x22; 64]);
    ///
    /// // What the quote says is genuine; whether it is good enough, a policy decides: a report of zeros is not.
    /// assert!(!Policy::default().evaluate(&verified, &Context::default()).is_accepted());
    /// # Ok::<(), tdvisor_attest::verify::VerifyError>(())
    /// ```
    ///
    /// # Errors
    /// The first reason why the quote is not valid. A bad TCB status is no error.
    pub fn verify<'a>(&mut self, quote: &'a [u8], at: UnixSeconds) -> Result<Verification<'a>, VerifyError> {
        self.verify_at(quote, Moment::At(at))
    }

    /// Verifies a quote where no clock can be trusted: for the moment at which the newest piece of the evidence was issued,
    /// so that all of it was valid together once. That it is valid *now* nobody has shown then: old collateral, whole and
    /// genuine, verifies for ever. Who calls this demands a least evaluation number of it
    /// ([`TcbRules::minimum_evaluation_number`](crate::policy::TcbRules::minimum_evaluation_number)).
    ///
    /// # Errors
    /// The first reason why the quote is not valid. A bad TCB status is no error.
    pub fn verify_without_clock<'a>(&mut self, quote: &'a [u8]) -> Result<Verification<'a>, VerifyError> {
        self.verify_at(quote, Moment::Issued)
    }

    fn verify_at<'a>(&mut self, quote: &'a [u8], moment: Moment) -> Result<Verification<'a>, VerifyError> {
        let quote = Quote::parse(quote)?;
        quote.check_supported()?;
        let tee = quote.header().tee_type();
        let Self { anchor, crypto, collateral, platforms, cas } = self;

        let certification = &quote.signature.certification;
        let mut unkept;
        let platform = if certification.kind == CertificationType::PCK_CHAIN {
            known_platform(certification.data, platforms, |chain| {
                Platform::verify(chain, anchor, cas, crypto)
            })?
        } else {
            // Which platform such a quote is of depends on the collateral of the moment: it is not kept.
            let chain = collateral.pck_chain(&quote, crypto)?;
            unkept = Platform::verify(&chain, anchor, cas, crypto)?;
            &mut unkept
        };
        let collateral = collateral.select(tee, &platform.extension)?;

        // Quote, platform and collateral belong together.
        check_family(&collateral.tcb_info, tee, &platform.extension)?;

        // Revocation.
        collateral.pck_crl.check_issuer(&platform.ca_subject, &platform.ca_key, crypto)?;
        collateral.root_crl.check(&platform.ca_serial, Item::PckCaCertificate)?;
        collateral.pck_crl.check(&platform.leaf_serial, Item::PckCertificate)?;

        // Dates.
        let sources = sources(collateral, platform);
        let window = ValidityWindow::of(&sources);
        let at = match moment {
            Moment::At(at) => at,
            Moment::Issued => window.latest_issue,
        };
        window::check(&sources, at)?;

        let info = &collateral.tcb_info;
        check_module(info, quote.body())?;

        // Platform → quoting enclave → attestation key → quote.
        platform.check_qe(&quote.signature, crypto)?;
        let kind = collateral.qe_identity.kind;
        if kind.signs_for() != Some(tee) {
            return Err(VerifyError::QeKind { collateral: kind, quote: tee });
        }
        collateral.qe_identity.check(quote.signature.qe_report).map_err(VerifyError::QeIdentity)?;
        let key = PublicKey(*quote.signature.attestation_key);
        if !crypto.verify(&key, quote.signed.bytes, &Signature(*quote.signature.quote_signature)) {
            return Err(VerifyError::BadSignature(Item::Quote));
        }

        let inputs = Inputs {
            info,
            identity: &collateral.qe_identity,
            pck: &platform.extension,
            qe_svn: qe_svn(quote.signature.qe_report),
        };
        Ok(Verification {
            at,
            platform: platform.extension,
            tcb: inputs.verdict(quote.body())?,
            window,
            tcb_info_number: info.evaluation_number,
            qe_identity_number: collateral.qe_identity.evaluation_number,
            root_crl_number: collateral.root_crl.number,
            pck_crl_number: collateral.pck_crl.number,
            quote,
        })
    }
}

/// The platform of a chain that a quote carries, verified if it is not known.
fn known_platform<'p>(
    text: &[u8],
    platforms: &'p mut Known<(Box<[u8]>, Platform)>,
    verify: impl FnOnce(&[Vec<u8>]) -> Result<Platform, VerifyError>,
) -> Result<&'p mut Platform, VerifyError> {
    if platforms.find(|(known, _)| **known == *text).is_none() {
        let chain =
            pem::chain(text).map_err(|error| VerifyError::X509 { item: Item::PckCertificate, error })?;
        platforms.push((text.into(), verify(&chain)?));
    }
    platforms.front().map(|(_, platform)| platform).ok_or(VerifyError::RoleMissing(Item::PckCertificate))
}

/// Everything with a date.
fn sources(collateral: &VerifiedCollateral, platform: &Platform) -> [(Item, Validity); 9] {
    let info = &collateral.tcb_info;
    let identity = &collateral.qe_identity;
    [
        (Item::RootCertificate, collateral.root),
        (Item::PckCaCertificate, platform.ca),
        (Item::PckCertificate, platform.leaf),
        (Item::TcbInfoSigner, collateral.tcb_info_signer),
        (Item::QeIdentitySigner, collateral.qe_identity_signer),
        (Item::RootCrl, collateral.root_crl.validity),
        (Item::PckCrl, collateral.pck_crl.validity),
        (Item::TcbInfo, Validity { from: info.issued, until: info.next_update }),
        (Item::QeIdentity, Validity { from: identity.issued, until: identity.next_update }),
    ]
}

fn check_family(info: &TcbInfo, tee: TeeType, platform: &PckExtension) -> Result<(), VerifyError> {
    if info.tee != tee {
        return Err(VerifyError::TcbInfoTee { collateral: info.tee, quote: tee });
    }
    if info.fmspc != platform.fmspc {
        return Err(VerifyError::Fmspc { collateral: info.fmspc, platform: platform.fmspc });
    }
    if info.pce_id != platform.pce_id {
        return Err(VerifyError::PceId { collateral: info.pce_id, platform: platform.pce_id });
    }
    Ok(())
}

/// Checks who signed the TDX module and its attributes, which must be zero and be the expected ones.
fn check_module(info: &TcbInfo, body: &Body<'_>) -> Result<(), VerifyError> {
    let Some(td) = body.td() else { return Ok(()) };
    let major = td.tee_tcb_svn[1];
    let identity = if major > 0 { info.module_identity(major) } else { info.module.as_ref() };
    let identity = identity.ok_or(VerifyError::ModuleUnknown { major })?;
    if td.mr_signer_seam != identity.mr_signer {
        return Err(VerifyError::ModuleSigner);
    }
    let attributes = td.seam_attributes.to_bytes();
    if attributes != [0; 8] || attributes != identity.attributes {
        return Err(VerifyError::ModuleAttributes);
    }
    Ok(())
}
