//! Everything that the verification of a quote needs, from one service, by one deadline.
//!
//! The requests are made side by side, so that one that hangs takes no time from the others, and every fault is named at
//! once. What comes back is verified as a verifier would before it is given out or kept.

use std::fmt;
use std::time::Instant;

use tdvisor_attest::UnixSeconds;
use tdvisor_attest::collateral::{
    Bundle, ClaimedPlatform, CollateralError, Part, Parts, PckIssuer, Request, Source, Wanted, WantedPlatform,
};
use tdvisor_attest::crypto::DefaultCrypto;
use tdvisor_attest::quote::{Quote, QuoteError};
use tdvisor_attest::verify::{TrustAnchor, VerifiedCollateral, VerifyError};

use crate::answer::{Answer, Expected, Held, Patience};
use crate::cache::Cache;
use crate::client::{Client, ClientError, TlsRoots};

/// Whether the network is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// For what the cache does not have.
    #[default]
    WhenNeeded,
    /// Never: the cache alone.
    Never,
}

/// How collateral is fetched.
#[derive(Clone, Debug)]
pub struct Fetcher {
    /// Whom to ask.
    pub source: Source,
    /// Whose certificates the service may show.
    pub tls: TlsRoots,
    /// The root that must have signed it.
    pub anchor: TrustAnchor,
    /// Where answers are kept.
    pub cache: Option<Cache>,
    /// Whether the network is used.
    pub network: Network,
    /// How long it may take.
    pub patience: Patience,
}

/// Collateral, and how it was come by.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The collateral.
    pub bundle: Bundle,
    /// Parts that the cache had.
    pub cached: usize,
    /// Parts that were asked for.
    pub asked: usize,
    /// Why answers could not be kept; they are good all the same.
    pub not_kept: Option<String>,
}

/// One part that could not be had.
#[derive(Debug)]
pub struct Fault {
    /// The request.
    pub request: Request,
    /// What was wrong with it.
    pub why: Why,
}

/// What can be wrong with one part.
#[derive(Debug)]
#[non_exhaustive]
pub enum Why {
    /// There was no answer.
    Client(ClientError),
    /// The cache does not have it, or not any more, and the network is not to be used.
    NotCached,
    /// The answer has no issuer chain in its headers.
    NoChain(&'static str),
    /// The answer cannot be read.
    Unreadable(CollateralError),
    /// The answer is of something else.
    OfAnother,
    /// The answer says that it has expired.
    Expired(UnixSeconds),
}

/// Why there is no collateral.
#[derive(Debug)]
#[non_exhaustive]
pub enum FetchError {
    /// The quote cannot be read, so what it needs is not known.
    Quote(QuoteError),
    /// The quote names no platform that can be asked for.
    NoPlatform,
    /// Parts that could not be had, all of them.
    Faults(Vec<Fault>),
    /// The parts do not go together.
    Collateral(CollateralError),
    /// The root that is trusted has not signed it.
    Untrusted(VerifyError),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {}: ", self.request.part, self.request.url)?;
        match &self.why {
            Why::Client(error) => error.fmt(f),
            Why::NotCached => f.write_str("not in the cache, or expired there"),
            Why::NoChain(header) => write!(f, "the answer has no {header} header"),
            Why::Unreadable(error) => write!(f, "the answer cannot be used: {error}"),
            Why::OfAnother => f.write_str("the answer is not of what was asked for"),
            Why::Expired(at) => write!(f, "the answer expired at {at}"),
        }
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quote(error) => error.fmt(f),
            Self::NoPlatform => {
                f.write_str("the quote names no platform whose collateral could be asked for")
            }
            Self::Faults(faults) => {
                for (index, fault) in faults.iter().enumerate() {
                    let separator = if index == 0 { "" } else { "; " };
                    write!(f, "{separator}{fault}")?;
                }
                Ok(())
            }
            Self::Collateral(error) => error.fmt(f),
            Self::Untrusted(error) => write!(f, "what was fetched does not hold: {error}"),
        }
    }
}

impl std::error::Error for FetchError {}

/// A part that was had: its request, its saved response, and the answer if it is new.
struct Had {
    request: Request,
    saved: Vec<u8>,
    new: Option<Answer>,
}

impl Fetcher {
    /// The collateral of `quote`, as it counts at `at`.
    ///
    /// # Errors
    /// [`FetchError`], which names every part that is missing.
    pub fn fetch(&self, quote: &[u8], at: UnixSeconds) -> Result<Fetched, FetchError> {
        let quote = Quote::parse(quote).map_err(FetchError::Quote)?;
        let deadline = Instant::now() + self.patience.whole;
        let task = Task { fetcher: self, quote: &quote, at, deadline };
        match task.fetch(self.cache.as_ref()) {
            // What the cache kept is not what this root signs any more, or never was: it is asked for again.
            Err(FetchError::Untrusted(_) | FetchError::Collateral(_))
                if self.cache.is_some() && self.network != Network::Never =>
            {
                task.fetch(None)
            }
            fetched => fetched,
        }
    }
}

/// One quote's fetching.
struct Task<'a> {
    fetcher: &'a Fetcher,
    quote: &'a Quote<'a>,
    at: UnixSeconds,
    deadline: Instant,
}

impl Task<'_> {
    fn fetch(&self, cache: Option<&Cache>) -> Result<Fetched, FetchError> {
        let source = &self.fetcher.source;
        let client = Client::new(&self.fetcher.tls, self.fetcher.patience.first_pause);
        let mut wanted = Wanted::of(self.quote);
        let mut had = Vec::new();
        let mut pck_chain = Vec::new();
        if wanted.platform.is_none() {
            let first = source.requests(self.quote, &[]);
            let first: Vec<_> = first.into_iter().filter(|request| request.part == Part::PckChain).collect();
            had = self.all(first, &wanted, None, cache, &client)?;
            let chain = had.first().and_then(|had| Held::read(&had.saved).ok());
            let Some(Held::PckChain(chain)) = chain else { return Err(FetchError::NoPlatform) };
            wanted.platform = chain.iter().find_map(|der| WantedPlatform::of_certificate(der));
            pck_chain = chain;
        }
        let issuer = match ClaimedPlatform::of(self.quote) {
            ClaimedPlatform::Certificate { issuer, .. } => issuer,
            _ => match ClaimedPlatform::of_chain(&pck_chain) {
                ClaimedPlatform::Certificate { issuer, .. } => issuer,
                _ => None,
            },
        };
        let requests = source.requests(self.quote, &pck_chain);
        let requests: Vec<_> =
            requests.into_iter().filter(|request| request.part != Part::PckChain).collect();
        if !requests.iter().any(|request| request.part == Part::TcbInfo) || issuer.is_none() {
            return Err(FetchError::NoPlatform);
        }
        had.extend(self.all(requests, &wanted, issuer, cache, &client)?);
        self.hold_together(&had, &wanted)
    }

    /// All of `requests`, side by side.
    fn all(
        &self,
        requests: Vec<Request>,
        wanted: &Wanted,
        issuer: Option<PckIssuer>,
        cache: Option<&Cache>,
        client: &Client,
    ) -> Result<Vec<Had>, FetchError> {
        let one = |request: Request| {
            let expected = match request.part {
                Part::TcbInfo => Expected::TcbInfo(wanted),
                Part::QeIdentity => Expected::QeIdentity(wanted),
                Part::PckCrl => Expected::PckCrl(issuer.unwrap_or(PckIssuer::Platform)),
                Part::PckChain => Expected::PckChain,
                _ => Expected::RootCrl,
            };
            match self.one(&request.url, &expected, cache, client) {
                Ok((saved, new)) => Ok(Had { request, saved, new }),
                Err(why) => Err(Fault { request, why }),
            }
        };
        let results: Vec<Result<Had, Fault>> = std::thread::scope(|scope| {
            let threads: Vec<_> = requests.into_iter().map(|request| scope.spawn(|| one(request))).collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
        });
        let (mut had, mut faults) = (Vec::new(), Vec::new());
        for result in results {
            match result {
                Ok(one) => had.push(one),
                Err(fault) => faults.push(fault),
            }
        }
        if faults.is_empty() { Ok(had) } else { Err(FetchError::Faults(faults)) }
    }

    /// The saved response to one request, from the cache or the service.
    fn one(
        &self,
        url: &str,
        expected: &Expected<'_>,
        cache: Option<&Cache>,
        client: &Client,
    ) -> Result<(Vec<u8>, Option<Answer>), Why> {
        let cached = cache.and_then(|cache| cache.find(url, self.at));
        if let Some(saved) = cached.filter(|saved| Held::read(saved).is_ok_and(|held| expected.is(&held))) {
            return Ok((saved, None));
        }
        if self.fetcher.network == Network::Never {
            return Err(Why::NotCached);
        }
        let answer = client.get(url, self.deadline).map_err(Why::Client)?;
        if let Some(header) = expected.chain_header()
            && !answer.chains.iter().any(|(name, _)| *name == header)
        {
            return Err(Why::NoChain(header));
        }
        let saved = answer.to_saved();
        let held = Held::read(&saved).map_err(Why::Unreadable)?;
        if !expected.is(&held) {
            return Err(Why::OfAnother);
        }
        match held.next_update() {
            Some(next_update) if next_update <= self.at => Err(Why::Expired(next_update)),
            _ => Ok((saved, Some(answer))),
        }
    }

    /// The bundle, if its signatures hold; new answers are kept.
    fn hold_together(&self, had: &[Had], wanted: &Wanted) -> Result<Fetched, FetchError> {
        let Fetcher { anchor, cache, .. } = self.fetcher;
        let mut parts = Parts::default();
        for one in had {
            parts.add(&one.saved).map_err(FetchError::Collateral)?;
        }
        let bundle = parts.build_for(wanted).map_err(FetchError::Collateral)?;
        let crypto = DefaultCrypto::default();
        VerifiedCollateral::new(&bundle, anchor, &crypto).map_err(FetchError::Untrusted)?;
        VerifiedCollateral::check_pck_crl(&bundle, anchor, &crypto).map_err(FetchError::Untrusted)?;
        let mut not_kept = None;
        for Had { request, new, .. } in had {
            if let (Some(cache), Some(answer)) = (cache, new)
                && let Err(error) = cache.put(&request.url, answer)
            {
                not_kept = Some(error.to_string());
            }
        }
        let asked = had.iter().filter(|one| one.new.is_some()).count();
        Ok(Fetched { bundle, cached: had.len() - asked, asked, not_kept })
    }
}
