//! TD partitioning: the L2 VMs of a TD (Intel, TD Partitioning Architecture Specification).

mod vm;

pub use vm::Vm;
