//! TDs that move from one emulated machine to another, in one process.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod altered;
#[path = "../driven/mod.rs"]
mod driven;
mod hostile;
mod mailbox;
mod mig_td;
mod model;
mod moving;
#[path = "../driven/numbers.rs"]
mod numbers;
mod sweep;
mod world;
mod writer;
