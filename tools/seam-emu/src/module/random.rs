//! Random numbers of the emulated platform: a counter through a mixer (SplitMix64), so that runs repeat.

use tdvisor_base::sync::{AtomicU64, Ordering};

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Numbers that follow from a seed.
#[derive(Debug)]
pub struct Random(AtomicU64);

impl Random {
    /// The numbers of this seed.
    pub const fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// Turns to numbers of this seed, which depend on those drawn so far; 0 changes nothing.
    pub(crate) fn stir(&self, seed: u64) {
        self.0.fetch_add(mix(seed).wrapping_sub(mix(0)), Ordering::AcqRel);
    }

    pub(crate) fn fork(&self) -> Self {
        Self(AtomicU64::new(self.0.load(Ordering::Acquire)))
    }

    /// The seed of a generator that goes on from here.
    pub fn seed(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// The next number.
    pub fn next(&self) -> u64 {
        mix(self.0.fetch_add(STEP, Ordering::AcqRel))
    }
}

/// The number that follows a state.
pub(crate) const fn mix(state: u64) -> u64 {
    let mixed = state.wrapping_add(STEP);
    let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}
