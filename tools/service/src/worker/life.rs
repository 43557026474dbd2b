//! The TD of a worker: the thread that builds it, runs it and tears it down, and the orders that it follows meanwhile.

mod emulated;
mod kvm;

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

use machine_emu::Hardware;
use seam_emu::guest::debug::DebugPort;
use serde_json::{Value, json};
use td_image::digest::Digest384;
use tdvisor_monitor::QuoteSource;
use tdvisor_monitor::hold::Phase;
use tdvisor_runtime::backend::BackendKind;
use tdvisor_runtime::board::Transport;
use tdvisor_runtime::debugger::{Endpoint, Listener};
use tdvisor_runtime::inspect::live::Live;
use tdvisor_runtime::kvm::host::Linux;
use tdvisor_runtime::metrics::{Metrics, TdMetrics};
use tdvisor_runtime::pause::Pauser;
use tdvisor_runtime::worker::StopFlag;
use tdvisor_runtime::{Watch, events};

use super::confine::{self, Beside, Bounds, Files};
use super::kept::KeptFiles;
use super::protocol::{Order, Plan, QuotesFrom, Refusal, RefusalKind};
use super::quotes::{Issue, Issuer, Quotes};
use super::relay::{ByService, Relay};
use super::{Voice, WorkerOptions, report};
use crate::config::VmConfig;

use emulated::EmulatedFacts;

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
/// Status of a process that gave up its teardown.
const GAVE_UP: i32 = 1;

/// Address space beside the memory of the TD: code, stacks, tables and the module's own memory.
const BESIDE: u64 = 4 << 30;
const BESIDE_A_VCPU: u64 = 256 << 20;
/// The processor that the host has for itself, beside one for each vCPU.
const PROCESSORS_OF_HOST: usize = 1;
/// Descriptors of a worker, beside one for each vCPU of KVM.
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
    predicted: Digest384,
    /// What only the emulated machine knows.
    emulated: Option<EmulatedFacts>,
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
        loop {
            let Some((order, asker)) = self.lock().questions.pop_front() else { return };
            let seen = match machine {
                Live::Td(td) => self.look(td, &order),
                Live::Kvm(td) => self.look_at_kvm(td, &order),
                // A worker drives a TD.
                Live::Server(_) => Err(Refusal::new(RefusalKind::Failed, "this is no TD")),
            };
            // Who asked may have given up.
            let _ = asker.try_send(seen);
        }
    }
}

impl Shared {
    /// What only the emulated machine knows, once the TD runs there.
    fn emulated(&self) -> Option<&EmulatedFacts> {
        self.facts.get()?.emulated.as_ref()
    }

    /// Tells once that no more of the trace is kept.
    fn tell_full_trace(&self) {
        let is_full = self.emulated().is_some_and(|facts| facts.machine.platform().trace().dropped() != 0);
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
    pub(super) fn begin(
        plan: Plan,
        options: &WorkerOptions,
        voice: &Voice,
        relay: &Arc<Relay>,
    ) -> Result<Self, Refusal> {
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
            file: largest
                .max(plan.console_max)
                .max(plan.trace_max)
                .max(request.dump_max())
                .max(request.snapshot_max()),
            descriptors: DESCRIPTORS
                + match request.backend {
                    BackendKind::Emulated => 0,
                    BackendKind::Kvm => u64::from(config.cpus.boot_vcpus),
                },
        };
        // A socket file cannot be made once the worker is confined.
        let debugger = match &plan.gdb {
            Some(path) => Some(Waiting::listen(path, &config).map_err(|error| input(&error))?),
            None => None,
        };
        // Nor can the device be opened then.
        let kernel = match request.backend {
            BackendKind::Kvm => Some(kvm::open()?),
            BackendKind::Emulated => None,
        };
        let kept = [&plan.trace, &plan.inspector, &plan.dump, &plan.saving].into_iter().flatten();
        let kept = kept.chain([&plan.console]).map(String::as_str);
        let written: Vec<&str> = written.into_iter().chain(kept).collect();
        let read: Vec<&str> = request.read_only_files().into_iter().chain(plan.restored.as_deref()).collect();
        let files = confine::files(bounds, &read, &written).map_err(|error| failed(&error))?;
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
            relay: relay.clone(),
            files,
            debugger: Mutex::new(debugger),
            kernel,
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
                let emulated = facts.emulated.as_ref();
                let rtmrs = emulated.and_then(|td| td.machine.platform().machine().rtmrs(td.tdr));
                Ok(report::measurements(emulated.and_then(|td| td.mrtd), facts.predicted, rtmrs))
            }
            Order::Save => {
                if pauser()?.phase() != Phase::Running {
                    return Err(Refusal::new(RefusalKind::State, "the TD has to run for this"));
                }
                self.shared.emulated().ok_or_else(not_running)?.freeze()?;
                Ok(json!({}))
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
    relay: Arc<Relay>,
    files: Files,
    debugger: Mutex<Option<Waiting>>,
    /// KVM, if it is to run the TD.
    kernel: Option<Linux>,
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
    fn live(mut self) {
        let kernel = self.kernel.take();
        let over = OverAtLast(&self.shared);
        let concluded = match kernel {
            Some(kernel) => self.run_on_kvm(kernel),
            None => self.run(),
        };
        match concluded {
            Ok((report, metrics)) => {
                drop(over);
                self.voice.conclude(report, metrics);
            }
            Err(refusal) => self.shared.lock().has_failed = Some(refusal),
        }
    }

    /// The line of a TD whose vCPUs are about to run.
    fn booted(&self, at: Duration) -> String {
        let request = &self.plan.request;
        events::booted(self.config.cpus.boot_vcpus, request.backend, request.secrecy(), at)
    }

    fn tell(&self, line: &str) -> Value {
        let line: Value = serde_json::from_str(line).unwrap_or_default();
        self.voice.tell(line.clone());
        line
    }

    /// Every vCPU is about to run.
    fn has_begun(&self) {
        self.shared.lock().has_begun = true;
        self.shared.changed.notify_all();
    }

    /// Opens the console's file.
    fn console(&self) -> Result<ToConsole, Refusal> {
        let file = OpenOptions::new().write(true).truncate(true).open(&self.plan.console);
        let file = file.map_err(|error| Refusal::new(RefusalKind::Input, format!("the console: {error}")))?;
        let (left, voice) = (self.plan.console_max, self.voice.clone());
        Ok(ToConsole(Arc::new(Mutex::new(ConsoleFile { file, left, has_told: false, voice }))))
    }

    /// No questions are answered any more.
    fn close(&self) {
        let mut state = self.shared.lock();
        state.pauser = None;
        state.questions.clear();
    }

    /// Where quotes come from, given the module that can be asked whether a report is its own.
    fn quotes(&self, module: Option<Arc<seam_emu::Machine>>) -> Option<Box<dyn QuoteSource>> {
        let issuer: Box<dyn Issuer> = match (self.plan.quotes, module) {
            (QuotesFrom::Worker, Some(module)) => (self.issue)(module),
            (QuotesFrom::Service, _) => Box::new(ByService {
                relay: self.relay.clone(),
                voice: self.voice.clone(),
                stop: self.shared.stop.clone(),
            }),
            (QuotesFrom::Worker, None) | (QuotesFrom::Nobody, _) => return None,
        };
        Some(self.shared.quotes.of(issuer))
    }

    /// Nothing is opened from here on. What could be applied is told.
    fn confine(&self, beside: Beside) -> Result<(), Refusal> {
        let seccomp = confine::calls(beside);
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
