//! Why a process ends, and who waits for it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::life::{End, StartError};

/// Why a process has to end.
#[derive(Debug)]
pub enum ExitReason {
    /// A client asked for it.
    Asked,
    /// A signal came.
    Signal,
    /// The guest ended by itself.
    GuestEnded(Box<End>),
    /// The guest asked for a reboot, and the TD could not be built anew.
    RebootFailed(StartError),
}

/// The end of a process: the first reason counts.
#[derive(Debug, Default)]
pub struct Exit {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_set: bool,
    reason: Option<ExitReason>,
}

impl Exit {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process has to end.
    pub fn ask(&self, reason: ExitReason) {
        let mut state = self.lock();
        if !state.is_set {
            *state = State { is_set: true, reason: Some(reason) };
            drop(state);
            self.changed.notify_all();
        }
    }

    /// Waits until it has to, and takes the reason: one thread does so, once.
    pub fn wait(&self) -> ExitReason {
        let mut state = self.lock();
        loop {
            if let Some(reason) = state.reason.take() {
                return reason;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether the process has to end.
    pub fn is_set(&self) -> bool {
        self.lock().is_set
    }
}
