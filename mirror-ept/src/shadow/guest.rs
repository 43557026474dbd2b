//! What a shadow MMU needs to know about its guest, and what the guest's own entries say.

use tdvisor_base::{Gfn, Level, Pfn};

use crate::spte::Access;

/// The guest memory that the guest's extended page table lives in and maps.
pub trait GuestTables {
    /// Reads entry `index` of the guest's table in frame `table`; `None` where the guest has no memory there.
    /// Called for tracked tables only.
    fn read(&self, table: Gfn, index: usize) -> Option<u64>;

    /// The host page behind a guest frame, the level up to which it is contiguous, and whether it may be
    /// written; `None` where there is no memory.
    fn resolve(&self, gfn: Gfn) -> Option<Backed>;

    /// From now on every write to the frame is told to [`super::ShadowMmu::guest_wrote`] before it takes
    /// effect: its mappings are write-protected and flushed when this returns.
    fn track(&self, table: Gfn);

    /// Writes to the frame are of no interest any more.
    fn untrack(&self, table: Gfn);

    /// Drops every translation made through a shadow table. When it returns, none is in use.
    fn flush(&self);
}

/// The host page behind a guest frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Backed {
    /// The page.
    pub pfn: Pfn,
    /// The largest level at which it is contiguous and aligned.
    pub level: Level,
    /// Whether the guest may write to it.
    pub writable: bool,
}

/// Read, write and execute permission, as in an EPT entry's lowest bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Rights(u8);

impl Rights {
    /// Read, write and execute.
    pub const ALL: Self = Self(7);

    /// The rights in an entry.
    pub(crate) const fn of(entry: u64) -> Self {
        Self((entry & 7) as u8)
    }

    /// The rights that are in this set and in `other`.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The rights without that to write.
    #[must_use]
    pub const fn without_write(self) -> Self {
        Self(self.0 & !2)
    }

    /// Whether the rights allow an access.
    pub const fn allow(self, access: Access) -> bool {
        let needed = match access {
            Access::Read => 1,
            Access::Write => 2,
            Access::Execute => 4,
        };
        self.0 & needed != 0
    }

    pub(crate) const fn bits(self) -> u64 {
        self.0 as u64
    }
}

/// What an entry of the guest's table says (Intel SDM vol. 3, EPT entries and misconfigurations).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum GuestEntry {
    Absent,
    Table(Gfn, Rights),
    Leaf(Gfn, Rights),
    /// Hardware would report a misconfiguration.
    Misconfigured,
}

const ADDRESS: u64 = ((1 << 52) - 1) & !0xfff;
const LEAF: u64 = 1 << 7;

pub(crate) fn decode(entry: u64, level: Level) -> GuestEntry {
    let rights = Rights::of(entry);
    let gfn = Gfn::new((entry & ADDRESS) >> 12);
    if rights.0 == 0 {
        return GuestEntry::Absent;
    }
    if rights.0 & 3 == 2 {
        return GuestEntry::Misconfigured;
    }
    let is_leaf = level == Level::L4K || entry & LEAF != 0;
    if !is_leaf {
        return if entry & 0xf8 == 0 { GuestEntry::Table(gfn, rights) } else { GuestEntry::Misconfigured };
    }
    let memory_type = entry >> 3 & 7;
    if level > Level::L1G || !gfn.is_aligned(level) || matches!(memory_type, 2 | 3 | 7) {
        return GuestEntry::Misconfigured;
    }
    GuestEntry::Leaf(gfn, rights)
}
