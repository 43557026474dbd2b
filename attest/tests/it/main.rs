//! What crosses the rooms of this crate: recordings, sweeps over bits and rules.
//!
//! `cargo test` links one executable here in place of one for each file. What runs for itself (fuzzers, what nobody runs by
//! default) stays beside it.

mod common;

mod bitflips;
mod cases;
mod eventlogs;
mod portability;
mod reports;
mod robustness;
mod rules;
mod sweeps;
