//! TDs with L2 VMs: the guest `l1-vmm` on the emulated processor, and calls of an L1 that tests write.

mod aliases;
mod guest;
pub mod model;
mod world;
