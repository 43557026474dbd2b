//! One GET request: bounded, by a deadline, again after a pause where a service is too busy.

use std::fmt;
use std::time::{Duration, Instant};

use tdvisor_attest::x509::pem;
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::transport::DefaultConnector;

use crate::names::Names;

use crate::answer::{Answer, CHAIN_HEADERS, MAX_BODY};

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);
/// The largest head of an answer, in bytes: an issuer chain is its largest line.
const MAX_HEAD: usize = 64 << 10;
/// What the service reads of who asks.
const USER_AGENT: &str = concat!("tdvisor/", env!("CARGO_PKG_VERSION"));

/// Whose certificates a TLS server may show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TlsRoots {
    /// The roots that browsers trust.
    #[default]
    Web,
    /// Only what these issued (DER): a cache of one's own has a certificate of its own.
    Only(Vec<Vec<u8>>),
}

impl TlsRoots {
    /// Roots from a file (PEM or DER).
    ///
    /// # Errors
    /// Bytes that are no certificate.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, tdvisor_attest::x509::X509Error> {
        let roots = if pem::looks_like_der(bytes) { vec![bytes.to_vec()] } else { pem::certificates(bytes)? };
        if roots.is_empty() {
            return Err(tdvisor_attest::x509::X509Error::Unexpected);
        }
        Ok(Self::Only(roots))
    }
}

/// Why there is no answer.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientError {
    /// An answer other than success, and one that a later attempt would not change.
    Status(u16),
    /// The service is too busy, and wants more patience than there is.
    Busy {
        /// The server's answer.
        status: u16,
        /// Attempts that were made.
        attempts: u32,
    },
    /// The time was up.
    Deadline,
    /// The body is larger than any collateral.
    TooLarge,
    /// No connection, or one that broke.
    Transport(Box<ureq::Error>),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(404) => f.write_str("the service does not have it (status 404)"),
            Self::Status(status) => write!(f, "answered with status {status}"),
            Self::Busy { status, attempts } => {
                write!(f, "too busy (status {status} {attempts} times), until the time was up")
            }
            Self::Deadline => f.write_str("no answer until the time was up"),
            Self::TooLarge => f.write_str("larger than any collateral"),
            Self::Transport(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ClientError {}

/// Makes requests. Proxies are those of the environment (`https_proxy`, `http_proxy`, `all_proxy`, `no_proxy`).
#[derive(Clone, Debug)]
pub struct Client {
    agent: Agent,
    first_pause: Duration,
}

impl Client {
    /// A client that trusts `roots` for TLS.
    #[must_use]
    pub fn new(roots: &TlsRoots, first_pause: Duration) -> Self {
        let roots = match roots {
            TlsRoots::Web => RootCerts::WebPki,
            TlsRoots::Only(ders) => {
                let ders: Vec<_> = ders.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
                RootCerts::new_with_certs(&ders)
            }
        };
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // Another address than the one that was given is nobody's who was asked for.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_response_header_size(MAX_HEAD)
            .user_agent(USER_AGENT)
            .tls_config(TlsConfig::builder().root_certs(roots).build());
        let agent = if cfg!(target_feature = "crt-static") {
            Agent::with_parts(config.build(), DefaultConnector::default(), Names::of_this_machine())
        } else {
            config.build().new_agent()
        };
        Self { agent, first_pause }
    }

    /// The answer to one request.
    ///
    /// # Errors
    /// [`ClientError`]: there is none until `deadline`, or none of success.
    pub fn get(&self, url: &str, deadline: Instant) -> Result<Answer, ClientError> {
        let mut pause = self.first_pause;
        for attempts in 1.. {
            let (status, asked) = match self.attempt(url, deadline)? {
                Attempt::Answer(answer) => return Ok(answer),
                Attempt::Busy { status, retry_after } => (status, retry_after),
            };
            let wait = asked.unwrap_or(pause).max(pause);
            if wait >= deadline.saturating_duration_since(Instant::now()) {
                return Err(ClientError::Busy { status, attempts });
            }
            std::thread::sleep(wait);
            pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
        }
        Err(ClientError::Deadline)
    }

    fn attempt(&self, url: &str, deadline: Instant) -> Result<Attempt, ClientError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ClientError::Deadline);
        }
        let mut request = self.agent.get(url).config().timeout_global(Some(left));
        if is_on_this_machine(url) {
            // A proxy would look for it on its own.
            request = request.proxy(None);
        }
        let call = request.build().call();
        let mut response = call.map_err(failed)?;
        let status = response.status().as_u16();
        if status == 429 || status >= 500 {
            let retry_after = response.headers().get("retry-after");
            let seconds = retry_after.and_then(|value| value.to_str().ok()?.trim().parse().ok());
            return Ok(Attempt::Busy { status, retry_after: seconds.map(Duration::from_secs) });
        }
        if status != 200 {
            return Err(ClientError::Status(status));
        }
        let headers = response.headers();
        let chains = CHAIN_HEADERS
            .into_iter()
            .flat_map(|name| headers.get_all(name).into_iter().map(move |value| (name, value)))
            // What is no text is no chain, and would be one more header in a saved response.
            .filter_map(|(name, value)| Some((name, value.to_str().ok()?.to_owned())))
            .collect();
        let body = response.body_mut().with_config().limit(MAX_BODY).read_to_vec().map_err(failed)?;
        Ok(Attempt::Answer(Answer { chains, body }))
    }
}

enum Attempt {
    Answer(Answer),
    Busy { status: u16, retry_after: Option<Duration> },
}

/// Whether an address is of this machine.
fn is_on_this_machine(url: &str) -> bool {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match host.strip_prefix('[') {
        Some(address) => address.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

fn failed(error: ureq::Error) -> ClientError {
    match error {
        ureq::Error::Timeout(_) => ClientError::Deadline,
        ureq::Error::BodyExceedsLimit(_) => ClientError::TooLarge,
        error => ClientError::Transport(Box::new(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_known_by_its_addresses_and_by_nothing_that_only_looks_like_them() {
        for url in ["http://localhost:8081/x", "http://127.0.0.1:1", "https://127.9.9.9", "http://[::1]:80/"]
        {
            assert!(is_on_this_machine(url), "{url}");
        }
        for url in [
            "https://api.trustedservices.intel.com/sgx",
            "http://localhost.example/",
            "http://127.0.0.1.example/",
            "http://localhost@example/",
            "http://[::2]/",
            "http://10.0.0.1/localhost",
        ] {
            assert!(!is_on_this_machine(url), "{url}");
        }
    }
}
