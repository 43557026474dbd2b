//! Live migration: bundles, streams, sessions (Intel, TD Migration Architecture Specification).
//!
//! # Protocol
//! A session begins with the immutable state of a TD. Its memory follows, page by page on several streams and in
//! epochs, while the TD runs; then, paused, its own state and that of its VCPUs. An epoch token ends the phase in
//! which order counts, and what is left of the memory may follow while the TD runs at its destination. Everything
//! that crosses is encrypted with a key that two migration TDs have agreed on.
//!
//! What crosses is the field table's affair (`Field::carried`); the order of checks is that of the recordings of
//! 1.5.01. For later releases all of it is by rule, and a bundle crosses only between equal releases.

pub(crate) mod export;
pub(crate) mod gcm;
pub(crate) mod gpa_list;
pub(crate) mod import;
pub(crate) mod mbmd;
pub(crate) mod operands;
pub(crate) mod pending;
pub(crate) mod session;
pub(crate) mod stream;
pub(crate) mod stream_create;
#[cfg(test)]
pub(crate) mod tests;
