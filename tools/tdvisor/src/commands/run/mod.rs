//! `tdvisor run`: a TD from image to power-off on the emulated machine.

mod args;
mod backend;
mod bars;
pub(in crate::commands) mod console;
mod devices;
mod dump;
mod firmware;
mod gdb;
mod hints;
mod host;
pub mod image;
mod in_guest;
pub(in crate::commands) mod linux;
mod losses;
pub(in crate::commands) mod memory_size;
pub(in crate::commands) mod quotes;
mod report;
mod samples;
mod snapshot;
pub(in crate::commands) mod status_lines;
mod stdin;
mod suboptions;
pub(in crate::commands) mod summary;
pub(in crate::commands) mod supervisor;
mod told;

use std::time::{Duration, Instant};

use machine_emu::Pace;
use machine_emu::outlet::Outlet;
use machine_emu::trace::Trace;
use td_host::td::BuildProgress;
use td_host::{Blame, Error};
use tdvisor_devices::virtio::console::VirtioConsole;
use tdvisor_guest_images::L1_VMM;
use tdvisor_monitor::QuoteSource;
use tdvisor_runtime::bell::Bell;
use tdvisor_runtime::board::boot_files::BootFiles;
use tdvisor_runtime::board::hvc::{Hvc, HvcInput};
use tdvisor_runtime::board::{Board, BoardError, BoardSpec};
use tdvisor_runtime::dump::Secrecy;
use tdvisor_runtime::kvm::{KvmEvent, KvmSession, KvmSpec, spec_of};
use tdvisor_runtime::saved::ResumeSpec;
use tdvisor_runtime::worker::StopFlag;
use tdvisor_runtime::{Event, Machine, MachineSpec, Session, TdSpec};

pub use args::Args;
use backend::Backend;
use bars::Bars;
use console::Console;
use guest_command::channel::Channel;
use hints::Silence;
use host::Host;
use image::Image;
use in_guest::{ToOutlet, UntilItEnds};
use linux::{MainConsole, WhatToRun};
use losses::Losses;
use memory_size::MemorySize;
use quotes::{LastQuote, QgsSocket, QuoteFiles};
use samples::Sampling;
use snapshot::{Resumed, SavedRun};
use status_lines::Telling;
pub use stdin::read_stdin_into;
use summary::{Ending, Privacy, Summary};
use supervisor::{Outlets, StopReason, Supervisor};

use crate::files::Output;
use crate::guest_log::GuestLog;
use crate::outcome::{Failure, Status};
use crate::streams::Streams;

/// Runs the TD and reports how it went.
pub fn run(args: Args) -> Result<Status, Failure> {
    let started = Instant::now();
    args.claim()?;
    args.check_snapshot()?;
    let backend = args.backend.choose(&args)?;
    let resumed = args.snapshots.open()?;
    let before = resumed.as_ref().map(|resumed| resumed.saved.what());
    let linux = args.linux.load(WhatToRun {
        // A TD that is resumed is not booted, wherever one stands.
        image: args.image.is_some() || args.snapshots.is_resumed(),
        command: &args.in_guest,
        devices: &args.devices,
    })?;
    let image = match before {
        Some(run) => Image::of_saved(&run.image, args.elf.as_deref())?,
        None => args.image(linux.is_some())?,
    };
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
    let hardware = match &resumed {
        Some(resumed) => resumed.saved.hardware(),
        None => args.hardware.hardware_for(l2_vms)?,
    };
    if l2_vms > 0 && matches!(backend, Backend::Kvm(_)) {
        return Err(Failure::input("--l2-vms", "Linux's KVM_TDX has no L2 VMs"));
    }
    let is_linux = linux.is_some();
    // Built-in guests are told to ask for a quote; kernels, firmware and disks take none.
    let takes_commands = !is_linux && !args.linux.is_given() && !args.devices.has_disk();
    let for_quote = (args.quote.is_some() && takes_commands).then(|| "quote".to_owned());
    let config = match before {
        Some(run) => run.config(),
        None => args.td_config(memory, l2_vms, args.command.clone().or(for_quote))?,
    };
    let predicted = match before.and_then(SavedRun::predicted) {
        Some(predicted) => predicted,
        None => image.predicted_mrtd()?,
    };
    if args.snapshots.is_wanted() && (is_uefi || is_linux) {
        return Err(Failure::input(
            "--snapshot",
            "virtio devices are not saved: name an image that is no firmware",
        ));
    }
    let stop = StopFlag::default();
    let quote_files = args.quote.as_deref().map(QuoteFiles::open).transpose()?;
    let trace_file = args.trace.as_deref().map(Output::open).transpose()?;
    let privacy_if = |given_up: bool| if given_up { Privacy::Debug } else { Privacy::Confidential };
    // An inspectable TD need not be in debug mode, which gdb's user is told of.
    let (privacy, in_debug_mode) =
        (privacy_if(args.debug || args.dump.is_given() || before.is_some()), privacy_if(args.debug));
    let seed = args.deterministic.or(before.map(|run| run.seed));
    let pace = seed.map_or(Pace::Real, |seed| Pace::Deterministic { seed });
    let secrecy = if before.is_some() { Secrecy::Inspectable } else { args.dump.secrecy() };
    let run = SavedRun::of(&image, predicted, &config, pace);
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
    let told = args.told.open(config.vcpus, secrecy)?;
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
    let (saved, new_trace) = match resumed {
        Some(Resumed { file, saved }) => {
            let restored = saved.machine(trace).map_err(|error| Resumed::problem(&file, error))?;
            (Some((file, restored)), None)
        }
        None => (None, Some(trace)),
    };
    let spec = new_trace.map(|trace| MachineSpec {
        hardware,
        memory: config.memory,
        vcpus: config.vcpus,
        pace,
        trace,
        faults: args.inject.clone(),
        debug: debug.as_ref().map(gdb::Waiting::port),
        samples: sampling.as_ref().map(Sampling::samples),
    });
    let (host, on_machine) = match (backend, saved, spec) {
        (Backend::Kvm(kernel), ..) => (Host::Kvm(kernel), None),
        (Backend::Emulated, Some((file, (machine, td))), _) => {
            (Host::Emulated(Box::new(machine)), Some((file, td)))
        }
        (Backend::Emulated, None, Some(spec)) => {
            (Host::Emulated(Box::new(Machine::bring_up(spec, &events).map_err(failure)?)), None)
        }
        (Backend::Emulated, None, None) => return Err(Failure::Internal("no machine".to_owned())),
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
    let watched = args.snapshots.watched(console.clone(), host.freezer());
    let board = if has_command {
        let second = channel.port(guest_log.clone(), ToOutlet::new(out), ToOutlet::new(streams.err.clone()));
        Board::new(console.clone(), second, board)
    } else {
        Board::new(watched, guest_log.clone(), board)
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
    let mut snapshot = Ok(None);
    // What only the emulated machine knows of a guest that went silent.
    let (mut waited_for, mut halted) = Default::default();
    let mut summary = match &host {
        Host::Emulated(machine) => {
            let attributes = config.attributes;
            let session = match on_machine {
                Some((file, td)) => {
                    let spec = ResumeSpec { devices: around, bell, quotes };
                    Session::resume(machine, td, spec, &events)
                        .map_err(|error| Resumed::problem(&file, error))
                }
                None => {
                    let image = image.bytes();
                    let spec = TdSpec { config, image, devices: around, bell, quotes, debugger, secrecy };
                    Session::start(machine, spec, &events).map_err(failure)
                }
            };
            bars.finish();
            let ended = session?.drive(&watch);
            if ended.is_frozen() {
                supervisor.td_ended();
            }
            snapshot = args.snapshots.save(&ended, &run);
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
            let spec = KvmSpec { td: spec_of(config), image: image.bytes(), devices: around, bell, quotes };
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
    summary.inspectable = secrecy == Secrecy::Inspectable;
    let saved = snapshot?;
    summary.saved.clone_from(&saved);
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
    let of_td = match (status_of(&ending, supervisor.reason()), saved) {
        (Status::TdDied, Some(_)) => Status::Success,
        // Whoever waits for the snapshot waits in vain.
        (Status::Success, None) if args.snapshots.is_wanted() => Status::Negative,
        (status, _) => status,
    };
    let status = match (of_td, command_status) {
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

/// An error of the host as this program reports it.
fn failure(error: Error) -> Failure {
    match error.blame() {
        Blame::Caller | Blame::Guest | Blame::Machine => Failure::Input(error.to_string()),
        Blame::Module | Blame::Bug => Failure::Internal(error.to_string()),
    }
}
