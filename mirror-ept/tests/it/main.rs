//! The tables from outside, beside a model of what stands there: everything that needs no exploring of interleavings.

#![cfg(not(any(loom, shuttle)))]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../common/mod.rs"]
mod common;
mod invariants;
mod levels;
mod private;
mod shadow;
mod shared;
mod threads;
mod transfer;
