//! The locks of the module: try-locks, with host priority where the module has it.
//!
//! # Protocol
//! A lock is sixteen bits of a word that lies where the locked object lies (a PAMT entry, a control page):
//! bit 0 exclusive, bit 1 host priority, bits 15:2 number of shared holders. Nobody ever waits: an attempt
//! that loses gives `Busy`, which the caller of the leaf sees as OPERAND_BUSY.
//!
//! Host priority (KVM behaviour reference, section 9.1): a host attempt that loses sets the bit; a host
//! attempt that wins clears it; a guest attempt that finds it set gives up although the lock is free, until
//! some host attempt has won.
//!
//! # Invariants
//! An exclusive holder is alone. The shared count never wraps: the attempt that would do it loses.

mod sharex;
mod word;

pub use sharex::{Busy, Mode, Side};
pub(crate) use sharex::{Guard, HostPriority, TryLock};
pub(crate) use word::change;
