//! `tdvisor run`: a TD from image to power-off on the emulated machine.

mod console;
mod image;
mod linux;
mod memory_size;
mod quotes;
mod summary;

use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use seam_emu::inject::FaultPlan;
use tdvisor_guest_images::BOOT_SHIM;
use vmm_core::host::Progress;
use vmm_core::quote::QuoteSource;
use vmm_core::td::config::TdConfig;
use vmm_core::td::{BuildProgress, Ending, Td};
use vmm_core::vcpu::Vcpu;
use vmm_core::{Blame, Error, Host};

use crate::guest_log::GuestLog;
use crate::machine::board::{Board, BoardError};
use crate::machine::serial::SerialInput;
use crate::machine::trace::Trace;
use crate::machine::{EmulatedMachine, MAX_TD_MEMORY, MAX_TD_VCPUS, Pace};
use crate::outcome::{Failure, Status};
use console::Console;
use image::Image;
use linux::LinuxArgs;
use memory_size::MemorySize;
use quotes::{LastQuote, QgsSocket, TestIssuer};
use summary::Summary;

/// Run a TD on the emulated TDX module.
///
/// Without IMAGE, the built-in guest `hello-td` runs; with --kernel, a Linux kernel boots. The guest's console goes
/// to stdout, what is typed goes to its serial port, and a summary goes to stderr. Ctrl-C ends the TD in order.
///
/// Exit status: 0 the guest succeeded, 1 it reported failure, panicked or asked for a reboot (a TD cannot be reset;
/// start it again), 2 bad usage or input, 3 the TD died or was
/// stopped, 4 a fault of tdvisor.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A TDVF image, or the name of a built-in guest (hello-td, fault-td).
    image: Option<String>,
    /// Number of vCPUs.
    #[arg(long, value_name = "N", default_value_t = 1)]
    vcpus: u32,
    /// Memory: a number of bytes, or one with K, M or G. 128M, or 512M for a Linux kernel, if not given.
    #[arg(long, value_name = "SIZE")]
    memory: Option<MemorySize>,
    #[command(flatten)]
    linux: LinuxArgs,
    /// Run one vCPU at a time, in virtual time and an order that SEED decides: the same seed gives the same run,
    /// call for call. Nothing is read from stdin.
    #[arg(long, value_name = "SEED")]
    deterministic: Option<u64>,
    /// Stop the TD after so many seconds.
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
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
    /// Have the guest ask for a quote and write it to FILE; FILE.collateral.json and FILE.root.pem verify it.
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
    #[arg(long, value_name = "LEVEL", default_value = "2M", value_parser = ["4K", "2M"])]
    max_page: String,
}

/// Runs the TD and reports how it went.
pub fn run(args: Args) -> Result<Status, Failure> {
    let started = Instant::now();
    let linux = args.linux.load()?;
    let disk = args.linux.open_disk()?;
    let default_memory = if linux.is_some() { MemorySize::FOR_LINUX } else { MemorySize::DEFAULT };
    let memory = args.memory.unwrap_or(default_memory);
    if let Some(files) = &linux {
        linux::check_memory(files, memory)?;
    }
    let image = match linux {
        Some(_) => Image::built_in(&BOOT_SHIM),
        None => Image::load(args.image.as_deref(), args.elf.as_deref())?,
    };
    let config = td_config(&args, memory)?;
    let predicted = image.predicted_mrtd()?;
    let trace = match &args.trace {
        Some(path) => Trace::to_file(path).map_err(|error| Failure::input(path.display(), error))?,
        None => Trace::counting(),
    };
    let pace = args.deterministic.map_or(Pace::Real, |seed| Pace::Deterministic { seed });
    let machine = EmulatedMachine::with_pace(config.memory, config.vcpus, pace, trace);
    if let Some(plan) = args.inject.clone() {
        machine.machine().faults().set_plan(plan);
    }
    let bars = Bars::new();
    let host = Host::bring_up(machine, |progress| bars.bring_up(progress)).map_err(failure)?;
    let frames_before = vmm_core::platform::Frames::free_frames(host.platform());
    let hkids_before = host.hkid_counts();

    let console = Console::new(args.json);
    let guest_log = GuestLog::new(image.elf());
    let is_linux = linux.is_some();
    let (to_console, to_log) = (console.clone(), guest_log.clone());
    let board = match linux {
        None => Board::new(to_console, to_log).map_err(BoardError::Attach),
        Some(files) => Board::for_linux(to_console, to_log, files, disk, pace),
    };
    let Board { devices, input } = board.map_err(|error| Failure::Internal(error.to_string()))?;
    let bell = Arc::new(Bell::default());
    if pace == Pace::Real {
        read_stdin_into(input, bell.clone());
    }
    let last_quote = LastQuote::default();
    let quotes: Box<dyn QuoteSource> = match &args.qgs {
        Some(socket) => Box::new(QgsSocket::new(socket.clone())),
        None => Box::new(TestIssuer::new(host.platform().machine(), last_quote.clone())),
    };
    let td = Td::build(&host, &config, image.bytes(), devices, Some(quotes), |progress| bars.build(progress));
    bars.finish();
    let td = td.map_err(failure)?;

    drive(host.platform(), &td, &args, &bell);

    let ending = td.ending().unwrap_or(Ending::Stopped);
    let mut summary = Summary::of(&td, &host, &ending, &console, predicted);
    summary.audit(&ending, &td);
    let report = td.teardown();
    summary.teardown(&report, &host, frames_before, hkids_before);
    summary.wall_time = started.elapsed();
    if is_linux && !console.kernel_spoke() && !matches!(ending, Ending::PoweredOff { .. }) {
        summary.hint = Some(linux::SILENT_KERNEL);
    }
    console.finish();
    guest_log.finish();
    host.platform().trace().finish().map_err(|error| {
        Failure::input(args.trace.unwrap_or_default().display(), format!("the trace is incomplete: {error}"))
    })?;
    summary.print(args.json);
    if let (Some(path), true) = (&args.quote, summary.fault().is_none()) {
        last_quote.save(path)?;
    }
    match summary.fault() {
        Some(fault) => Err(Failure::Internal(fault)),
        None => Ok(status_of(&ending)),
    }
}

fn status_of(ending: &Ending) -> Status {
    match ending {
        Ending::PoweredOff { code: 0 } => Status::Success,
        Ending::PoweredOff { .. } | Ending::FatalError { .. } | Ending::Panicked | Ending::Reset => {
            Status::Negative
        }
        Ending::Died(_) | Ending::Stopped => Status::TdDied,
    }
}

fn td_config(args: &Args, memory: MemorySize) -> Result<TdConfig, Failure> {
    use tdvisor_base::Level;
    let mut config = TdConfig {
        memory: memory.bytes(),
        vcpus: args.vcpus,
        largest_page: if args.max_page == "4K" { Level::L4K } else { Level::L2M },
        ..TdConfig::default()
    };
    let for_quote = args.quote.is_some().then(|| "quote".to_owned());
    if let Some(command) = args.command.clone().or(for_quote) {
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

/// Feeds the serial port from stdin. The thread ends with stdin, or with the process.
fn read_stdin_into(input: SerialInput, bell: Arc<Bell>) {
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut buffer = [0; 256];
        while let Ok(count @ 1..) = stdin.read(&mut buffer) {
            input.push(buffer.get(..count).unwrap_or_default());
            bell.ring();
        }
    });
}

/// Wakes the thread that watches over a run.
#[derive(Default)]
struct Bell {
    finished: Mutex<bool>,
    rung: Condvar,
}

impl Bell {
    /// Something happened: look.
    fn ring(&self) {
        self.rung.notify_all();
    }

    fn finish(&self) {
        *self.finished.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.ring();
    }
}

/// Set by Ctrl-C.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Runs every vCPU on a thread of its own until the TD has ended, the time is up, or Ctrl-C is pressed.
fn drive(machine: &EmulatedMachine, td: &Td<'_, EmulatedMachine>, args: &Args, bell: &Arc<Bell>) {
    {
        let bell = bell.clone();
        // Without a handler Ctrl-C ends the process at once, which is the worst that can happen.
        let _ = ctrlc::set_handler(move || {
            INTERRUPTED.store(true, Ordering::SeqCst);
            bell.ring();
        });
    }
    let deadline = args.timeout.and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds)));
    let run = |vcpu: &Vcpu| {
        td.run_vcpu(vcpu.index());
        machine.vcpu_has_ended(vcpu.lp());
    };
    std::thread::scope(|scope| {
        let run = &run;
        let vcpus: Vec<_> = td.vcpus().iter().map(|vcpu| scope.spawn(move || run(vcpu))).collect();
        scope.spawn(|| watch(td, bell, deadline));
        for vcpu in vcpus {
            if vcpu.join().is_err() {
                td.stop();
            }
        }
        bell.finish();
    });
}

/// Stops the TD at its deadline or at Ctrl-C, and delivers the interrupts of typed input; returns when all vCPUs
/// are done.
fn watch(td: &Td<'_, EmulatedMachine>, bell: &Bell, deadline: Option<Instant>) {
    /// How long a ring may go unnoticed: those who ring hold no lock that would close the gap.
    const LOOK_AGAIN: Duration = Duration::from_millis(100);
    let mut finished = bell.finished.lock().unwrap_or_else(PoisonError::into_inner);
    while !*finished {
        if INTERRUPTED.load(Ordering::SeqCst) || deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            td.stop();
        }
        if td.deliver_lines().is_err() {
            td.stop();
        }
        finished = bell.rung.wait_timeout(finished, LOOK_AGAIN).unwrap_or_else(PoisonError::into_inner).0;
    }
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
