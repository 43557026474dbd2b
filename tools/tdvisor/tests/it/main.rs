//! The program as people use it: one binary of tests, a room for each subject.
//!
//! `cargo test` links one executable here in place of one for each file. What runs for itself (fuzzers, what nobody runs by
//! default) stays beside it.

mod background;
#[path = "../cli/mod.rs"]
mod cli;
#[path = "../../../attest-serve/tests/client/mod.rs"]
mod client;
mod rsp;

mod attest_cases;
mod attest_service;
mod collateral;
mod compliance;
mod containers;
mod debugger;
mod disk_boot;
mod event_rules;
mod firmware;
mod flood;
mod guest_programs;
mod host_image;
mod inspector;
mod kvm;
mod linux;
mod linux_measurements;
mod measure_and_eventlog;
mod outputs;
mod qgs;
mod readme;
mod run;
mod schemas;
mod serve;
mod server;
mod server_snapshot;
mod snapshot;
mod statuses;
mod told;
mod verify_and_quote;
mod vmm;
mod waits;
mod words;
