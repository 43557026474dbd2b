//! Many TDs, each in a process of its own.
//!
//! # Protocol
//! ```text
//! create    what is asked for is checked, counted and kept in the state directory; nothing runs
//! boot      a worker is started, builds and measures the TD, confines itself, and runs it
//! save      the worker writes the TD down where its present turn ends, and ends it; what was saved before is replaced when it is whole
//! restore   as boot, but the TD goes on from where it was saved last; one that cannot leaves all as it was
//! stop      the worker ends the TD and gives everything back; what it says at last is kept
//! delete    as stop, and nothing is left of the TD
//! ```
//! A TD whose guest ends by itself keeps its report; one whose worker dies is named so, with what the kernel said of the
//! worker's end, and takes nobody else with it. Both can be booted again.
//!
//! # Limits
//! [`FleetLimits`], of a TD and of all. A TD has its memory, vCPUs and key id while its worker lives, and its part of the state
//! directory from its creation on. What a limit of one TD forbids is refused for good, what a sum forbids for now.

mod limits;
mod metrics;
mod quotes;
mod store;
mod td;
mod worker;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tdvisor_runtime::backend::BackendKind;
use tdvisor_runtime::kvm::NotOffered;

use crate::config::ConfigError;
use crate::worker::TdRequest;
use crate::worker::protocol::{Order, Refusal};

pub use limits::{FleetLimits, Over};
pub use quotes::QuoteService;
pub use td::{EventTail, Phase};

use limits::{Kept, Room};
use metrics::Totals;
use store::{Record, Store};
use td::Td;
use worker::NoAnswer;

/// What a service is made with.
#[derive(Clone, Debug)]
pub struct FleetOptions {
    /// The program of a worker, and its arguments. Its standard input is one end of a socket.
    pub worker: (PathBuf, Vec<OsString>),
    /// Where what survives the service is kept.
    pub state: PathBuf,
    /// What TDs may have.
    pub limits: FleetLimits,
    /// Whether TDs run where the kernel has no seccomp.
    pub without_seccomp: bool,
    /// Where quotes come from, if not from the workers of TDs on the emulated machine.
    pub quotes: Option<QuoteService>,
    /// Whether this machine's KVM runs TDs: [`offers_tds`](tdvisor_runtime::kvm::offers_tds), or what a test says instead.
    pub kvm: fn() -> Result<(), NotOffered>,
}

impl FleetOptions {
    /// Checks that the machine has what runs the TD.
    fn check(&self, backend: BackendKind) -> Result<(), FleetError> {
        let checked = match backend {
            BackendKind::Emulated => Ok(()),
            BackendKind::Kvm => (self.kvm)(),
        };
        checked.map_err(|why| {
            FleetError::Config(ConfigError::Invalid { key: "backend".to_owned(), problem: why.to_string() })
        })
    }
}

/// Why the service does not do what it is asked.
#[derive(Debug)]
pub enum FleetError {
    /// There is no TD of this name.
    NoTd(String),
    /// There is one already.
    Exists(String),
    /// What is asked for cannot be had.
    Config(ConfigError),
    /// A limit.
    Over(Over),
    /// The TD is in another phase.
    Phase(Phase, &'static str),
    /// The worker does not do it.
    Refused(Refusal),
    /// The worker died meanwhile: what became of the TD is known by now.
    WorkerGone,
    /// The request took too long, or others were busy with the TD.
    Overdue,
    /// No worker can be started.
    NoWorker(io::Error),
    /// The state directory.
    Store(io::Error),
    /// The TD was not asked for with this.
    NotAskedFor(&'static str),
    /// Only the emulated machine has this of a TD, and KVM runs it.
    OnlyEmulated(&'static str),
    /// The TD has not been dumped since it was booted last.
    NotDumped,
    /// The TD has not been saved.
    NotSaved,
    /// The TD ended, and no snapshot was written.
    SaveFailed(String),
    /// The service ends.
    Ending,
}

impl fmt::Display for FleetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTd(name) => write!(f, "there is no TD '{name}'"),
            Self::Exists(name) => write!(f, "there is a TD '{name}' already"),
            Self::Config(_) => f.write_str("the TD cannot be had"),
            Self::Over(over) => over.fmt(f),
            Self::Phase(phase, what) => write!(f, "a TD that is {} {what}", phase.name()),
            Self::Refused(refusal) => f.write_str(&refusal.text),
            Self::WorkerGone => f.write_str("the TD's worker ended before it answered"),
            Self::Overdue => f.write_str("the TD was busy for too long"),
            Self::NoWorker(error) => write!(f, "no worker can be started: {error}"),
            Self::Store(error) => write!(f, "the state directory: {error}"),
            Self::NotAskedFor(what) => write!(f, "the TD was not asked for with {what}"),
            Self::OnlyEmulated(what) => {
                write!(f, "KVM runs the TD: {what} can be had of a TD on the emulated machine only")
            }
            Self::NotDumped => {
                f.write_str("the TD has not been dumped: it has to be paused and told to, or to end")
            }
            Self::NotSaved => f.write_str("the TD has not been saved"),
            Self::SaveFailed(why) => write!(f, "no snapshot was written: {why}"),
            Self::Ending => f.write_str("the service ends"),
        }
    }
}

impl std::error::Error for FleetError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Config(error) => Some(error),
            _ => None,
        }
    }
}

impl From<NoAnswer> for FleetError {
    fn from(problem: NoAnswer) -> Self {
        match problem {
            NoAnswer::Refused(refusal) => Self::Refused(refusal),
            NoAnswer::Gone => Self::WorkerGone,
            NoAnswer::Overdue => Self::Overdue,
        }
    }
}

#[derive(Default)]
struct Tds {
    all: BTreeMap<String, Arc<Td>>,
    next: u64,
    ending: bool,
}

/// What TDs and their workers' threads share.
struct Shared {
    options: FleetOptions,
    store: Store,
    room: Room,
    totals: Totals,
}

/// The TDs of a service.
pub struct Fleet {
    shared: Arc<Shared>,
    tds: Mutex<Tds>,
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

/// What is kept of a TD beside its console.
const fn kept(request: &TdRequest) -> Kept {
    Kept {
        trace: request.trace,
        inspector: request.inspector,
        dump: request.dump_max(),
        snapshots: request.snapshot_max().saturating_mul(2),
    }
}

/// How long the numbers of a TD may take to come, when those of all are asked for.
const NUMBERS: Duration = Duration::from_secs(2);

impl Fleet {
    /// Takes the state directory, and what an earlier service left there: a TD that was being created is gone, one that ran
    /// has died with its service.
    ///
    /// # Errors
    /// The directory cannot be used, or another service uses it.
    pub fn open(options: FleetOptions) -> io::Result<Self> {
        let (store, records) = Store::open(&options.state)?;
        let room = Room::new(options.limits);
        let shared = Arc::new(Shared { store, room, totals: Totals::default(), options });
        let mut tds = Tds::default();
        for record in records {
            // What is there was let in once.
            shared.room.keep_files(kept(&record.request));
            let td = Td::new(record, shared.clone());
            td.buried()?;
            tds.all.insert(td.name().to_owned(), Arc::new(td));
        }
        Ok(Self { shared, tds: Mutex::new(tds) })
    }

    fn lock(&self) -> MutexGuard<'_, Tds> {
        self.tds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn td(&self, name: &str) -> Result<Arc<Td>, FleetError> {
        self.lock().all.get(name).cloned().ok_or_else(|| FleetError::NoTd(name.to_owned()))
    }

    fn all(&self) -> Vec<Arc<Td>> {
        self.lock().all.values().cloned().collect()
    }

    /// What the service is and has.
    pub fn about(&self) -> Value {
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "limits": self.shared.room.limits(),
            "used": self.shared.room.used(),
            "tds": self.lock().all.len(),
        })
    }

    /// Keeps what a TD is asked for with, and describes it.
    ///
    /// # Errors
    /// [`FleetError`]; nothing is left of it.
    pub fn create(&self, mut request: TdRequest) -> Result<Value, FleetError> {
        let config = request.check().map_err(FleetError::Config)?;
        self.shared.options.check(request.backend)?;
        self.shared.room.check(config.memory.size, config.cpus.boot_vcpus).map_err(FleetError::Over)?;
        let mut tds = self.lock();
        if tds.ending {
            return Err(FleetError::Ending);
        }
        let name = match request.name.take() {
            Some(name) if tds.all.contains_key(&name) => return Err(FleetError::Exists(name)),
            Some(name) => name,
            None => loop {
                tds.next += 1;
                let name = format!("td-{}", tds.next);
                if !tds.all.contains_key(&name) {
                    break name;
                }
            },
        };
        let kept = kept(&request);
        self.shared.room.take_files(kept).map_err(FleetError::Over)?;
        let record = Record::new(name.clone(), request);
        if let Err(error) = self.shared.store.create(&record) {
            self.shared.room.give_files(kept);
            return Err(FleetError::Store(error));
        }
        let td = Arc::new(Td::new(record, self.shared.clone()));
        tds.all.insert(name, td.clone());
        Ok(td.describe())
    }

    /// Descriptions of all TDs.
    pub fn list(&self) -> Value {
        json!({"tds": self.all().iter().map(|td| td.describe()).collect::<Vec<_>>()})
    }

    /// The description of a TD.
    ///
    /// # Errors
    /// There is none.
    pub fn describe(&self, name: &str) -> Result<Value, FleetError> {
        Ok(self.td(name)?.describe())
    }

    /// Runs a TD.
    ///
    /// # Errors
    /// [`FleetError`]; it does not run then.
    pub fn boot(&self, name: &str, deadline: Instant) -> Result<(), FleetError> {
        if self.lock().ending {
            return Err(FleetError::Ending);
        }
        self.td(name)?.boot(deadline)
    }

    /// Saves a TD that runs, which ends it; gives the bytes of the snapshot.
    ///
    /// # Errors
    /// [`FleetError`]; the last snapshot is as it was.
    pub fn save(&self, name: &str, deadline: Instant) -> Result<Value, FleetError> {
        self.td(name)?.save(deadline)
    }

    /// Runs a TD on from where it was saved last.
    ///
    /// # Errors
    /// [`FleetError`]; it does not run then.
    pub fn restore(&self, name: &str, deadline: Instant) -> Result<(), FleetError> {
        if self.lock().ending {
            return Err(FleetError::Ending);
        }
        self.td(name)?.restore(deadline)
    }

    /// Makes the vCPUs of a TD stand still.
    ///
    /// # Errors
    /// [`FleetError`].
    pub fn pause(&self, name: &str, deadline: Instant) -> Result<(), FleetError> {
        self.td(name)?.change(Phase::Running, Order::Pause, Phase::Paused, deadline)
    }

    /// Lets them run on.
    ///
    /// # Errors
    /// [`FleetError`].
    pub fn resume(&self, name: &str, deadline: Instant) -> Result<(), FleetError> {
        self.td(name)?.change(Phase::Paused, Order::Resume, Phase::Running, deadline)
    }

    /// Ends a TD; it can be booted again.
    ///
    /// # Errors
    /// [`FleetError`].
    pub fn stop(&self, name: &str, deadline: Instant) -> Result<(), FleetError> {
        self.td(name)?.stop(deadline)
    }

    /// Ends a TD and forgets it.
    ///
    /// # Errors
    /// [`FleetError`]; it is still there then.
    pub fn delete(&self, name: &str, deadline: Instant) -> Result<(), FleetError> {
        let td = self.td(name)?;
        td.delete(deadline)?;
        let mut tds = self.lock();
        // Its name may be another's by now.
        if tds.all.get(name).is_some_and(|other| Arc::ptr_eq(other, &td)) {
            tds.all.remove(name);
            self.shared.room.give_files(td.kept());
        }
        Ok(())
    }

    /// What the worker of a TD says to a question, or what is left of the answer when the TD has ended.
    ///
    /// # Errors
    /// [`FleetError`].
    pub fn ask(&self, name: &str, order: Order, deadline: Instant) -> Result<Value, FleetError> {
        self.td(name)?.ask(order, deadline)
    }

    /// What the guest of a TD said on its console.
    ///
    /// # Errors
    /// [`FleetError`].
    pub fn console(&self, name: &str) -> Result<Vec<u8>, FleetError> {
        let td = self.td(name)?;
        self.shared.store.console(td.name(), self.shared.options.limits.td_disk).map_err(FleetError::Store)
    }

    /// Whole lines of a TD's SEAMCALLs, from this byte on and at most so many bytes.
    ///
    /// # Errors
    /// [`FleetError`].
    pub fn trace(&self, name: &str, from: u64, most: u64) -> Result<Vec<u8>, FleetError> {
        let td = self.td(name)?;
        if !td.kept().trace {
            return Err(FleetError::NotAskedFor("a trace"));
        }
        self.shared.store.trace(td.name(), from, most).map_err(FleetError::Store)
    }

    /// The inspector's page of a TD that is paused, as it stands, or that has ended.
    ///
    /// # Errors
    /// [`FleetError`].
    pub fn inspector(&self, name: &str, deadline: Instant) -> Result<Vec<u8>, FleetError> {
        let td = self.td(name)?;
        let bytes = td.draw_page(deadline)?;
        self.shared.store.page(td.name(), bytes).map_err(FleetError::Store)
    }

    /// Writes what a TD holds that is paused, and says how much that is.
    ///
    /// # Errors
    /// [`FleetError`].
    pub fn dump(&self, name: &str, deadline: Instant) -> Result<Value, FleetError> {
        self.td(name)?.dump(deadline)
    }

    /// What a TD held when it was dumped last, from this byte on and at most so many bytes.
    ///
    /// # Errors
    /// [`FleetError`].
    pub fn dumped(&self, name: &str, from: u64, most: u64) -> Result<Vec<u8>, FleetError> {
        let td = self.td(name)?;
        let bytes = td.dumped()?;
        let most = most.min(bytes.saturating_sub(from));
        self.shared.store.dump(td.name(), from, most).map_err(FleetError::Store)
    }

    /// The events of a TD, from the one behind this number on.
    ///
    /// # Errors
    /// There is no such TD.
    pub fn events(&self, name: &str, after: u64) -> Result<EventTail, FleetError> {
        Ok(EventTail::new(self.td(name)?, after))
    }

    /// The numbers of all TDs, those that are gone too, and others (`more`), in the OpenMetrics form.
    pub fn metrics(&self, more: &str, deadline: Instant) -> String {
        let deadline = deadline.min(Instant::now() + NUMBERS);
        let tds = self.all();
        let mut sum = self.shared.totals.gone();
        sum.add(more);
        let mut phases = BTreeMap::new();
        for td in &tds {
            *phases.entry(td.phase().name()).or_insert(0u64) += 1;
            if let Some(text) = td.metrics(deadline) {
                sum.add(&text);
            }
        }
        sum.text(&phases)
    }

    /// Ends every TD, and takes no more.
    pub fn end(&self, deadline: Instant) {
        self.lock().ending = true;
        let tds = self.all();
        for td in &tds {
            td.begin_to_stop();
        }
        for td in &tds {
            // One that does not end is killed at the deadline; both are kept in its record.
            let _ = td.stop(deadline);
        }
    }
}
