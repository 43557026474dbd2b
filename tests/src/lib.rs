//! What the tests and benchmarks of this folder share.

pub mod bench;
