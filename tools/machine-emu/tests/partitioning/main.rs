//! TDs with L2 VMs: the guest `l1-vmm` on the emulated processor, and calls of an L1 that tests write.

#![expect(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod aliases;
#[path = "../driven/mod.rs"]
mod driven;
mod guest;
mod model;
#[path = "../driven/numbers.rs"]
mod numbers;
mod world;
