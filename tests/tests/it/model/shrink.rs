//! From a schedule that fails to a short one that fails too.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind, set_hook, take_hook};

use crate::model::operation::Step;

/// Runs of the shrinker at most.
const MOST_RUNS: usize = 150;

/// Runs a schedule; if it fails, looks for a short one that fails as well, prints it, and goes on failing.
pub fn check(seed: u64, steps: &[Step], run: impl Fn(&[Step])) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(steps))) else { return };
    eprintln!("seed {seed} fails; looking for a short schedule");
    let hook = take_hook();
    set_hook(Box::new(|_| {}));
    let short = shrink(steps, |steps| catch_unwind(AssertUnwindSafe(|| run(steps))).is_err());
    set_hook(hook);
    eprintln!("these {} operations fail:", short.len());
    for step in &short {
        eprintln!("  {step:?}");
    }
    eprintln!("replay with TDVISOR_MODEL_SEED={seed} TDVISOR_MODEL_STEPS={}", steps.len());
    resume_unwind(panic);
}

/// Leaves out operations for as long as what is left still fails: first the tail, then pieces of halving length.
pub fn shrink(steps: &[Step], fails: impl Fn(&[Step]) -> bool) -> Vec<Step> {
    let mut best = steps.to_vec();
    let mut runs = 0;
    let mut try_without = |best: &mut Vec<Step>, piece: std::ops::Range<usize>| {
        runs += 1;
        let mut shorter = best.clone();
        shorter.drain(piece);
        let better = runs <= MOST_RUNS && fails(&shorter);
        if better {
            *best = shorter;
        }
        better
    };
    let mut length = best.len() / 2;
    while length > 0 {
        let mut end = best.len();
        while end > 0 {
            let start = end.saturating_sub(length);
            try_without(&mut best, start..end);
            end = start.min(best.len());
        }
        length /= 2;
    }
    best
}
