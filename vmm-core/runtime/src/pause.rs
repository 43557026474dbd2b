//! Pausing a session, and letting it go on.
//!
//! # Protocol
//! [`Session::pauser`](crate::Session::pauser) gives a handle that any thread may use while another one drives the session.
//! [`Pauser::pause`] asks, and the thread that lets devices attend to their host makes every vCPU leave its guest; it returns
//! when all of them are outside and wait, and no device touches the guest's memory. What the host has for the guest meanwhile
//! (typed input, frames, messages) waits in the devices' queues, and comes when the session goes on. A TD that is stopped while
//! it is paused ends as any other.
//!
//! # What becomes of time
//! - In a deterministic run, vCPUs are paused between two turns and virtual time stands still: the run that was paused is, call
//!   for call, the run that never was.
//! - Otherwise the guest's time goes on: the module derives a TD's time-stamp counter from the host's, by an offset that
//!   nobody can change once the TD is initialised. Timers that fell due in the pause expire when the TD goes on, each
//!   once; a guest that watches its own progress (a soft-lockup detector) sees the gap.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tdvisor_monitor::hold::{Hold, NotStill, Phase};

use crate::bell::Bell;

/// Pauses one session and lets it go on, from any thread.
#[derive(Clone, Debug)]
pub struct Pauser {
    hold: Arc<Hold>,
    bell: Bell,
}

impl Pauser {
    pub(crate) fn new(vcpus: u32, bell: Bell) -> Self {
        Self { hold: Arc::new(Hold::new(vcpus)), bell }
    }

    pub(crate) fn hold(&self) -> &Hold {
        &self.hold
    }

    /// Pauses the session, within this time. One that is paused stays so. It has to be driven.
    ///
    /// # Errors
    /// [`NotStill`]: it has ended, somebody resumed it meanwhile, or a vCPU did not leave in time (it may be waiting for a
    /// device, whose own deadline then ends that). In the last case the session runs on.
    pub fn pause(&self, within: Duration) -> Result<(), NotStill> {
        let now = Instant::now();
        let deadline = now.checked_add(within).unwrap_or(now);
        self.hold.request();
        self.bell.ring();
        let still = self.hold.await_still(deadline);
        match still {
            // Who waits for the bell tells of it.
            Ok(()) => self.bell.ring(),
            Err(NotStill::Overdue) => {
                self.resume();
            }
            Err(NotStill::Ended | NotStill::Released) => {}
        }
        still
    }

    /// Lets the session go on. Whether it was paused, or about to be.
    pub fn resume(&self) -> bool {
        let was_held = self.hold.release();
        self.bell.ring();
        was_held
    }

    /// Whether the session runs.
    pub fn phase(&self) -> Phase {
        self.hold.phase()
    }
}
