//! A TD host's machine without an operating system: what `td-host` needs of a [`Platform`](td_host::platform::Platform), in
//! ring 0.
//!
//! | module | holds |
//! |---|---|
//! | [`boot`] | what boot loaders say: the Linux boot protocol, PVH, multiboot2 |
//! | [`acpi`] | processors, how they are woken, how the machine is switched off |
//! | [`conditions`] | what a processor must have to be a TDX host, in order |
//! | [`ring0`] | the instructions, tables, interrupts; starting processors |
//! | [`calls`] | work for another processor |
//! | [`lp`], [`machine`] | the platform |
//! | [`setup`] | from the image's entry to the platform |
//!
//! The image that boots is in `image/`: a workspace of its own, because it is linked without an operating system. This
//! crate compiles for both; what of it does not touch hardware is tested as any other crate.

#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod acpi;
pub mod boot;
pub mod calls;
pub mod conditions;
pub mod lp;
pub mod machine;
pub mod physical;
pub mod ring0;
pub mod setup;
