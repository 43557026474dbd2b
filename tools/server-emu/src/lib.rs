//! An emulated TDX server: processors that run a *host's own code*, and the emulated TDX module behind their SEAMCALL.
//!
//! A [`Server`] is memory, processors with local APICs, an I/O APIC and devices, on which an operating system that
//! knows TDX runs unmodified: Linux with KVM, or a host of one's own. Each processor is a thread with a software CPU
//! ([`x86_emu`]). SEAMCALL ends in [`seam_emu`]; for TDH.VP.ENTER the TD's guest runs on the same thread, until
//! something is due for the host.
//!
//! # What is emulated, and what is not
//! | | |
//! |---|---|
//! | processors | 64-bit, started by the ACPI wake-up mailbox; no real mode, no INIT and SIPI, no SMM |
//! | VMX | VMXON, VMXOFF, INVEPT; a VMCS can be made and filled, VMLAUNCH fails with error 7 and is reported once |
//! | SEAMCALL | every leaf that `seam-emu` has; no loader of modules (bit 63 of RAX) |
//! | interrupts | x2APIC, locked; NMI; an I/O APIC whose pins are edges, behind interrupt remapping; no remapping of DMA |
//! | memory | key ids in address bits, the module's range as an abort page; page attributes are ignored |
//!
//! What a host asks for that is not there is one line in the [`report::Report`], and what hardware does then: #GP, #UD.
//!
//! # Rooms
//! | module | holds |
//! |---|---|
//! | [`server`] | the parts and the life of a server |
//! | `processor` | one processor's thread: slices, exits |
//! | [`apic`], [`interrupts`], [`remapping`], `bell` | local APICs, and the way between processors |
//! | [`mailbox`], [`firmware`] | parked processors, and the state in which they begin |
//! | [`layout`], [`acpi`], [`loader`] | the address space, the tables, the kernel's files |
//! | [`msr`], `bus`, `cpuid`, `vmx`, `vmcs`, `seamcall` | what a processor's instructions reach |
//! | [`record`], [`report`] | what the host did |
//! | `turns`, `threads` | who runs, where a run is to repeat; threads, and locks that are waited for |
//! | `freeze`, [`saved`] | stopping the server, and its state as a snapshot holds it |

#![forbid(unsafe_code)]

pub mod acpi;
pub mod apic;
mod bell;
mod bus;
mod cpuid;
mod debug;
pub mod firmware;
mod freeze;
pub mod interrupts;
pub mod layout;
pub mod loader;
pub mod mailbox;
pub mod msr;
mod processor;
pub mod record;
pub mod remapping;
pub mod report;
pub mod saved;
mod seamcall;
pub mod server;
mod threads;
mod turns;
mod vmcs;
mod vmx;

pub use acpi::Described;
pub use loader::BootFiles;
pub use server::{Ending, Pace, Server, ServerConfig, ServerError};
