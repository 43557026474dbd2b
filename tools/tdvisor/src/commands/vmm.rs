//! `tdvisor vmm`: one TD behind Cloud Hypervisor's REST API.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use machine_emu::Hardware;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use tdvisor_inspector::Symbols;
use tdvisor_monitor::QuoteSource;
use tdvisor_runtime::backend::BackendKind;
use tdvisor_runtime::board::Transport;
use tdvisor_runtime::kvm::offers_tds;
use tdvisor_service::api::{API_VERSION, openapi};
use tdvisor_service::config::TdPolicy;
use tdvisor_service::http::{Access, Limits, Server};
use tdvisor_service::vm::{Exit, ExitReason, Facts, VmOptions, WhenOff};

use super::hardware::HardwareArgs;
use super::log::LogArgs;
use super::run::quotes::{Genuine, LastQuote, QgsSocket, TestIssuer};
use super::run::status_of;
use super::run::summary::{Detail, Privacy, Summary};
use crate::outcome::{Failure, Status};
use crate::streams::{GRACE, Streams, print};

/// Serve one TD behind Cloud Hypervisor's REST API, on a UNIX socket.
///
/// Clients of Cloud Hypervisor create, boot and end the TD (PUT /api/v1/vm.create, vm.boot and so on); a program that is
/// called `cloud-hypervisor` and is this one takes these options without the word `vmm`. The process ends when a client asks
/// for it (vmm.shutdown), by a signal, and with the guest. Only the socket's owner and the superuser are served.
///
/// Exit status: 0 a client or a signal ended it, or the guest succeeded; 1 the guest reported failure or panicked, 2 bad
/// usage or a socket that cannot be had, 3 the TD died, 4 a fault of tdvisor, 5 the guest needs what the emulator does not
/// implement.
#[derive(Debug, clap::Args)]
#[command(display_name = "cloud-hypervisor", version = API_VERSION)]
pub struct Args {
    /// Where clients come: a socket to be made, or one that is inherited and listened at, as descriptor N.
    #[arg(long, value_name = "PATH|path=PATH|fd=N", required_unless_present = "openapi")]
    api_socket: Option<SocketArg>,
    /// Let the group of this process use the socket too.
    #[arg(long)]
    group: bool,
    /// Make every VM a TD, for clients that cannot ask for one (platform.tdx).
    #[arg(long)]
    always_td: bool,
    /// Do not end with the guest: the VM can be booted again.
    #[arg(long)]
    no_shutdown: bool,
    /// How virtio devices are attached: as PCI functions, or in virtio-mmio slots for kernels without PCI.
    #[arg(long, value_name = "TRANSPORT", value_enum, default_value_t)]
    virtio: VirtioTransport,
    /// Get the TD's quotes from the quote-generation service at this socket instead of the test issuer.
    #[arg(long, value_name = "SOCKET")]
    qgs: Option<PathBuf>,
    /// What runs the TD: `kvm` takes a TDX server whose Linux has KVM_TDX (`tdvisor doctor` says what is missing). Its quotes
    /// come from --qgs.
    #[arg(long, value_name = "BACKEND", value_enum, default_value_t)]
    backend: VmBackend,
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    hardware: HardwareArgs,
    /// Write down more: `info`, twice `debug`, thrice `trace`. Clients give it.
    #[arg(short, action = clap::ArgAction::Count, hide_short_help = true)]
    verbose: u8,
    /// Confinement by seccomp: there is none, so that only `false` can be asked for. Clients give it.
    #[arg(long, value_name = "false", value_parser = ["false"], hide_short_help = true)]
    seccomp: Option<String>,
    /// Print the API's OpenAPI document.
    #[arg(long)]
    openapi: bool,
}

/// What runs the TD.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum VmBackend {
    /// The emulated TDX module and the software CPU: on any machine.
    #[default]
    Emulated,
    /// Linux's KVM, on a TDX server whose kernel has KVM_TDX.
    Kvm,
}

/// How virtio devices are attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum VirtioTransport {
    #[default]
    Pci,
    Mmio,
}

/// A socket.
#[derive(Clone, Debug, PartialEq, Eq)]
enum SocketArg {
    Path(PathBuf),
    Inherited(i32),
}

impl FromStr for SocketArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(number) = text.strip_prefix("fd=") {
            let number = number.parse().ok().filter(|fd| *fd >= 0);
            return number.map(Self::Inherited).ok_or_else(|| "a descriptor is a number".to_owned());
        }
        let path = text.strip_prefix("path=").unwrap_or(text);
        if path.is_empty() { Err("a path is needed".to_owned()) } else { Ok(Self::Path(path.into())) }
    }
}

impl SocketArg {
    fn server(&self, access: Access) -> Result<Server, Failure> {
        match self {
            Self::Path(path) => {
                Server::bind(path, access).map_err(|error| Failure::input(path.display(), error))
            }
            Self::Inherited(number) => inherited(*number)
                .and_then(|socket| Server::inherited(socket, access))
                .map_err(|error| Failure::input(format_args!("descriptor {number} of --api-socket"), error)),
        }
    }
}

/// A descriptor that this program was started with, as one of its own.
fn inherited(number: i32) -> std::io::Result<OwnedFd> {
    let own = pidfd_open(getpid(), PidfdFlags::empty())?;
    Ok(pidfd_getfd(own, number, PidfdGetfdFlags::empty())?)
}

/// Serves until the end.
pub fn run(args: Args) -> Result<Status, Failure> {
    if args.openapi {
        print(&format!("{:#}\n", openapi()))?;
        return Ok(Status::Success);
    }
    let socket = args.api_socket.as_ref().ok_or_else(|| Failure::input("--api-socket", "it is needed"))?;
    let hardware = args.hardware.hardware()?;
    args.check_backend()?;
    let streams = Streams::of_process();
    let server = socket.server(if args.group { Access::Group } else { Access::Owner })?;
    let exit = Arc::new(Exit::default());
    let by_signal = exit.clone();
    // Without a handler a signal ends the process at once, which is the worst that can happen.
    let _ = ctrlc::set_handler(move || by_signal.ask(ExitReason::Signal));
    let log = args.log.clone().louder(args.verbose).start();
    let options = args.options(hardware, &streams);
    let reason = tdvisor_service::serve(server, Limits::default(), options, &exit)
        .map_err(|error| Failure::Internal(error.to_string()))?;
    log.finish();
    conclude(reason, hardware, &streams)
}

impl Args {
    /// Checks that what is to run TDs can be had, before a client comes.
    fn check_backend(&self) -> Result<(), Failure> {
        if self.backend == VmBackend::Emulated {
            return Ok(());
        }
        if !self.hardware.is_usual() {
            let why = "only the emulated machine can do it: leave it out, or take --backend emulated";
            return Err(Failure::input("--profile, --cpu, --feature or --engine", why));
        }
        offers_tds().map_err(|error| Failure::input("--backend kvm", error))
    }

    fn options(&self, hardware: Hardware, streams: &Streams) -> VmOptions {
        let (qgs, streams) = (self.qgs.clone(), streams.clone());
        VmOptions {
            backend: match self.backend {
                VmBackend::Emulated => BackendKind::Emulated,
                VmBackend::Kvm => BackendKind::Kvm,
            },
            hardware,
            policy: if self.always_td { TdPolicy::Always } else { TdPolicy::WhenAsked },
            transport: match self.virtio {
                VirtioTransport::Pci => Transport::Pci,
                VirtioTransport::Mmio => Transport::Mmio,
            },
            when_off: if self.no_shutdown { WhenOff::Stay } else { WhenOff::Exit },
            quotes: Arc::new(move |machine, stop| {
                let source: Box<dyn QuoteSource> = match (&qgs, machine) {
                    (Some(socket), _) => Box::new(QgsSocket::new(socket.clone(), streams.clone(), stop)),
                    (None, Some(machine)) => {
                        Box::new(TestIssuer::new(Genuine::Machine(machine), LastQuote::default()))
                    }
                    (None, None) => return None,
                };
                Some(source)
            }),
        }
    }
}

/// Says how the guest ended, if that is why the process ends.
fn conclude(reason: ExitReason, hardware: Hardware, streams: &Streams) -> Result<Status, Failure> {
    let end = match reason {
        ExitReason::Asked | ExitReason::Signal => return Ok(Status::Success),
        ExitReason::RebootFailed(error) => return Err(Failure::Input(error.to_string())),
        ExitReason::GuestEnded(end) => end,
    };
    let summary = match end.facts {
        Facts::Emulated(report) => {
            Summary::of(*report, end.predicted, Privacy::Confidential, hardware, &Symbols::default())
        }
        Facts::Kvm(report) => Summary::of_kvm(report, end.predicted),
    };
    streams.err.send(summary.to_text(Detail::Usual).as_bytes());
    let until = std::time::Instant::now() + GRACE;
    streams.err.drain(|| until <= std::time::Instant::now());
    summary.fault().map_or_else(|| Ok(status_of(summary.ending(), None)), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_a_path_or_a_descriptor() {
        assert_eq!("a.sock".parse(), Ok(SocketArg::Path("a.sock".into())));
        assert_eq!("path=a.sock".parse(), Ok(SocketArg::Path("a.sock".into())));
        assert_eq!("fd=7".parse(), Ok(SocketArg::Inherited(7)));
        for bad in ["", "path=", "fd=", "fd=-1", "fd=x"] {
            assert!(bad.parse::<SocketArg>().is_err(), "{bad}");
        }
    }
}
