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

/// Paths that a PCCS is often configured with, and that requests bring themselves.
const API_PATHS: [&str; 2] = ["/sgx/certification/v4", "/tdx/certification/v4"];

/// A service that hands out collateral.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Service {
    /// Intel's Provisioning Certification Service, or what answers like it.
    Pcs {
        /// Scheme and authority, without a path.
        base: String,
        /// Where the root's revocation list is: it is no request of this service.
        root_crl: String,
    },
    /// A cache of it, which has the root's revocation list too.
    Pccs {
        /// Scheme, authority and, behind a proxy, a path.
        base: String,
    },
}

impl Service {
    /// Intel's own.
    #[must_use]
    pub fn intel() -> Self {
        Self::Pcs { base: String::from(PCS), root_crl: String::from(ROOT_CRL) }
    }

    /// What answers like Intel's service at another address.
    #[must_use]
    pub fn pcs(url: &str, root_crl: &str) -> Self {
        Self::Pcs { base: base(url), root_crl: String::from(root_crl) }
    }

    /// A cache, by its address with or without the path that requests begin with.
    #[must_use]
    pub fn pccs(url: &str) -> Self {
        Self::Pccs { base: base(url) }
    }

    fn base(&self) -> &str {
        match self {
            Self::Pcs { base, .. } | Self::Pccs { base } => base,
        }
    }

    fn root_crl(&self) -> String {
        match self {
            Self::Pcs { root_crl, .. } => root_crl.clone(),
            Self::Pccs { base } => alloc::format!("{base}/sgx/certification/v4/rootcacrl"),
        }
    }
}

fn base(url: &str) -> String {
    let url = url.trim_end_matches('/');
    let bare = API_PATHS.iter().find_map(|path| url.strip_suffix(path)).unwrap_or(url);
    String::from(bare.trim_end_matches('/'))
}

/// Which of the two data sets that Intel has after a TCB recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UpdateSet {
    /// The new one, from the day it is published.
    Early,
    /// The one that becomes the new one when operators have had time to update.
    Standard,
}

impl UpdateSet {
    /// The name in requests.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Early => "early",
            Self::Standard => "standard",
        }
    }
}

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
        /// When the certificate is valid.
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
        Self::of_chain(&certification.pem().and_then(|text| pem::chain(text).ok()).unwrap_or_default())
    }

    /// The platform of a PCK chain (DER, in any order).
    #[must_use]
    pub fn of_chain(chain: &[Vec<u8>]) -> Self {
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

/// Whom to ask, and for which data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The service.
    pub service: Service,
    /// The data set; `None` leaves it to the service, which has one unless a TCB recovery is under way.
    pub update: Option<UpdateSet>,
}

impl Source {
    /// The requests that verification of a quote needs answered, as far as the quote and `pck_chain` tell: a quote
    /// without a certificate wants its PCK chain first, and says of what is wanted for the platform nothing until it is
    /// there.
    #[must_use]
    pub fn requests(&self, quote: &Quote<'_>, pck_chain: &[Vec<u8>]) -> Vec<Request> {
        let mut requests = Vec::new();
        let mut ask = |part, url| requests.push(Request { part, url });
        let base = self.service.base();
        let family = if quote.header().tee_type() == TeeType::SGX { "sgx" } else { "tdx" };
        let claimed = match ClaimedPlatform::of(quote) {
            ClaimedPlatform::Identity { ppid, cpu_svn, pce_svn, pce_id } if pck_chain.is_empty() => {
                if quote.signature.certification.kind != CertificationType::PPID_CLEARTEXT {
                    // The certificate's PCESVN is a number with its low byte first.
                    let pce_svn = pce_svn.to_le_bytes();
                    let of_cache = match self.service {
                        Service::Pccs { .. } => {
                            let qe_id = quote.header().user_data.first_chunk::<16>().copied();
                            alloc::format!("qeid={}&", Hex(&qe_id.unwrap_or_default()))
                        }
                        Service::Pcs { .. } => String::new(),
                    };
                    ask(
                        Part::PckChain,
                        alloc::format!(
                            "{base}/sgx/certification/v4/pckcert?{of_cache}encrypted_ppid={}&cpusvn={}&pcesvn={}&pceid={}",
                            Hex(&ppid),
                            Hex(&cpu_svn),
                            Hex(&pce_svn),
                            Hex(&pce_id)
                        ),
                    );
                }
                ClaimedPlatform::Unknown
            }
            ClaimedPlatform::Identity { .. } => ClaimedPlatform::of_chain(pck_chain),
            claimed => claimed,
        };
        let (fmspc, issuer) = match claimed {
            ClaimedPlatform::Certificate { pck, issuer, .. } => (Some(pck.fmspc), issuer),
            _ => (None, None),
        };
        if let Some(fmspc) = fmspc {
            let update = self.update.map_or_else(String::new, |set| alloc::format!("&update={}", set.name()));
            let fmspc = Hex(&fmspc);
            ask(Part::TcbInfo, alloc::format!("{base}/{family}/certification/v4/tcb?fmspc={fmspc}{update}"));
        }
        let update = self.update.map_or_else(String::new, |set| alloc::format!("?update={}", set.name()));
        ask(Part::QeIdentity, alloc::format!("{base}/{family}/certification/v4/qe/identity{update}"));
        if let Some(issuer) = issuer {
            ask(Part::PckCrl, alloc::format!("{base}/sgx/certification/v4/pckcrl?ca={issuer}&encoding=der"));
        }
        ask(Part::RootCrl, self.service.root_crl());
        requests
    }
}

/// The requests to Intel's service that verification of a quote needs answered, as far as the quote tells.
#[must_use]
pub fn requests(quote: &Quote<'_>) -> Vec<Request> {
    Source { service: Service::intel(), update: None }.requests(quote, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_known_by_its_address_with_or_without_the_path_that_requests_bring() {
        for url in [
            "https://pccs:8081",
            "https://pccs:8081/",
            "https://pccs:8081/sgx/certification/v4",
            "https://pccs:8081/sgx/certification/v4/",
            "https://pccs:8081/tdx/certification/v4/",
        ] {
            assert_eq!(Service::pccs(url), Service::Pccs { base: "https://pccs:8081".into() }, "{url}");
        }
        let behind_a_proxy = Service::pccs("https://host/pccs/sgx/certification/v4");
        assert_eq!(behind_a_proxy.root_crl(), "https://host/pccs/sgx/certification/v4/rootcacrl");
        assert_eq!(Service::intel(), Service::pcs("https://api.trustedservices.intel.com/", ROOT_CRL));
    }
}
