//! Random numbers from a seed, and the line that says how to replay a failure.

use std::env;

/// SplitMix64.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// A number from the environment.
pub fn from_environment(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// Says, when the test fails, how to run the same schedule again.
pub struct Replay {
    pub seed: u64,
    pub step: u64,
}

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (seed, steps) = (self.seed, self.step + 1);
            eprintln!(
                "replay with TDVISOR_MODEL_SEED={seed} TDVISOR_MODEL_STEPS={steps}: the last step fails"
            );
        }
    }
}
