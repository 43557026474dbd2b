//! TDX attestation: parse, verify, predict, explain and issue.
//!
//! The crate is `no_std`. Without features it parses evidence (no heap); with `alloc` it verifies and
//! predicts; `std` adds the `ring` backend, the test issuer and TOML policies.

#![cfg_attr(not(feature = "std"), no_std)]

#[cfg(feature = "alloc")]
extern crate alloc;

