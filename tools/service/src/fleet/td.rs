//! One TD: how far it is, its worker, and what happened to it.

mod saved;

use std::collections::VecDeque;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tdvisor_runtime::backend::BackendKind;
use tracing::Span;

use super::limits;
use super::quotes::Fetcher;
use super::store::{Kept, Record};
use super::worker::{NoAnswer, Worker};
use super::{FleetError, Shared};
use crate::http::Source;
use crate::logged;
use crate::vm::Gate;
use crate::worker::protocol::{Order, Plan, QuotesFrom, Said};

/// Events of a TD that are kept.
const EVENTS: usize = 1024;
/// How long a TD may take to end when it is told to, before its worker is killed.
const PATIENCE: Duration = Duration::from_secs(25);
/// What a worker is killed by that does what it may not (`SIGSYS`).
const FORBIDDEN_CALL: i32 = 31;

/// How far a TD is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The TD was asked for, and never ran.
    Created,
    /// The TD's worker builds it.
    Booting,
    /// The TD runs.
    Running,
    /// The TD's vCPUs stand still.
    Paused,
    /// The TD ran, and has ended: its report says how.
    Ended,
    /// The TD's worker ended without a report.
    Died,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 6] =
        [Self::Created, Self::Booting, Self::Running, Self::Paused, Self::Ended, Self::Died];

    /// Where a TD is that has no worker.
    const fn of(kept: Kept) -> Self {
        match kept {
            Kept::Created => Self::Created,
            Kept::Ended => Self::Ended,
            Kept::Booted | Kept::Died => Self::Died,
        }
    }

    /// The phase's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Booting => "booting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Ended => "ended",
            Self::Died => "died",
        }
    }
}

/// What a TD is started from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Image,
    Snapshot,
}

impl Start {
    /// What a TD is not that stands in no phase for it.
    const fn refused(self) -> &'static str {
        match self {
            Self::Image => "is not booted",
            Self::Snapshot => "is not restored",
        }
    }
}

struct Inner {
    phase: Phase,
    record: Record,
    worker: Option<Arc<Worker>>,
    confinement: Option<Value>,
    /// The report of the worker that has not ended yet.
    report: Option<Value>,
    /// Bytes of its dump, if it was dumped while it was paused.
    dumped: Option<u64>,
    /// Events that are kept, and how many there were before them.
    events: VecDeque<Value>,
    older: u64,
    is_deleted: bool,
}

/// A TD.
pub(super) struct Td {
    name: String,
    /// What is written down of it.
    log: Span,
    shared: Arc<Shared>,
    /// Changes of its phase, one at a time.
    turn: Gate<()>,
    inner: Mutex<Inner>,
    changed: Condvar,
}

impl Td {
    pub(super) fn new(record: Record, shared: Arc<Shared>) -> Self {
        let phase = Phase::of(record.state);
        let inner = Inner {
            phase,
            worker: None,
            confinement: None,
            report: None,
            dumped: None,
            events: VecDeque::new(),
            older: 0,
            is_deleted: false,
            record,
        };
        let name = inner.record.name.clone();
        let log = logged::td(&name);
        Self { name, log, shared, turn: Gate::default(), inner: Mutex::new(inner), changed: Condvar::new() }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What is kept of it beside its console.
    pub(super) fn kept(&self) -> limits::Kept {
        super::kept(&self.lock().record.request)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, inner: MutexGuard<'a, Inner>, deadline: Instant) -> MutexGuard<'a, Inner> {
        let left = deadline.saturating_duration_since(Instant::now());
        self.changed.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0
    }

    pub(super) fn phase(&self) -> Phase {
        self.lock().phase
    }

    /// Takes note that it ran under a service that is gone, if it did.
    pub(super) fn buried(&self) -> io::Result<()> {
        let mut inner = self.lock();
        if inner.record.state == Kept::Booted {
            inner.record.state = Kept::Died;
            inner.record.reason = Some("the service ended while it ran".to_owned());
            let died = json!({"event": "worker-died", "reason": inner.record.reason});
            self.push(&mut inner, died);
            self.shared.store.write(&inner.record)?;
        }
        Ok(())
    }

    /// What there is to say of it.
    pub(super) fn describe(&self) -> Value {
        let inner = self.lock();
        json!({
            "name": self.name,
            "phase": inner.phase.name(),
            "request": inner.record.request,
            "backend": inner.record.request.backend,
            "inspectable": inner.record.request.inspectable,
            "saved": self.shared.store.saved(&self.name),
            "gdb": inner.worker.as_ref().filter(|_| inner.record.request.gdb).map(|_| self.shared.store.gdb_path(&self.name)),
            "pid": inner.worker.as_ref().map(|worker| worker.pid()),
            "confinement": inner.confinement,
            "reason": inner.record.reason,
            "report": inner.record.report,
        })
    }

    fn take_turn(&self, deadline: Instant) -> Result<crate::vm::Entered<'_, ()>, FleetError> {
        let turn = self.turn.enter(deadline).ok_or(FleetError::Overdue)?;
        if self.lock().is_deleted {
            return Err(FleetError::NoTd(self.name.clone()));
        }
        Ok(turn)
    }

    /// Starts its worker and waits until it runs.
    pub(super) fn boot(self: &Arc<Self>, deadline: Instant) -> Result<(), FleetError> {
        self.start(Start::Image, deadline)
    }

    /// As [`Self::boot`], from where it was saved last.
    pub(super) fn restore(self: &Arc<Self>, deadline: Instant) -> Result<(), FleetError> {
        self.start(Start::Snapshot, deadline)
    }

    fn start(self: &Arc<Self>, from: Start, deadline: Instant) -> Result<(), FleetError> {
        let _turn = self.take_turn(deadline)?;
        let before = {
            let inner = self.lock();
            if !matches!(inner.phase, Phase::Created | Phase::Ended | Phase::Died) {
                return Err(FleetError::Phase(inner.phase, from.refused()));
            }
            inner.record.clone()
        };
        let request = before.request.clone();
        let restored = match from {
            Start::Image => None,
            Start::Snapshot => Some(self.snapshot(&request)?),
        };
        // A record that could not be read has no request that can be had.
        request.check().map_err(FleetError::Config)?;
        self.shared.options.check(request.backend)?;
        let share = self.shared.room.take(request.memory, request.vcpus).map_err(FleetError::Over)?;
        self.shared.store.remove_gdb(&self.name).map_err(FleetError::Store)?;
        if request.snapshot {
            self.shared.store.make_saving(&self.name).map_err(FleetError::Store)?;
        }
        let (worker, said) = Worker::start(&self.shared.options).map_err(FleetError::NoWorker)?;
        let worker = Arc::new(worker);
        {
            let mut inner = self.lock();
            inner.record.state = Kept::Booted;
            (inner.record.reason, inner.record.report) = (None, None);
            if let Err(error) = self.shared.store.write(&inner.record) {
                inner.record.state = Kept::Died;
                inner.record.reason = Some(format!("the state directory: {error}"));
                inner.phase = Phase::Died;
                drop(inner);
                worker.kill();
                let _ = worker.bury();
                return Err(FleetError::Store(error));
            }
            (inner.report, inner.confinement, inner.dumped) = (None, None, None);
            (inner.phase, inner.worker) = (Phase::Booting, Some(worker.clone()));
        }
        let (td, of_thread) = (self.clone(), worker.clone());
        let quotes = self.shared.options.quotes.as_ref();
        let listener = Fetcher::start(worker.clone(), quotes, request.vcpus).and_then(|fetcher| {
            std::thread::Builder::new().name("td-worker".to_owned()).spawn(move || {
                of_thread.listen(said, |said| match said {
                    Said::Quote { number, report } => fetcher.wish(number, report),
                    said => td.hear(said),
                });
                drop(fetcher);
                let status = of_thread.bury();
                drop(share);
                td.worker_has_gone(status);
            })
        });
        if let Err(error) = listener {
            worker.kill();
            self.worker_has_gone(worker.bury());
            return Err(FleetError::NoWorker(error));
        }
        let console = self.shared.store.console_path(&self.name);
        let trace = request.trace.then(|| self.shared.store.trace_path(&self.name));
        let page = request.inspector.then(|| self.shared.store.page_path(&self.name));
        let dump = request.dump.then(|| self.shared.store.dump_path(&self.name));
        let gdb = request.gdb.then(|| self.shared.store.gdb_path(&self.name));
        let saving = request.snapshot.then(|| self.shared.store.saving_path(&self.name));
        let word = |path: Option<PathBuf>| path.map(|path| path.to_string_lossy().into_owned());
        let backend = request.backend;
        let plan = Plan {
            name: self.name.clone(),
            request,
            console: console.to_string_lossy().into_owned(),
            console_max: self.shared.options.limits.td_disk,
            inspector: word(page),
            dump: word(dump),
            saving: word(saving),
            restored: word(restored),
            gdb: word(gdb),
            trace: word(trace),
            trace_max: self.shared.options.limits.td_trace,
            quotes: match (quotes, backend) {
                (Some(_), _) => QuotesFrom::Service,
                (None, BackendKind::Emulated) => QuotesFrom::Worker,
                // Only a quote-generation service can tell whether a report is the module's.
                (None, BackendKind::Kvm) => QuotesFrom::Nobody,
            },
            without_seccomp: self.shared.options.without_seccomp,
        };
        match worker.ask(Order::Boot { plan: Box::new(plan) }, deadline) {
            Ok(_) => {
                let mut inner = self.lock();
                // A guest may have been quick.
                if inner.phase == Phase::Booting {
                    inner.phase = Phase::Running;
                }
                Ok(())
            }
            Err(problem) => {
                self.await_end(&worker, deadline);
                if from == Start::Snapshot {
                    self.take_back(before)?;
                }
                // A guest may have been quicker than the answer: its report is what says that it ran.
                if matches!(problem, NoAnswer::Gone) && self.phase() == Phase::Ended {
                    return Ok(());
                }
                Err(problem.into())
            }
        }
    }

    /// Waits until a worker that ends has gone, and kills it if it does not.
    fn await_end(&self, worker: &Worker, deadline: Instant) {
        let deadline = deadline.min(Instant::now() + PATIENCE);
        let mut inner = self.lock();
        while inner.worker.is_some() {
            if deadline <= Instant::now() {
                drop(inner);
                worker.kill();
                inner = self.lock();
                while inner.worker.is_some() {
                    inner = self.wait(inner, Instant::now() + PATIENCE);
                }
                return;
            }
            inner = self.wait(inner, deadline);
        }
    }

    fn hear(&self, said: Said) {
        let mut inner = self.lock();
        match said {
            Said::Event { event } => {
                if event["event"] == "confined" {
                    inner.confinement = Some(event.clone());
                }
                self.push(&mut inner, event);
            }
            Said::Ended { mut report, metrics } => {
                self.shared.totals.add_gone(&self.name, &metrics);
                self.keep_snapshot(&mut report);
                inner.report = Some(report);
            }
            Said::Answer { .. } | Said::Quote { .. } => {}
        }
        drop(inner);
        self.changed.notify_all();
    }

    /// Keeps an event, and writes it down.
    fn push(&self, inner: &mut Inner, event: Value) {
        logged::happened(&self.log, &event);
        if inner.events.len() == EVENTS {
            inner.events.pop_front();
            inner.older += 1;
        }
        inner.events.push_back(event);
    }

    /// Takes note of how its worker ended.
    fn worker_has_gone(&self, status: io::Result<ExitStatus>) {
        // One that stays is removed before the next boot.
        let _ = self.shared.store.remove_gdb(&self.name);
        let mut inner = self.lock();
        let words = words(&status);
        let is_in_order = status.as_ref().is_ok_and(ExitStatus::success);
        (inner.phase, inner.record.state) = match inner.report.take() {
            Some(report) => {
                inner.record.report = Some(report);
                (Phase::Ended, Kept::Ended)
            }
            // It could not be started, which whoever asked is told.
            None if inner.phase == Phase::Booting && is_in_order => (Phase::Created, Kept::Created),
            None => {
                inner.record.reason = Some(words.clone());
                self.push(&mut inner, json!({"event": "worker-died", "reason": words}));
                (Phase::Died, Kept::Died)
            }
        };
        if let Err(error) = self.shared.store.write(&inner.record) {
            self.push(&mut inner, json!({"event": "not-kept", "reason": error.to_string()}));
        }
        inner.worker = None;
        drop(inner);
        self.changed.notify_all();
    }

    fn running(&self) -> Result<Arc<Worker>, FleetError> {
        let inner = self.lock();
        match (&inner.worker, inner.phase) {
            (Some(worker), Phase::Running | Phase::Paused) => Ok(worker.clone()),
            (_, phase) => Err(FleetError::Phase(phase, "does not run")),
        }
    }

    /// Takes it from one phase to another.
    pub(super) fn change(
        &self,
        from: Phase,
        order: Order,
        to: Phase,
        deadline: Instant,
    ) -> Result<(), FleetError> {
        let _turn = self.take_turn(deadline)?;
        let worker = self.running()?;
        let phase = self.phase();
        if phase != from {
            let what = if from == Phase::Running { "is not paused" } else { "is not resumed" };
            return Err(FleetError::Phase(phase, what));
        }
        worker.ask(order, deadline)?;
        let mut inner = self.lock();
        if inner.phase == from {
            inner.phase = to;
        }
        Ok(())
    }

    /// Tells its worker to end, without waiting.
    pub(super) fn begin_to_stop(&self) {
        let worker = self.lock().worker.clone();
        if let Some(worker) = worker {
            let _ = worker.ask(Order::Stop, Instant::now());
        }
    }

    /// Ends it.
    pub(super) fn stop(&self, deadline: Instant) -> Result<(), FleetError> {
        let _turn = self.take_turn(deadline)?;
        let worker = self.running()?;
        self.end(&worker, deadline);
        Ok(())
    }

    fn end(&self, worker: &Worker, deadline: Instant) {
        // One that is gone, or does not answer, is waited for all the same.
        let _ = worker.ask(Order::Stop, deadline.min(Instant::now() + PATIENCE));
        self.await_end(worker, deadline);
    }

    /// Ends it and removes what is kept of it.
    pub(super) fn delete(&self, deadline: Instant) -> Result<(), FleetError> {
        let _turn = self.take_turn(deadline)?;
        let worker = self.lock().worker.clone();
        if let Some(worker) = worker {
            self.end(&worker, deadline);
        }
        self.shared.store.remove(&self.name).map_err(FleetError::Store)?;
        self.lock().is_deleted = true;
        self.changed.notify_all();
        Ok(())
    }

    /// Asks its worker, or its report where it has ended.
    pub(super) fn ask(&self, order: Order, deadline: Instant) -> Result<Value, FleetError> {
        if let (BackendKind::Kvm, Some(what)) = (self.lock().record.request.backend, order.only_emulated()) {
            return Err(FleetError::OnlyEmulated(what));
        }
        match self.running() {
            Ok(worker) => match worker.ask(order.clone(), deadline) {
                // It has ended meanwhile, and its report is about to be kept.
                Err(NoAnswer::Gone) => {
                    self.await_end(&worker, deadline);
                    self.of_report(&order).ok_or(FleetError::WorkerGone)
                }
                answer => Ok(answer?),
            },
            Err(error) => self.of_report(&order).ok_or(error),
        }
    }

    /// What the TD's report says to a question.
    fn of_report(&self, order: &Order) -> Option<Value> {
        let inner = self.lock();
        let report = inner.record.report.as_ref()?;
        Some(match order {
            Order::Measurements => report["measurements"].clone(),
            Order::Audit => report["audit"].clone(),
            Order::Seamcalls => json!({"seamcalls": report["seamcalls"]}),
            Order::Exits if inner.record.request.backend == BackendKind::Kvm => json!({
                "kvm_exits": report["kvm_exits"],
                "frames_converted": report["frames_converted"],
            }),
            Order::Exits => {
                let vcpus = report["exits"].as_array()?.iter().map(|exits| json!({"exits": exits}));
                json!({
                    "vcpus": vcpus.collect::<Vec<_>>(),
                    "private_pages": report["private_pages"],
                    "shared_pages": report["shared_pages"],
                    "frames_converted": report["frames_converted"],
                })
            }
            _ => return None,
        })
    }

    /// Has the TD's page written, if it is paused; how many bytes the page has.
    pub(super) fn draw_page(&self, deadline: Instant) -> Result<u64, FleetError> {
        if !self.kept().inspector {
            return Err(FleetError::NotAskedFor("the inspector"));
        }
        let bytes = |said: &Value| said["bytes"].as_u64();
        match self.running() {
            Ok(worker) => Ok(bytes(&worker.ask(Order::Inspector, deadline)?).unwrap_or_default()),
            Err(error) => {
                let inner = self.lock();
                inner.record.report.as_ref().and_then(|report| bytes(&report["inspector"])).ok_or(error)
            }
        }
    }

    /// Has what the TD holds written, if it is paused.
    pub(super) fn dump(&self, deadline: Instant) -> Result<Value, FleetError> {
        let _turn = self.take_turn(deadline)?;
        if self.kept().dump == 0 {
            return Err(FleetError::NotAskedFor("a dump"));
        }
        let worker = self.running()?;
        // What is there is written over.
        self.lock().dumped = None;
        let said = worker.ask(Order::Dump, deadline)?;
        self.lock().dumped = said["bytes"].as_u64();
        Ok(said)
    }

    /// Bytes of the TD's last dump.
    pub(super) fn dumped(&self) -> Result<u64, FleetError> {
        let inner = self.lock();
        if inner.record.request.dump_max() == 0 {
            return Err(FleetError::NotAskedFor("a dump"));
        }
        let of_report = |report: &Value| report["dump"]["bytes"].as_u64();
        let bytes = inner.record.report.as_ref().and_then(of_report).or(inner.dumped);
        bytes.ok_or(FleetError::NotDumped)
    }

    /// The TD's numbers, if it runs.
    pub(super) fn metrics(&self, deadline: Instant) -> Option<String> {
        let said = self.running().ok()?.ask(Order::Metrics, deadline).ok()?;
        said["text"].as_str().map(str::to_owned)
    }
}

/// How a process ended.
fn words(status: &io::Result<ExitStatus>) -> String {
    let status = match status {
        Ok(status) => status,
        Err(error) => return format!("what became of the worker is not known: {error}"),
    };
    match (status.signal(), status.code()) {
        (Some(FORBIDDEN_CALL), _) => {
            "the worker was killed by SIGSYS: it made a system call that it may not make".to_owned()
        }
        (Some(signal), _) => format!("the worker was killed by signal {signal}"),
        (None, Some(code)) => format!("the worker ended with status {code} and without a report"),
        (None, None) => "the worker ended without a status".to_owned(),
    }
}

/// The events of a TD, as server-sent events: those that are kept, then those that come, until it does not run any more.
pub struct EventTail {
    td: Arc<Td>,
    next: u64,
}

impl std::fmt::Debug for EventTail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventTail").field("next", &self.next).finish_non_exhaustive()
    }
}

impl EventTail {
    pub(super) const fn new(td: Arc<Td>, after: u64) -> Self {
        Self { td, next: after.saturating_add(1) }
    }
}

impl Source for EventTail {
    fn next(&mut self, deadline: Instant) -> Option<Vec<u8>> {
        let mut inner = self.td.lock();
        loop {
            let first = inner.older + 1;
            let end = first + inner.events.len() as u64;
            // Older ones are not there any more: the numbers have a gap.
            self.next = self.next.max(first);
            if self.next < end {
                let skipped = usize::try_from(self.next - first).unwrap_or(usize::MAX);
                let events = inner.events.iter().skip(skipped).zip(self.next..);
                let text: String =
                    events.map(|(event, number)| format!("id: {number}\ndata: {event}\n\n")).collect();
                self.next = end;
                return Some(text.into_bytes());
            }
            if inner.worker.is_none() || inner.is_deleted {
                return None;
            }
            if deadline <= Instant::now() {
                return Some(Vec::new());
            }
            inner = self.td.wait(inner, deadline);
        }
    }
}
