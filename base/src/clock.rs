//! Time as the machine shows it: a time-stamp counter and its frequency.
//!
//! Nothing in the library crates reads the host's clock. Whoever runs the machine passes a [`Clock`]:
//! the real counter in a threaded run, a [`VirtualClock`] where a run must be repeatable.

use core::time::Duration;

use crate::sync::{AtomicU64, Ordering};

/// A value of a machine's time-stamp counter, or a distance between two. Nanoseconds are a [`Duration`], which only a
/// frequency makes of ticks. A guest's own counter is another one: its values are the guest's, and plain registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticks(u64);

impl Ticks {
    /// A time of `ticks` ticks.
    pub const fn new(ticks: u64) -> Self {
        Self(ticks)
    }

    /// The number of ticks.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Later by so many ticks, at most at the end of time.
    pub const fn saturating_add(self, ticks: Self) -> Self {
        Self(self.0.saturating_add(ticks.0))
    }

    /// From `earlier` to here; nothing where that is in the future.
    pub const fn saturating_since(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }

    /// How long so many ticks last at a frequency, rounded down, at most 2^64 - 1 nanoseconds. A frequency of zero is
    /// taken as one tick per second.
    pub fn duration(self, frequency_hz: u64) -> Duration {
        const NANOSECONDS: u128 = 1_000_000_000;
        let nanoseconds = u128::from(self.0) * NANOSECONDS / u128::from(frequency_hz.max(1));
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
}

/// A monotonic counter with a known frequency.
pub trait Clock: Send + Sync {
    /// The counter now.
    fn ticks(&self) -> Ticks;

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

    /// Moves the clock forward and returns the new time.
    pub fn advance(&self, by: Ticks) -> Ticks {
        Ticks(self.ticks.fetch_add(by.0, Ordering::Relaxed).wrapping_add(by.0))
    }

    /// Moves the clock to `time` if that lies ahead; time never goes back.
    pub fn advance_to(&self, time: Ticks) {
        self.ticks.fetch_max(time.0, Ordering::Relaxed);
    }
}

impl Clock for VirtualClock {
    fn ticks(&self) -> Ticks {
        Ticks(self.ticks.load(Ordering::Relaxed))
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
        clock.advance(Ticks::new(10));
        clock.advance_to(Ticks::new(5));
        assert_eq!(clock.ticks(), Ticks::new(10));
        clock.advance_to(Ticks::new(50));
        assert_eq!(clock.ticks(), Ticks::new(50));
    }

    #[test]
    fn ticks_become_nanoseconds_by_a_frequency_without_overflow() {
        assert_eq!(Ticks::new(3).duration(2_000_000_000), Duration::from_nanos(1));
        assert_eq!(Ticks::new(7).duration(0), Duration::from_secs(7));
        assert_eq!(Ticks::new(u64::MAX).duration(1), Duration::from_nanos(u64::MAX));
        assert_eq!(Ticks::new(5).saturating_since(Ticks::new(9)), Ticks::default());
    }
}
