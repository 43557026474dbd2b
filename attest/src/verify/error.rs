//! Why a quote is not valid: every reason is a variant with a stable code.

use core::fmt;

use crate::UnixSeconds;
use crate::bytes::Hex;
use crate::collateral::{CollateralError, IdentityMismatch, Part, QeKind};
use crate::quote::{CertificationType, QuoteError, TeeType};
use crate::x509::X509Error;

/// Something with a date or a signature of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Item {
    /// The root certificate.
    RootCertificate,
    /// The certificate of the PCK certification authority.
    PckCaCertificate,
    /// The platform's PCK certificate.
    PckCertificate,
    /// The certificate that signed the TCB info.
    TcbInfoSigner,
    /// The certificate that signed the QE identity.
    QeIdentitySigner,
    /// The root's revocation list.
    RootCrl,
    /// The PCK certification authority's revocation list.
    PckCrl,
    /// TCB info.
    TcbInfo,
    /// QE identity.
    QeIdentity,
    /// The report of the quoting enclave.
    QeReport,
    /// The quote itself.
    Quote,
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RootCertificate => "root certificate",
            Self::PckCaCertificate => "PCK CA certificate",
            Self::PckCertificate => "PCK certificate",
            Self::TcbInfoSigner => "TCB info signing certificate",
            Self::QeIdentitySigner => "QE identity signing certificate",
            Self::RootCrl => "root CRL",
            Self::PckCrl => "PCK CRL",
            Self::TcbInfo => "TCB info",
            Self::QeIdentity => "QE identity",
            Self::QeReport => "QE report",
            Self::Quote => "quote",
        })
    }
}

/// Why a quote is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VerifyError {
    /// The bytes are no quote, or one that no verifier takes.
    Quote(QuoteError),
    /// The collateral cannot be read.
    Collateral(CollateralError),
    /// A certificate or list cannot be read.
    X509 {
        /// Which.
        item: Item,
        /// What is wrong.
        error: X509Error,
    },
    /// No collateral is loaded for this TEE.
    NoCollateral(TeeType),
    /// The quote carries no PCK chain and the collateral has none.
    NoPckChain(CertificationType),
    /// A chain has another number of certificates than its kind has.
    ChainLength {
        /// Which.
        part: Part,
        /// How many certificates it has.
        length: usize,
    },
    /// A certificate of a chain is missing, or its name is not of its role.
    RoleMissing(Item),
    /// A chain does not end at the trusted root.
    Untrusted(Part),
    /// A certificate or list does not name its issuer.
    WrongIssuer(Item),
    /// The issuer may not issue.
    NotAnIssuer(Item),
    /// A signature does not verify.
    BadSignature(Item),
    /// A certificate is on its issuer's revocation list.
    RevokedCertificate(Item),
    /// Used before its validity.
    NotYetValid {
        /// Which.
        item: Item,
        /// First second of validity.
        from: UnixSeconds,
    },
    /// Used after its validity.
    Expired {
        /// Which.
        item: Item,
        /// Last second of validity.
        until: UnixSeconds,
    },
    /// The TCB info is for another TEE.
    TcbInfoTee {
        /// The kind of TEE that the collateral is for.
        collateral: TeeType,
        /// Whom the quote is for.
        quote: TeeType,
    },
    /// The TCB info is for another platform family.
    Fmspc {
        /// FMSPC of the TCB info.
        collateral: [u8; 6],
        /// FMSPC of the PCK certificate.
        platform: [u8; 6],
    },
    /// The TCB info is for another provisioning certification enclave.
    PceId {
        /// PCEID of the TCB info.
        collateral: [u8; 2],
        /// PCEID of the PCK certificate.
        platform: [u8; 2],
    },
    /// The TCB info has no identity for the quote's TDX module version.
    ModuleUnknown {
        /// Major version of the module.
        major: u8,
    },
    /// The TDX module was signed by someone else.
    ModuleSigner,
    /// The TDX module's attributes are not zero or not as expected.
    ModuleAttributes,
    /// The QE report does not bind the attestation key.
    KeyBinding,
    /// The QE identity is for another enclave.
    QeKind {
        /// Which enclave it is about.
        collateral: QeKind,
        /// Whom the quote is for.
        quote: TeeType,
    },
    /// The quoting enclave is not the one of the QE identity.
    QeIdentity(IdentityMismatch),
    /// The matched TCB level has a status that its kind cannot have.
    UnrecognizedStatus(Item),
}

impl VerifyError {
    /// A stable name of the error, for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Quote(error) => error.code(),
            Self::Collateral(error) => error.code(),
            Self::X509 { .. } => "x509-format",
            Self::NoCollateral(_) => "no-collateral",
            Self::NoPckChain(_) => "no-pck-chain",
            Self::ChainLength { .. } => "chain-length",
            Self::RoleMissing(_) => "chain-role-missing",
            Self::Untrusted(_) => "chain-untrusted",
            Self::WrongIssuer(Item::RootCrl | Item::PckCrl) => "crl-issuer",
            Self::WrongIssuer(_) => "certificate-issuer",
            Self::NotAnIssuer(_) => "not-an-issuer",
            Self::BadSignature(item) => match item {
                Item::Quote => "quote-signature",
                Item::QeReport => "qe-report-signature",
                Item::TcbInfo => "tcb-info-signature",
                Item::QeIdentity => "qe-identity-signature",
                Item::RootCrl | Item::PckCrl => "crl-signature",
                _ => "certificate-signature",
            },
            Self::RevokedCertificate(Item::PckCertificate) => "pck-revoked",
            Self::RevokedCertificate(Item::PckCaCertificate) => "pck-ca-revoked",
            Self::RevokedCertificate(_) => "certificate-revoked",
            Self::NotYetValid { .. } => "not-yet-valid",
            Self::Expired { .. } => "expired",
            Self::TcbInfoTee { .. } => "tcb-info-tee",
            Self::Fmspc { .. } => "fmspc-mismatch",
            Self::PceId { .. } => "pceid-mismatch",
            Self::ModuleUnknown { .. } => "tdx-module-unknown",
            Self::ModuleSigner => "tdx-module-signer",
            Self::ModuleAttributes => "tdx-module-attributes",
            Self::KeyBinding => "attestation-key-binding",
            Self::QeKind { .. } => "qe-identity-kind",
            Self::QeIdentity(_) => "qe-identity-mismatch",
            Self::UnrecognizedStatus(_) => "tcb-status-unrecognized",
        }
    }
}

impl From<QuoteError> for VerifyError {
    fn from(error: QuoteError) -> Self {
        Self::Quote(error)
    }
}

impl From<CollateralError> for VerifyError {
    fn from(error: CollateralError) -> Self {
        Self::Collateral(error)
    }
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quote(error) => error.fmt(f),
            Self::Collateral(error) => error.fmt(f),
            Self::X509 { item, error } => write!(f, "{item}: {error}"),
            Self::NoCollateral(tee) => write!(f, "no collateral for {tee} is loaded"),
            Self::NoPckChain(kind) => {
                write!(f, "the quote carries no PCK chain ({kind}) and the collateral has none")
            }
            Self::ChainLength { part, length } => write!(f, "{part}: {length} certificates"),
            Self::RoleMissing(item) => write!(f, "no certificate of the chain is the {item}"),
            Self::Untrusted(part) => write!(f, "{part}: does not end at the trusted root"),
            Self::WrongIssuer(item) => write!(f, "{item}: issued by someone else"),
            Self::NotAnIssuer(item) => write!(f, "{item}: is not allowed to issue"),
            Self::BadSignature(item) => write!(f, "{item}: the signature does not verify"),
            Self::RevokedCertificate(item) => write!(f, "{item}: revoked"),
            Self::NotYetValid { item, from } => write!(f, "{item}: not valid before {from}"),
            Self::Expired { item, until } => write!(f, "{item}: expired at {until}"),
            Self::TcbInfoTee { collateral, quote } => {
                write!(f, "TCB info is for {collateral}, the quote is for {quote}")
            }
            Self::Fmspc { collateral, platform } => {
                write!(f, "TCB info is for FMSPC {}, the platform is {}", Hex(collateral), Hex(platform))
            }
            Self::PceId { collateral, platform } => {
                write!(f, "TCB info is for PCEID {}, the platform has {}", Hex(collateral), Hex(platform))
            }
            Self::ModuleUnknown { major } => {
                write!(f, "TCB info knows no TDX module of major version {major}")
            }
            Self::ModuleSigner => f.write_str("MRSIGNERSEAM is not the TDX module's signer"),
            Self::ModuleAttributes => f.write_str("SEAMATTRIBUTES are not those of the TDX module"),
            Self::KeyBinding => f.write_str("the QE report does not bind the attestation key"),
            Self::QeKind { collateral, quote } => {
                write!(f, "QE identity is for {collateral:?}, the quote is for {quote}")
            }
            Self::QeIdentity(mismatch) => {
                write!(f, "the quoting enclave differs from its identity in {mismatch:?}")
            }
            Self::UnrecognizedStatus(item) => {
                write!(f, "the matched TCB level of the {item} has an unrecognized status")
            }
        }
    }
}

impl core::error::Error for VerifyError {}
