//! Seeded mutation: whatever the bytes, an answer comes back, in bounded time, without a panic.
//!
//! A fixed number of inputs by default; `TDVISOR_FUZZ_SECONDS` makes each target run that long. A failure prints the
//! seed that replays it: `TDVISOR_FUZZ_SEED` alone runs that one input, with a time it is where the run begins.

use std::ops::Range;
use std::panic::{RefUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use tdvisor_test_data::chance::Chance;
use tdvisor_test_data::replay::number;

/// Inputs of a run that is not told how long to be.
const SHORT_RUN: u64 = 3_000;

/// A number of the kind that breaks arithmetic.
fn edge(chance: &mut Chance) -> u64 {
    match chance.below(7) {
        0 => 0,
        1 => u64::MAX,
        2 => 1 << chance.below(64),
        3 => (1u64 << chance.below(64)).wrapping_sub(1),
        4 => chance.below(0x400) << 12,
        5 => chance.below(0x200),
        _ => chance.next() >> chance.below(64),
    }
}

/// A good input, to be spoilt.
pub struct Seed {
    bytes: Vec<u8>,
    /// The part that has structure: where most changes go.
    hot: Range<usize>,
}

impl Seed {
    /// An input that has structure all over.
    pub fn new(bytes: Vec<u8>) -> Self {
        let hot = 0..bytes.len();
        Self { bytes, hot }
    }

    /// An input with structure in one part.
    pub fn with_structure_in(bytes: Vec<u8>, hot: Range<usize>) -> Self {
        Self { bytes, hot }
    }

    /// Up to four changes: bits, fields, cuts, copies, pieces of texts, extensions.
    fn spoil(&self, chance: &mut Chance) -> Vec<u8> {
        const TEXTS: [&[u8]; 8] = [b"[", b"{", b"]", b"}", b"\"", b"\\u0000", b"-----BEGIN ", b"99999999999"];
        let mut bytes = self.bytes.clone();
        for _ in 0..1 + chance.index(4) {
            let at = self.hot.start + chance.index(self.hot.len());
            match chance.index(16) {
                0 => bytes.truncate(chance.index(bytes.len())),
                1 => bytes.truncate(at),
                2 | 3 => {
                    let from = chance.index(bytes.len());
                    let end = (from + chance.index(64)).min(bytes.len());
                    let piece = bytes[from..end].to_vec();
                    let at = at.min(bytes.len());
                    bytes.splice(at..at, piece);
                }
                4 | 5 => {
                    let piece = chance.pick(&TEXTS).repeat(1 + chance.index(40));
                    let at = at.min(bytes.len());
                    bytes.splice(at..at, piece);
                }
                6 => bytes.extend(std::iter::repeat_n(chance.byte(), chance.index(100))),
                7..10 => {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 1 << chance.index(8);
                    }
                }
                _ => {
                    // Fields are aligned to their size more often than not.
                    let width = [1, 2, 4, 8][chance.index(4)];
                    let at = if chance.index(4) == 0 { at } else { at / width * width };
                    let value = edge(chance).to_le_bytes();
                    for (place, byte) in bytes.iter_mut().skip(at).zip(value).take(width) {
                        *place = byte;
                    }
                }
            }
        }
        bytes
    }
}

/// Runs `target` on spoilt seeds.
pub fn fuzz(name: &str, seeds: &[Seed], target: impl Fn(&mut Vec<u8>) + RefUnwindSafe) {
    let seed = number("TDVISOR_FUZZ_SEED");
    let inputs = if seed.is_some() { 1 } else { SHORT_RUN };
    let first = seed.unwrap_or(1);
    let end = number("TDVISOR_FUZZ_SECONDS").map(|seconds| Instant::now() + Duration::from_secs(seconds));
    for run in 0u64.. {
        let is_over = match end {
            Some(end) => run.is_multiple_of(16) && Instant::now() >= end,
            None => run == inputs,
        };
        if is_over {
            println!("{name}: {run} inputs");
            return;
        }
        let replay = first.wrapping_add(run);
        let mut chance = Chance::new(replay);
        let bytes = seeds[chance.index(seeds.len())].spoil(&mut chance);
        let outcome = catch_unwind(|| target(&mut bytes.clone()));
        assert!(outcome.is_ok(), "{name}: replay with TDVISOR_FUZZ_SEED={replay}");
    }
}
