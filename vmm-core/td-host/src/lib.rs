//! A TD host over SEAMCALLs: it brings the TDX module up, builds TDs, owns their memory and runs their vCPUs. A TD is
//! a [`tdvisor_vm::Partition`]: what it asks that needs devices, policy or the outside leaves as a
//! [`tdvisor_vm::VmExit`].
//!
//! `no_std` with `alloc`. The machine is behind [`platform::Platform`]; page tables are `mirror-ept`'s,
//! whose hooks this crate implements with SEAMCALLs; nothing here knows whether the module is Intel's.

#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

mod error;
pub mod frames;
pub mod ghci;
pub mod host;
pub mod interrupts;
pub mod memory;
pub mod migration;
pub mod platform;
pub mod retry;
pub mod td;
pub mod vcpu;

pub use error::{Blame, Error};
pub use host::Host;
