//! Verification of TDX quotes for C: the functions of `include/tdvisor_attest.h`.
//!
//! What they do is safe Rust; [`abi`] is the border.

pub mod abi;
mod call;

pub use call::{Outcome, Request};
