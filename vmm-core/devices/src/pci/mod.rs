//! PCI: one bus of functions, reached by configuration mechanism 1, by ECAM, and in the memory that their BARs claim.
//!
//! # Who does what
//! A [`PciFunction`] has a [`ConfigSpace`] and at most one memory BAR. [`PciBus`] finds functions: [`ConfigPorts`] by device number,
//! [`PciMemory`] by device number (ECAM) or by address. [`msix`] turns a function's vectors into messages; [`chipset`] has
//! the bridges without which firmware and kernels do not look any further.
//!
//! # Invariants
//! - Every function has a lock of its own: one that takes its time holds up nobody who wants another.
//! - A function answers in memory only while its command register says so, and only inside its BAR. Where a guest lets
//!   BARs overlap, the lower device number answers.
//!
//! Source: PCI Local Bus Specification 3.0, chapter 6; PCI Firmware Specification 3.3, chapter 4 (ECAM).

mod access;
mod bus;
pub mod chipset;
pub mod config;
pub mod msix;

pub use access::{ConfigPorts, PciMemory};
pub use bus::{PciBus, PciFunction};
pub use config::{ConfigSpace, Identity};
pub use msix::Msix;
