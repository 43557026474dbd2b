//! Which inputs are worth keeping, and how small they can be.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

use tdvisor_test_data::chance::Chance;

use super::input::{Input, Op};
use super::play::play;

/// Host memory that a run may take: the chunks that its operations touch, and what it starts with.
const MEMORY_AT_START: u64 = 256 << 20;
const MEMORY_PER_OP: u64 = 8 << 20;

/// Runs an input; fails the test where something went wrong.
pub fn evaluate(input: &Input) -> BTreeSet<u64> {
    // Built now, so that what it takes is not this input's.
    let _ = super::world::world(input.world);
    let mut outcome = None;
    let memory = allocation_counter::measure(|| {
        outcome = Some(std::panic::catch_unwind(AssertUnwindSafe(|| play(input))));
    });
    let Some(Ok(outcome)) = outcome else { panic!("a panic; replay with {}", written(input)) };
    if let Some(first) = outcome.findings.first() {
        println!("{:#?}", outcome.findings);
        panic!("{first} ({} findings); replay with {}", outcome.findings.len(), written(input));
    }
    let bound = MEMORY_AT_START + MEMORY_PER_OP * input.ops.len() as u64;
    assert!(memory.bytes_max < bound, "{} bytes at once; replay with {}", memory.bytes_max, written(input));
    outcome.features
}

/// Writes an input that failed; gives the setting that replays it.
fn written(input: &Input) -> String {
    let path = std::env::temp_dir().join(format!("seam-emu-{:016x}.bin", name_of(input)));
    match std::fs::write(&path, input.encode()) {
        Ok(()) => format!("TDVISOR_FUZZ_INPUT={}", path.display()),
        Err(error) => format!("nothing: {error}; {:?}", input.encode()),
    }
}

/// FNV-1a of the contents.
fn name_of(input: &Input) -> u64 {
    input
        .encode()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus"))
}

/// The inputs of the repository, in the order of their names.
pub fn stored() -> Vec<Input> {
    let Ok(files) = std::fs::read_dir(folder()) else { return Vec::new() };
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| Input::decode(&std::fs::read(path).unwrap())).collect()
}

struct Kept {
    input: Input,
    features: BTreeSet<u64>,
}

/// Inputs that each reached something that no earlier one had.
#[derive(Default)]
pub struct Corpus {
    kept: Vec<Kept>,
    reached: BTreeSet<u64>,
}

impl Corpus {
    pub fn num_features(&self) -> usize {
        self.reached.len()
    }

    /// Runs an input and keeps it if it reaches something new.
    pub fn consider(&mut self, input: Input) {
        let features = evaluate(&input);
        let before = self.reached.len();
        self.reached.extend(&features);
        if self.reached.len() > before {
            self.kept.push(Kept { input, features });
        }
    }

    /// An input to try next. Later ones are changed more often: they are where the news came from.
    pub fn next(&self, chance: &mut Chance) -> Input {
        if self.kept.is_empty() || chance.one_in(50) {
            return Input::random(chance);
        }
        let pick = |chance: &mut Chance| {
            let recent = chance.index(self.kept.len().min(40));
            let any = chance.index(self.kept.len());
            &self.kept[if chance.one_in(2) { self.kept.len() - 1 - recent } else { any }].input
        };
        let (first, other) = (pick(chance), pick(chance));
        first.mutate(other, chance)
    }

    /// Writes a small set of small inputs that together reach as much.
    pub fn store_minimised(mut self, folder: &Path) {
        std::fs::create_dir_all(folder).unwrap();
        let mut reached = BTreeSet::new();
        self.kept.sort_by_key(|kept| kept.input.ops.len());
        while let Some(best) = self.most_valuable(&reached) {
            let kept = self.kept.swap_remove(best);
            let wanted: BTreeSet<u64> = kept.features.difference(&reached).copied().collect();
            let small = shrink(kept.input, &wanted);
            reached.extend(evaluate(&small));
            std::fs::write(folder.join(format!("{:016x}", name_of(&small))), small.encode()).unwrap();
        }
    }

    /// The input with the most news for its length.
    fn most_valuable(&self, reached: &BTreeSet<u64>) -> Option<usize> {
        let value = |kept: &Kept| {
            let news = kept.features.difference(reached).count() as u64;
            news * 1000 / (kept.input.ops.len() as u64 + 8)
        };
        let best = self.kept.iter().enumerate().max_by_key(|(_, kept)| value(kept))?;
        (best.1.features.difference(reached).next().is_some()).then_some(best.0)
    }
}

/// Operations that are left out at once, at least: fewer would take too many runs.
const SMALLEST_PIECE: usize = 6;

/// Leaves operations out as long as everything wanted is still reached.
fn shrink(mut input: Input, wanted: &BTreeSet<u64>) -> Input {
    let mut piece = input.ops.len().div_ceil(2);
    while piece >= SMALLEST_PIECE {
        let mut at = 0;
        while at < input.ops.len() {
            let end = (at + piece).min(input.ops.len());
            let ops: Vec<Op> = input.ops[..at].iter().chain(&input.ops[end..]).copied().collect();
            let shorter = Input { ops, ..input.clone() };
            if wanted.is_subset(&evaluate(&shorter)) {
                input = shorter;
            } else {
                at = end;
            }
        }
        piece /= 2;
    }
    input
}
