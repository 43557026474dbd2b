//! Emulated machines and the TDs on them: one program of tests, a room for each subject.
//!
//! Beside it is `fuzz`, which `.ci/run` and `scripts/nightly` run by itself.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../driven/mod.rs"]
mod driven;

mod migration;
mod partitioning;
