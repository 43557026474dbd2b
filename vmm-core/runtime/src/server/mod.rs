//! A session of a server: a TDX host with its own kernel, on an emulated server, from power-on to its end.
//!
//! # Protocol
//! ```text
//! ServerSession::boot(spec, outside, events)        a server at power-on, its board around it
//! ServerSession::resume(snapshot, outside, events)  or one that goes on where it was frozen
//! session.drive(&watch)                             its processors run, each on a thread, until it has ended or is stopped
//! ended.report()                                    what is to be said of the run
//! ended.save(path)                                  where it froze: its state, in a file
//! ```
//! It is driven by the same [`Watch`] as a TD, which may look at it while it runs. The TDs that its host starts are the
//! host's: what drives the module is the host's own code. A server runs once; after a reset there is another one.

mod freeze_at;
mod marks;
mod report;
pub(crate) mod sought;

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use machine_emu::trace::Trace;
use seam_emu::inject::FaultPlan;
use server_emu::record::{ObservedCall, Observer, Record};
use server_emu::saved::{ResumeError, SaveError, SavedServer};
use server_emu::{BootFiles, Described, Ending, Pace, Server, ServerConfig, ServerError};
use td_host::platform::LpId;
use tdvisor_board::address;
use tdvisor_devices::virtio::blk::Disk;
use tdvisor_devices::{AttachError, Devices};

use crate::board::Board;
use crate::board::serial::SerialInput;
use crate::debugger::{Debuggee, Debugger};
use crate::inspect::live::{Live, LiveServer, RunningServer};
use crate::session::Watch;
use crate::snapshot::{self, Kind, Opened, Rest, SnapshotError};
use freeze_at::{FreezeAt, ServerCell};
pub use marks::{Executed, Mark, Marks};
pub use report::ServerReport;

/// What a server boots from.
pub struct ServerSpec<'f> {
    /// Processors, memory, module, and how it runs.
    pub config: ServerConfig,
    /// The host's kernel and what it is told.
    pub files: BootFiles<'f>,
    /// A disk, as a virtio block device.
    pub disk: Option<Box<dyn Disk>>,
}

impl fmt::Debug for ServerSpec<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerSpec").field("config", &self.config).finish_non_exhaustive()
    }
}

/// What a server has around it: no part of it, and in no snapshot.
pub struct Outside {
    /// Where the server's serial port prints.
    pub console: Box<dyn Write + Send>,
    /// The text on its console at which it is frozen.
    pub freeze_at: Option<String>,
    /// Texts on its console at which it is noted where it stands.
    pub marks: Marks,
    /// Where the host's SEAMCALLs are written.
    pub trace: Option<Arc<Trace>>,
    /// SEAMCALLs that fail on purpose.
    pub faults: Option<FaultPlan>,
    /// Who may stop it and look inside.
    pub debugger: Option<Debugger>,
}

impl fmt::Debug for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outside").field("freeze_at", &self.freeze_at).finish_non_exhaustive()
    }
}

/// What happens to a server.
#[derive(Clone, Copy, Debug)]
pub enum ServerEvent<'e> {
    /// Every processor is about to have its thread.
    Running,
    /// The server has ended, and no processor runs.
    Ended(&'e Ending),
}

/// Why there is no session of a server.
#[derive(Debug)]
pub enum ServerSessionError {
    /// Two devices at one place.
    Board(AttachError),
    /// The configuration, or the kernel's files.
    Server(ServerError),
    /// A snapshot's state is not of such a server.
    Resume(ResumeError),
    /// A snapshot's file.
    Snapshot(SnapshotError),
}

impl fmt::Display for ServerSessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Board(error) => error.fmt(f),
            Self::Server(error) => error.fmt(f),
            Self::Resume(error) => error.fmt(f),
            Self::Snapshot(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ServerSessionError {}

/// Why a server is not in a file.
#[derive(Debug)]
pub enum SaveServerError {
    /// The server cannot be saved.
    Server(SaveError),
    /// The file.
    Snapshot(SnapshotError),
}

impl fmt::Display for SaveServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(error) => error.fmt(f),
            Self::Snapshot(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SaveServerError {}

/// A server in a file, whose memory was not read yet.
#[derive(Debug)]
pub struct ServerSnapshot {
    state: SavedServer,
    memory: Rest<File>,
}

impl ServerSnapshot {
    /// Opens a file.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn open(path: &Path) -> Result<Self, SnapshotError> {
        let (state, memory) = Opened::<File, SavedServer>::file(path, Kind::Server)?.into_parts();
        Ok(Self { state, memory })
    }

    /// What the server is.
    pub fn config(&self) -> &ServerConfig {
        self.state.config()
    }
}

/// A server with its board around it, which does not run yet.
pub struct ServerSession<'e> {
    server: Arc<Server>,
    debugger: Option<Debugger>,
    input: SerialInput,
    events: &'e (dyn Fn(ServerEvent<'_>) + Sync),
}

impl fmt::Debug for ServerSession<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerSession").field("server", &self.server).finish_non_exhaustive()
    }
}

/// Shows calls to a trace.
struct Traced(Arc<Trace>);

impl Observer for Traced {
    fn observe(&self, call: &ObservedCall) {
        let lp = LpId(u32::try_from(call.processor).unwrap_or(u32::MAX));
        self.0.record(lp, &call.before, &call.after, !call.failed_invalid);
    }
}

/// What ACPI's tables have four bytes for.
///
/// # Panics
/// It needs more; asked for constants only, so that this ends the build.
const fn below_4_gib(value: u64) -> u32 {
    assert!(value <= 0xffff_ffff);
    (value & 0xffff_ffff) as u32
}

/// The devices of the server's board that its tables name.
fn described(with_disk: bool) -> Vec<Described> {
    let mut all = vec![Described::Serial { port: address::COM1, gsi: address::COM1_GSI }];
    if with_disk {
        let (base, bytes) =
            const { (below_4_gib(address::VIRTIO_MMIO), below_4_gib(address::VIRTIO_MMIO_BYTES)) };
        all.push(Described::VirtioMmio { base, bytes, gsi: address::VIRTIO_MMIO_GSIS[0] });
    }
    all
}

impl<'e> ServerSession<'e> {
    /// A server at power-on.
    ///
    /// # Errors
    /// [`ServerSessionError`].
    pub fn boot(
        spec: ServerSpec<'_>,
        outside: Outside,
        events: &'e (dyn Fn(ServerEvent<'_>) + Sync),
    ) -> Result<Self, ServerSessionError> {
        let ServerSpec { config, files, disk } = spec;
        let described = described(disk.is_some());
        Self::new(outside, config.pace, disk, events, |devices, record| {
            Server::new(config, devices, &described, record, &files).map_err(ServerSessionError::Server)
        })
    }

    /// A server that goes on where it was frozen.
    ///
    /// # Errors
    /// [`ServerSessionError`].
    pub fn resume(
        snapshot: ServerSnapshot,
        outside: Outside,
        events: &'e (dyn Fn(ServerEvent<'_>) + Sync),
    ) -> Result<Self, ServerSessionError> {
        let ServerSnapshot { state, memory } = snapshot;
        Self::new(outside, state.config().pace, None, events, |devices, record| {
            let server = Server::resume(state, devices, record).map_err(ServerSessionError::Resume)?;
            memory.fill(server.machine().memory()).map_err(ServerSessionError::Snapshot)?;
            Ok(server)
        })
    }

    fn new(
        outside: Outside,
        pace: Pace,
        disk: Option<Box<dyn Disk>>,
        events: &'e (dyn Fn(ServerEvent<'_>) + Sync),
        make: impl FnOnce(Devices, Record) -> Result<Server, ServerSessionError>,
    ) -> Result<Self, ServerSessionError> {
        let Outside { console, freeze_at, marks, trace, faults, debugger } = outside;
        let clock = match pace {
            Pace::Deterministic { seed } => machine_emu::Pace::Deterministic { seed },
            Pace::Real => machine_emu::Pace::Real,
        };
        let its_server = ServerCell::default();
        let console = marks.watch(console, its_server.clone());
        let console = FreezeAt::new(console, freeze_at.as_deref().unwrap_or_default(), its_server.clone());
        let board = Board::for_server(console, disk, clock).map_err(ServerSessionError::Board)?;
        let record = trace.map_or_else(Record::default, |trace| Record::observed_by(Box::new(Traced(trace))));
        let server = make(board.devices, record)?;
        let server = Arc::new(match &debugger {
            Some(debugger) => server.debugged_by(debugger.port()),
            None => server,
        });
        let _ = its_server.set(Arc::downgrade(&server));
        if let Some(plan) = faults {
            server.machine().faults().set_plan(plan);
        }
        Ok(Self { server, debugger, input: board.input, events })
    }

    /// What is typed at its serial port.
    pub fn input(&self) -> SerialInput {
        self.input.clone()
    }

    /// How the server runs.
    pub fn pace(&self) -> Pace {
        self.server.pace()
    }

    /// Runs the server until it ends, or is stopped because the watch wants it.
    pub fn drive(self, watch: &impl Watch) -> ServerEnded {
        let finished = AtomicBool::new(false);
        let ending = std::thread::scope(|scope| {
            scope.spawn(|| self.watch(watch));
            if let Some(debugger) = &self.debugger {
                scope.spawn(|| debugger.serve(&self.debuggee(&finished)));
            }
            (self.events)(ServerEvent::Running);
            let ending = self.server.run();
            finished.store(true, Ordering::SeqCst);
            watch.ring();
            ending
        });
        (self.events)(ServerEvent::Ended(&ending));
        ServerEnded { server: self.server, ending }
    }

    /// What its debugger is told of the server.
    fn debuggee<'s>(&'s self, finished: &'s AtomicBool) -> Debuggee<'s> {
        let machine = self.server.machine().clone();
        let lps = (0..machine.num_lps()).collect();
        Debuggee { machine, lps, finished, subject: &*self.server }
    }

    /// Switches the server off when it has to end, and delivers the interrupts of typed input; returns when it has ended.
    fn watch(&self, watch: &impl Watch) {
        while !self.server.has_ended() {
            if watch.wants_stop() {
                self.server.end(Ending::Stopped);
            }
            if self.server.pace() == Pace::Real {
                // Whoever typed has rung.
                self.server.deliver_lines();
            }
            watch.running(Live::Server(self));
            watch.wait();
        }
    }
}

impl RunningServer for ServerSession<'_> {
    fn look(&self) -> LiveServer {
        let counts = self.server.record().counts();
        let mut calls = std::collections::BTreeMap::new();
        for ((leaf, _), count) in &counts.by_leaf {
            *calls.entry(leaf.to_string()).or_insert(0) += count;
        }
        LiveServer {
            has_ended: self.server.has_ended(),
            calls,
            unanswered: counts.failed_invalid,
            violations: self.server.machine().violations().len(),
        }
    }
}

/// A server that has ended.
#[derive(Debug)]
pub struct ServerEnded {
    server: Arc<Server>,
    ending: Ending,
}

impl ServerEnded {
    /// How the server ended.
    pub const fn ending(&self) -> &Ending {
        &self.ending
    }

    /// What there is to say of the run.
    pub fn report(&self) -> ServerReport {
        ServerReport::of(&self.server, &self.ending)
    }

    /// Writes the state of a server that froze to a file that only its owner may read; gives its size. Once.
    ///
    /// # Errors
    /// [`SaveServerError`]: it did not freeze, or the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<u64, SaveServerError> {
        let state = self.server.save().map_err(SaveServerError::Server)?;
        snapshot::write_file(path, Kind::Server, &state, self.server.machine().memory())
            .map_err(SaveServerError::Snapshot)
    }
}
