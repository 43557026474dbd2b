//! Test evidence: a quoting enclave with a PKI of its own, for machines without TDX.
//!
//! [`TestPlatform`] issues quotes of every version and body, and the collateral that fits them: for any
//! date and TCB status, with any certificate revoked. Everything derives from a seed, so the same seed
//! gives the same bytes.
//!
//! The PKI's root is named [`ROOT_NAME`]: a verifier trusts it only when it is told to, and whatever it then
//! says is about a test. A VMM turns a guest's TDREPORT, whose MAC it has checked, into a quote with
//! [`TestPlatform::quote_for_report`].

mod collateral;
mod der;
mod pki;
mod platform;
mod quote;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

pub use collateral::{CollateralSpec, ComponentLevelSpec, LevelSpec, ModuleSpec, QE_MR_SIGNER};
pub use pki::{DEFAULT_VALIDITY, PckCa, ROOT_NAME, Role, TestPki};
pub use platform::PlatformSpec;
pub use quote::{QuoteBody, QuoteSpec};

use crate::UnixSeconds;
use crate::collateral::Bundle;
use crate::quote::{BodyType, CertificationType, TeeType};
use crate::report::{ReportError, TdReport, ToQuoteBody};
use crate::time::Validity;

/// Why a quote cannot be issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IssueError {
    /// A version other than 3, 4 and 5.
    Version(u16),
    /// The version cannot carry the body.
    Body {
        /// The version.
        version: u16,
        /// The body.
        body: BodyType,
    },
    /// QE authentication data longer than 65535 bytes.
    QeAuthTooLong,
    /// The report does not hold.
    Report(ReportError),
}

impl fmt::Display for IssueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(f, "there are no quotes of version {version}"),
            Self::Body { version, body } => write!(f, "version {version} quotes cannot carry a {body}"),
            Self::QeAuthTooLong => f.write_str("QE authentication data may have at most 65535 bytes"),
            Self::Report(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for IssueError {}

/// A platform of the test PKI with its quoting enclave.
#[derive(Clone)]
pub struct TestPlatform {
    seed: [u8; 32],
    spec: PlatformSpec,
    pki: TestPki,
}

/// A quote with everything that verifies it.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The quote.
    pub quote: Vec<u8>,
    /// The collateral.
    pub collateral: Bundle,
    /// The test root, PEM.
    pub root_pem: String,
}

impl TestPlatform {
    /// The platform of a seed, with certificates valid as [`DEFAULT_VALIDITY`] says.
    #[must_use]
    pub fn new(seed: [u8; 32], spec: PlatformSpec) -> Self {
        Self::with_validity(seed, spec, DEFAULT_VALIDITY)
    }

    /// The platform of a seed, with certificates of a given validity.
    #[must_use]
    pub fn with_validity(seed: [u8; 32], spec: PlatformSpec, validity: Validity) -> Self {
        let pki = TestPki::new(seed, validity, spec.ca, spec.extension());
        Self { seed, spec, pki }
    }

    /// The PKI.
    #[must_use]
    pub const fn pki(&self) -> &TestPki {
        &self.pki
    }

    /// What the PCK certificate says about the platform.
    #[must_use]
    pub const fn spec(&self) -> &PlatformSpec {
        &self.spec
    }

    /// Collateral that fits `spec`; with the PCK chain, for quotes that carry none.
    #[must_use]
    pub fn collateral(&self, spec: &CollateralSpec, certification: CertificationType) -> Bundle {
        let mut bundle = spec.issue(&self.pki);
        if certification != CertificationType::PCK_CHAIN {
            bundle.pck_chain = self.pki.pck_chain();
        }
        bundle
    }

    /// Issues a quote for a TDREPORT at a time, with collateral by which the platform is up to date.
    ///
    /// The report's hashes are checked here; its MAC is the caller's to check, who has the key.
    /// Version 4 carries a report of TDX 1.0, version 5 one of TDX 1.5.
    ///
    /// # Errors
    /// Bytes that are no consistent TDREPORT, and versions without TD reports.
    pub fn quote_for_report(
        &self,
        report: &[u8],
        version: u16,
        at: UnixSeconds,
    ) -> Result<Issued, IssueError> {
        let report = TdReport::from_bytes(report).map_err(IssueError::Report)?;
        report.check_hashes().map_err(IssueError::Report)?;
        let body = match version {
            4 => QuoteBody::Td10(report.to_td10()),
            5 => QuoteBody::Td15(report.to_td15()),
            3 => return Err(IssueError::Body { version, body: BodyType::TD10 }),
            _ => return Err(IssueError::Version(version)),
        };
        let spec = QuoteSpec { version, ..QuoteSpec::default() };
        let svn = &report.tee_tcb_info.tee_tcb_svn;
        let collateral = CollateralSpec::up_to_date(&self.spec, TeeType::TDX, svn, spec.qe_isv_svn, at);
        Ok(Issued {
            quote: self.quote(&body, &spec)?,
            collateral: self.collateral(&collateral, spec.certification),
            root_pem: self.pki.root_pem(),
        })
    }
}

impl fmt::Debug for TestPlatform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestPlatform").field("spec", &self.spec).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
