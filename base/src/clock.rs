//! Time as the machine shows it: a time-stamp counter and its frequency.
//!
//! Nothing in the library crates reads the host's clock. Whoever runs the machine passes a [`Clock`]:
//! the real counter in a threaded run, a [`VirtualClock`] where a run must be repeatable.

use crate::sync::{AtomicU64, Ordering};

/// A monotonic counter with a known frequency.
pub trait Clock: Send + Sync {
    /// The counter now, in ticks.
    fn ticks(&self) -> u64;

    /// Ticks per second; never zero.
    fn frequency_hz(&self) -> u64;
}

/// A clock that only moves when told to.
#[derive(Debug)]
pub struct VirtualClock {
    ticks: AtomicU64,
    frequency_hz: u64,
}

impl VirtualClock {
    /// A clock at tick zero. A frequency of zero is taken as one tick per second.
    pub fn new(frequency_hz: u64) -> Self {
        Self { ticks: AtomicU64::new(0), frequency_hz: frequency_hz.max(1) }
    }

    /// Moves the clock forward and returns the new time, in ticks.
    pub fn advance(&self, ticks: u64) -> u64 {
        self.ticks.fetch_add(ticks, Ordering::Relaxed).wrapping_add(ticks)
    }

    /// Moves the clock to `ticks` if that lies ahead; time never goes back.
    pub fn advance_to(&self, ticks: u64) {
        self.ticks.fetch_max(ticks, Ordering::Relaxed);
    }
}

impl Clock for VirtualClock {
    fn ticks(&self) -> u64 {
        self.ticks.load(Ordering::Relaxed)
    }

    fn frequency_hz(&self) -> u64 {
        self.frequency_hz
    }
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn a_virtual_clock_never_goes_back() {
        let clock = VirtualClock::new(1_000_000_000);
        clock.advance(10);
        clock.advance_to(5);
        assert_eq!(clock.ticks(), 10);
        clock.advance_to(50);
        assert_eq!(clock.ticks(), 50);
    }
}
