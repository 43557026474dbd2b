//! `tdvisor run`: a TD from image to power-off on the emulated machine.

mod backend;
pub(in crate::commands) mod console;
mod devices;
mod dump;
mod firmware;
mod gdb;
mod hints;
pub mod image;
mod in_guest;
pub(in crate::commands) mod linux;
pub(in crate::commands) mod memory_size;
pub(in crate::commands) mod quotes;
mod report;
mod samples;
pub(in crate::commands) mod status_lines;
mod suboptions;
pub(in crate::commands) mod summary;
pub(in crate::commands) mod supervisor;
mod told;

use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use machine_emu::outlet::{Loss, Outlet};
use machine_emu::trace::Trace;
use machine_emu::{MAX_TD_MEMORY, MAX_TD_VCPUS, Pace};
use seam_emu::inject::FaultPlan;
use td_host::host::Progress;
use td_host::td::BuildProgress;
use td_host::td::config::TdConfig;
use td_host::{Blame, Error};
use tdvisor_devices::acpi_pm::Nanoseconds;
use tdvisor_devices::virtio::console::VirtioConsole;
use tdvisor_guest_images::{BOOT_SHIM, L1_VMM};
use tdvisor_monitor::QuoteSource;
use tdvisor_runtime::bell::Bell;
use tdvisor_runtime::board::boot_files::BootFiles;
use tdvisor_runtime::board::hvc::{Hvc, HvcInput};
use tdvisor_runtime::board::{Board, BoardError, BoardSpec};
use tdvisor_runtime::kvm::{KvmEvent, KvmSession, KvmSpec, host as kvm};
use tdvisor_runtime::worker::StopFlag;
use tdvisor_runtime::{Event, Machine, MachineSpec, Session, TdSpec, Watch as _};

use super::hardware::HardwareArgs;
use crate::files::{Claims, Output};
use crate::guest_log::GuestLog;
use crate::outcome::{Failure, Status};
use crate::streams::Streams;
use backend::{Backend, BackendChoice};
use console::Console;
use devices::DeviceArgs;
use dump::DumpArgs;
use gdb::GdbArgs;
use guest_command::channel::Channel;
use hints::Silence;
use image::Image;
use in_guest::{CommandArgs, ToOutlet, UntilItEnds};
use linux::{LinuxArgs, MainConsole, WhatToRun};
use memory_size::MemorySize;
use quotes::{Genuine, LastQuote, QgsSocket, QuoteFiles, TestIssuer};
use report::ReportArgs;
use samples::{SampleArgs, Sampling};
use status_lines::{StatusLinesArgs, Telling};
use summary::{Detail, Ending, Privacy, Summary};
use supervisor::{Outlets, StopReason, Supervisor};
use told::{Told, ToldArgs};

/// Run a TD, on the emulated TDX module or on Linux's KVM.
///
/// Without IMAGE, the built-in guest `hello-td` runs; with --kernel, a Linux kernel boots. The guest's consoles go
/// to stdout, and a summary goes to stderr; what is typed goes to the serial port, or to the virtio console (hvc0) if that
/// is the last `console=` of --cmdline. Ctrl-C ends the TD in order.
///
/// Exit status: 0 the guest succeeded, 1 it reported failure, panicked or asked for a reboot (a TD cannot be reset;
/// start it again), 2 bad usage or input, 3 the TD died or a signal stopped it, 4 a fault of tdvisor, 5 the guest needs
/// what the emulator does not implement, 6 the guest succeeded but an output could not be written, 124 the time was up.
/// With a COMMAND, its own status where that is known: 128 and the signal's number where one killed it, 126 or 127 where
/// it could not be started; 125 where the guest ended without saying what became of it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A TDVF image, or the name of a built-in guest (`tdvisor list` names them).
    image: Option<String>,
    /// What runs the TD: `kvm` takes a TDX server whose Linux has KVM_TDX (`tdvisor doctor` says what is missing).
    #[arg(long, value_name = "BACKEND", value_enum, default_value_t)]
    backend: BackendChoice,
    /// Number of vCPUs.
    #[arg(long, value_name = "N", default_value_t = 1)]
    vcpus: u32,
    /// L2 VMs that the guest may run inside of its TD (TD partitioning), at most 3; `l1-vmm` has one, others none, if not
    /// given. The emulated processor applies the exits for HLT, ports, MSRs, control registers and memory; a VM for which its
    /// L1 wants others stops, and the summary says which.
    #[arg(long, value_name = "N")]
    l2_vms: Option<u8>,
    /// Memory: a number of bytes, or one with K, M or G. 128M, or 512M for a Linux kernel, if not given.
    #[arg(long, value_name = "SIZE")]
    memory: Option<MemorySize>,
    #[command(flatten)]
    linux: LinuxArgs,
    #[command(flatten)]
    hardware: HardwareArgs,
    #[command(flatten)]
    in_guest: CommandArgs,
    #[command(flatten)]
    devices: DeviceArgs,
    #[command(flatten)]
    gdb: GdbArgs,
    #[command(flatten)]
    report: ReportArgs,
    #[command(flatten)]
    told: ToldArgs,
    #[command(flatten)]
    status_lines: StatusLinesArgs,
    #[command(flatten)]
    dump: DumpArgs,
    #[command(flatten)]
    samples: SampleArgs,
    /// Run one vCPU at a time, in virtual time and an order that SEED decides: the same seed gives the same run,
    /// call for call. Nothing is read from stdin.
    #[arg(long, value_name = "SEED")]
    deterministic: Option<u64>,
    /// Stop the TD after so many seconds, and end with status 124; 0 is never.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    timeout: u64,
    /// Run the TD in debug mode: diagnostics may show what the guest holds. Its measurements do not change; its
    /// ATTRIBUTES, and so every quote, say so.
    #[arg(long)]
    debug: bool,
    /// Print no summary where the guest succeeded, and one line where it did not.
    #[arg(short, long, conflicts_with_all = ["verbose", "json"])]
    quiet: bool,
    /// Print every count of the summary.
    #[arg(short, long)]
    verbose: bool,
    /// Print the summary as JSON on stdout; the guest's console goes to stderr.
    #[arg(long)]
    json: bool,
    /// Write every SEAMCALL with its registers to FILE, one JSON object a line; `tdvisor decode FILE` explains it.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// The image's ELF file, to decode its log (built-in guests bring their own).
    #[arg(long, value_name = "FILE")]
    elf: Option<PathBuf>,
    /// A command for the guest, passed in the TD HOB.
    #[arg(long, value_name = "TEXT")]
    command: Option<String>,
    /// Write the guest's last quote to FILE; FILE.collateral.json and FILE.root.pem verify it and every other quote of
    /// this TD. Built-in guests are told to ask for one; a Linux kernel asks by itself (configfs-tsm). They are test quotes;
    /// with --backend kvm nobody checks the MAC of the guest's report.
    #[arg(long, value_name = "FILE", conflicts_with = "qgs")]
    quote: Option<PathBuf>,
    /// Get the TD's quotes from the quote-generation service at this socket instead of the test issuer.
    #[arg(long, value_name = "SOCKET")]
    qgs: Option<PathBuf>,
    /// Make chosen SEAMCALLs fail: `TDH.MEM.PAGE.AUG#3=OPERAND_BUSY:RCX`, `TDH.MEM.PAGE.DEMOTE#1..3=irq`, or
    /// `chaos:SEED/ONE-IN` for random faults that a host has to survive; several, separated by commas.
    #[arg(long, value_name = "PLAN")]
    inject: Option<FaultPlan>,
    /// Map no page larger than this: 4K or 2M.
    #[arg(long, value_name = "LEVEL", default_value = USUAL_MAX_PAGE, value_parser = ["4K", "2M"])]
    max_page: String,
}

/// The largest page that is mapped where nothing else is asked for.
const USUAL_MAX_PAGE: &str = "2M";

/// The machine under the TD.
enum Host {
    Emulated(Box<Machine>),
    Kvm(kvm::Linux),
}

impl Host {
    /// The host's time, for the timers of the board.
    fn clock(&self) -> Nanoseconds {
        match self {
            Self::Emulated(machine) => nanoseconds_of(machine.platform().machine()),
            Self::Kvm(_) => {
                let started = Instant::now();
                Box::new(move || started.elapsed().as_nanos() as u64)
            }
        }
    }

    /// Where a TD's quotes come from that no service gives. A TD on a processor gets test quotes where somebody asks for them.
    fn issuer(&self, last: &LastQuote, wanted: bool) -> Option<Box<dyn QuoteSource>> {
        let genuine = match self {
            Self::Emulated(machine) => Genuine::Machine(machine.platform().machine()),
            Self::Kvm(_) if wanted => Genuine::Unchecked,
            Self::Kvm(_) => return None,
        };
        Some(Box::new(TestIssuer::new(genuine, last.clone())))
    }

    fn trace(&self) -> Option<&Trace> {
        match self {
            Self::Emulated(machine) => Some(machine.platform().trace()),
            Self::Kvm(_) => None,
        }
    }
}

/// Runs the TD and reports how it went.
pub fn run(args: Args) -> Result<Status, Failure> {
    let started = Instant::now();
    args.claim()?;
    let backend = args.backend.choose(&args)?;
    let linux = args.linux.load(WhatToRun {
        image: args.image.is_some(),
        command: &args.in_guest,
        devices: &args.devices,
    })?;
    let image = args.image(linux.is_some())?;
    let is_uefi = image.is_uefi();
    let memory = args.memory.unwrap_or_else(|| match &linux {
        Some(boot) => MemorySize::FOR_LINUX.or_more(boot.for_command),
        None if is_uefi => MemorySize::FOR_LINUX,
        None => MemorySize::DEFAULT,
    });
    let linux = linux.map(|boot| boot.files);
    if let Some(files) = &linux {
        linux::check_memory(files, memory)?;
    }
    let l2_vms = args.l2_vms.unwrap_or_else(|| u8::from(image.name() == L1_VMM.name));
    let hardware = args.hardware.hardware_for(l2_vms)?;
    if l2_vms > 0 && matches!(backend, Backend::Kvm(_)) {
        return Err(Failure::input("--l2-vms", "Linux's KVM_TDX has no L2 VMs"));
    }
    let is_linux = linux.is_some();
    // Built-in guests are told to ask for a quote; kernels, firmware and disks take none.
    let takes_commands = !is_linux && !args.linux.is_given() && !args.devices.has_disk();
    let for_quote = (args.quote.is_some() && takes_commands).then(|| "quote".to_owned());
    let config = td_config(&args, memory, l2_vms, args.command.clone().or(for_quote))?;
    let predicted = image.predicted_mrtd()?;
    let stop = StopFlag::default();
    let quote_files = args.quote.as_deref().map(QuoteFiles::open).transpose()?;
    let trace_file = args.trace.as_deref().map(Output::open).transpose()?;
    let privacy_if = |given_up: bool| if given_up { Privacy::Debug } else { Privacy::Confidential };
    // An inspectable TD need not be in debug mode, which gdb's user is told of.
    let (privacy, in_debug_mode) = (privacy_if(args.debug || args.dump.is_given()), privacy_if(args.debug));
    let pace = args.deterministic.map_or(Pace::Real, |seed| Pace::Deterministic { seed });
    let page = args.report.open()?;
    let debug = args.gdb.listen(args.vcpus, pace)?;
    let (symbols, sampling) = (args.samples.symbols()?, args.samples.open()?);
    let bell = Bell::default();
    let mut virtio = args.devices.open(args.in_guest.rootfs(), pace, &stop, &bell)?;
    let trace = match trace_file {
        Some(file) => Trace::to_file(file.into_stream()?),
        None => Trace::counting(),
    };
    let trace = match &page {
        Some(page) => page.keep_calls(trace),
        None => trace,
    };
    let told = args.told.open(args.vcpus, args.dump.secrecy())?;
    let trace = told.observe(trace);

    let streams = Streams::of_process();
    let outlets = Outlets {
        streams: [streams.out.clone(), streams.err.clone()].into_iter().chain(told.outlet()).collect(),
        trace: trace.outlet().cloned(),
    };
    let timeout = (args.timeout != 0).then(|| Duration::from_secs(args.timeout));
    let supervisor = Supervisor::start(timeout, outlets, stop.clone());
    let bars = Bars::new();
    let events = |event: Event<'_>| {
        told.event(&event);
        match event {
            Event::BringUp(progress) => bars.bring_up(progress),
            Event::Build(progress) => bars.build(progress),
            Event::Built => bars.finish(),
            Event::Running | Event::Happened(_) => {}
            Event::Ended(_) => supervisor.td_ended(),
        }
    };
    let spec = MachineSpec {
        hardware,
        memory: config.memory,
        vcpus: config.vcpus,
        pace,
        trace,
        faults: args.inject.clone(),
        debug: debug.as_ref().map(gdb::Waiting::port),
        samples: sampling.as_ref().map(Sampling::samples),
    };
    let host = match backend {
        Backend::Emulated => Host::Emulated(Box::new(Machine::bring_up(spec, &events).map_err(failure)?)),
        Backend::Kvm(kernel) => Host::Kvm(kernel),
    };
    told.set_clock(host.clock());

    let out = if args.json { streams.err.clone() } else { streams.out.clone() };
    let has_command = args.in_guest.is_given();
    let console = match (has_command, args.verbose) {
        (false, _) => Console::new(out.clone()),
        (true, true) => Console::new(streams.err.clone()),
        (true, false) => Console::unseen(),
    };
    let log_out =
        if has_command && !args.verbose { Outlet::new(std::io::sink(), 0) } else { streams.err.clone() };
    let guest_log = GuestLog::new(image.elf(), log_out);
    let channel = Channel::default();
    let hvc_input = HvcInput::new(bell.clone());
    if is_linux || is_uefi {
        virtio.push(devices::rng(pace)?);
        // A run that repeats itself does not depend on where it is shown.
        let terminal = if pace == Pace::Real { console::terminal_size() } else { None };
        let hvc = Box::new(Hvc::new(console.clone(), hvc_input.clone()));
        virtio.push(Box::new(VirtioConsole::new(hvc, terminal)));
    }
    let board = BoardSpec {
        pace,
        now: host.clock(),
        memory: config.memory,
        vcpus: config.vcpus,
        transport: args.linux.transport(is_linux && !is_uefi),
        boot: match linux {
            None => BootFiles::None,
            Some(files) if is_uefi => BootFiles::Uefi(files),
            Some(files) => BootFiles::Shim(files),
        },
        virtio,
    };
    let board = if has_command {
        let second = channel.port(guest_log.clone(), ToOutlet::new(out), ToOutlet::new(streams.err.clone()));
        Board::new(console.clone(), second, board)
    } else {
        Board::new(console.clone(), guest_log.clone(), board)
    };
    let Board { devices: around, input, second_input } = board.map_err(|error| match error {
        BoardError::TooManyDevices { .. } => Failure::Input(error.to_string()),
        _ => Failure::Internal(error.to_string()),
    })?;
    if let (true, Some(port)) = (has_command, second_input) {
        in_guest::feed(&channel, port, pace, &supervisor);
    } else if pace == Pace::Real {
        match args.linux.main_console() {
            MainConsole::Serial => read_stdin_into(move |bytes| input.push(bytes), supervisor.clone()),
            MainConsole::Hvc => read_stdin_into(move |bytes| hvc_input.push(bytes), supervisor.clone()),
        }
    }
    let last_quote = LastQuote::default();
    let quotes: Option<Box<dyn QuoteSource>> = match &args.qgs {
        Some(socket) => Some(Box::new(QgsSocket::new(socket.clone(), streams.clone(), stop))),
        None => host.issuer(&last_quote, args.quote.is_some()),
    };
    let debugger = debug.map(|waiting| waiting.into_debugger(&streams, in_debug_mode));
    let until_it_ends = UntilItEnds { supervisor: &supervisor, channel: &channel };
    let watch = Telling::new(&until_it_ends, args.status_lines.open(&streams));
    let (mut has_page, mut has_dump, mut has_samples) = (true, true, true);
    // What only the emulated machine knows of a guest that went silent.
    let (mut waited_for, mut halted) = Default::default();
    let mut summary = match &host {
        Host::Emulated(machine) => {
            let (attributes, secrecy) = (config.attributes, args.dump.secrecy());
            let spec =
                TdSpec { config, image: image.bytes(), devices: around, bell, quotes, debugger, secrecy };
            let session = Session::start(machine, spec, &events);
            bars.finish();
            let ended = session.map_err(failure)?.drive(&watch);
            channel.close();
            let inspection = page.as_ref().map(|page| page.inspect(&ended)).transpose()?;
            has_dump = args.dump.write(&ended, &streams);
            let report = ended.teardown();
            told.report(&report);
            let page_written = match (page, inspection) {
                (Some(page), Some(inspection)) => page.write(&inspection, &report, attributes),
                _ => Ok(()),
            };
            // It is said before the streams are drained.
            has_page = page_written.map_err(|error| streams.say(format_args!("tdvisor: {error}"))).is_ok();
            if let Some(sampling) = sampling {
                let written = sampling.write(&symbols, &streams);
                has_samples = written.map_err(|error| streams.say(format_args!("tdvisor: {error}"))).is_ok();
            }
            (waited_for, halted) = (report.most_read_unclaimed, report.halted_for_good);
            Summary::of(report, predicted, privacy, hardware, &symbols)
        }
        Host::Kvm(kernel) => {
            let events = |event: KvmEvent<'_>| {
                told.kvm_event(&event);
                match event {
                    KvmEvent::Added { pages } => bars.build(BuildProgress { added: pages, measured: 0 }),
                    KvmEvent::Built => bars.finish(),
                    KvmEvent::Running | KvmEvent::Happened(_) => {}
                    KvmEvent::Ended(_) => supervisor.td_ended(),
                }
            };
            let td = kvm::TdSpec::from(KvmConfig(config));
            let spec = KvmSpec { td, image: image.bytes(), devices: around, bell, quotes };
            let session = KvmSession::start(kernel, spec, &events);
            bars.finish();
            let report = session.map_err(|error| Failure::Input(error.to_string()))?.drive(&watch);
            channel.close();
            Summary::of_kvm(report, predicted)
        }
    };
    let ending = summary.ending().clone();
    summary.wall_time = started.elapsed();
    summary.panic = console.panic();
    summary.timed_out = supervisor.reason() == Some(StopReason::Timeout);
    summary.hint = Silence {
        ending: &ending,
        waited: waited_for,
        halted,
        kernel_spoke: (is_linux && !is_uefi).then(|| console.kernel_spoke()),
        command_spoke: (has_command && summary.panic.is_none()).then(|| channel.is_open()),
        said: console.remark(),
    }
    .hint();
    summary.command = channel.end();
    summary.debugger = args.gdb.is_given();
    summary.inspectable = args.dump.is_given();
    console.finish();
    guest_log.finish();
    // A command that ended says itself how it went.
    let is_told = has_command && summary.command.is_some() && !args.verbose;
    if args.json {
        streams.out.send(format!("{}\n", summary.to_json()).as_bytes());
    } else if !is_told {
        if has_command && !args.verbose {
            streams
                .say(format_args!("the last lines of the guest's console:\n{}", console.tail().trim_end()));
        }
        streams.err.send(summary.to_text(args.detail()).as_bytes());
    }
    let command_status = has_command.then(|| in_guest::status_of(summary.command, &args.in_guest.name()));
    if let Some((_, Some(text))) = &command_status {
        streams.say(format_args!("tdvisor: {text}"));
    }
    let fault = summary.fault();
    // A quote is written first: what keeps the streams from getting out does not keep the quote.
    let quote = match (quote_files, &fault) {
        (Some(files), None) => files.save(&last_quote).map(|command| streams.say(command)),
        _ => Ok(()),
    };
    let losses = Losses { console: console.dropped(), log: guest_log.dropped(), streams: &streams };
    let is_whole = has_page & has_dump & has_samples & losses.drain(&supervisor, host.trace(), told, &args);
    if let Some(fault) = fault {
        return Err(fault);
    }
    let status = match (status_of(&ending, supervisor.reason()), command_status) {
        (Status::TimedOut, Some((Status::CommandLost, _))) => Status::TimedOut,
        (_, Some((Status::OfCommand(0), _))) => Status::Success,
        (_, Some((status, _))) => status,
        (status, None) => status,
    };
    match status {
        // A TD that did not come to its end has no quote to write, and its own status says why.
        Status::Success => quote.map(|()| if is_whole { Status::Success } else { Status::OutputLost }),
        status => Ok(status),
    }
}

/// Whether a built-in guest has this name.
pub fn is_guest(name: &str) -> bool {
    tdvisor_guest_images::GUESTS.iter().any(|guest| guest.name == name)
}

impl Args {
    /// How much of the summary is shown.
    const fn detail(&self) -> Detail {
        match (self.quiet, self.verbose) {
            (true, _) => Detail::Quiet,
            (_, true) => Detail::Full,
            _ => Detail::Usual,
        }
    }

    /// What runs: firmware that boots something, or a guest.
    fn image(&self, has_kernel: bool) -> Result<Image, Failure> {
        match (self.linux.firmware(), &self.image) {
            (Some(path), _) => Image::firmware(path),
            (None, _) if has_kernel => Ok(Image::built_in(&BOOT_SHIM)),
            (None, None) if self.devices.has_disk() => Image::firmware(firmware::installed()?),
            (None, image) => {
                let image = Image::load(image.as_deref(), self.elf.as_deref())?;
                if let Some(option) = self.devices.first_given()
                    && !image.is_uefi()
                {
                    let why = format!("{} is no UEFI firmware, and looks at no such device", image.name());
                    return Err(Failure::input(option, why));
                }
                Ok(image)
            }
        }
    }

    /// Checks that no file is used in two ways.
    fn claim(&self) -> Result<(), Failure> {
        let mut claims = Claims::new();
        self.linux.claim(&mut claims)?;
        self.devices.claim(&mut claims)?;
        self.report.claim(&mut claims)?;
        self.told.claim(&mut claims)?;
        self.dump.claim(&mut claims)?;
        self.samples.claim(&mut claims)?;
        if let Some(image) = self.image.as_deref().map(std::path::Path::new).filter(|path| path.exists()) {
            claims.reads("the image", image)?;
        }
        for (what, path) in [("--elf", &self.elf), ("--qgs", &self.qgs)] {
            if let Some(path) = path {
                claims.reads(what, path)?;
            }
        }
        if let Some(quote) = &self.quote {
            let names = ["--quote", "the collateral of --quote", "the root of --quote"];
            for (what, path) in names.into_iter().zip(&quotes::paths(quote)) {
                claims.writes(what, path)?;
            }
        }
        self.trace.as_deref().map_or(Ok(()), |trace| claims.writes("--trace", trace))
    }
}

/// What of a run's output may have been lost.
struct Losses<'a> {
    /// Bytes of console over its allowance.
    console: u64,
    /// Bytes of log over its allowance.
    log: u64,
    streams: &'a Streams,
}

impl Losses<'_> {
    /// Waits until everything is out, or has had its time; says what is lost. Whether nothing is.
    fn drain(self, supervisor: &Supervisor, trace: Option<&Trace>, told: Told, args: &Args) -> bool {
        let give_up = supervisor.give_up();
        let mut lost = Vec::new();
        for (what, bytes) in [("console", self.console), ("guest log", self.log)] {
            if bytes != 0 {
                lost.push(format!("{what}: {bytes} bytes beyond what is shown of one run were dropped"));
            }
        }
        if let Some((trace, outlet)) = trace.and_then(|trace| Some((trace, trace.outlet()?))) {
            let name = args.trace.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
            let loss = outlet.drain(&give_up);
            // A trace has no reader that may leave: what did not get into it is missing.
            if let Some(text) = in_words(&loss, outlet).or_else(|| outlet.error()) {
                lost.push(format!("{name}: the trace is incomplete: {text}"));
            } else if trace.dropped() != 0 {
                lost.push(format!("{name}: the trace is full: {} bytes are missing", trace.dropped()));
            }
        }
        lost.extend(told.finish(&give_up));
        let out = self.streams.out.drain(&give_up);
        if let Some(text) = in_words(&out, &self.streams.out) {
            lost.push(format!("standard output: {text}"));
        }
        for text in &lost {
            self.streams.say(format_args!("tdvisor: {text}"));
        }
        // What was said last has a time of its own: the others may have used up theirs.
        let err = self.streams.err.drain(supervisor.give_up());
        lost.is_empty() && err.is_none()
    }
}

/// What was lost, if something was.
fn in_words(loss: &Loss, outlet: &Outlet) -> Option<String> {
    if loss.is_none() {
        return None;
    }
    Some(outlet.error().unwrap_or_else(|| format!("{} bytes or more were not taken in time", loss.not_taken)))
}

pub(in crate::commands) fn status_of(ending: &Ending<String>, stopped: Option<StopReason>) -> Status {
    match ending {
        Ending::PoweredOff { code: 0 } => Status::Success,
        Ending::PoweredOff { .. } | Ending::FatalError { .. } | Ending::Panicked | Ending::Reset => {
            Status::Negative
        }
        Ending::Stopped if stopped == Some(StopReason::Timeout) => Status::TimedOut,
        Ending::Died(_) | Ending::Stopped => Status::TdDied,
    }
}

fn td_config(
    args: &Args,
    memory: MemorySize,
    l2_vms: u8,
    command: Option<String>,
) -> Result<TdConfig, Failure> {
    use tdvisor_base::Level;
    use tdx_module_iface::td_params::attributes;
    let mut config = TdConfig {
        memory: memory.bytes(),
        vcpus: args.vcpus,
        l2_vms,
        largest_page: if args.max_page == "4K" { Level::L4K } else { Level::L2M },
        ..TdConfig::default()
    };
    if args.debug {
        config.attributes |= attributes::DEBUG;
    }
    if let Some(command) = command {
        let limit = tdvisor_guest_images::COMMAND_MAX;
        if command.len() > limit || !command.is_ascii() {
            return Err(Failure::input("--command", format!("at most {limit} ASCII characters")));
        }
        config.hob_extensions.push((tdvisor_guest_images::COMMAND_HOB_GUID, command.into_bytes()));
    }
    // Before a machine is made for it, so that nothing is made for what cannot be.
    config.check(MAX_TD_MEMORY, MAX_TD_VCPUS).map_err(|error| Failure::Input(error.to_string()))?;
    Ok(config)
}

/// What a TD is asked for, as KVM is told.
struct KvmConfig(TdConfig);

impl From<KvmConfig> for kvm::TdSpec {
    fn from(KvmConfig(config): KvmConfig) -> Self {
        Self {
            memory: config.memory,
            vcpus: config.vcpus,
            attributes: config.attributes,
            hob_extensions: config.hob_extensions,
            config_id: config.ids.config_id,
            owner: config.ids.owner,
            owner_config: config.ids.owner_config,
        }
    }
}

/// The machine's time, for the timers of its board.
pub(in crate::commands) fn nanoseconds_of(machine: Arc<seam_emu::Machine>) -> Nanoseconds {
    const NANOSECONDS: u128 = 1_000_000_000;
    let hertz = u128::from(machine.config().tsc_hz.max(1));
    Box::new(move || (u128::from(machine.tsc()) * NANOSECONDS / hertz) as u64)
}

/// Feeds a console from stdin, as fast as the guest reads. The thread ends with stdin, or with the process.
pub fn read_stdin_into(push: impl Fn(&[u8]) -> usize + Send + 'static, supervisor: Supervisor) {
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut buffer = [0; 256];
        while let Ok(count @ 1..) = stdin.read(&mut buffer) {
            let mut rest = buffer.get(..count).unwrap_or_default();
            while !rest.is_empty() {
                let taken = push(rest);
                rest = rest.get(taken..).unwrap_or_default();
                supervisor.ring();
            }
        }
    });
}

/// An error of the host as this program reports it.
fn failure(error: Error) -> Failure {
    match error.blame() {
        Blame::Caller | Blame::Guest | Blame::Machine => Failure::Input(error.to_string()),
        Blame::Module | Blame::Bug => Failure::Internal(error.to_string()),
    }
}

/// Progress on stderr, where that is a terminal.
struct Bars {
    bar: ProgressBar,
}

impl Bars {
    fn new() -> Self {
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{msg:24} {wide_bar} {percent:>3}%") {
            bar.set_style(style);
        }
        Self { bar }
    }

    fn bring_up(&self, progress: Progress) {
        match progress {
            Progress::Initialised => self.bar.set_message("module initialised"),
            Progress::Configured => self.bar.set_message("memory configured"),
            Progress::Memory { done, total } => {
                self.bar.set_message("initialising memory");
                self.bar.set_length(total);
                self.bar.set_position(done);
            }
        }
    }

    fn build(&self, progress: BuildProgress) {
        self.bar.set_message("loading the image");
        self.bar.set_length(progress.added);
        self.bar.set_position(progress.added);
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
