//! What wakes a processor: a flag that its CPU polls, and a place to sleep.
//!
//! # Protocol
//! [`Bell::ring`] sets the flag, then wakes who sleeps. [`Bell::sleep`] looks at the flag under the lock that ringing
//! takes, and only then sleeps: a ring that came before is not missed, whenever it came. Who wakes up clears the flag
//! ([`Bell::clear`]) *before* it looks for the reason.

use std::sync::PoisonError;
use std::time::Duration;

use tdvisor_base::sync::{AtomicBool, Ordering};

use crate::threads::{Condvar, Mutex};

/// One processor's bell.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: AtomicBool,
    asleep: Mutex<()>,
    woken: Condvar,
}

impl Bell {
    /// The flag, for a CPU that polls it.
    pub(crate) const fn flag(&self) -> &AtomicBool {
        &self.rung
    }

    /// Wakes the processor, or keeps it from falling asleep.
    pub(crate) fn ring(&self) {
        self.rung.store(true, Ordering::SeqCst);
        // Who is about to sleep has either not looked yet, or waits already.
        drop(self.asleep.lock().unwrap_or_else(PoisonError::into_inner));
        self.woken.notify_all();
    }

    /// The processor is about to look for the reason.
    pub(crate) fn clear(&self) {
        self.rung.store(false, Ordering::SeqCst);
    }

    /// Whether somebody has rung since the last [`Self::clear`].
    pub(crate) fn is_rung(&self) -> bool {
        self.rung.load(Ordering::SeqCst)
    }

    /// Sleeps until somebody rings, or for this long.
    pub(crate) fn sleep(&self, at_most: Option<Duration>) {
        let guard = self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_rung() {
            return;
        }
        match at_most {
            Some(time) => drop(self.woken.wait_timeout(guard, time)),
            None => drop(self.woken.wait(guard)),
        }
    }
}
