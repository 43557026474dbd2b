//! What a virtual-machine monitor needs of a VM, whoever runs it.
//!
//! # Protocol
//! A [`Partition`] is one VM. Each of its vCPUs is taken by the thread that runs it ([`Partition::vcpu`]) and run until
//! the guest needs something that the runner does not answer itself: a [`VmExit`]. Whoever got the exit acts, and
//! hands what the guest is told to the next [`Vcpu::run`], as an [`Answer`]. The last exit is [`VmExit::Ended`].
//!
//! Which exits a runner answers itself differs: a TD host over SEAMCALLs answers CPUID, MSRs and HLT, as KVM does. What
//! stands here is what no runner can answer, since it needs devices, policy or the outside.
//!
//! # Memory
//! A guest that keeps its memory from its host shares some of it. What the host may touch is a type of its own,
//! [`SharedMemory`], at addresses without the SHARED bit; there is no other way to guest memory from here.

#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

pub mod apic_timer;
mod ending;
mod exit;
pub mod interrupt;
mod memory;
mod partition;
pub mod topology;

pub use ending::Ending;
pub use exit::{AccessSize, Answer, FaultReason, MemoryFault, Transfer, VmExit};
pub use interrupt::{Destination, Message};
pub use memory::{NotShared, SharedMemory};
pub use partition::{ConvertError, Partition, Vcpu};
