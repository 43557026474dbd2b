//! Random instructions and random programs, for as long as there is time.
//!
//! A program of its own: `.ci/run` and `scripts/nightly` run it by itself, with `TDVISOR_FUZZ_SECONDS`.

#[path = "../support/compare.rs"]
mod compare;
#[path = "../support/emulated.rs"]
mod emulated;
#[path = "../support/generate.rs"]
mod generate;
#[path = "../native/mod.rs"]
mod native;

mod families;
mod lockstep;
