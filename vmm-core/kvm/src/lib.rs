//! A TD host over Linux's KVM_TDX: TDs as partitions, on hardware or on the emulated server.
//!
//! # Protocol
//! ```text
//! KVM_CREATE_VM(TDX)                              the VM; capabilities are read of it
//! ENABLE_CAP split irqchip, hypercall exits, …    interrupt controllers in the kernel are the local APICs only
//! KVM_TDX_INIT_VM                                 key id, TDR, TDCS; ATTRIBUTES, XFAM and CPUID are final
//! guest_memfd + mapping -> slot, attribute PRIVATE   each range has a private and a shared side
//! KVM_CREATE_VCPU, KVM_SET_CPUID2, KVM_TDX_INIT_VCPU
//! KVM_TDX_INIT_MEM_REGION …                       pages added, and measured one by one: the interleaved order
//! KVM_TDX_FINALIZE_VM                             the MRTD is final; vCPUs may run
//! KVM_RUN …                                       exits become VmExits
//! ```
//! KVM answers CPUID, MSRs, HLT, IPIs, timers and private faults itself; what it does not reaches a monitor as a
//! [`VmExit`](tdvisor_vm::VmExit). The I/O APIC is a device of the monitor; its messages are MSIs of KVM.
//!
//! # The kernel as a trait
//! Everything above [`kernel`] asks a [`Kernel`], and knows no file descriptor. [`Linux`] is the real one, and the
//! only place with unsafe code; tests have one that answers from a script.
//!
//! # Failure
//! Each failed request is an [`Error`]: what was asked, what the kernel and the module answered, what to do about it. Busy,
//! interrupted and "again" are control flow, with bounds. A TD that cannot go on dies alone, of a [`Death`].

#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]

mod build;
mod capabilities;
mod cpuid;
mod death;
pub mod doctor;
mod error;
mod exit;
pub mod kernel;
mod memory;
pub mod selftest;
mod td;
pub mod uapi;
mod vcpu;

pub use build::TdSpec;
pub use capabilities::{Capabilities, Needed};
pub use cpuid::{DropReason, Dropped, Register};
pub use death::{Death, DeathCause};
pub use error::{Asked, BuildError, Errno, Error, Refusal};
pub use exit::ExitKind;
pub use kernel::{Kernel, Linux};
pub use td::{Ending, Td};
pub use vcpu::RunningVcpu;
