//! `tdvisor attest-serve`: verification as a service, for key brokers of Confidential Containers.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tdvisor_attest::policy::Policy;
use tdvisor_attest::verify::TrustAnchor;
use tdvisor_attest::x509::pem;
use tdvisor_attest_serve::appraisal::RootKind;
use tdvisor_attest_serve::metrics::Metrics;
use tdvisor_attest_serve::service::Service;
use tdvisor_attest_serve::{Appraiser, CollateralSource, Signer, server};

use super::collateral::source::SourceArgs;
use super::verify::inputs::{read, read_collateral, read_policy, read_root};
use crate::outcome::{Failure, Status};
use crate::streams::{print, say_at_the_end};

/// Verify evidence as a service: the gRPC service `attestation.AttestationService` of Trustee.
///
/// A key broker of Confidential Containers uses it with `type = "coco_as_grpc"` and this address. A quote gets a token only
/// if it verifies, if REPORTDATA is the hash of the request's run-time data, if MRCONFIGID is that of the init data where
/// the request has some, if its event log replays, and if the policy accepts it. SetAttestationPolicy answers
/// UNIMPLEMENTED: the policy is the file that is given here. Prints its addresses, and then answers until it is stopped.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:50004")]
    listen: SocketAddr,
    /// Where to answer `GET /metrics` (Prometheus). Default: nowhere.
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
    /// Files of collateral in any form, or folders of them; may be given more than once.
    #[arg(long, value_name = "FILE", required_unless_present = "fetch")]
    collateral: Vec<PathBuf>,
    /// Fetch collateral from Intel's service, or as the options of `collateral fetch` say.
    #[arg(long, conflicts_with = "collateral")]
    fetch: bool,
    #[command(flatten)]
    source: SourceArgs,
    /// What to accept (TOML or JSON). Default: a TD with an up-to-date TCB and no debug.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Trust this root certificate (DER or PEM) instead of Intel's.
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// Trust the root of a test PKI instead of Intel's: every token says so, and affirms nothing about hardware.
    #[arg(long, value_name = "FILE", conflicts_with = "root")]
    test_root: Option<PathBuf>,
    /// The key that signs tokens (P-256, PKCS #8, PEM). Default: one that ends with the process.
    #[arg(long, value_name = "FILE")]
    signing_key: Option<PathBuf>,
    /// The certificates of the key that signs tokens (PEM, the leaf first), which relying parties check.
    #[arg(long, value_name = "FILE", requires = "signing_key")]
    signing_cert: Option<PathBuf>,
    /// Certificates for TLS (PEM, the leaf first).
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The key for TLS (PKCS #8, PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Listen beyond this machine without TLS: what protects the way is somebody else's.
    #[arg(long, conflicts_with = "tls_cert")]
    no_tls: bool,
    /// Threads that verify. Default: one for each processor.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
}

pub fn run(args: Args) -> Result<Status, Failure> {
    if let (false, Some(option)) = (args.fetch, args.source.given()) {
        return Err(Failure::input(option, "says how to fetch collateral: --fetch is missing"));
    }
    if !args.listen.ip().is_loopback() && args.tls_cert.is_none() && !args.no_tls {
        return Err(Failure::input(
            "--listen",
            "beyond this machine needs --tls-cert and --tls-key, or --no-tls",
        ));
    }
    let (anchor, root) = match (&args.root, &args.test_root) {
        (Some(path), _) => (read_root(path)?, RootKind::Hardware),
        (None, Some(path)) => (read_root(path)?, RootKind::Test),
        (None, None) => (TrustAnchor::intel(), RootKind::Hardware),
    };
    let collateral = if args.fetch {
        CollateralSource::Fetch(Arc::new(args.source.fetcher(anchor.clone(), args.source.set()?)?))
    } else {
        CollateralSource::Files(Arc::new(read_collateral(&args.collateral)?.into_parts()))
    };
    let policy = args.policy.as_deref().map(read_policy).transpose()?;
    let appraiser = Appraiser { anchor, root, policy: policy.unwrap_or_else(Policy::default), collateral };
    let signer = signer(&args)?;
    let tls = match (&args.tls_cert, &args.tls_key) {
        (Some(chain), Some(key)) => {
            let ders =
                pem::certificates(&read(chain)?).map_err(|error| Failure::input(chain.display(), error))?;
            let pkcs8 =
                pem::private_key(&read(key)?).map_err(|error| Failure::input(key.display(), error))?;
            Some(server::tls(ders, pkcs8).map_err(|error| Failure::input(chain.display(), error))?)
        }
        _ => None,
    };
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = args.workers.map_or(processors, usize::from);
    let metrics = Arc::new(Metrics::default());
    let service = Arc::new(Service::new(appraiser, signer, Arc::clone(&metrics), workers));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(IO_THREADS)
        .max_blocking_threads(workers)
        .enable_all()
        .build()
        .map_err(|error| Failure::Internal(format!("threads: {error}")))?;
    runtime.block_on(async {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let (listener, address) = bind(args.listen).await?;
        let mut said = format!("attest-serve: {scheme}://{address} ({workers} workers)\n");
        if let Some(wanted) = args.metrics {
            let (listener, address) = bind(wanted).await?;
            said += &format!("metrics: http://{address}/metrics\n");
            tokio::spawn(server::serve_metrics(listener, metrics));
        }
        print(&said)?;
        server::serve(listener, tls, service).await.map_err(|error| Failure::input(address, error))
    })?;
    Ok(Status::Success)
}

/// Threads for connections; verification has its own.
const IO_THREADS: usize = 2;

async fn bind(wanted: SocketAddr) -> Result<(tokio::net::TcpListener, SocketAddr), Failure> {
    let listener =
        tokio::net::TcpListener::bind(wanted).await.map_err(|error| Failure::input(wanted, error))?;
    let address = listener.local_addr().map_err(|error| Failure::input(wanted, error))?;
    Ok((listener, address))
}

fn signer(args: &Args) -> Result<Signer, Failure> {
    let Some(path) = &args.signing_key else {
        say_at_the_end("tdvisor: no --signing-key: tokens are signed by a key that ends with this process");
        return Signer::ephemeral().map_err(|error| Failure::Internal(error.to_string()));
    };
    let chain = args.signing_cert.as_deref().map(read).transpose()?;
    let at_fault: &Path = args.signing_cert.as_deref().unwrap_or(path);
    Signer::from_pem(&read(path)?, chain.as_deref())
        .map_err(|error| Failure::input(at_fault.display(), error))
}
