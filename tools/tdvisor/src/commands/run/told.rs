//! `--events` and `--metrics`: what happens to the TD, for programs that watch it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use machine_emu::outlet::{Metered, Outlet};
use machine_emu::trace::Trace;
use tdvisor_devices::acpi_pm::Nanoseconds;
use tdvisor_runtime::backend::BackendKind;
use tdvisor_runtime::dump::Secrecy;
use tdvisor_runtime::kvm::KvmEvent;
use tdvisor_runtime::metrics::{Metrics, TdMetrics};
use tdvisor_runtime::{Event, Report, events};

use crate::files::{Claims, Output};
use crate::outcome::Failure;

/// The most bytes of events: a guest chooses how often it converts memory.
const MAX_BYTES: u64 = 1 << 30;
/// Bytes that wait for the file.
const QUEUE: usize = 1 << 20;
/// The TD's name among the numbers of a process: there is one.
const NAME: &str = "td";

/// Options of what is told of a run.
#[derive(Debug, clap::Args)]
pub struct ToldArgs {
    /// Write what happens to the TD to FILE, one JSON object a line: that it boots, converts memory, asks for a quote, and how
    /// it ends.
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,
    /// When the TD has ended, write the run's numbers to FILE in the OpenMetrics form of Prometheus: SEAMCALLs by leaf and
    /// answer and how long they took, exits by vCPU and reason, private memory, conversions.
    #[arg(long, value_name = "FILE")]
    metrics: Option<PathBuf>,
}

/// The files that a run is told in, opened.
pub struct Told {
    secrecy: Secrecy,
    vcpus: u32,
    events: Option<Lines>,
    metrics: Option<Numbers>,
    clock: Mutex<Option<Nanoseconds>>,
}

struct Lines {
    name: String,
    outlet: Outlet,
    out: Mutex<Metered>,
}

struct Numbers {
    file: Output,
    all: Arc<Metrics>,
    td: Arc<TdMetrics>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ToldArgs {
    /// Whether numbers were asked for, which only the emulated machine has.
    pub const fn wants_metrics(&self) -> bool {
        self.metrics.is_some()
    }

    /// Notes which files are written.
    pub fn claim(&self, claims: &mut Claims) -> Result<(), Failure> {
        for (what, path) in [("--events", &self.events), ("--metrics", &self.metrics)] {
            path.as_deref().map_or(Ok(()), |path| claims.writes(what, path))?;
        }
        Ok(())
    }

    /// Opens the files that are asked for.
    pub fn open(&self, vcpus: u32, secrecy: Secrecy) -> Result<Told, Failure> {
        let lines = |path: &PathBuf| -> Result<Lines, Failure> {
            let outlet = Outlet::new(Output::open(path)?.into_stream()?, QUEUE);
            let out = Mutex::new(Metered::new(outlet.clone(), MAX_BYTES));
            Ok(Lines { name: path.display().to_string(), outlet, out })
        };
        let numbers = |path: &PathBuf| -> Result<Numbers, Failure> {
            let all = Metrics::new();
            Ok(Numbers { file: Output::open(path)?, td: all.td(NAME), all })
        };
        let events = self.events.as_ref().map(lines).transpose()?;
        let metrics = self.metrics.as_ref().map(numbers).transpose()?;
        Ok(Told { secrecy, vcpus, events, metrics, clock: Mutex::new(None) })
    }
}

impl Told {
    /// Where events go to, if they do.
    pub fn outlet(&self) -> Option<Outlet> {
        self.events.as_ref().map(|lines| lines.outlet.clone())
    }

    /// The trace of a machine whose calls are counted.
    pub fn observe(&self, trace: Trace) -> Trace {
        match &self.metrics {
            Some(numbers) => trace.observed_by(numbers.td.clone()),
            None => trace,
        }
    }

    /// From now on it is known what time it is.
    pub fn set_clock(&self, clock: Nanoseconds) {
        *lock(&self.clock) = Some(clock);
    }

    /// Tells of a TD on the emulated machine.
    pub fn event(&self, event: &Event<'_>) {
        if let Some(numbers) = &self.metrics {
            numbers.td.event(event);
        }
        match event {
            Event::BringUp(_) | Event::Build(_) | Event::Built => {}
            Event::Running => self.booted(BackendKind::Emulated),
            Event::Happened(happening) => self.line(|at| events::happened(happening, at)),
            Event::Ended(ending) => self.line(|at| events::ended(ending, at)),
        }
    }

    /// Tells of a TD on KVM.
    pub fn kvm_event(&self, event: &KvmEvent<'_>) {
        match event {
            KvmEvent::Added { .. } | KvmEvent::Built => {}
            KvmEvent::Running => self.booted(BackendKind::Kvm),
            KvmEvent::Happened(happening) => self.line(|at| events::happened(happening, at)),
            KvmEvent::Ended(ending) => self.line(|at| events::ended(ending, at)),
        }
    }

    fn booted(&self, backend: BackendKind) {
        self.line(|at| events::booted(self.vcpus, backend, self.secrecy, at));
    }

    fn line(&self, line: impl FnOnce(Duration) -> String) {
        let Some(lines) = &self.events else { return };
        let at = lock(&self.clock).as_ref().map_or(0, |now| now());
        lock(&lines.out).send(line(Duration::from_nanos(at)).as_bytes());
    }

    /// Takes note of what is said of the TD at its end.
    pub fn report(&self, report: &Report) {
        if let Some(numbers) = &self.metrics {
            numbers.td.report(report);
        }
    }

    /// Writes the numbers, and waits until all events are out or have had their time. What is missing.
    pub fn finish(self, give_up: impl Fn() -> bool) -> Vec<String> {
        let mut missing = Vec::new();
        if let Some(Numbers { file, all, .. }) = self.metrics
            && let Err(error) = file.write(all.text().as_bytes())
        {
            missing.push(error.to_string());
        }
        let Some(lines) = self.events else { return missing };
        let loss = lines.outlet.drain(give_up);
        let dropped = lock(&lines.out).dropped();
        if let Some(error) = lines.outlet.error() {
            missing.push(format!("{}: the events are incomplete: {error}", lines.name));
        } else if !loss.is_none() {
            missing.push(format!("{}: the events are incomplete: {} bytes", lines.name, loss.not_taken));
        } else if dropped != 0 {
            missing.push(format!("{}: the events are too many: {dropped} bytes are missing", lines.name));
        }
        missing
    }
}
