//! The TD of a worker: the thread that builds it, runs it and tears it down, and the orders that it follows meanwhile.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::exit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use machine_emu::trace::Trace;
use machine_emu::{Hardware, Pace};
use seam_emu::guest::debug::DebugPort;
use serde_json::{Value, json};
use td_image::digest::Digest384;
use tdvisor_base::Hpa;
use tdvisor_devices::acpi_pm::Nanoseconds;
use tdvisor_devices::virtio::console::VirtioConsole;
use tdvisor_inspector::About;
use tdvisor_monitor::hold::Phase;
use tdvisor_runtime::bell::Bell;
use tdvisor_runtime::board::hvc::{Hvc, HvcInput};
use tdvisor_runtime::board::{Board, BoardSpec, Transport};
use tdvisor_runtime::debugger::{Debugger, Endpoint, Listener};
use tdvisor_runtime::inspect::live::{Live, RunningTd};
use tdvisor_runtime::metrics::{Metrics, TdMetrics};
use tdvisor_runtime::pause::Pauser;
use tdvisor_runtime::worker::StopFlag;
use tdvisor_runtime::{Event, Machine, MachineSpec, Session, TdSpec, Watch, events};

use super::confine::{self, Bounds, Debugged, Files};
use super::kept::{self, KeptFiles};
use super::protocol::{Order, Plan, Refusal, RefusalKind};
use super::quotes::{Issue, Quotes};
use super::{Voice, WorkerOptions, report};
use crate::config::VmConfig;
use crate::vm::board;
use crate::vm::files::Payload;
use crate::vm::life::nanoseconds_of;

/// How long a TD may take until its vCPUs run.
const START: Duration = Duration::from_secs(110);
/// How long vCPUs may take to leave their guest: more than a disk may take for a request.
const STAND_STILL: Duration = Duration::from_secs(35);
/// How long a look at the TD may take, and one that writes down what it saw.
const LOOK: Duration = Duration::from_secs(10);
/// How long a look may take that only makes numbers newer.
const GLANCE: Duration = Duration::from_secs(1);
const LOOK_AND_WRITE: Duration = Duration::from_secs(100);
/// How long a request to stop may go unnoticed.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How long the teardown may take once the service has gone.
const LAST_WORDS: Duration = Duration::from_secs(20);
/// How long the last lines of a trace may take to be written.
const LAST_LINES: Duration = Duration::from_secs(5);
/// Status of a process that gave up its teardown.
const GAVE_UP: i32 = 1;

/// Address space beside the memory of the TD: code, stacks, tables and the module's own memory.
const BESIDE: u64 = 4 << 30;
const BESIDE_A_VCPU: u64 = 256 << 20;
/// The processor that the host has for itself, beside one for each vCPU.
const PROCESSORS_OF_HOST: usize = 1;
/// Descriptors of a worker.
const DESCRIPTORS: u64 = 256;

/// A look at the TD, and who waits for it.
type Question = (Order, SyncSender<Result<Value, Refusal>>);

#[derive(Default)]
struct State {
    has_begun: bool,
    has_failed: Option<Refusal>,
    is_over: bool,
    wants_end: bool,
    pauser: Option<Pauser>,
    questions: VecDeque<Question>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    stop: StopFlag,
    facts: OnceLock<Facts>,
    kept: OnceLock<KeptFiles>,
    quotes: Quotes,
    metrics: Arc<Metrics>,
    /// The TD's own of them.
    td: Arc<TdMetrics>,
    voice: Voice,
    has_told_full_trace: AtomicBool,
}

/// What stays as it is while the TD runs.
struct Facts {
    machine: Arc<Machine>,
    tdr: Hpa,
    mrtd: Option<[u8; 48]>,
    predicted: Digest384,
    attributes: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, within: Duration) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, within).unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Watch for Shared {
    fn wants_stop(&self) -> bool {
        self.lock().wants_end
    }

    fn wait(&self) {
        self.tell_full_trace();
        let state = self.lock();
        if state.questions.is_empty() {
            drop(self.wait(state, LOOK_AGAIN));
        }
    }

    fn ring(&self) {
        self.changed.notify_all();
    }

    fn running(&self, machine: Live<'_>) {
        // A worker drives a TD.
        let Live::Td(td) = machine else { return };
        loop {
            let Some((order, asker)) = self.lock().questions.pop_front() else { return };
            // Who asked may have given up.
            let _ = asker.try_send(self.look(td, &order));
        }
    }
}

impl Shared {
    /// Tells once that no more of the trace is kept.
    fn tell_full_trace(&self) {
        let is_full = self.facts.get().is_some_and(|facts| facts.machine.platform().trace().dropped() != 0);
        if is_full && !self.has_told_full_trace.swap(true, Ordering::Relaxed) {
            self.voice.tell(json!({"event": "trace-full"}));
        }
    }

    /// The numbers, in the OpenMetrics form.
    fn numbers(&self) -> Value {
        json!({"text": self.metrics.text()})
    }

    /// Tells that what the TD holds has been written down.
    fn tell_dump(&self, said: &Value) {
        self.voice.tell(json!({"event": "dumped", "bytes": said["bytes"]}));
    }

    fn look(&self, td: &dyn RunningTd, order: &Order) -> Result<Value, Refusal> {
        let still = || match self.lock().pauser.as_ref().map(Pauser::phase) {
            Some(Phase::Still) => Ok(()),
            _ => Err(Refusal::new(RefusalKind::State, "the TD has to be paused for this")),
        };
        let failed = |error: td_host::Error| Refusal::new(RefusalKind::Failed, error);
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
                let (kept, facts) = self.kept.get().zip(self.facts.get()).ok_or_else(not_running)?;
                let about = About::of_paused(&td.look(), facts.attributes);
                let drawn = kept.draw(&td.inspect().map_err(failed)?, &about);
                drawn.map_err(|error| Refusal::new(RefusalKind::Failed, format!("the page: {error}")))
            }
            Order::Dump => {
                still()?;
                let kept = self.kept.get().ok_or_else(not_running)?;
                let written = td.dump().and_then(|dump| kept.dump(&dump, &|| self.lock().wants_end));
                let said = written
                    .map_err(|error| Refusal::new(RefusalKind::Failed, format!("the dump: {error}")))?;
                self.tell_dump(&said);
                Ok(said)
            }
            _ => Err(Refusal::new(RefusalKind::Failed, "this is no question")),
        }
    }
}

/// A TD that runs, or has run.
pub(super) struct Life {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

impl Life {
    /// Confines the worker to the TD's files, builds the TD and waits until it runs.
    ///
    /// # Errors
    /// Why it does not.
    pub(super) fn begin(plan: Plan, options: &WorkerOptions, voice: &Voice) -> Result<Self, Refusal> {
        let input = |error: &dyn ToString| Refusal::new(RefusalKind::Input, error.to_string());
        let failed = |error: &dyn ToString| Refusal::new(RefusalKind::Failed, error.to_string());
        let request = &plan.request;
        let config = request.check().map_err(|error| input(&error))?;
        let size = |path: &str| std::fs::metadata(path).map_or(0, |data| data.len());
        let written = request.written_files();
        let largest = written.iter().map(|path| size(path)).max().unwrap_or(0);
        let bounds = Bounds {
            address_space: 2 * config.memory.size
                + BESIDE
                + BESIDE_A_VCPU * u64::from(config.cpus.boot_vcpus),
            // A raw image does not grow.
            file: largest.max(plan.console_max).max(plan.trace_max).max(request.dump_max()),
            descriptors: DESCRIPTORS,
        };
        // A socket file cannot be made once the worker is confined.
        let debugger = match &plan.gdb {
            Some(path) => Some(Waiting::listen(path, &config).map_err(|error| input(&error))?),
            None => None,
        };
        let kept = [Some(&plan.console), plan.trace.as_ref(), plan.inspector.as_ref(), plan.dump.as_ref()];
        let kept = kept.into_iter().flatten().map(String::as_str);
        let written: Vec<&str> = written.into_iter().chain(kept).collect();
        let files =
            confine::files(bounds, &request.read_only_files(), &written).map_err(|error| failed(&error))?;
        let metrics = Metrics::new();
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            stop: StopFlag::default(),
            facts: OnceLock::new(),
            kept: OnceLock::new(),
            quotes: Quotes::default(),
            td: metrics.td(plan.name.clone()),
            metrics,
            voice: voice.clone(),
            has_told_full_trace: AtomicBool::new(false),
        });
        let maker = Maker {
            hardware: options.hardware,
            transport: options.transport,
            issue: options.quotes.clone(),
            files,
            debugger: Mutex::new(debugger),
            plan,
            config,
            voice: voice.clone(),
            shared: shared.clone(),
        };
        let thread = std::thread::Builder::new().name("td".to_owned()).spawn(move || maker.live());
        let life = Self { shared, thread: thread.map_err(|error| failed(&error))? };
        life.await_running()?;
        Ok(life)
    }

    fn await_running(&self) -> Result<(), Refusal> {
        let deadline = Instant::now() + START;
        let mut state = self.shared.lock();
        loop {
            if let Some(refusal) = state.has_failed.take() {
                return Err(refusal);
            }
            if state.has_begun {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.thread.is_finished() {
                return Err(Refusal::new(RefusalKind::Overdue, "the TD did not come to run"));
            }
            state = self.shared.wait(state, left.min(LOOK_AGAIN));
        }
    }

    /// Follows an order.
    pub(super) fn follow(&self, order: Order) -> Result<Value, Refusal> {
        let not_running = || Refusal::new(RefusalKind::State, "the TD does not run any more");
        let pauser = || self.shared.lock().pauser.clone().ok_or_else(not_running);
        match order {
            Order::Boot { .. } => Err(Refusal::new(RefusalKind::State, "the TD is booted already")),
            Order::Pause => {
                let paused = pauser()?.pause(STAND_STILL);
                paused.map(|()| json!({})).map_err(|error| Refusal::new(RefusalKind::Overdue, error))
            }
            Order::Resume => {
                pauser()?.resume();
                Ok(json!({}))
            }
            Order::Stop => {
                self.want_end();
                Ok(json!({}))
            }
            Order::Metrics => {
                // Of a TD that is busy, or has ended, there are the numbers that nobody has to be asked for.
                self.ask(Order::Metrics, GLANCE).or_else(|_| Ok(self.shared.numbers()))
            }
            Order::Quotes => Ok(self.shared.quotes.to_json()),
            Order::Measurements => {
                let facts = self.shared.facts.get().ok_or_else(not_running)?;
                let rtmrs = facts.machine.platform().machine().rtmrs(facts.tdr);
                Ok(report::measurements(facts.mrtd, facts.predicted, rtmrs))
            }
            Order::Exits | Order::Seamcalls | Order::Audit | Order::PageTables { .. } => {
                self.ask(order, LOOK)
            }
            Order::Inspector | Order::Dump => self.ask(order, LOOK_AND_WRITE),
        }
    }

    /// Has the thread look that drives the TD.
    fn ask(&self, order: Order, within: Duration) -> Result<Value, Refusal> {
        let (asker, answer) = sync_channel(1);
        {
            let mut state = self.shared.lock();
            if state.is_over || state.pauser.is_none() {
                return Err(Refusal::new(RefusalKind::State, "the TD does not run any more"));
            }
            state.questions.push_back((order, asker));
        }
        self.shared.changed.notify_all();
        answer.recv_timeout(within).unwrap_or_else(|error| {
            Err(match error {
                // The questions that nobody answered go with the TD.
                RecvTimeoutError::Disconnected => {
                    Refusal::new(RefusalKind::State, "the TD does not run any more")
                }
                RecvTimeoutError::Timeout => Refusal::new(RefusalKind::Overdue, "the TD is busy"),
            })
        })
    }

    fn want_end(&self) {
        self.shared.lock().wants_end = true;
        self.shared.stop.set();
        self.shared.changed.notify_all();
    }

    /// Ends it, and waits until everything is given back, or for as long as that may take.
    pub(super) fn end(self) {
        self.want_end();
        let deadline = Instant::now() + LAST_WORDS;
        let mut state = self.shared.lock();
        while !state.is_over {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                // The kernel gives back what the TD still has.
                exit(GAVE_UP);
            }
            state = self.shared.wait(state, left);
        }
        drop(state);
        let _ = self.thread.join();
    }
}

/// A console in a file: what does not fit its allowance is not kept, which is told once.
struct ConsoleFile {
    file: File,
    left: u64,
    has_told: bool,
    voice: Voice,
}

/// Serial port and virtio console write into one file.
#[derive(Clone)]
struct ToConsole(Arc<Mutex<ConsoleFile>>);

impl Write for ToConsole {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut console = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = usize::try_from(console.left).unwrap_or(usize::MAX).min(bytes.len());
        console.left -= taken as u64;
        // A disk that is full does not stop the guest.
        let _ = console.file.write_all(bytes.get(..taken).unwrap_or_default());
        if taken < bytes.len() && !std::mem::replace(&mut console.has_told, true) {
            console.left = 0;
            console.voice.tell(json!({"event": "console-full"}));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A debugger whose TD is not there yet.
struct Waiting {
    listener: Listener,
    port: Arc<DebugPort>,
}

impl Waiting {
    fn listen(path: &str, config: &VmConfig) -> Result<Self, String> {
        let endpoint = Endpoint::File(PathBuf::from(path));
        let listener =
            Listener::bind(&endpoint).map_err(|error| format!("the debugger's socket {path}: {error}"))?;
        let port = DebugPort::new(config.cpus.boot_vcpus as usize + PROCESSORS_OF_HOST);
        Ok(Self { listener: listener.leaving_its_file(), port })
    }
}

/// What a TD is made with.
struct Maker {
    plan: Plan,
    config: VmConfig,
    hardware: Hardware,
    transport: Transport,
    issue: Arc<Issue>,
    files: Files,
    debugger: Mutex<Option<Waiting>>,
    voice: Voice,
    shared: Arc<Shared>,
}

/// Says that a life is over, also where its thread breaks one of its own rules.
struct OverAtLast<'a>(&'a Shared);

impl Drop for OverAtLast<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_over = true;
        state.pauser = None;
        state.questions.clear();
        drop(state);
        self.0.changed.notify_all();
    }
}

impl Maker {
    fn live(self) {
        let over = OverAtLast(&self.shared);
        let concluded = self.run();
        match concluded {
            Ok((report, metrics)) => {
                drop(over);
                self.voice.conclude(report, metrics);
            }
            Err(refusal) => self.shared.lock().has_failed = Some(refusal),
        }
    }

    fn tell(&self, event: &Event<'_>, clock: &Mutex<Option<Nanoseconds>>) -> Option<String> {
        self.shared.td.event(event);
        let at = Duration::from_nanos(lock(clock).as_ref().map_or(0, |now| now()));
        match event {
            Event::BringUp(_) | Event::Build(_) | Event::Built => None,
            Event::Running => {
                Some(events::booted(self.config.cpus.boot_vcpus, self.plan.request.secrecy(), at))
            }
            Event::Happened(happening) => Some(events::happened(happening, at)),
            Event::Ended(ending) => Some(events::ended(ending, at)),
        }
    }

    /// From machine to teardown.
    fn run(&self) -> Result<(Value, String), Refusal> {
        let input = |error: &dyn ToString| Refusal::new(RefusalKind::Input, error.to_string());
        let failed = |error: &dyn ToString| Refusal::new(RefusalKind::Failed, error.to_string());
        let (config, stop) = (&self.config, &self.shared.stop);
        let memory = config.memory.size;
        let payload = Payload::load(&config.payload, memory, !config.disks().is_empty());
        let payload = payload.map_err(|error| input(&error))?;
        let td = config.td_config();
        let clock = Mutex::new(None);
        let last = Mutex::new(Value::Null);
        let events = |event: Event<'_>| {
            let line = self.tell(&event, &clock);
            if let Some(line) = line.and_then(|line| serde_json::from_str::<Value>(&line).ok()) {
                if let Event::Ended(_) = event {
                    *lock(&last) = line.clone();
                }
                self.voice.tell(line);
            }
            match event {
                Event::Running => {
                    self.shared.lock().has_begun = true;
                    self.shared.changed.notify_all();
                }
                Event::Ended(_) => stop.set(),
                _ => {}
            }
        };
        let bell = Bell::default();
        let opened = board::open(config, &Default::default(), stop, &bell).map_err(|error| input(&error))?;
        let console = OpenOptions::new().write(true).truncate(true).open(&self.plan.console);
        let console = console.map_err(|error| input(&format!("the console: {error}")))?;
        let kept =
            KeptFiles::open(&self.plan).map_err(|error| input(&format!("the page or the dump: {error}")))?;
        let console = ConsoleFile {
            file: console,
            left: self.plan.console_max,
            has_told: false,
            voice: self.voice.clone(),
        };
        let console = ToConsole(Arc::new(Mutex::new(console)));
        let spec = MachineSpec {
            hardware: self.hardware,
            memory,
            vcpus: td.vcpus,
            pace: Pace::Real,
            trace: kept.keep_calls(
                self.trace()
                    .map_err(|error| input(&format!("the trace: {error}")))?
                    .observed_by(self.shared.td.clone()),
            ),
            faults: self.plan.request.faults().map_err(|error| input(&error))?,
            debug: lock(&self.debugger).as_ref().map(|debugger| debugger.port.clone()),
            samples: None,
        };
        let machine = Arc::new(Machine::bring_up(spec, &events).map_err(|error| failed(&error))?);
        *lock(&clock) = Some(nanoseconds_of(&machine));
        let mut virtio = opened.virtio;
        let hvc = Hvc::new(console.clone(), HvcInput::new(bell.clone()));
        virtio.push(Box::new(VirtioConsole::new(Box::new(hvc), None)));
        let spec = BoardSpec {
            pace: Pace::Real,
            now: nanoseconds_of(&machine),
            memory,
            vcpus: td.vcpus,
            boot: payload.files,
            virtio,
            transport: self.transport,
        };
        let board = Board::new(console, io::sink(), spec).map_err(|error| input(&error))?;
        let spec = TdSpec {
            config: td,
            image: &payload.image,
            devices: board.devices,
            bell,
            quotes: Some(self.shared.quotes.of((self.issue)(machine.platform().machine()))),
            debugger: lock(&self.debugger)
                .take()
                .map(|waiting| Debugger::new(waiting.listener, waiting.port)),
            secrecy: self.plan.request.secrecy(),
        };
        let kept = self.shared.kept.get_or_init(|| kept);
        let attributes = spec.config.attributes;
        self.confine()?;
        let session = Session::start(&machine, spec, &events).map_err(|error| failed(&error))?;
        let facts = Facts {
            machine: machine.clone(),
            tdr: session.td().tdr().hpa(),
            mrtd: session.td().mrtd().ok(),
            predicted: payload.predicted,
            attributes,
        };
        let _ = self.shared.facts.set(facts);
        self.shared.lock().pauser = Some(session.pauser());
        let ended = session.drive(&*self.shared);
        {
            let mut state = self.shared.lock();
            state.pauser = None;
            state.questions.clear();
        }
        let inspection = kept.has_page().then(|| ended.inspect());
        let dumped = kept.has_dump().then(|| ended.dump().and_then(|dump| kept.dump(&dump, &|| false)));
        let torn_down = ended.teardown();
        self.shared.td.report(&torn_down);
        let ending = last.into_inner().unwrap_or_else(PoisonError::into_inner);
        let trace = machine.platform().trace();
        let until = Instant::now() + LAST_LINES;
        let lost = trace.outlet().map(|outlet| outlet.drain(|| until <= Instant::now()));
        self.shared.tell_full_trace();
        let mut report = report::report(&torn_down, payload.predicted, ending);
        let drawn = inspection.map(|inspection| {
            let inspection = inspection.map_err(io::Error::other)?;
            kept.draw(&inspection, &About::of_ended(&torn_down, attributes))
        });
        report["inspector"] = json!(drawn.map(kept::in_report));
        if let Some(Ok(said)) = &dumped {
            self.shared.tell_dump(said);
        }
        report["dump"] = json!(dumped.map(kept::in_report));
        report["trace"] = json!(lost.map(|lost| report::trace(trace.dropped(), lost)));
        Ok((report, self.shared.metrics.text()))
    }

    /// Where SEAMCALLs go.
    fn trace(&self) -> io::Result<Trace> {
        let Some(path) = &self.plan.trace else { return Ok(Trace::counting()) };
        let file = OpenOptions::new().write(true).truncate(true).open(path)?;
        Ok(Trace::to_file_within(file, self.plan.trace_max))
    }

    /// Nothing is opened from here on. What could be applied is told.
    fn confine(&self) -> Result<(), Refusal> {
        let debugged = if self.plan.gdb.is_some() { Debugged::Yes } else { Debugged::No };
        let seccomp = confine::calls(debugged);
        if let (Err(error), false) = (&seccomp, self.plan.without_seccomp) {
            return Err(Refusal::new(RefusalKind::Failed, error));
        }
        self.voice.tell(json!({
            "event": "confined",
            "seccomp": seccomp.is_ok(),
            "landlock": self.files.landlock,
            "no_new_privs": true,
            "rlimits": true,
        }));
        Ok(())
    }
}
