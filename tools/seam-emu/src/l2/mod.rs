//! TD partitioning: the L2 VMs of a TD (Intel, TD Partitioning Architecture Specification).
//!
//! # Protocol
//! A vCPU is in one VM at a time. L1 enters an L2 VM by TDG.VP.ENTER, which does not complete before L1 goes on; an exit
//! of the L2 VM goes to L1, to the host, or is settled by the module ([`exit`]). A host that gets a TD exit of an L2 VM
//! goes on in it, or asks for L1 ([`resume`]).

pub(crate) mod apic;
pub(crate) mod controls;
pub(crate) mod enter;
pub(crate) mod exit;
pub(crate) mod fields;
pub(crate) mod invalidate;
mod registers;
pub(crate) mod resume;
pub(crate) mod state;
pub(crate) mod store;
mod vm;

pub use vm::Vm;

use crate::td::Tdcs;

/// The VM in bits 53:52 of flags, where the TD has it and no other bits than `known` are set.
fn vm_of_flags(tdcs: &Tdcs<'_>, flags: u64, known: u64) -> Option<Vm> {
    const VM: u64 = 3 << 52;
    let vm = Vm::l2((flags >> 52 & 3) as u8)?;
    (flags & !(VM | known) == 0 && u16::from(vm.number()) <= tdcs.num_l2_vms()).then_some(vm)
}
