//! Where collateral is fetched from: the options, and what they make.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use tdvisor_attest::UnixSeconds;
use tdvisor_attest::collateral::{Bundle, ROOT_CRL, Service, Source, UpdateSet};
use tdvisor_attest::verify::TrustAnchor;
use tdvisor_collateral::answer::Patience;
use tdvisor_collateral::cache::Cache;
use tdvisor_collateral::fetch::{FetchError, Fetcher, Network};
use tdvisor_collateral::{TlsRoots, fetch};

use crate::commands::verify::inputs::read;
use crate::outcome::Failure;
use crate::streams::say_at_the_end;

/// Where collateral comes from. Proxies are those of the environment: https_proxy, http_proxy, all_proxy, no_proxy.
#[derive(Debug, Default, clap::Args)]
pub struct SourceArgs {
    /// Ask what answers like Intel's service at this address. Default: Intel's service itself.
    #[arg(long, value_name = "URL", conflicts_with = "pccs")]
    pcs: Option<String>,
    /// Ask this PCCS.
    #[arg(long, value_name = "URL")]
    pccs: Option<String>,
    /// With --pcs: where the root's revocation list is. Default: where Intel's certificates say.
    #[arg(long, value_name = "URL", requires = "pcs")]
    root_crl: Option<String>,
    /// Which of the two data sets after a TCB recovery. Default: the service's, which is `standard` at Intel's.
    #[arg(long, value_enum)]
    update: Option<Update>,
    /// Keep answers in this folder, and use them until the day that they say. The folder is collateral for
    /// `verify --collateral` and `collateral serve` too.
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Use no network: the cache must have everything.
    #[arg(long, requires = "cache")]
    offline: bool,
    /// How long all of it may take, in seconds.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    deadline: Option<u64>,
    /// Certificates (PEM or DER) that the service's own certificate must end at, instead of those that browsers trust.
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Update {
    /// The new set, from the day that it is published.
    Early,
    /// The set that becomes the new one when operators have had time to update.
    Standard,
    /// `verify` alone: a verdict by each.
    Both,
}

impl SourceArgs {
    /// An option that was given, if any was.
    pub fn given(&self) -> Option<&'static str> {
        let Self { pcs, pccs, root_crl, update, cache, offline, deadline, tls_ca } = self;
        [
            ("--pcs", pcs.is_some()),
            ("--pccs", pccs.is_some()),
            ("--root-crl", root_crl.is_some()),
            ("--update", update.is_some()),
            ("--cache", cache.is_some()),
            ("--offline", *offline),
            ("--deadline", deadline.is_some()),
            ("--tls-ca", tls_ca.is_some()),
        ]
        .into_iter()
        .find_map(|(option, is_given)| is_given.then_some(option))
    }

    /// The data sets that are asked for; `None` is the service's own choice.
    pub const fn sets(&self) -> &'static [Option<UpdateSet>] {
        match self.update {
            None => &[None],
            Some(Update::Early) => &[Some(UpdateSet::Early)],
            Some(Update::Standard) => &[Some(UpdateSet::Standard)],
            Some(Update::Both) => &[Some(UpdateSet::Early), Some(UpdateSet::Standard)],
        }
    }

    /// The one data set that is asked for.
    ///
    /// # Errors
    /// [`Failure::Input`]: it is two.
    pub fn set(&self) -> Result<Option<UpdateSet>, Failure> {
        match self.sets() {
            [set] => Ok(*set),
            _ => Err(Failure::input(
                "--update both",
                "two sets are for `verify`, which says what each amounts to",
            )),
        }
    }

    /// What fetches `update` from here, for a verifier that trusts `anchor`.
    ///
    /// # Errors
    /// [`Failure::Input`]: a file or folder that cannot be used.
    pub fn fetcher(&self, anchor: TrustAnchor, update: Option<UpdateSet>) -> Result<Fetcher, Failure> {
        let service = match (&self.pcs, &self.pccs) {
            (Some(url), _) => Service::pcs(url, self.root_crl.as_deref().unwrap_or(ROOT_CRL)),
            (None, Some(url)) => Service::pccs(url),
            (None, None) => Service::intel(),
        };
        let tls = match &self.tls_ca {
            Some(path) => TlsRoots::from_bytes(&read(path)?)
                .map_err(|error| Failure::input(path.display(), format!("no certificates: {error}")))?,
            None => TlsRoots::Web,
        };
        let cache = self.cache.as_ref().map(|path| {
            Cache::open(path).map_err(|error| Failure::input(path.display(), format!("--cache: {error}")))
        });
        let patience = Patience::default();
        Ok(Fetcher {
            source: Source { service, update },
            tls,
            anchor,
            cache: cache.transpose()?,
            network: if self.offline { Network::Never } else { Network::WhenNeeded },
            patience: Patience {
                whole: self.deadline.map_or(patience.whole, Duration::from_secs),
                ..patience
            },
        })
    }
}

/// Fetches the collateral of a quote, and says what it could not keep.
///
/// # Errors
/// What [`Fetcher::fetch`] has.
pub fn fetch(fetcher: &Fetcher, quote: &[u8], at: UnixSeconds) -> Result<Bundle, fetch::FetchError> {
    let fetched = fetcher.fetch(quote, at)?;
    if let Some(problem) = fetched.not_kept {
        say_at_the_end(format_args!("tdvisor: --cache: answers could not be kept: {problem}"));
    }
    Ok(fetched.bundle)
}

/// A failure to fetch, as the program says it.
pub fn failure(error: &FetchError) -> Failure {
    let subject = if matches!(error, FetchError::Quote(_)) { "quote" } else { "collateral" };
    Failure::input(subject, error)
}
