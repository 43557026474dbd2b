//! The emulated TDX module and the machine around it.
//!
//! A [`Machine`] is physical memory with key ids, logical processors and one TDX module. A SEAMCALL is a
//! method of the logical processor that issues it: [`Machine::lp`] gives an [`Lp`], which implements
//! [`tdx_module_iface::SeamCall`]. Everything is reachable through `&Machine`: processors are threads, and a
//! SEAMCALL may be issued while another processor is inside its guest, which may be on the same call stack.
//!
//! | folder | holds |
//! |---|---|
//! | `machine` | memory as the host sees it, processors, TLBs, caches, snapshots |
//! | `module` | what the module keeps outside TDs: system state, TDMRs, PAMT, key ownership |
//! | `td` | a TD's control structures, its Secure EPT, its epochs |
//! | `host`, `guest_leaf` | the leaves, one file each or one per family |
//! | `vcpu` | TDH.VP.ENTER, TD exits, #VE |
//! | `guest` | the processor that executes a guest |
//! | `inject` | faults on demand |
//! | `metadata`, `td_params`, `cpuid`, `sysinfo` | fields by identifier, TD_PARAMS, CPUID, what the module says of itself |
//! | `conformance` | replays recordings of the real module and compares |
//! | `lock`, `fields` | try-locks; control structures as fields |

#![forbid(unsafe_code)]

#[cfg(test)]
extern crate self as seam_emu;

pub mod config;
pub mod conformance;
pub mod cpuid;
pub mod fidelity;
pub mod fields;
pub mod guest;
mod guest_leaf;
mod host;
pub mod inject;
pub mod lock;
pub mod machine;
pub mod metadata;
mod module;
pub mod sysinfo;
mod td;
pub mod td_params;
mod vcpu;

pub use config::{Cmr, FixedBits, MachineConfig, ModuleProfile, SeamRange, TscSource};
pub use guest::{CpuGuest, GuestCpu, GuestState, ScriptedGuest, VmExit};
pub use machine::{
    EmulatorLimit, GuestEnv, HostViolation, Lp, Machine, MachineSnapshot, PconfigMode, RdseedMode,
};
