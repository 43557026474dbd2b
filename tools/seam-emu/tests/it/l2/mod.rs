//! What the module and the processor do for an L2 VM, exit by exit: rules that recordings only graze.

mod apic;
mod exits;
mod memory;
mod scene;
