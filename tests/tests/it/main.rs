//! Scenarios that cross crates, as one program: it links the emulated machine once.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod attest_peers;
mod conformance;
mod counts;
mod dynamic_pamt;
mod huge_pages;
mod invariants;
mod memory;
mod model;
mod pause;
mod shared_memory;
mod slots;
mod sweep;
