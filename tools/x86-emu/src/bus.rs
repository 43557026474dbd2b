//! What the CPU asks of the machine around it.
//!
//! A linear address becomes a [`Gpa`] by the guest's own page tables, which this crate walks; the [`Bus`]
//! turns the [`Gpa`] into a place in the [`Arena`]. It is asked on a miss of the software TLB only, once per
//! 4 KiB page; everything after that goes straight to the arena. An entry lives until somebody flushes it:
//! the CPU does so where the architecture says, the owner through [`crate::Tlb`] where a second-stage
//! mapping changed (INVEPT, a new TLB epoch).

use core::fmt;

use phys_memory::Arena;
use tdvisor_base::sync::Arc;
use tdvisor_base::{Gpa, Hpa, KeyId, Level};

/// Why a guest-physical address is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Access {
    /// A data read.
    Read,
    /// A data write, or a read that a write by the same instruction follows.
    Write,
    /// An instruction fetch.
    Execute,
    /// A read of a guest page-table entry.
    WalkRead,
    /// An update of the Accessed or Dirty bit of a guest page-table entry.
    WalkWrite,
}

impl Access {
    /// Whether memory is to be changed.
    pub const fn is_write(self) -> bool {
        matches!(self, Self::Write | Self::WalkWrite)
    }

    /// Whether the address is that of a guest page-table entry (the VMX exit qualification then clears its
    /// "final translation" bit).
    pub const fn is_walk(self) -> bool {
        matches!(self, Self::WalkRead | Self::WalkWrite)
    }
}

/// Where a 4 KiB guest page is, and what may be done with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translation {
    /// First byte of the 4 KiB page that holds the address asked for.
    pub hpa: Hpa,
    /// The key that accesses carry.
    pub key: KeyId,
    /// Size of the second-stage mapping that the page is part of.
    pub level: Level,
    /// Data reads and page walks are allowed.
    pub readable: bool,
    /// Data writes are allowed.
    pub writable: bool,
    /// Instruction fetches are allowed.
    pub executable: bool,
}

/// Who refused an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum FaultKind {
    /// The bus did; the number is its own and comes back to it unread.
    Bus(u64),
    /// The memory controller did: no memory at the address, or a key that does not fit the page.
    MachineCheck(Hpa),
}

/// An access that the second stage of translation, or memory itself, refused: what an EPT violation is to
/// hardware. No part of the instruction has been done; running again repeats it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct BusFault {
    /// The guest-physical address of the access, byte-exact.
    pub gpa: Gpa,
    /// What was to be done there.
    pub access: Access,
    /// Who refused.
    pub kind: FaultKind,
}

impl fmt::Display for BusFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at guest-physical {} refused ({:?})", self.access, self.gpa, self.kind)
    }
}

/// The machine around one CPU.
pub trait Bus {
    /// Physical memory. Called once per [`crate::Cpu::run`].
    fn memory(&self) -> Arc<Arena>;

    /// Finds the 4 KiB page of `gpa`.
    ///
    /// An answer that does not allow `access` is a mistake of the bus; the CPU reports it as a fault with
    /// [`FaultKind::Bus`]`(u64::MAX)`.
    ///
    /// # Errors
    /// What [`crate::Exit::BusFault`] then carries to the owner.
    fn translate(&mut self, gpa: Gpa, access: Access) -> Result<Translation, BusFault>;

    /// The time-stamp counter as this CPU sees it.
    fn tsc(&mut self) -> u64;

    /// A word for RDRAND and RDSEED; `None` makes the instruction report that none was ready.
    fn random(&mut self) -> Option<u64>;
}
