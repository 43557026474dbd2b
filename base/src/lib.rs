//! What every floor of tdvisor shares: address newtypes, [`Level`], the [`SharedBit`], the [`sync`] module, the
//! clock, and the [`table`] that hardware walks.
//!
//! This crate knows neither TDX nor any operating system. It is `no_std` with `alloc`; the `std` feature
//! only changes how a contended lock waits (it yields to the scheduler instead of spinning).

#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

mod open_enum;

pub mod addr;
pub mod clock;
pub mod shared_bit;
pub mod sync;
pub mod table;

pub use addr::{Gfn, Gpa, Hpa, KeyId, Level, PAGE_SIZE, Pfn, to_usize};
pub use clock::Ticks;
pub use shared_bit::{SharedBit, Side};
