//! The TD of a worker on the emulated machine: built from an image, or gone on from where it was saved.
//!
//! # Protocol
//! A TD that may be saved is deterministic, and has no virtio device. [`Order::Save`] freezes its machine; the present turn
//! ends, the session comes back, and the TD is written to the file that was opened for it before the worker was confined. What came
//! of it is in the report, and the service takes the file for the TD's snapshot when the worker says that it is whole. One that goes on
//! from a snapshot has read all of it before the worker is confined.

use std::fmt::Display;
use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use machine_emu::trace::Trace;
use serde_json::{Value, json};
use tdvisor_base::Hpa;
use tdvisor_devices::acpi_pm::Nanoseconds;
use tdvisor_devices::virtio::console::VirtioConsole;
use tdvisor_inspector::About;
use tdvisor_monitor::hold::Phase;
use tdvisor_runtime::bell::Bell;
use tdvisor_runtime::board::hvc::{Hvc, HvcInput};
use tdvisor_runtime::board::{Board, BoardSpec};
use tdvisor_runtime::debugger::Debugger;
use tdvisor_runtime::inspect::live::RunningTd;
use tdvisor_runtime::pause::Pauser;
use tdvisor_runtime::saved::{ResumeSpec, SavedTd, TdOnMachine};
use tdvisor_runtime::{Ended, Event, Machine, MachineSpec, Session, TdSpec, events};

use super::super::confine::Beside;
use super::super::kept::{self, KeptFiles};
use super::super::protocol::{Order, Refusal, RefusalKind};
use super::super::report;
use super::{Facts, Maker, Shared, lock};
use crate::vm::board;
use crate::vm::files::Payload;
use crate::vm::life::nanoseconds_of;

/// How long the last lines of a trace may take to be written.
const LAST_LINES: Duration = Duration::from_secs(5);

/// What only the emulated machine knows of a TD, and what stays as it is while the TD runs.
pub(super) struct EmulatedFacts {
    pub(super) machine: Arc<Machine>,
    pub(super) tdr: Hpa,
    pub(super) mrtd: Option<[u8; 48]>,
    pub(super) attributes: u64,
}

impl EmulatedFacts {
    /// Begins to save the TD: its vCPUs stop when the present turn ends.
    pub(super) fn freeze(&self) -> Result<(), Refusal> {
        let freezer = self.machine.platform().freezer();
        let freezer =
            freezer.ok_or_else(|| Refusal::new(RefusalKind::State, "the TD is not in virtual time"))?;
        freezer.freeze();
        Ok(())
    }
}

fn input(error: impl Display) -> Refusal {
    Refusal::new(RefusalKind::Input, error)
}

fn failed(error: impl Display) -> Refusal {
    Refusal::new(RefusalKind::Failed, error)
}

fn of_snapshot(error: impl Display) -> Refusal {
    failed(format_args!("the snapshot: {error}"))
}

impl Shared {
    /// What is seen of a TD on the emulated machine.
    pub(super) fn look(&self, td: &dyn RunningTd, order: &Order) -> Result<Value, Refusal> {
        let still = || match self.lock().pauser.as_ref().map(Pauser::phase) {
            Some(Phase::Still) => Ok(()),
            _ => Err(Refusal::new(RefusalKind::State, "the TD has to be paused for this")),
        };
        let not_running = || Refusal::new(RefusalKind::State, "the TD does not run any more");
        match order {
            Order::Exits => Ok(report::exits(&td.look())),
            Order::Seamcalls => Ok(json!({"seamcalls": td.look().calls})),
            Order::Metrics => {
                self.td.shared(&td.look().shared);
                Ok(self.numbers())
            }
            Order::Audit => {
                still()?;
                td.audit().map(|entries| json!({"verdict": "agreed", "entries": entries})).map_err(failed)
            }
            Order::PageTables { from, limit } => {
                still()?;
                Ok(report::page_tables(&td.inspect().map_err(failed)?, *from, *limit))
            }
            Order::Inspector => {
                still()?;
                let (kept, facts) = self.kept.get().zip(self.emulated()).ok_or_else(not_running)?;
                let about = About::of_paused(&td.look(), facts.attributes);
                let drawn = kept.draw(&td.inspect().map_err(failed)?, &about);
                drawn.map_err(|error| failed(format_args!("the page: {error}")))
            }
            Order::Dump => {
                still()?;
                let kept = self.kept.get().ok_or_else(not_running)?;
                let written = td.dump().and_then(|dump| kept.dump(&dump, &|| self.lock().wants_end));
                let said = written.map_err(|error| failed(format_args!("the dump: {error}")))?;
                self.tell_dump(&said);
                Ok(said)
            }
            _ => Err(failed("this is no question")),
        }
    }
}

impl Maker {
    /// From machine to teardown.
    pub(super) fn run(&self) -> Result<(Value, String), Refusal> {
        let (config, stop) = (&self.config, &self.shared.stop);
        let payload = Payload::load(&config.payload, config.memory.size, !config.disks().is_empty());
        let Payload { image, files: boot, predicted } = payload.map_err(input)?;
        let clock = Mutex::new(None::<Nanoseconds>);
        let now = || Duration::from_nanos(lock(&clock).as_ref().map_or(0, |now| now()));
        let last = Mutex::new(Value::Null);
        let events = |event: Event<'_>| {
            self.shared.td.event(&event);
            let at = now();
            match event {
                Event::BringUp(_) | Event::Build(_) | Event::Built => {}
                Event::Running => {
                    self.tell(&self.booted(at));
                    self.has_begun();
                }
                Event::Happened(happening) => drop(self.tell(&events::happened(&happening, at))),
                Event::Ended(ending) => {
                    *lock(&last) = self.tell(&events::ended(ending, at));
                    stop.set();
                }
            }
        };
        // Before anything that an earlier run left is written over.
        let snapshot = self.snapshot()?;
        let bell = Bell::default();
        let opened =
            board::open(config, &Default::default(), self.plan.request.pace(), stop, &bell).map_err(input)?;
        let console = self.console()?;
        let kept =
            KeptFiles::open(&self.plan).map_err(|error| input(format_args!("the TD's files: {error}")))?;
        let trace = self.trace().map_err(|error| input(format_args!("the trace: {error}")))?;
        let trace = kept.keep_calls(trace.observed_by(self.shared.td.clone()));
        let (machine, saved) = self.machine(snapshot, trace, &events)?;
        let machine = Arc::new(machine);
        *lock(&clock) = Some(nanoseconds_of(&machine));
        let mut virtio = opened.virtio;
        if self.plan.request.snapshot {
            // No virtio device is saved. Of those that every TD has, images drive none.
            virtio.clear();
        } else {
            let hvc = Hvc::new(console.clone(), HvcInput::new(bell.clone()));
            virtio.push(Box::new(VirtioConsole::new(Box::new(hvc), None)));
        }
        let spec = BoardSpec {
            pace: self.plan.request.pace(),
            now: nanoseconds_of(&machine),
            memory: config.memory.size,
            vcpus: config.cpus.boot_vcpus,
            boot,
            virtio,
            transport: self.transport,
        };
        let board = Board::new(console, io::sink(), spec).map_err(input)?;
        let quotes = self.quotes(Some(machine.platform().machine()));
        let kept = self.shared.kept.get_or_init(|| kept);
        self.confine(if self.plan.gdb.is_some() { Beside::Debugger } else { Beside::Nothing })?;
        let td = config.td_config();
        let attributes = td.attributes;
        let devices = board.devices;
        let session = match saved {
            None => {
                let debugger = lock(&self.debugger).take();
                let debugger = debugger.map(|waiting| Debugger::new(waiting.listener, waiting.port));
                let secrecy = self.plan.request.secrecy();
                let spec = TdSpec { config: td, image: &image, devices, bell, quotes, debugger, secrecy };
                Session::start(&machine, spec, &events).map_err(failed)?
            }
            Some(saved) => self.resumed(&machine, saved, ResumeSpec { devices, bell, quotes }, &events)?,
        };
        let emulated = EmulatedFacts {
            machine: machine.clone(),
            tdr: session.td().tdr().hpa(),
            mrtd: session.td().mrtd().ok(),
            attributes,
        };
        let _ = self.shared.facts.set(Facts { predicted, emulated: Some(emulated) });
        self.shared.lock().pauser = Some(session.pauser());
        let ended = session.drive(&*self.shared);
        self.close();
        stop.set();
        let saved = self.save(kept, &ended, now());
        let inspection = kept.has_page().then(|| ended.inspect());
        let dumped = kept.has_dump().then(|| ended.dump().and_then(|dump| kept.dump(&dump, &|| false)));
        let torn_down = ended.teardown();
        self.shared.td.report(&torn_down);
        let last = last.into_inner().unwrap_or_else(PoisonError::into_inner);
        let trace = machine.platform().trace();
        let until = Instant::now() + LAST_LINES;
        let lost = trace.outlet().map(|outlet| outlet.drain(|| until <= Instant::now()));
        self.shared.tell_full_trace();
        let ending = saved.as_ref().map_or(last, |(event, _)| event.clone());
        let mut report = report::report(&torn_down, predicted, ending);
        let drawn = inspection.map(|inspection| {
            let inspection = inspection.map_err(io::Error::other)?;
            kept.draw(&inspection, &About::of_ended(&torn_down, attributes))
        });
        report["inspector"] = json!(drawn.map(kept::in_report));
        if let Some(Ok(said)) = &dumped {
            self.shared.tell_dump(said);
        }
        report["dump"] = json!(dumped.map(kept::in_report));
        report["snapshot"] = json!(saved.map(|(_, said)| said));
        report["trace"] = json!(lost.map(|lost| report::trace(trace.dropped(), lost)));
        Ok((report, self.shared.metrics.text()))
    }

    /// The snapshot that the TD goes on from, if it does: it is whole, and this program reads it.
    fn snapshot(&self) -> Result<Option<SavedTd<()>>, Refusal> {
        let opened = self.plan.restored.as_ref().map(|path| SavedTd::open(Path::new(path)));
        opened.transpose().map_err(of_snapshot)
    }

    /// A machine, and the TD on it if it goes on from a snapshot.
    fn machine(
        &self,
        snapshot: Option<SavedTd<()>>,
        trace: Trace,
        events: &dyn Fn(Event<'_>),
    ) -> Result<(Machine, Option<TdOnMachine>), Refusal> {
        let Some(snapshot) = snapshot else {
            let request = &self.plan.request;
            let spec = MachineSpec {
                hardware: self.hardware,
                memory: self.config.memory.size,
                vcpus: self.config.cpus.boot_vcpus,
                pace: request.pace(),
                trace,
                faults: request.faults().map_err(input)?,
                debug: lock(&self.debugger).as_ref().map(|debugger| debugger.port.clone()),
                samples: None,
            };
            return Ok((Machine::bring_up(spec, events).map_err(failed)?, None));
        };
        let (machine, td) = snapshot.machine(trace).map_err(of_snapshot)?;
        Ok((machine, Some(td)))
    }

    /// A TD that goes on.
    fn resumed<'m, 'e>(
        &self,
        machine: &'m Machine,
        saved: TdOnMachine,
        spec: ResumeSpec,
        events: &'e (dyn Fn(Event<'_>) + Sync),
    ) -> Result<Session<'m, 'e>, Refusal> {
        let session = Session::resume(machine, saved, spec, events).map_err(of_snapshot)?;
        self.shared.td.private(&session.look().private);
        self.voice.tell(json!({"event": "restored"}));
        Ok(session)
    }

    /// Writes a TD whose machine froze; gives the event that says what came of it, and what stands in the report.
    fn save(&self, kept: &KeptFiles, ended: &Ended<'_>, at: Duration) -> Option<(Value, Value)> {
        if !ended.is_frozen() {
            return None;
        }
        let written = kept.save(ended);
        let mut event = match &written {
            Ok(said) => json!({"event": "saved", "bytes": said["bytes"]}),
            Err(error) => json!({"event": "not-saved", "reason": error.to_string()}),
        };
        event["seconds"] = json!(at.as_secs_f64());
        self.voice.tell(event.clone());
        Some((event, kept::in_report(written)))
    }

    /// Where SEAMCALLs go.
    fn trace(&self) -> io::Result<Trace> {
        let Some(path) = &self.plan.trace else { return Ok(Trace::counting()) };
        let file = OpenOptions::new().write(true).truncate(true).open(path)?;
        Ok(Trace::to_file_within(file, self.plan.trace_max))
    }
}
