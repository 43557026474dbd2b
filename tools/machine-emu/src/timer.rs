//! Timers of the emulated processors: one thread that sleeps until the next deadline.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use td_host::platform::LpId;

use crate::lp::Processors;

/// The timers of all processors. The thread starts with the first timer that is set.
pub struct Timers {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    processors: Arc<Processors>,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// By processor.
    deadlines: Box<[Option<Instant>]>,
    ended: bool,
}

impl Timers {
    /// No timer set.
    pub fn new(processors: Arc<Processors>) -> Self {
        let deadlines = vec![None; processors.count()].into_boxed_slice();
        let state = Mutex::new(State { deadlines, ended: false });
        Self {
            shared: Arc::new(Shared { processors, state, changed: Condvar::new() }),
            thread: Mutex::new(None),
        }
    }

    /// Sets the timer of a processor, or cancels it.
    pub fn set(&self, lp: LpId, after: Option<Duration>) {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(deadline) = state.deadlines.get_mut(lp.0 as usize) else { return };
        *deadline = after.and_then(|after| Instant::now().checked_add(after));
        drop(state);
        self.shared.changed.notify_one();
        if after.is_some() {
            let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
            thread.get_or_insert_with(|| {
                let shared = self.shared.clone();
                std::thread::spawn(move || shared.serve())
            });
        }
    }
}

impl Drop for Timers {
    fn drop(&mut self) {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
        self.shared.changed.notify_one();
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A timer thread that panicked has nothing left to clean up.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Raises timer interrupts as they fall due, until the timers end.
    fn serve(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !state.ended {
            let now = Instant::now();
            let mut due = Vec::new();
            for (index, deadline) in (0u32..).zip(state.deadlines.iter_mut()) {
                if deadline.is_some_and(|deadline| deadline <= now) {
                    *deadline = None;
                    due.push(LpId(index));
                }
            }
            if !due.is_empty() {
                drop(state);
                for lp in due {
                    self.processors.timer_expired(lp);
                }
                state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state = match state.deadlines.iter().flatten().min() {
                Some(next) => {
                    let wait = next.saturating_duration_since(now);
                    self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}
