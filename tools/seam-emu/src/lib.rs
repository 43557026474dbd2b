//! The emulated TDX module and the machine around it.
//!
//! A [`Machine`] is physical memory with key ids, logical processors and one TDX module. A SEAMCALL is a
//! method of the logical processor that issues it: [`Machine::lp`] gives an [`Lp`], which implements
//! [`tdx_module_iface::SeamCall`]. Everything is reachable through `&Machine`: processors are threads, and a
//! SEAMCALL may be issued while another processor is inside its guest, which may be on the same call stack.
//!
//! # Guide
//! * To run a VMM on it: give each of the VMM's processors an [`Lp`] and let its `seamcall` go there. Memory is
//!   [`Machine::host_read`] and [`Machine::host_write`]; interrupts are [`Machine::set_interrupt_pending`]. The
//!   example `foreign_vmm` is all that a VMM needs which knows nothing of this crate.
//! * To run a guest: TDH.VP.ENTER runs the [`GuestCpu`] of its processor ([`Machine::set_guest_cpu`]). A
//!   [`CpuGuest`] executes instructions, a [`ScriptedGuest`] is a closure whose calls end in VM exits, a
//!   [`guest::GuestProgram`] a function that issues TDCALLs. [`testing`] brings up a module and builds TDs for them, and the
//!   example `unit_test` is a TD in a plain unit test, up to an instruction stream.
//! * To begin many tests at one state: [`Machine::snapshot`]; the machines share its memory until they write.
//! * To meet what hardware does rarely: `machine.faults().set_plan("TDH.MEM.TRACK#2=irq,chaos:7/100".parse()?)`;
//!   [`inject`] has the grammar. [`Machine::set_rdseed_mode`] and [`Machine::set_pconfig_mode`] make the
//!   hardware fail.
//! * To learn what the host got wrong (private memory touched, caches or TLBs not flushed):
//!   [`Machine::violations`]. What the emulator could not do: [`Machine::limits`].
//! * To learn whether the module's own bookkeeping still adds up: [`Machine::audit`].
//! * How far to trust it: [`fidelity::TABLE`], which is FIDELITY.md, and [`conformance`], which replays recordings
//!   of Intel's module 1.5.01 and compares every register.
//!
//! # Folders
//! | folder | holds |
//! |---|---|
//! | `machine` | memory as the host sees it, processors, TLBs, caches, snapshots |
//! | `module` | what the module keeps outside TDs: system state, TDMRs, PAMT, key ownership |
//! | `td` | a TD's control structures, its Secure EPT, its epochs |
//! | `host`, `guest_leaf` | the leaves, one file each or one per family |
//! | `l2` | L2 VMs: entry, exits, their fields |
//! | `servtd`, `migration` | service TDs and their bindings; migration streams |
//! | `vcpu` | TDH.VP.ENTER, TD exits, #VE |
//! | `guest` | the processor that executes a guest |
//! | `inject` | faults on demand |
//! | `metadata`, `td_params`, `cpuid`, `sysinfo` | fields by identifier, TD_PARAMS, CPUID, what the module says of itself |
//! | `conformance` | replays recordings of the real module and compares |
//! | `fidelity` | what is emulated how well, and what says so |
//! | `processor` | the processor under the module: native CPUID and MSRs |
//! | `msr` | what a TD's accesses to MSRs come to |
//! | `rules` | what differs between releases of the module |
//! | `lock`, `fields` | try-locks; control structures as fields |
//! | `audit` | whether all of that adds up |
//! | `testing` | a small host for tests |

#![forbid(unsafe_code)]

pub mod audit;
pub mod config;
pub mod conformance;
pub mod cpuid;
pub mod features;
pub mod fidelity;
pub mod fields;
pub mod guest;
mod guest_leaf;
mod host;
pub mod inject;
pub(crate) mod l2;
pub mod lock;
pub mod machine;
pub mod metadata;
mod migration;
mod module;
mod msr;
pub mod processor;
pub mod rules;
mod servtd;
pub mod sysinfo;
mod td;
pub mod td_params;
pub mod testing;
mod vcpu;

pub use config::{Cmr, FixedBits, MachineConfig, ModuleProfile, SeamRange, TscSource, UnknownProfile};
pub use guest::{CpuGuest, GuestCpu, GuestState, ScriptedGuest, VmExit};
pub use l2::Vm;
pub use machine::{
    CannotSave, EmulatorLimit, GuestCall, GuestEnv, GuestExit, GuestShutdown, HostViolation, Lp, Machine,
    MachineSnapshot, NotThisMachine, PconfigMode, RdseedMode, SavedMachine,
};
pub use module::random::Random;
pub use processor::Processor;
pub use x86_emu::{EngineKind, Unimplemented, UnknownEngine};
