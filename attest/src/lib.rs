//! TDX attestation: parse, verify, predict, explain and issue.
//!
//! The crate is `no_std`. Without features it parses evidence (no heap); with `alloc` it verifies and
//! predicts; `std` adds the `ring` backend, the test issuer and TOML policies.

#![cfg_attr(not(feature = "std"), no_std)]

#[cfg(any(feature = "alloc", feature = "measure"))]
extern crate alloc;

mod bytes;
pub mod ccel;
#[cfg(feature = "alloc")]
pub mod collateral;
#[cfg(feature = "alloc")]
pub mod crypto;
pub mod digest;
pub mod eventlog;
#[cfg(all(feature = "alloc", feature = "measure"))]
pub mod evidence;
#[cfg(all(feature = "alloc", feature = "measure"))]
pub mod explain;
#[cfg(feature = "measure")]
pub mod igvm;
#[cfg(feature = "issue")]
pub mod issue;
#[cfg(feature = "measure")]
pub mod mrtd;
#[cfg(feature = "alloc")]
pub mod pck;
#[cfg(feature = "alloc")]
pub mod policy;
#[cfg(all(feature = "alloc", feature = "measure"))]
pub mod predict;
#[cfg(feature = "alloc")]
pub mod qgs;
pub mod quote;
pub mod report;
#[cfg(feature = "alloc")]
mod strict;
#[cfg(feature = "measure")]
pub mod td_hob;
#[cfg(feature = "measure")]
pub mod tdvf;
pub mod time;
#[cfg(feature = "alloc")]
pub mod verify;
#[cfg(feature = "alloc")]
pub mod x509;

pub use bytes::{Hex, Truncated};
pub use time::{UnixSeconds, Validity};
