//! Where guests spend their instructions: the place of one in so many.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};

use x86_arch::CpuState;

/// Places that are told apart; samples elsewhere are counted as lost.
pub const MOST_PLACES: usize = 1 << 20;

/// A place in a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The logical processor.
    pub lp: usize,
    /// The privilege level.
    pub cpl: u8,
    /// RIP.
    pub rip: u64,
}

/// Samples of a machine's guests. A sample is the guest's own: whoever takes them looks into it.
#[derive(Debug)]
pub struct Samples {
    every: NonZeroU64,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    places: BTreeMap<Place, u64>,
    lost: u64,
}

impl Samples {
    /// One in so many instructions of each processor.
    #[must_use]
    pub fn new(every: NonZeroU64) -> Arc<Self> {
        Arc::new(Self { every, counts: Mutex::default() })
    }

    fn note(&self, place: Place) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = counts.places.len() >= MOST_PLACES;
        match counts.places.get_mut(&place) {
            Some(count) => *count += 1,
            None if is_full => counts.lost += 1,
            None => drop(counts.places.insert(place, 1)),
        }
    }

    /// How often each place was met, in the order of processors and addresses.
    pub fn all(&self) -> Vec<(Place, u64)> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.places.iter().map(|(place, count)| (*place, *count)).collect()
    }

    /// Samples at more places than are told apart.
    pub fn lost(&self) -> u64 {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).lost
    }
}

/// A processor's part in it.
#[derive(Debug)]
pub(super) struct Sampler {
    samples: Arc<Samples>,
    /// Instructions to the next sample.
    left: u64,
}

impl Sampler {
    pub(super) fn new(samples: Arc<Samples>) -> Self {
        Self { left: samples.every.get(), samples }
    }

    /// Instructions after which the next sample is due.
    pub(super) const fn left(&self) -> u64 {
        self.left
    }

    /// Counts instructions that have passed, and takes a sample where one is due.
    pub(super) fn passed(&mut self, instructions: u64, lp: usize, state: &CpuState) {
        self.left = self.left.saturating_sub(instructions);
        if self.left == 0 {
            self.left = self.samples.every.get();
            self.samples.note(Place { lp, cpl: state.cpl(), rip: state.rip() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_so_many_instructions_is_a_sample_of_its_processor() {
        let samples = Samples::new(NonZeroU64::new(10).unwrap());
        let mut sampler = Sampler::new(samples.clone());
        let mut state = CpuState::default();
        for (rip, instructions) in [(0x1000, 9), (0x2000, 1), (0x3000, 10), (0x2000, 25), (0x4000, 9)] {
            state.set_rip(rip);
            sampler.passed(instructions, 3, &state);
        }
        let cpl = state.cpl();
        let place = |rip| Place { lp: 3, cpl, rip };
        assert_eq!(samples.all(), [(place(0x2000), 2), (place(0x3000), 1)]);
        assert_eq!((samples.lost(), sampler.left()), (0, 1));
    }
}
