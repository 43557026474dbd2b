//! Who watches that a run ends in time.
//!
//! # Protocol
//! A run has one deadline (`--timeout`) and one bell (Ctrl-C, SIGTERM, SIGHUP), from its first moment to its last. When
//! either comes, everybody who waits for the world outside is told: the [`StopFlag`] ends waits for disk and quote
//! service at once, and the outlets are released: they take what they are given for [`GRACE`] more. When the TD ends by
//! itself the same is told to what holds its vCPUs, the trace excepted: a whole trace is worth a wait.
//!
//! After the teardown the outputs have [`GRACE`] altogether; only a run that nobody asked to end waits longer for
//! a reader, as any program does, until its deadline or its bell comes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use machine_emu::outlet::Outlet;
use tdvisor_runtime::Watch;
use tdvisor_runtime::worker::StopFlag;

use crate::streams::GRACE;

/// How long a signal may go unnoticed: its handler may not lock what would close the gap.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Set by Ctrl-C and its like.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Why a run is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The time of the run is up.
    Timeout,
    /// Somebody sent a signal.
    Signal,
}

/// The watch over one run.
#[derive(Clone)]
pub struct Supervisor(Arc<Shared>);

struct Shared {
    deadline: Option<Instant>,
    outlets: Outlets,
    stop: StopFlag,
    reason: Mutex<Option<StopReason>>,
    rung: Condvar,
}

/// Where a run's output goes.
pub struct Outlets {
    /// Console and messages.
    pub streams: Vec<Outlet>,
    /// The trace of calls.
    pub trace: Option<Outlet>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<StopReason>> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reason_now(&self) -> Option<StopReason> {
        if INTERRUPTED.load(Ordering::SeqCst) {
            Some(StopReason::Signal)
        } else if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            Some(StopReason::Timeout)
        } else {
            None
        }
    }

    /// Looks until there is a reason, then tells everybody.
    fn watch(&self) {
        let mut reason = self.lock();
        loop {
            *reason = self.reason_now();
            if reason.is_some() {
                break;
            }
            reason = self.rung.wait_timeout(reason, LOOK_AGAIN).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(reason);
        self.release_streams();
        if let Some(trace) = &self.outlets.trace {
            trace.release(Instant::now() + GRACE);
        }
        self.rung.notify_all();
    }

    fn release_streams(&self) {
        self.stop.set();
        let until = Instant::now() + GRACE;
        self.outlets.streams.iter().for_each(|outlet| outlet.release(until));
    }
}

impl Supervisor {
    /// Begins to watch a run that may take this long and has these outputs.
    pub fn start(timeout: Option<Duration>, outlets: Outlets, stop: StopFlag) -> Self {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let shared =
            Arc::new(Shared { deadline, outlets, stop, reason: Mutex::new(None), rung: Condvar::new() });
        // Without a handler a signal ends the process at once, which is the worst that can happen.
        let _ = ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::SeqCst));
        let watched = shared.clone();
        thread::spawn(move || watched.watch());
        Self(shared)
    }

    /// Why the run has to end, once it has to.
    pub fn reason(&self) -> Option<StopReason> {
        *self.0.lock()
    }

    /// The TD has ended: its vCPUs wait for nobody any more.
    pub fn td_ended(&self) {
        self.0.release_streams();
    }

    /// Gives what says, from now on, whether the outputs have had their time.
    pub fn give_up(&self) -> impl Fn() -> bool {
        let (shared, patience) = (self.0.clone(), Instant::now() + GRACE);
        move || shared.lock().is_some() && patience <= Instant::now()
    }
}

impl Watch for Supervisor {
    fn wants_stop(&self) -> bool {
        self.reason().is_some()
    }

    fn wait(&self) {
        drop(self.0.rung.wait_timeout(self.0.lock(), LOOK_AGAIN));
    }

    fn ring(&self) {
        self.0.rung.notify_all();
    }
}
