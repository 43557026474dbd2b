//! Seeded mutation: whatever the bytes, an answer comes back, in bounded time, without a panic.
//!
//! A fixed number of inputs by default; `TDVISOR_FUZZ_SECONDS` makes each target run that long. A failure prints the
//! seed that replays it: `TDVISOR_FUZZ_SEED`.

use std::ops::Range;
use std::panic::{RefUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// Inputs of a run that is not told how long to be.
const SHORT_RUN: u64 = 3_000;

/// SplitMix64: the seed says everything.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    fn pick<'a, T: ?Sized>(&mut self, list: &[&'a T]) -> &'a T {
        list[self.below(list.len())]
    }

    /// A number of the kind that breaks arithmetic.
    fn number(&mut self) -> u64 {
        match self.below(7) {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << self.below(64),
            3 => (1u64 << self.below(64)).wrapping_sub(1),
            4 => (self.next() % 0x400) << 12,
            5 => self.next() % 0x200,
            _ => self.next() >> self.below(64),
        }
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
    fn spoil(&self, random: &mut Random) -> Vec<u8> {
        const TEXTS: [&[u8]; 8] = [b"[", b"{", b"]", b"}", b"\"", b"\\u0000", b"-----BEGIN ", b"99999999999"];
        let mut bytes = self.bytes.clone();
        for _ in 0..1 + random.below(4) {
            let at = self.hot.start + random.below(self.hot.len());
            match random.below(16) {
                0 => bytes.truncate(random.below(bytes.len())),
                1 => bytes.truncate(at),
                2 | 3 => {
                    let from = random.below(bytes.len());
                    let end = (from + random.below(64)).min(bytes.len());
                    let piece = bytes[from..end].to_vec();
                    let at = at.min(bytes.len());
                    bytes.splice(at..at, piece);
                }
                4 | 5 => {
                    let piece = random.pick(&TEXTS).repeat(1 + random.below(40));
                    let at = at.min(bytes.len());
                    bytes.splice(at..at, piece);
                }
                6 => bytes.extend(std::iter::repeat_n(random.next() as u8, random.below(100))),
                7..10 => {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 1 << random.below(8);
                    }
                }
                _ => {
                    // Fields are aligned to their size more often than not.
                    let width = [1, 2, 4, 8][random.below(4)];
                    let at = if random.below(4) == 0 { at } else { at / width * width };
                    let value = random.number().to_le_bytes();
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
    let number = |variable: &str| std::env::var(variable).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("TDVISOR_FUZZ_SEED").unwrap_or(1);
    let end = number("TDVISOR_FUZZ_SECONDS").map(|seconds| Instant::now() + Duration::from_secs(seconds));
    for run in 0u64.. {
        let is_over = match end {
            Some(end) => run.is_multiple_of(16) && Instant::now() >= end,
            None => run == SHORT_RUN,
        };
        if is_over {
            println!("{name}: {run} inputs");
            return;
        }
        let replay = first.wrapping_add(run);
        let mut random = Random(replay);
        let bytes = seeds[random.below(seeds.len())].spoil(&mut random);
        let outcome = catch_unwind(|| target(&mut bytes.clone()));
        assert!(outcome.is_ok(), "{name}: replay with TDVISOR_FUZZ_SEED={replay}");
    }
}
