//! `tdvisor serve`: many TDs behind our own API, each in a process of its own.

use std::ffi::OsString;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use tdvisor_runtime::kvm::offers_tds;
use tdvisor_runtime::worker::StopFlag;
use tdvisor_service::fleet::{Fleet, FleetLimits, FleetOptions, QuoteService};
use tdvisor_service::http::{Access, Limits, Remote, Server, Token, read_secret};
use tdvisor_service::td_api::{TdApi, openapi};

use super::hardware::HardwareArgs;
use super::log::LogArgs;
use super::run::memory_size::MemorySize;
use super::run::quotes::QgsSocket;
use super::serve_worker;
use super::verify::inputs::read;
use crate::outcome::{Failure, Status};
use crate::streams::{Streams, print};

/// Serve many TDs behind a REST API, each in a process of its own.
///
/// Clients create, boot, pause, look at and end TDs under /td/v1 (`--openapi` prints the description), and read numbers for
/// Prometheus at /metrics. The process of a TD confines itself before the guest's first instruction: no new privileges,
/// rlimits, landlock and seccomp, as far as the kernel has them. No answer has what a TD holds, unless it is asked for as
/// inspectable: with a dump, with gdb, or with snapshots, which stay in the state directory. At the UNIX socket only its owner and the superuser are served; at a TCP port (--listen), which is off unless asked for, whoever
/// knows the token, under TLS. A signal ends every TD, and then the service.
///
/// Exit status: 0 a signal ended it, 2 bad usage, or a socket or state directory that cannot be had, 4 a fault of tdvisor.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where clients come.
    #[arg(long, value_name = "PATH", required_unless_present = "openapi")]
    socket: Option<PathBuf>,
    /// Serve at this TCP port too, under TLS and for clients that know the token. What they may do is what the user of this
    /// process may: a TD has files of this machine.
    #[arg(long, value_name = "ADDRESS", requires_all = ["tls_cert", "tls_key", "token_file"])]
    listen: Option<SocketAddr>,
    /// The port's certificates (PEM, the leaf first), which clients check.
    #[arg(long, value_name = "FILE", requires = "listen")]
    tls_cert: Option<PathBuf>,
    /// The key of the first of them (PEM), in a file of mode 0600.
    #[arg(long, value_name = "FILE", requires = "listen")]
    tls_key: Option<PathBuf>,
    /// The token, in a file of mode 0600: one line of 16 to 1024 characters. Clients send it as `Authorization: Bearer TOKEN`.
    #[arg(long, value_name = "FILE", requires = "listen")]
    token_file: Option<PathBuf>,
    /// Where TDs are kept: a service that starts again finds them there, and names those that died with it.
    #[arg(long, value_name = "DIR", required_unless_present = "openapi")]
    state_dir: Option<PathBuf>,
    /// The most memory of one TD.
    #[arg(long, value_name = "SIZE", default_value = "16G")]
    td_memory: MemorySize,
    /// The most vCPUs of one TD.
    #[arg(long, value_name = "N", default_value_t = FleetLimits::default().td_vcpus)]
    td_vcpus: u32,
    /// The most bytes of the state directory that the console of one TD may fill. What does not fit is not kept.
    #[arg(long, value_name = "SIZE", default_value = "16M")]
    td_disk: MemorySize,
    /// The most bytes of the state directory that the SEAMCALLs of one TD may fill, if it is traced. What does not fit is not kept.
    #[arg(long, value_name = "SIZE", default_value = "256M")]
    td_trace: MemorySize,
    /// The most memory of all TDs that run.
    #[arg(long, value_name = "SIZE", default_value = "64G")]
    memory: MemorySize,
    /// The most vCPUs of all TDs that run.
    #[arg(long, value_name = "N", default_value_t = FleetLimits::default().vcpus)]
    vcpus: u32,
    /// The most key ids of all TDs that run: each has one.
    #[arg(long, value_name = "N", default_value_t = FleetLimits::default().key_ids)]
    key_ids: u32,
    /// The most bytes of the state directory that all consoles, dumps and snapshots may fill.
    #[arg(long, value_name = "SIZE", default_value = "16G")]
    disk: MemorySize,
    /// The most bytes of the state directory that all SEAMCALLs may fill.
    #[arg(long, value_name = "SIZE", default_value = "16G")]
    trace: MemorySize,
    /// Run TDs also where the kernel has no seccomp. Their descriptions say so.
    #[arg(long)]
    without_seccomp: bool,
    /// Get the quotes of TDs from the quote-generation service at this socket instead of the test issuer. A TD on KVM has no
    /// others.
    #[arg(long, value_name = "SOCKET")]
    qgs: Option<PathBuf>,
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    hardware: HardwareArgs,
    /// Print the API's OpenAPI document.
    #[arg(long)]
    openapi: bool,
}

/// How long answers that are under way may take to be written when the service ends, and TDs to end.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
const LAST_TDS: Duration = Duration::from_secs(30);

/// Serves until a signal comes.
pub fn run(args: Args) -> Result<Status, Failure> {
    if args.openapi {
        print(&format!("{:#}\n", openapi()))?;
        return Ok(Status::Success);
    }
    let (Some(socket), Some(state)) = (&args.socket, &args.state_dir) else {
        return Err(Failure::input("--socket", "it is needed, and --state-dir"));
    };
    // What a worker would find wrong is said now.
    args.hardware.hardware()?;
    let server =
        Server::bind(socket, Access::Owner).map_err(|error| Failure::input(socket.display(), error))?;
    let port = args.port()?;
    let program =
        std::env::current_exe().map_err(|error| Failure::Internal(format!("this program: {error}")))?;
    let words = [serve_worker::NAME.to_owned()].into_iter().chain(args.hardware.words());
    let options = FleetOptions {
        worker: (program, words.map(OsString::from).collect()),
        state: state.clone(),
        limits: args.limits(),
        without_seccomp: args.without_seccomp,
        quotes: args.quotes(),
        kvm: offers_tds,
    };
    let log = args.log.start();
    let fleet = Fleet::open(options).map_err(|error| Failure::input(state.display(), error))?;
    let fleet = Arc::new(fleet);
    let (ask, asked) = sync_channel(1);
    // Without a handler a signal ends the process at once: the TDs end with it, and are named at the next start.
    let _ = ctrlc::set_handler(move || {
        // Whoever asked before is enough.
        let _ = ask.try_send(());
    });
    let api = Arc::new(TdApi::new(fleet.clone()));
    let mut running = Vec::new();
    for server in [Some(server), port].into_iter().flatten() {
        if let Some(address) = server.address() {
            print(&format!("serve: https://{address}\n"))?;
        }
        let started = server.start(Limits::default(), api.clone());
        running.push(started.map_err(|error| Failure::Internal(error.to_string()))?);
    }
    // An error is a handler that could not be set: then nobody asks, and the process ends by a signal's default.
    if asked.recv().is_err() {
        return Err(Failure::Internal("signals cannot be handled".to_owned()));
    }
    for server in running {
        server.stop(LAST_ANSWERS);
    }
    fleet.end(Instant::now() + LAST_TDS);
    log.finish();
    Ok(Status::Success)
}

/// A problem of a file.
fn of(path: &Path) -> impl Fn(&dyn Display) -> Failure {
    move |problem| Failure::input(path.display(), problem)
}

impl Args {
    /// The TCP port, if there is to be one.
    fn port(&self) -> Result<Option<Server>, Failure> {
        let (Some(address), Some(chain), Some(key), Some(token)) =
            (self.listen, &self.tls_cert, &self.tls_key, &self.token_file)
        else {
            return Ok(None);
        };
        let secret = Token::read(token).map_err(|error| of(token)(&error))?;
        let pem = read_secret(key).map_err(|error| of(key)(&error))?;
        let remote = Remote::new(&read(chain)?, &pem, secret).map_err(|error| of(chain)(&error))?;
        let server = Server::listen(address, remote).map_err(|error| Failure::input(address, error))?;
        Ok(Some(server))
    }

    /// Where quotes come from, if not from the test issuer.
    fn quotes(&self) -> Option<QuoteService> {
        let (socket, streams) = (self.qgs.clone()?, Streams::of_process());
        Some(QuoteService::new(move || {
            Box::new(QgsSocket::new(socket.clone(), streams.clone(), StopFlag::default()))
        }))
    }

    fn limits(&self) -> FleetLimits {
        FleetLimits {
            td_memory: self.td_memory.bytes(),
            td_vcpus: self.td_vcpus,
            td_disk: self.td_disk.bytes(),
            td_trace: self.td_trace.bytes(),
            memory: self.memory.bytes(),
            vcpus: self.vcpus,
            key_ids: self.key_ids,
            disk: self.disk.bytes(),
            trace: self.trace.bytes(),
        }
    }
}
