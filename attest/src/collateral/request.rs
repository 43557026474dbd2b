//! Where the collateral of a platform is to be had: the requests of Intel's Provisioning Certification Service, version 4,
//! which caches (PCCS) answer at the same paths.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::Part;
use crate::Hex;
use crate::pck::PckExtension;
use crate::quote::{CertificationType, Quote, TeeType};
use crate::time::Validity;
use crate::x509::{Certificate, pem};

/// Intel's service.
pub const PCS: &str = "https://api.trustedservices.intel.com";
/// Where the root's revocation list is: the distribution point of every certificate that Intel's root issued.
pub const ROOT_CRL: &str = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der";

/// Which certification authority issued a PCK certificate: each has a revocation list of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PckIssuer {
    /// "Intel SGX PCK Platform CA": multi-package platforms.
    Platform,
    /// "Intel SGX PCK Processor CA": all others.
    Processor,
}

impl PckIssuer {
    /// The name in requests.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Platform => "platform",
            Self::Processor => "processor",
        }
    }
}

impl fmt::Display for PckIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a quote says about its platform before anything of it is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimedPlatform {
    /// By its PCK certificate.
    Certificate {
        /// The certificate's extension.
        pck: PckExtension,
        /// Who issued it; `None` for a name that is neither.
        issuer: Option<PckIssuer>,
        /// When it is valid.
        validity: Validity,
    },
    /// By what its certificate is to be asked for with.
    Identity {
        /// PPID, encrypted or in the clear.
        ppid: Vec<u8>,
        /// Security versions of the processor's components.
        cpu_svn: [u8; 16],
        /// Security version of the provisioning certification enclave.
        pce_svn: u16,
        /// Provisioning certification enclave.
        pce_id: [u8; 2],
    },
    /// Not at all, or in a way that cannot be read.
    Unknown,
}

impl ClaimedPlatform {
    /// The platform that a quote claims.
    #[must_use]
    pub fn of(quote: &Quote<'_>) -> Self {
        let certification = &quote.signature.certification;
        if let Some(id) = certification.platform_id() {
            return Self::Identity {
                ppid: id.ppid.to_vec(),
                cpu_svn: *id.cpu_svn,
                pce_svn: id.pce_svn,
                pce_id: id.pce_id,
            };
        }
        let chain = certification.pem().and_then(|text| pem::chain(text).ok()).unwrap_or_default();
        let found = chain.iter().find_map(|der| {
            let certificate = Certificate::from_der(der).ok()?;
            let pck = PckExtension::parse(certificate.extensions.sgx?).ok()?;
            let named = |phrase| certificate.issuer.common_name_contains(phrase);
            let issuer = match (named("Platform CA"), named("Processor CA")) {
                (true, false) => Some(PckIssuer::Platform),
                (false, true) => Some(PckIssuer::Processor),
                _ => None,
            };
            Some(Self::Certificate { pck, issuer, validity: certificate.validity })
        });
        found.unwrap_or(Self::Unknown)
    }
}

/// One part, and where to get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What the answer holds; its issuer chain is in a header of the same answer.
    pub part: Part,
    /// The whole address at Intel's service. A cache has the same path.
    pub url: String,
}

/// The requests that verification of a quote needs answered, as far as the quote tells.
#[must_use]
pub fn requests(quote: &Quote<'_>) -> Vec<Request> {
    let mut requests = Vec::new();
    let mut ask = |part, url| requests.push(Request { part, url });
    let tee = quote.header().tee_type();
    let family = if tee == TeeType::SGX { "sgx" } else { "tdx" };
    let issuer = match ClaimedPlatform::of(quote) {
        ClaimedPlatform::Certificate { pck, issuer, .. } => {
            let fmspc = Hex(&pck.fmspc);
            ask(Part::TcbInfo, alloc::format!("{PCS}/{family}/certification/v4/tcb?fmspc={fmspc}"));
            issuer
        }
        ClaimedPlatform::Identity { ppid, cpu_svn, pce_svn, pce_id } => {
            // The certificate's PCEID is a number with its low byte first.
            let (ppid, cpu_svn, pce_svn) = (Hex(&ppid), Hex(&cpu_svn), pce_svn.to_le_bytes());
            let (pce_svn, pce_id) = (Hex(&pce_svn), Hex(&pce_id));
            if quote.signature.certification.kind != CertificationType::PPID_CLEARTEXT {
                ask(
                    Part::PckChain,
                    alloc::format!(
                        "{PCS}/sgx/certification/v4/pckcert?encrypted_ppid={ppid}&cpusvn={cpu_svn}&pcesvn={pce_svn}&pceid={pce_id}"
                    ),
                );
            }
            None
        }
        ClaimedPlatform::Unknown => None,
    };
    ask(Part::QeIdentity, alloc::format!("{PCS}/{family}/certification/v4/qe/identity"));
    if let Some(issuer) = issuer {
        ask(Part::PckCrl, alloc::format!("{PCS}/sgx/certification/v4/pckcrl?ca={issuer}&encoding=der"));
    }
    ask(Part::RootCrl, String::from(ROOT_CRL));
    requests
}
