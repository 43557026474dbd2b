//! The x86-64 architecture's facts, once: register bits, MSR numbers, CPUID features, vectors, exit
//! reasons, the state of a logical processor, and the events that it takes.
//!
//! Numbers come from the `x86` crate where it has them; what it lacks is taken from Intel's Software Developer's
//! Manual (SDM) and named here. Nothing in this crate executes anything: who runs code keeps a [`CpuState`], and may
//! save, change and restore it between two runs.

#![no_std]
#![forbid(unsafe_code)]

pub mod access;
pub mod control;
pub mod cpuid;
pub mod debug;
pub mod event;
pub mod exit;
pub mod flags;
pub mod msr;
pub mod registers;
pub mod segment;
pub mod simd;
pub mod state;
pub mod width;

pub use access::Access;
pub use control::{ControlRegisters, cr0, cr4, efer, xcr0, xss};
pub use debug::{DebugRegisters, dr6, dr7};
pub use event::{Event, EventKind, InterruptionInfo, vector};
pub use exit::ExitReason;
pub use flags::Flags;
pub use msr::{Msrs, spec_ctrl};
pub use registers::{Gpr, Registers};
pub use segment::{Attributes, Seg, Segment, TableRegister};
pub use simd::{SimdState, X87State};
pub use state::{Activity, CpuState, Interruptibility, Shadow};
pub use width::Width;
