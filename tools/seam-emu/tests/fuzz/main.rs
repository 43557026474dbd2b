//! Arbitrary SEAMCALLs, TDCALLs, VM exits and instructions: no panic, no overflow, and books that balance
//! afterwards ([`Machine::audit`]).
//!
//! Inputs that reach something new (a status of a leaf with its operand, an exit, an event) are kept and changed
//! again. The corpus in `tests/corpus` is what was found so far, made small; it is replayed first.
//!
//! - `TDVISOR_FUZZ_SECONDS` makes the search that long; otherwise it is short.
//! - `TDVISOR_FUZZ_SEED` starts it from another seed.
//! - `TDVISOR_FUZZ_KEEP` names a folder that receives the corpus of the run, made small.
//! - `TDVISOR_FUZZ_INPUT` names a file to replay instead. An input that fails is written to the system's folder for
//!   temporary files, and its name is in the failure.
//!
//! On record: seven minutes from seed 21, 272,528 inputs, 5,788 things reached, no failure; of the 1,820 inputs that reach
//! them, the 61 longest are kept, which reach 2,015. Earlier runs had found that a page of control structures cleared by
//! the host, or PAMT pages given on demand and written by the host, left a module that went on with what it then read.
//!
//! [`Machine::audit`]: seam_emu::Machine::audit

#![cfg(not(shuttle))]
#![expect(clippy::unwrap_used, reason = "a test stops where its files fail")]

mod corpus;
mod input;
mod operands;
mod play;
mod seeds;
mod world;

use std::time::{Duration, Instant};

use corpus::{Corpus, evaluate};
use input::Input;
use tdvisor_test_data::chance::Chance;
use tdvisor_test_data::replay::number;

/// Inputs of a run that is not told how long to be.
const SHORT_RUN: u64 = 400;
/// Pairs of inputs that run at once.
const PAIRS: usize = 60;
/// Bytes of all files together.
const MOST_BYTES: usize = 200 << 10;
/// What the corpus reaches at least; fewer mean that it no longer fits the code.
const LEAST_FEATURES: usize = 1800;

#[test]
fn the_kept_inputs_replay_cleanly_and_reach_what_they_were_kept_for() {
    let inputs = corpus::stored();
    let bytes: usize = inputs.iter().map(|input| input.encode().len()).sum();
    assert!(bytes <= MOST_BYTES, "{bytes} bytes are too many to keep");
    let mut corpus = Corpus::default();
    for input in inputs {
        corpus.consider(input);
    }
    println!("{} things are reached", corpus.num_features());
    assert!(corpus.num_features() >= LEAST_FEATURES, "only {} things were reached", corpus.num_features());
}

#[test]
fn two_processors_that_do_different_things_at_once_leave_the_books_balanced() {
    let inputs: Vec<_> = corpus::stored().into_iter().chain(seeds::seeds()).collect();
    let mut chance = Chance::new(number("TDVISOR_FUZZ_SEED").unwrap_or(1));
    for _ in 0..PAIRS {
        let [first, second] = [(); 2].map(|()| &inputs[chance.index(inputs.len())]);
        let findings = play::play_together(first, second);
        assert!(findings.is_empty(), "{findings:#?}\n{first:?}\n{second:?}");
    }
}

#[test]
fn whatever_is_called_nothing_panics_and_the_books_balance() {
    if let Ok(path) = std::env::var("TDVISOR_FUZZ_INPUT") {
        let input = Input::decode(&std::fs::read(path).unwrap());
        evaluate(&input);
        return;
    }
    let mut chance = Chance::new(number("TDVISOR_FUZZ_SEED").unwrap_or(1));
    let end = number("TDVISOR_FUZZ_SECONDS").map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut corpus = Corpus::default();
    for input in corpus::stored().into_iter().chain(seeds::seeds()) {
        corpus.consider(input);
    }
    let known = corpus.num_features();
    let mut runs = 0u64;
    loop {
        let input = corpus.next(&mut chance);
        corpus.consider(input);
        runs += 1;
        let is_over = match end {
            Some(end) => runs.is_multiple_of(16) && Instant::now() >= end,
            None => runs == SHORT_RUN,
        };
        if is_over {
            break;
        }
    }
    println!("{runs} inputs; {known} things known, {} reached", corpus.num_features());
    if let Ok(folder) = std::env::var("TDVISOR_FUZZ_KEEP") {
        corpus.store_minimised(folder.as_ref());
    }
}
