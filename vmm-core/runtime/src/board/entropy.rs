//! Random bytes for a guest: the operating system's, or in a run that must repeat itself those of a seed.

use std::fs::File;
use std::io::{self, Read};

use machine_emu::Pace;
use tdvisor_devices::virtio::rng::{Entropy, NoEntropy};

/// Where the operating system gives random bytes without waiting.
const SOURCE: &str = "/dev/urandom";

/// Random bytes of the operating system.
struct OsEntropy(File);

impl Entropy for OsEntropy {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), NoEntropy> {
        self.0.read_exact(out).map_err(|_| NoEntropy)
    }
}

/// Bytes that follow from a seed: SplitMix64. Nobody may take them for secret, and a run that asks for them says so.
struct SeededEntropy(u64);

impl SeededEntropy {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
}

impl Entropy for SeededEntropy {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), NoEntropy> {
        for piece in out.chunks_mut(size_of::<u64>()) {
            for (to, from) in piece.iter_mut().zip(self.next().to_le_bytes()) {
                *to = from;
            }
        }
        Ok(())
    }
}

/// The random bytes of a run at this pace.
///
/// # Errors
/// The operating system has none.
pub fn entropy(pace: Pace) -> io::Result<Box<dyn Entropy>> {
    Ok(match pace {
        Pace::Real => Box::new(OsEntropy(File::open(SOURCE)?)),
        Pace::Deterministic { seed } => Box::new(SeededEntropy(seed)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(pace: Pace) -> [u8; 77] {
        let mut out = [0; 77];
        entropy(pace).unwrap().fill(&mut out).unwrap();
        out
    }

    #[test]
    fn a_seed_repeats_its_bytes_and_nothing_else_does() {
        let seeded = |seed| bytes(Pace::Deterministic { seed });
        assert_eq!(seeded(7), seeded(7));
        assert_ne!(seeded(7), seeded(8));
        assert_ne!(bytes(Pace::Real), bytes(Pace::Real));
        assert_ne!(bytes(Pace::Real), seeded(7));
    }
}
