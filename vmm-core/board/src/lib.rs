//! What the board of a TD is: where its devices are, and the ACPI tables that say so.
//!
//! Three parties must agree on it: who attaches the devices, the firmware that describes them to an operating system, and
//! who predicts the measurements of firmware that is handed its tables. They share this crate, which uses `core` only.
//!
//! The conventions are those of Intel's Q35 chipset as firmware knows it: a host bridge with ECAM, an LPC bridge that
//! has the ACPI power-management block, the reset control register, 16550s and an MC146818 clock. There is no legacy interrupt
//! controller and no legacy timer, and nothing raises the system control interrupt.

#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]
#![no_std]

pub mod acpi;
pub mod address;
pub mod files;
pub mod pm;
