//! TDX attestation: parse, verify, predict, explain and issue.
//!
//! The crate is `no_std`. Without features it parses evidence (no heap); with `alloc` it verifies and
//! predicts; `std` adds the `ring` backend, the test issuer and TOML policies.

#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]
#![cfg_attr(not(feature = "std"), no_std)]

#[cfg(feature = "alloc")]
extern crate alloc;

use td_image::bytes;

pub mod ccel;
#[cfg(feature = "alloc")]
pub mod collateral;
#[cfg(feature = "alloc")]
pub mod crypto;
pub mod eventlog;
#[cfg(feature = "alloc")]
pub mod evidence;
#[cfg(feature = "alloc")]
pub mod explain;
#[cfg(feature = "issue")]
pub mod issue;
#[cfg(feature = "alloc")]
pub mod pck;
#[cfg(feature = "alloc")]
pub mod policy;
#[cfg(feature = "alloc")]
pub mod predict;
#[cfg(feature = "alloc")]
pub mod qgs;
pub mod quote;
pub mod report;
#[cfg(feature = "alloc")]
mod strict;
pub mod time;
#[cfg(any(feature = "ring", feature = "p256"))]
pub mod trustee;
#[cfg(feature = "alloc")]
pub mod verdict;
#[cfg(feature = "alloc")]
pub mod verify;
#[cfg(feature = "alloc")]
pub mod x509;

#[cfg(feature = "alloc")]
pub use strict::value as unambiguous_json;
pub use td_image::bytes::{Hex, Truncated};
pub use time::{UnixSeconds, Validity};

/// A length as a field of 32 bits has it. One that does not fit becomes the largest, which no reader takes for a length.
#[cfg(feature = "alloc")]
fn length32(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
