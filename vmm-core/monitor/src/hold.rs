//! Keeping a whole VM out of its guest for a while.
//!
//! # Protocol
//! A [`Hold`] is what the vCPUs of one VM and those who work for it agree by.
//! - Whoever wants the VM to stand still asks ([`Hold::request`]); then somebody makes every vCPU's run end
//!   ([`tdvisor_vm::Partition::interrupt`]). A vCPU whose run was interrupted *rests* while the hold is asked for.
//! - Whoever works for the VM beside its vCPUs (a thread that lets devices attend to their host) does so by
//!   [`Hold::unless_held`].
//! - The VM stands still once every vCPU rests and nobody works for it. It goes on after [`Hold::release`].
//! - A VM that has ended is held no more ([`Hold::end`]): whoever rests goes on, to find that it has ended.
//!
//! Nothing is missed in between: all of it is one state under one mutex, and everybody who waits looks at that state again.
//! An interruption that comes late finds the hold released, and its vCPU runs on. The mutex is a leaf lock and is held for
//! no work.

use std::time::Instant;

#[cfg(not(shuttle))]
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

#[cfg(shuttle)]
use shuttle::sync::{Condvar, Mutex, MutexGuard};
#[cfg(shuttle)]
use std::sync::PoisonError;

use crate::Listener;

/// Whether a VM runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The VM runs, or is about to.
    Running,
    /// The VM was asked to stand still; some vCPU may be in the guest.
    Stopping,
    /// No vCPU is in the guest, and none enters it; no device touches guest memory.
    Still,
    /// The VM has ended, or is about to.
    Ended,
}

/// Why a VM does not stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotStill {
    /// The VM has ended.
    Ended,
    /// Somebody released the hold meanwhile.
    Released,
    /// Not in time; the hold is still asked for.
    Overdue,
}

impl core::fmt::Display for NotStill {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Ended => "the VM has ended",
            Self::Released => "the VM was let go on meanwhile",
            Self::Overdue => "a vCPU did not leave its guest in time",
        })
    }
}

impl std::error::Error for NotStill {}

/// What keeps one VM from running.
#[derive(Debug)]
pub struct Hold {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    vcpus: u32,
    resting: u32,
    working: u32,
}

impl State {
    const fn is_held(&self) -> bool {
        matches!(self.phase, Phase::Stopping | Phase::Still)
    }

    fn look(&mut self) {
        if self.phase == Phase::Stopping && self.resting == self.vcpus && self.working == 0 {
            self.phase = Phase::Still;
        }
    }
}

impl Hold {
    /// Of a VM with so many vCPUs, which runs.
    pub fn new(vcpus: u32) -> Self {
        let state = State { phase: Phase::Running, vcpus, resting: 0, working: 0 };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Whether the VM runs.
    pub fn phase(&self) -> Phase {
        self.lock().phase
    }

    /// Asks the VM to stand still. One that does, or that has ended, stays as it is.
    pub fn request(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Running {
            state.phase = Phase::Stopping;
            state.look();
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until the VM stands still.
    ///
    /// # Errors
    /// [`NotStill`].
    pub fn await_still(&self, deadline: Instant) -> Result<(), NotStill> {
        let mut state = self.lock();
        loop {
            match state.phase {
                Phase::Still => return Ok(()),
                Phase::Ended => return Err(NotStill::Ended),
                Phase::Running => return Err(NotStill::Released),
                Phase::Stopping => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(NotStill::Overdue);
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Says that the VM stands still although its vCPUs do not rest here: something below keeps them out of their guests.
    /// Whether the hold is still asked for.
    pub fn stands_still(&self) -> bool {
        let mut state = self.lock();
        while state.phase == Phase::Stopping && state.working != 0 {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.phase == Phase::Stopping {
            state.phase = Phase::Still;
        }
        let is_held = state.is_held();
        drop(state);
        self.changed.notify_all();
        is_held
    }

    /// Lets the VM go on. Whether it was held.
    pub fn release(&self) -> bool {
        let mut state = self.lock();
        let was_held = state.is_held();
        if was_held {
            state.phase = Phase::Running;
        }
        drop(state);
        self.changed.notify_all();
        was_held
    }

    /// The VM has ended: nothing is held any more.
    pub fn end(&self) {
        self.lock().phase = Phase::Ended;
        self.changed.notify_all();
    }

    /// Works for the VM, unless it is to stand still.
    pub fn unless_held<R>(&self, work: impl FnOnce() -> R) -> Option<R> {
        let mut state = self.lock();
        if state.is_held() {
            return None;
        }
        state.working += 1;
        drop(state);
        // Given back on every way out: work that panics must not hold the VM for ever.
        let _working = Working(self);
        Some(work())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Working<'h>(&'h Hold);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.working -= 1;
        state.look();
        drop(state);
        self.0.changed.notify_all();
    }
}

impl Hold {
    /// A vCPU's run was interrupted: it rests while its VM is held.
    pub fn rest(&self) {
        let mut state = self.lock();
        state.resting += 1;
        state.look();
        self.changed.notify_all();
        while state.is_held() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.resting -= 1;
    }
}

impl Listener for Hold {
    fn interrupted(&self, _vcpu: u32) {
        self.rest();
    }
}
