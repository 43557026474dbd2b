//! Shadowing a guest-owned extended page table, for nested paging. *Nothing in the product uses it yet*: a TD host
//! leaves partitioned guests to the module; it waits for guests that run theirs without it. Its tests are its only user.
//!
//! The guest (L1) keeps, in its own memory, a table from the frames of *its* guest (L2) to its own frames. The
//! hardware needs one from L2's frames to host pages: the shadow.
//!
//! # Protocol
//! 1. A *shadow page* is a direct table that shadows one guest table, or a part of one huge guest leaf that
//!    the host backs with smaller pages, in one [`Role`]. Find, allocate and link are one flow: the page with
//!    this frame and role is in the hash, or it is made, tracked and put there. At most one is valid (44).
//! 2. A guest table is *tracked* before its entries are read: the guest's next write to it is told to
//!    [`ShadowMmu::guest_wrote`] first, which drops what was made from the entry. Reading and dropping are
//!    both under [`crate::Exclusive`], so an entry that was read is the one that is shadowed. There is no page that
//!    is out of step for a while (no "unsync"), and no shrinker.
//! 3. A shadow entry has the rights of the guest's entry; hardware combines them along the walk as it would
//!    in the guest's table. What the guest's table does not allow is the guest's to handle.
//! 4. [`ShadowMmu::invalidate_all`] makes every page obsolete at once. Obsolete pages are not found; roots are
//!    taken anew; [`ShadowMmu::zap_obsolete`] frees them in portions, oldest first, after one flush each.
//! 5. When the host takes a frame away, [`ShadowMmu::unmap`] finds every leaf that maps it by the reverse map.
//!
//! Everything that changes shadow pages is under [`crate::Exclusive`]; aging takes the shadow pages' own lock only.

mod guest;
mod hash;
mod mmu;
mod pages;
mod state;

pub use guest::{Backed, GuestTables, Rights};
pub use hash::{Held, PageHash, Ready};
pub use mmu::ShadowMmu;

use core::fmt;

use tdvisor_base::{Gfn, Level, Pfn};

/// In which role a shadow page stands in for its frame. Pages match when frame and role are equal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Role {
    /// The level of its entries.
    pub level: Level,
    /// What the page shadows.
    pub source: Source,
}

/// What a shadow page is made from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// A table of the guest, in the frame.
    GuestTable,
    /// A part of a huge leaf of the guest with these rights, which maps frames from the frame on.
    HugeLeaf(Rights),
}

/// A root to be loaded by hardware.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShadowRoot {
    pub(crate) page: u32,
    pub(crate) table: Pfn,
    pub(crate) generation: u64,
}

impl ShadowRoot {
    /// The page of the root table.
    pub const fn pfn(&self) -> Pfn {
        self.table
    }
}

/// What became of a nested fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum ShadowOutcome {
    /// The page is mapped at this level.
    Mapped(Level),
    /// The page was mapped at this level before the fault.
    Spurious(Level),
    /// The guest's table does not allow the access: an EPT violation for the guest to handle.
    GuestViolation(Level),
    /// The guest's table is misconfigured at this level: for the guest to handle.
    GuestMisconfigured(Level),
    /// The guest's table maps a frame without memory, or one that may not be written: for the host to emulate.
    NoMemoryBehind(Gfn),
    /// The root is obsolete: take a new one.
    ObsoleteRoot,
    /// The cache has too few tables: top it up and repeat.
    NeedTables,
}

/// Why a shadow operation did nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ShadowError {
    /// The guard belongs to another MMU: the caller's mistake.
    ForeignGuard,
    /// No memory for the shadow MMU's own records.
    NoMemory,
    /// A table that should exist does not.
    Corrupt,
}

impl fmt::Display for ShadowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ForeignGuard => "the guard belongs to another MMU",
            Self::NoMemory => "no memory for shadow pages",
            Self::Corrupt => "a shadow table does not exist",
        })
    }
}

impl core::error::Error for ShadowError {}

impl From<crate::table::NoMemory> for ShadowError {
    fn from(_: crate::table::NoMemory) -> Self {
        Self::NoMemory
    }
}
