//! What `tdvisor` runs on, for tests that need the same machine: the emulated one as the hypervisor's platform.
//!
//! The program itself is in `main.rs` and only wires; nothing of it is here.

pub mod machine;
