//! `tdvisor server`: a TDX host, with its own kernel, on the emulated TDX server.

mod gdb;
mod input;
mod marks;
mod snapshot;
mod summary;
mod trace;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use seam_emu::inject::FaultPlan;
use server_emu::server::FirmwareSetup;
use server_emu::{BootFiles, Ending, Pace, ServerConfig};
use tdvisor_board::address;
use tdvisor_host_image::HOST_IMAGE;
use tdvisor_runtime::debugger::Debugger;
use tdvisor_runtime::server::{Marks, Outside, ServerEvent, ServerSession, ServerSpec};
use tdvisor_runtime::worker::StopFlag;

use super::hardware::HardwareArgs;
use super::kernel_tree;
use super::run::console::Console;
use super::run::linux::open_disk;
use super::run::memory_size::MemorySize;
use super::run::read_stdin_into;
use super::run::status_lines::{StatusLinesArgs, Telling};
use super::run::supervisor::{Outlets, StopReason, Supervisor};
use crate::files::Claims;
use crate::outcome::{Failure, Status};
use crate::read_bounded::read_bounded;
use crate::streams::Streams;
use gdb::GdbArgs;
use input::ConsoleInput;
use marks::MarkArgs;
use snapshot::{Resumed, SnapshotArgs};
use summary::Summary;
use trace::{CallTrace, TraceArgs};

/// The largest kernel or initrd that is read.
const FILE_LIMIT: u64 = 2 << 30;

/// Boot a TDX host on an emulated TDX server.
///
/// The kernel's own code runs on the software CPU, and its SEAMCALLs end in the emulated TDX module: a Linux with
/// CONFIG_INTEL_TDX_HOST initialises the module, and its KVM can start TDs. `tools/hosts/linux/build.sh` builds one.
/// With --host-image it is tdvisor's own host, which runs a TD without an operating system.
/// The host's console goes to stdout, a summary goes to stderr; what is typed goes to the host's serial port, without
/// --deterministic. Ctrl-C switches the machine off.
///
/// Exit status: 0 the host powered off, or its snapshot was written, 1 it powered off with a code, panicked or asked for a
/// reset, or ended before its snapshot, 2 bad usage or input,
/// 3 a processor shut down (triple fault) or a signal stopped the machine, 4 a fault of tdvisor, 5 the host needs what
/// the emulator does not implement, 124 the time was up.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The host's kernel: a `vmlinux`, a bzImage, or another ELF file with a 64-bit entry. In a kernel tree that was
    /// built, its arch/x86/boot/bzImage if neither this nor --host-image is given.
    #[arg(long, value_name = "FILE", conflicts_with = "host_image")]
    kernel: Option<PathBuf>,
    /// tdvisor's own host instead of a kernel, the built-in one or this file: it runs one TD without an operating
    /// system. The TD is the TDVF image given as `--initrd`, or `hello-td`.
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    host_image: Option<Option<PathBuf>>,
    /// The kernel's initial RAM disk, or the TD of `--host-image`. Several are put behind each other, and a Linux unpacks
    /// all of them if no archive stands behind a compressed one.
    #[arg(long, value_name = "FILE")]
    initrd: Vec<PathBuf>,
    /// A disk image, shown to the host as a virtio block device (/dev/vda).
    #[arg(long, value_name = "FILE")]
    disk: Option<PathBuf>,
    /// The host's command line. Without this option, what a Linux with TDX wants to be told; tdvisor's own host takes
    /// `memory=SIZE`, `vcpus=N` and `command=WORD`, and is always told its exit port.
    #[arg(long, value_name = "TEXT")]
    cmdline: Option<String>,
    /// Words to put behind the command line.
    #[arg(long, value_name = "TEXT")]
    append: Option<String>,
    /// Logical processors.
    #[arg(long, value_name = "N", default_value_t = 1)]
    cpus: u32,
    /// Processor packages.
    #[arg(long, value_name = "N", default_value_t = 1)]
    packages: u32,
    /// Memory: a number of bytes, or one with K, M or G.
    #[arg(long, value_name = "SIZE", default_value = "2G")]
    memory: MemorySize,
    /// What the machine's firmware did not set up, so that the host is no TDX host.
    #[arg(long, value_name = "LINK", value_enum)]
    without: Option<Without>,
    #[command(flatten)]
    hardware: HardwareArgs,
    /// Run one processor at a time, in virtual time and an order that SEED decides: the same seed gives the same run,
    /// instruction by instruction.
    #[arg(long, value_name = "SEED")]
    deterministic: Option<u64>,
    /// Boot again where the host asks for a reset, until it has booted so many times: with zero memory, and the module and its
    /// keys as at power-on.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    boots: u32,
    /// Switch the machine off after so many seconds, and end with status 124; 0 is never.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    timeout: u64,
    /// Make chosen SEAMCALLs fail: `TDH.SYS.TDMR.INIT#3=OPERAND_BUSY:RCX`, or `chaos:SEED/ONE-IN`; several, separated by
    /// commas.
    #[arg(long, value_name = "PLAN")]
    inject: Option<FaultPlan>,
    #[command(flatten)]
    snapshots: SnapshotArgs,
    #[command(flatten)]
    trace: TraceArgs,
    #[command(flatten)]
    gdb: GdbArgs,
    #[command(flatten)]
    status_lines: StatusLinesArgs,
    #[command(flatten)]
    marks: MarkArgs,
    /// Print the summary as JSON on stdout; the host's console goes to stderr.
    #[arg(long)]
    json: bool,
}

/// What firmware can leave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Without {
    /// VMX is locked off.
    Vmx,
    /// Memory encryption is locked off.
    MemoryEncryption,
    /// No key id is one of TDs.
    KeyIds,
    /// The module has no memory.
    SeamRange,
}

impl Without {
    const fn setup(self) -> FirmwareSetup {
        match self {
            Self::Vmx => FirmwareSetup::WithoutVmx,
            Self::MemoryEncryption => FirmwareSetup::WithoutMemoryEncryption,
            Self::KeyIds => FirmwareSetup::WithoutKeyIds,
            Self::SeamRange => FirmwareSetup::WithoutSeamRange,
        }
    }
}

/// What a Linux with TDX wants to be told: its console, TDX in KVM, no bounce buffers for devices that reach all memory (64 MiB
/// to be cleared), and to end with the machine where it panics.
const DEFAULT_COMMAND_LINE: &str = "console=ttyS0 mitigations=off kvm_intel.tdx=1 kvm_intel.nested=0 swiotlb=noforce panic=-1 printk.devkmsg=on";

/// What boots.
enum Host {
    /// A kernel's file.
    Kernel(PathBuf),
    /// tdvisor's own host, from a file.
    Image(PathBuf),
    /// The built-in host.
    BuiltIn,
}

impl Host {
    fn of(args: &Args) -> Result<Self, Failure> {
        Ok(match (&args.kernel, &args.host_image) {
            (_, Some(Some(file))) => Self::Image(file.clone()),
            (_, Some(None)) => Self::BuiltIn,
            (Some(kernel), None) => Self::Kernel(kernel.clone()),
            (None, None) => Self::Kernel(Self::of_tree()?),
        })
    }

    /// The kernel of the tree in which one stands, if its configuration suits.
    fn of_tree() -> Result<PathBuf, Failure> {
        let tree = std::env::current_dir().ok().and_then(|folder| kernel_tree::kernel_of(&folder));
        let none = "name a kernel, take --host-image, or start in a kernel tree that was built";
        let kernel = tree.ok_or_else(|| Failure::input("--kernel", none))?;
        kernel_tree::check(&kernel, &[&kernel_tree::OF_A_HOST])?;
        Ok(kernel)
    }

    fn claim(&self, claims: &mut Claims) -> Result<(), Failure> {
        match self {
            Self::Kernel(file) => claims.reads("--kernel", file),
            Self::Image(file) => claims.reads("--host-image", file),
            Self::BuiltIn => Ok(()),
        }
    }

    fn read(&self) -> Result<Cow<'static, [u8]>, Failure> {
        match self {
            Self::Kernel(file) | Self::Image(file) => read(file).map(Cow::Owned),
            Self::BuiltIn => Ok(Cow::Borrowed(HOST_IMAGE)),
        }
    }

    /// What to call it in messages.
    fn name(&self) -> String {
        match self {
            Self::Kernel(file) | Self::Image(file) => file.display().to_string(),
            Self::BuiltIn => "the built-in host image".to_owned(),
        }
    }

    fn command_line(&self, given: Option<&str>, more: Option<&str>) -> String {
        let mut words = match self {
            Self::Kernel(_) => vec![given.unwrap_or(DEFAULT_COMMAND_LINE).to_owned()],
            // The host's status is its power-off code.
            Self::Image(_) | Self::BuiltIn => {
                let exit_port = format!("exit-port={:#x}", address::EXIT);
                [exit_port].into_iter().chain(given.map(str::to_owned)).collect()
            }
        };
        words.extend(more.map(str::to_owned));
        words.join(" ")
    }
}

/// Boots the host and reports how it went.
pub fn run(args: Args) -> Result<Status, Failure> {
    let started = Instant::now();
    let mut claims = Claims::new();
    args.snapshots.claim(&mut claims)?;
    args.trace.claim(&mut claims)?;
    let resumed = args.snapshots.open()?;
    let parts = if resumed.is_none() { Some(Parts::of(&args, &mut claims)?) } else { None };
    let streams = Streams::of_process();
    let stop = StopFlag::default();
    let trace = args.trace.open()?;
    let outlets = Outlets { streams: vec![streams.out.clone(), streams.err.clone()], trace: trace.outlet() };
    let timeout = (args.timeout != 0).then(|| Duration::from_secs(args.timeout));
    let console = Console::new(if args.json { streams.err.clone() } else { streams.out.clone() });
    let input = ConsoleInput::default();
    let supervisor = Supervisor::start(timeout, outlets, stop.clone());
    let watch = Telling::new(&supervisor, args.status_lines.open(&streams));
    let boots = AtomicU32::new(0);
    let events = |event: ServerEvent<'_>| {
        if let ServerEvent::Running = event {
            let boot = boots.fetch_add(1, Ordering::Relaxed) + 1;
            if boot > 1 {
                streams.say(format_args!(
                    "tdvisor: the host asked for a reset: boot {boot} of at most {}",
                    args.boots
                ));
            }
        }
    };
    let debugger = match (&resumed, &parts) {
        (Some(resumed), _) => args.gdb.debugger(resumed.snapshot.config(), &streams)?,
        (None, Some(parts)) => args.gdb.debugger(&parts.config, &streams)?,
        (None, None) => None,
    };
    let marks = args.marks.marks();
    let mut making = Making {
        args: &args,
        parts,
        resumed,
        console: &console,
        marks: &marks,
        input: &input,
        trace: &trace,
        debugger,
        stop: &stop,
        events: &events,
    };
    let mut session = making.next()?;
    if session.pace() == Pace::Real {
        let input = input.clone();
        read_stdin_into(move |bytes| input.push(bytes), supervisor.clone());
    }
    let mut ended = session.drive(&watch);
    for _ in 1..args.boots {
        if *ended.ending() != Ending::Reset {
            break;
        }
        session = making.next()?;
        ended = session.drive(&watch);
    }
    console.finish();
    let saved = if *ended.ending() == Ending::Frozen { args.snapshots.save(&ended)? } else { None };
    let summary = Summary::of(ended.report(), console.panic(), saved, marks.all(), started.elapsed());
    if args.json {
        streams.out.send(format!("{}\n", summary.to_json()).as_bytes());
    } else {
        streams.err.send(summary.to_text().as_bytes());
    }
    let give_up = supervisor.give_up();
    let untraced = trace.drain(&give_up);
    if let Some(text) = &untraced {
        streams.say(format_args!("tdvisor: {text}"));
    }
    streams.out.drain(&give_up);
    streams.err.drain(&give_up);
    match ended.ending() {
        Ending::Frozen | Ending::PowerOff { code: 0 } if untraced.is_some() => Ok(Status::OutputLost),
        Ending::Frozen => Ok(Status::Success),
        // Whoever waits for the snapshot waits in vain.
        Ending::PowerOff { code: 0 } if args.snapshots.is_wanted() => Ok(Status::Negative),
        Ending::PowerOff { code: 0 } => Ok(Status::Success),
        Ending::PowerOff { .. } | Ending::Reset | Ending::Panicked => Ok(Status::Negative),
        Ending::Stopped if supervisor.reason() == Some(StopReason::Timeout) => Ok(Status::TimedOut),
        Ending::Stopped | Ending::TripleFault { .. } => Ok(Status::TdDied),
        Ending::Unimplemented { .. } => Err(Failure::Limit(summary.ending())),
    }
}

/// Makes the server, and after a reset the next one: its memory is zero, the module and its keys are as at power-on.
struct Making<'a> {
    args: &'a Args,
    /// What the server boots from, unless it is resumed.
    parts: Option<Parts>,
    resumed: Option<Resumed>,
    console: &'a Console,
    marks: &'a Marks,
    input: &'a ConsoleInput,
    trace: &'a CallTrace,
    debugger: Option<Debugger>,
    stop: &'a StopFlag,
    events: &'a (dyn Fn(ServerEvent<'_>) + Sync),
}

impl<'a> Making<'a> {
    fn next(&mut self) -> Result<ServerSession<'a>, Failure> {
        let outside = Outside {
            console: Box::new(self.console.clone()),
            freeze_at: self.args.snapshots.at(),
            marks: self.marks.clone(),
            trace: self.trace.of_calls(),
            faults: self.args.inject.clone(),
            debugger: self.debugger.take(),
        };
        let session = match (self.resumed.take(), &self.parts) {
            (Some(Resumed { file, snapshot }), _) => ServerSession::resume(snapshot, outside, self.events)
                .map_err(|error| Resumed::problem(&file, error))?,
            (None, Some(parts)) => {
                let disk = self.args.disk.as_deref();
                let disk = disk.map(|disk| open_disk(disk, self.stop.clone())).transpose()?;
                ServerSession::boot(ServerSpec { disk, ..parts.spec() }, outside, self.events)
                    .map_err(|error| Failure::input(parts.host.name(), error))?
            }
            // `--boots` is refused beside `--resume`.
            (None, None) => return Err(Failure::Internal("a snapshot is resumed once".to_owned())),
        };
        self.input.connect(session.input());
        Ok(session)
    }
}

/// What a server that boots is made from.
struct Parts {
    host: Host,
    kernel: Cow<'static, [u8]>,
    initrd: Option<Vec<u8>>,
    command_line: String,
    config: ServerConfig,
}

impl Parts {
    fn of(args: &Args, claims: &mut Claims) -> Result<Self, Failure> {
        let hardware = args.hardware.hardware()?;
        let host = Host::of(args)?;
        host.claim(claims)?;
        args.initrd.iter().try_for_each(|initrd| claims.reads("--initrd", initrd))?;
        args.disk.iter().try_for_each(|disk| claims.writes("--disk", disk))?;
        let kernel = host.read()?;
        let initrd = (!args.initrd.is_empty()).then(|| initrds(&args.initrd)).transpose()?;
        let command_line = host.command_line(args.cmdline.as_deref(), args.append.as_deref());
        let config = ServerConfig {
            processors: args.cpus,
            packages: args.packages,
            memory: args.memory.bytes(),
            profile: hardware.module,
            processor: hardware.processor,
            engine: hardware.engine,
            firmware: args.without.map_or(FirmwareSetup::Complete, Without::setup),
            pace: args.deterministic.map_or(Pace::Real, |seed| Pace::Deterministic { seed }),
            ..ServerConfig::default()
        };
        Ok(Self { host, kernel, initrd, command_line, config })
    }

    /// What boots, without a disk.
    fn spec(&self) -> ServerSpec<'_> {
        let files = BootFiles {
            kernel: &self.kernel,
            initrd: self.initrd.as_deref(),
            command_line: &self.command_line,
        };
        ServerSpec { config: self.config.clone(), files, disk: None }
    }
}

/// Initial RAM disks behind each other, each from a multiple of four bytes on.
fn initrds(paths: &[PathBuf]) -> Result<Vec<u8>, Failure> {
    const ALIGNMENT: usize = 4;
    let mut all = Vec::new();
    for path in paths {
        all.resize(all.len().next_multiple_of(ALIGNMENT), 0);
        all.extend(read(path)?);
    }
    Ok(all)
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    read_bounded(path, FILE_LIMIT)
}
