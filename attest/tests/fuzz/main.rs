//! Spoilt input: whatever the bytes, an answer comes back, in bounded time, and nothing panics.
//!
//! A program of its own: `.ci/run` and `scripts/nightly` run it by itself, with `TDVISOR_FUZZ_SECONDS`.

#![expect(clippy::unwrap_used, reason = "a test")]

mod evidence;
mod measured;
mod spoil;
