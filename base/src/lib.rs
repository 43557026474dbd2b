//! What every floor of tdvisor shares: address newtypes, [`Level`], the [`sync`] module, the clock, and
//! the physical-memory [`arena`].
//!
//! This crate knows neither TDX nor any operating system. It is `no_std` with `alloc`; the `std` feature
//! only changes how a contended lock waits (it yields to the scheduler instead of spinning).

#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

pub mod addr;
#[cfg(not(loom))]
pub mod arena;
pub mod clock;
pub mod sync;

pub use addr::{Gfn, Gpa, Hpa, KeyId, Level, PAGE_SIZE, Pfn};
