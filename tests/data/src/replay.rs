//! What the environment says of a run of a random test, and how a failure says its seed.

use std::ops::Range;

/// The number that an environment variable holds, if there is one.
///
/// # Panics
/// Where it holds something else: whoever mistypes a seed should not see another run pass.
#[must_use]
pub fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}

/// The seeds of a random model: the one that `TDVISOR_MODEL_SEED` names, or all of these.
///
/// # Panics
/// Where the variable holds no number.
#[must_use]
pub fn seeds(all: Range<u64>) -> Range<u64> {
    one_seed().map_or(all, |seed| seed..seed + 1)
}

/// The one seed that `TDVISOR_MODEL_SEED` asks a random model for. One schedule alone need not come to all that the model is about.
///
/// # Panics
/// Where the variable holds no number.
#[must_use]
pub fn one_seed() -> Option<u64> {
    number("TDVISOR_MODEL_SEED")
}

/// Prints on standard error how to run a round again, when the round that holds it panics: its seed.
#[derive(Debug)]
pub struct Replay(pub u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with: TDVISOR_FUZZ_SEED={}", self.0);
        }
    }
}
