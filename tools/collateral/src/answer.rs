//! The part of an HTTP answer that collateral is: a body, and the chain that issued it, in the form of a saved response.

use std::time::Duration;

use tdvisor_attest::UnixSeconds;
use tdvisor_attest::collateral::{
    CollateralError, IssuedCrl, Parts, PckIssuer, QeIdentity, SignedBody, TcbInfo, Wanted, WantedPlatform,
};
use tdvisor_attest::x509::{Certificate, RevocationList};

/// Headers that carry issuer chains: a percent-encoded PEM each.
pub const CHAIN_HEADERS: [&str; 4] = [
    "TCB-Info-Issuer-Chain",
    "SGX-Enclave-Identity-Issuer-Chain",
    "SGX-PCK-CRL-Issuer-Chain",
    "SGX-PCK-Certificate-Issuer-Chain",
];

/// The largest body of an answer, in bytes; TCB infos are the largest, of some hundred thousand.
pub const MAX_BODY: u64 = 4 << 20;

/// An answer of success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Issuer chains: the header's name and its value.
    pub chains: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The answer as a saved response, which [`Parts::add`] reads.
    #[must_use]
    pub fn to_saved(&self) -> Vec<u8> {
        let mut saved = b"HTTP/1.1 200 OK\r\n".to_vec();
        for (name, value) in &self.chains {
            saved.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        saved.extend_from_slice(b"\r\n");
        saved.extend_from_slice(&self.body);
        saved
    }
}

/// What an answer turned out to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// TCB info.
    TcbInfo(Box<(TcbInfo, SignedBody)>),
    /// Identity of a quoting enclave.
    QeIdentity(Box<(QeIdentity, SignedBody)>),
    /// A revocation list with its issuers.
    Crl(IssuedCrl),
    /// A PCK certificate chain.
    PckChain(Vec<Vec<u8>>),
}

impl Held {
    /// Reads a saved response.
    ///
    /// # Errors
    /// What cannot be read, or is not exactly one part; a signed body without the chain that issued it.
    pub fn read(saved: &[u8]) -> Result<Self, CollateralError> {
        let mut parts = Parts::default();
        parts.add(saved)?;
        let inventory = parts.inventory()?;
        let tcb_infos = inventory.tcb_infos.into_iter().map(|one| Self::TcbInfo(Box::new(one)));
        let identities = inventory.qe_identities.into_iter().map(|one| Self::QeIdentity(Box::new(one)));
        // A lone list is nobody's in particular.
        let roots = inventory.root_crls.into_iter().map(|der| IssuedCrl { der, chain: Vec::new() });
        let crls = roots.chain(inventory.pck_crls).map(Self::Crl);
        let chains = inventory.pck_chains.into_iter().map(Self::PckChain);
        let mut all = tcb_infos.chain(identities).chain(crls).chain(chains);
        match (all.next(), all.next()) {
            (Some(one), None) => Ok(one),
            _ => Err(CollateralError::Http { status: 200 }),
        }
    }

    /// Until when it counts; `None` for what has no date of its own, or none that can be read.
    #[must_use]
    pub fn next_update(&self) -> Option<UnixSeconds> {
        match self {
            Self::TcbInfo(held) => Some(held.0.next_update),
            Self::QeIdentity(held) => Some(held.0.next_update),
            Self::Crl(crl) => RevocationList::from_der(&crl.der).ok().map(|list| list.validity.until),
            Self::PckChain(chain) => {
                let leaf = chain.iter().filter_map(|der| Certificate::from_der(der).ok());
                leaf.map(|certificate| certificate.validity.until).min()
            }
        }
    }
}

/// What an answer must be of, to be the answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected<'a> {
    /// TCB info for this evidence.
    TcbInfo(&'a Wanted),
    /// The identity of its quoting enclave.
    QeIdentity(&'a Wanted),
    /// The revocation list of this certification authority.
    PckCrl(PckIssuer),
    /// The revocation list of the root.
    RootCrl,
    /// A PCK chain with a platform in it.
    PckChain,
}

impl Expected<'_> {
    /// Whether `held` is what was asked for.
    #[must_use]
    pub fn is(&self, held: &Held) -> bool {
        match (self, held) {
            (Self::TcbInfo(wanted), Held::TcbInfo(held)) => {
                let info = &held.0;
                info.tee == wanted.tee
                    && wanted.platform.as_ref().is_some_and(|platform| {
                        (platform.fmspc, platform.pce_id) == (info.fmspc, info.pce_id)
                    })
            }
            (Self::QeIdentity(wanted), Held::QeIdentity(held)) => held.0.kind.signs_for() == Some(wanted.tee),
            (Self::PckCrl(ca), Held::Crl(crl)) => {
                let phrase = match ca {
                    PckIssuer::Platform => "Platform CA",
                    PckIssuer::Processor => "Processor CA",
                };
                RevocationList::from_der(&crl.der).is_ok_and(|list| list.issuer.common_name_contains(phrase))
            }
            // Whether it is the trusted root's, its signature says.
            (Self::RootCrl, Held::Crl(_)) => true,
            (Self::PckChain, Held::PckChain(chain)) => {
                chain.iter().any(|der| WantedPlatform::of_certificate(der).is_some())
            }
            _ => false,
        }
    }

    /// The header that must have the issuer chain.
    #[must_use]
    pub const fn chain_header(&self) -> Option<&'static str> {
        let [tcb_info, qe_identity, pck_crl, pck] = CHAIN_HEADERS;
        match self {
            Self::TcbInfo(_) => Some(tcb_info),
            Self::QeIdentity(_) => Some(qe_identity),
            Self::PckCrl(_) => Some(pck_crl),
            Self::PckChain => Some(pck),
            Self::RootCrl => None,
        }
    }
}

/// How a client waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For everything that a quote needs, together.
    pub whole: Duration,
    /// Before a request that a service was too busy for is made again; it doubles each time.
    pub first_pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { whole: Duration::from_secs(30), first_pause: Duration::from_millis(250) }
    }
}
