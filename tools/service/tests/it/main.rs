//! The service from outside: one program of tests, a room for each subject.
//!
//! Beside it are the fuzzers (`fuzz`, `td_fuzz`) and `load`, which compare what their whole process holds and therefore have one
//! for themselves.

#[path = "../described/mod.rs"]
mod described;
#[path = "../place/mod.rs"]
mod place;
#[path = "../tds/mod.rs"]
mod tds;

mod api;
mod asked;
mod clients;
mod crate_client;
mod described_itself;
mod fleet;
mod http;
mod remote;
mod saved;

use std::time::{Duration, Instant};

/// Far more than a process takes to execute its program.
const PATIENCE: Duration = Duration::from_secs(60);

/// What this program is when a service of a test starts it as a worker.
#[test]
fn worker_process() {
    tds::work();
}

/// Waits for what is so once a descriptor is closed everywhere: a worker that another test starts has copies of all descriptors of
/// this process until it executes its program.
#[track_caller]
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not so: {what}");
        std::thread::yield_now();
    }
}
