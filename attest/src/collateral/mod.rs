//! Collateral: what Intel says about a platform, as services hand it out.
//!
//! [`Bundle`] holds the raw parts (signed JSON bodies, issuer chains, revocation lists) in any of the forms
//! that services use. Signatures cover the inner JSON objects exactly as served, so their bytes are kept
//! and never re-serialised. [`TcbInfo`] and [`QeIdentity`] are the decoded bodies.
//!
//! [`Parts`] collects the parts from files of any of these forms and in any order, and builds the bundle for a quote.
//! Nothing is chosen silently: two different parts that both fit are an error.
//!
//! Everything is bounded: sizes before parsing, nesting before decoding.

mod bundle;
mod forms;
mod inventory;
mod json;
mod level;
mod parts;
mod qe_identity;
mod request;
mod status;
mod tcb_info;

use core::fmt;

pub use bundle::{Bundle, SignedBody};
pub use inventory::{Inventory, IssuedCrl};
pub use json::{KeyPath, MAX_JSON, MAX_NESTING};
pub use parts::{Parts, Wanted, WantedPlatform};
pub use qe_identity::{IdentityLevel, IdentityMismatch, QeIdentity, QeKind};
pub use request::{ClaimedPlatform, PCS, PckIssuer, ROOT_CRL, Request, Service, Source, UpdateSet, requests};
pub use status::TcbStatus;
pub use tcb_info::{ComponentKind, ModuleIdentity, ModuleLevel, SvnArray, TcbInfo, TcbLevel};

use crate::x509::X509Error;

/// Which part of the collateral something is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The bundle as a whole.
    Bundle,
    /// TCB info.
    TcbInfo,
    /// Identity of the quoting enclave.
    QeIdentity,
    /// Revocation list of the root.
    RootCrl,
    /// Revocation list of the PCK certification authority.
    PckCrl,
    /// Issuer chain of the TCB info.
    TcbInfoChain,
    /// Issuer chain of the QE identity.
    QeIdentityChain,
    /// Issuer chain of the PCK revocation list.
    PckCrlChain,
    /// PCK certificate chain.
    PckChain,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bundle => "collateral",
            Self::TcbInfo => "TCB info",
            Self::QeIdentity => "QE identity",
            Self::RootCrl => "root CRL",
            Self::PckCrl => "PCK CRL",
            Self::TcbInfoChain => "TCB info issuer chain",
            Self::QeIdentityChain => "QE identity issuer chain",
            Self::PckCrlChain => "PCK CRL issuer chain",
            Self::PckChain => "PCK certificate chain",
        })
    }
}

/// Why collateral cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CollateralError {
    /// A part is not there.
    Missing(Part),
    /// Of several parts of a kind, none is for the quote.
    NoneFits(Part),
    /// Two different parts of a kind both fit.
    Ambiguous {
        /// The part.
        part: Part,
        /// The files that they are in, by the order in which files were added, from 0.
        files: (usize, usize),
    },
    /// A saved HTTP response that is none of success, or that has a header twice.
    Http {
        /// The status that it has.
        status: u16,
    },
    /// A part is larger than the limit.
    TooLarge(Part),
    /// JSON nests deeper than the limit.
    TooDeep(Part),
    /// Not JSON of the expected form; line and column of the first problem.
    Json {
        /// The part.
        part: Part,
        /// Line, from 1; 0 if unknown.
        line: usize,
        /// Column, from 1; 0 if unknown.
        column: usize,
        /// The key that is unknown, twice there, or of another type.
        key: KeyPath,
    },
    /// A field has a value that the format does not allow.
    Field {
        /// The part.
        part: Part,
        /// Name of the field.
        field: &'static str,
    },
    /// A version of the format that is not supported.
    Version {
        /// The part.
        part: Part,
        /// The version.
        version: u32,
    },
    /// Two TCB levels that say the same: their order would not be defined.
    DuplicateLevel(Part),
    /// A certificate or revocation list that cannot be read.
    X509 {
        /// The part.
        part: Part,
        /// What is wrong.
        error: X509Error,
    },
}

impl CollateralError {
    /// A stable name of the error, for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Missing(_) => "collateral-missing",
            Self::NoneFits(_) => "collateral-none-fits",
            Self::Ambiguous { .. } => "collateral-ambiguous",
            Self::Http { .. } => "collateral-http",
            Self::TooLarge(_) => "collateral-too-large",
            Self::TooDeep(_) => "collateral-too-deep",
            Self::Json { .. } => "collateral-json",
            Self::Field { .. } => "collateral-field",
            Self::Version { .. } => "collateral-version",
            Self::DuplicateLevel(_) => "collateral-duplicate-level",
            Self::X509 { .. } => "collateral-x509",
        }
    }
}

impl fmt::Display for CollateralError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(part) => write!(f, "{part}: missing"),
            Self::NoneFits(part) => write!(f, "{part}: none of several is for this quote"),
            Self::Ambiguous { part, files: (first, second) } => {
                write!(f, "{part}: files {} and {} have different ones, and both fit", first + 1, second + 1)
            }
            Self::Http { status } => write!(f, "a saved response of status {status}, not of success"),
            Self::TooLarge(part) => write!(f, "{part}: larger than anything of its kind"),
            Self::TooDeep(part) => write!(f, "{part}: JSON nests too deeply"),
            Self::Json { part, line, column, key } => {
                write!(f, "{part}: not JSON of the expected form (line {line}, column {column}")?;
                match key.as_str() {
                    "" | "." => f.write_str(")"),
                    key => write!(f, ", key `{key}`)"),
                }
            }
            Self::Field { part, field } => write!(f, "{part}: field `{field}` has an impossible value"),
            Self::Version { part, version } => write!(f, "{part}: version {version} is not supported"),
            Self::DuplicateLevel(part) => write!(f, "{part}: two TCB levels are the same"),
            Self::X509 { part, error } => write!(f, "{part}: {error}"),
        }
    }
}

impl core::error::Error for CollateralError {}
