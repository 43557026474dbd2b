//! Live migration: bundles, streams, sessions (Intel, TD Migration Architecture Specification).

pub(crate) mod gcm;
pub(crate) mod stream;
