//! The 64 bits of a Secure-EPT entry.
//!
//! | bits | meaning |
//! |---|---|
//! | 2:0 | read, write, execute |
//! | 5:3 | memory type of a leaf (6 = write-back) |
//! | 6, 7 | IPAT and leaf; both belong to the state encoding (set for every leaf, 4 KiB included) |
//! | 8, 9 | accessed; dirty position, used as a state bit |
//! | 11 | entry lock |
//! | 51:12 | host-physical address; bits 20:12 of a pending 2 MiB entry count the guest's accept progress |
//! | 52 | host priority: a host lock attempt is waiting |
//! | 56:53 | state bits (exported, write-blocked, blocked, pending) |
//! | 60:58 | L2 alias bits |
//! | 63 | suppress #VE |

use core::fmt;

use tdvisor_base::{Hpa, Level};

use super::state::SeptState;

/// Values of bits 5:3.
pub mod memory_type {
    /// Uncacheable.
    pub const UC: u8 = 0;
    /// Write-back: what every private leaf has.
    pub const WB: u8 = 6;
}

/// One entry of a Secure-EPT page.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct SeptEntry(pub u64);

impl SeptEntry {
    /// Bit 0: readable.
    pub const READ: u64 = 1 << 0;
    /// Bit 1: writable.
    pub const WRITE: u64 = 1 << 1;
    /// Bit 2: executable.
    pub const EXECUTE: u64 = 1 << 2;
    /// Bits 2:0.
    pub const RWX: u64 = 7;
    /// Bits 5:3: memory type of a leaf.
    pub const MEMORY_TYPE: u64 = 7 << 3;
    /// Bits 5:3 of a write-back leaf.
    pub const MEMORY_TYPE_WB: u64 = (memory_type::WB as u64) << 3;
    /// Bit 6: ignore PAT; part of the state encoding.
    pub const IPAT: u64 = 1 << 6;
    /// Bit 7: leaf; part of the state encoding, set for 4 KiB leaves too.
    pub const LEAF: u64 = 1 << 7;
    /// Bit 8: accessed.
    pub const ACCESSED: u64 = 1 << 8;
    /// Bit 9: dirty position; part of the state encoding.
    pub const DIRTY: u64 = 1 << 9;
    /// Bit 11: the entry is locked.
    pub const LOCK: u64 = 1 << 11;
    /// Bits 51:12: host-physical address (with the key id of the TD while a processor walks it).
    pub const HPA: u64 = 0x000f_ffff_ffff_f000;
    /// Bit 44 of a removed entry: bits 43:12 are the migration epoch of the removal.
    pub const REMOVED_EPOCH_VALID: u64 = 1 << 44;
    /// Bits 20:12: how many 4 KiB pieces of a pending 2 MiB page the guest has accepted so far.
    pub const ACCEPT_COUNTER: u64 = 0x1ff << 12;
    /// Bit 52: the host tried to lock while the guest held the lock.
    pub const HOST_PRIORITY: u64 = 1 << 52;
    /// Bit 53: exported.
    pub const EXPORTED: u64 = 1 << 53;
    /// Bit 54: write-blocked.
    pub const BLOCKED_W: u64 = 1 << 54;
    /// Bit 55: blocked.
    pub const BLOCKED: u64 = 1 << 55;
    /// Bit 56: pending.
    pub const PENDING: u64 = 1 << 56;
    /// Bits 60:58: the L2 VMs that alias the page.
    pub const L2_ALIASES: u64 = 7 << 58;
    /// Bit 63: an EPT violation exits to the host instead of raising #VE.
    pub const SUPPRESS_VE: u64 = 1 << 63;

    /// The seven bits that encode the state.
    pub const STATE: u64 = Self::DIRTY
        | Self::EXPORTED
        | Self::BLOCKED_W
        | Self::BLOCKED
        | Self::PENDING
        | Self::IPAT
        | Self::LEAF;

    /// A free entry: what a new Secure-EPT page is filled with.
    pub const FREE: Self = Self(0x80e0_0000_0000_0000);

    /// The bits that a state contributes to an entry.
    pub const fn state_bits(state: SeptState) -> u64 {
        let encoding = state.encoding() as u64;
        (encoding & 1) << 9 | (encoding >> 1 & 0xf) << 53 | (encoding >> 5 & 3) << 6
    }

    /// An entry that points to the table page at `table`.
    pub const fn table(table: Hpa) -> Self {
        Self(table.get() & Self::HPA | Self::RWX | Self::state_bits(SeptState::NlMapped))
    }

    /// A leaf in state MAPPED: read, write, execute, write-back.
    pub const fn mapped(page: Hpa) -> Self {
        Self(
            page.get() & Self::HPA
                | Self::RWX
                | Self::MEMORY_TYPE_WB
                | Self::SUPPRESS_VE
                | Self::state_bits(SeptState::Mapped),
        )
    }

    /// A leaf in state PENDING: no access rights.
    pub const fn pending(page: Hpa) -> Self {
        Self(
            page.get() & Self::HPA
                | Self::MEMORY_TYPE_WB
                | Self::SUPPRESS_VE
                | Self::state_bits(SeptState::Pending),
        )
    }

    /// A removed entry, whose page left in this migration epoch.
    pub const fn removed_in(epoch: u32) -> Self {
        let state = Self::state_bits(SeptState::Removed);
        Self(Self::SUPPRESS_VE | state | Self::REMOVED_EPOCH_VALID | (epoch as u64) << 12)
    }

    /// The migration epoch in which the page of a removed entry left, where it is known.
    pub const fn removed_epoch(self) -> Option<u32> {
        if self.has(Self::REMOVED_EPOCH_VALID) { Some((self.0 >> 12 & 0xffff_ffff) as u32) } else { None }
    }

    /// The seven encoding bits.
    pub const fn state_encoding(self) -> u8 {
        ((self.0 >> 9 & 1 | (self.0 >> 53 & 0xf) << 1 | (self.0 >> 6 & 3) << 5) & 0x7f) as u8
    }

    /// The state; `None` for a bit pattern that the module never writes.
    pub const fn state(self) -> Option<SeptState> {
        SeptState::from_encoding(self.state_encoding())
    }

    /// This entry with the state bits of `state`. Access rights stay as they are.
    #[must_use]
    pub const fn with_state(self, state: SeptState) -> Self {
        Self(self.0 & !Self::STATE | Self::state_bits(state))
    }

    /// The host-physical address in bits 51:12.
    pub const fn hpa(self) -> Hpa {
        Hpa::new(self.0 & Self::HPA)
    }

    /// Whether bits `mask` are all set.
    pub const fn has(self, mask: u64) -> bool {
        self.0 & mask == mask
    }

    /// The architectural view of the entry that the module returns in RCX: module-private bits hidden, and
    /// for a table also its address.
    pub const fn arch_view(self) -> u64 {
        match self.state() {
            Some(state) if state.is_leaf() => {
                self.0
                    & (Self::RWX
                        | Self::MEMORY_TYPE
                        | Self::IPAT
                        | Self::LEAF
                        | Self::HPA
                        | Self::SUPPRESS_VE)
            }
            Some(SeptState::NlMapped | SeptState::NlBlocked) => self.0 & (Self::RWX | Self::LEAF),
            Some(SeptState::Removed) => 0,
            _ => Self::SUPPRESS_VE,
        }
    }

    /// Whether this is a large leaf at `level`: a leaf above 4 KiB.
    pub fn is_large_leaf(self, level: Level) -> bool {
        level != Level::L4K && self.state().is_some_and(SeptState::is_leaf)
    }
}

impl fmt::Debug for SeptEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.state() {
            Some(state) => write!(f, "SeptEntry({:#018x} {state})", self.0),
            None => write!(f, "SeptEntry({:#018x}, no known state)", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_entry_has_exactly_the_pattern_that_new_pages_are_filled_with() {
        assert_eq!(SeptEntry::FREE.state(), Some(SeptState::Free));
        assert_eq!(SeptEntry::FREE.0, SeptEntry::SUPPRESS_VE | SeptEntry::state_bits(SeptState::Free));
    }

    #[test]
    fn every_state_survives_being_written_into_an_entry() {
        for state in SeptState::ALL {
            let entry = SeptEntry::mapped(Hpa::new(0x1234_5000)).with_state(state);
            assert_eq!(entry.state(), Some(state));
            assert_eq!(entry.hpa(), Hpa::new(0x1234_5000));
        }
    }

    #[test]
    fn the_architectural_view_equals_what_the_module_was_seen_to_return() {
        let page = Hpa::new(0x1_0020_d000);
        let mapped = SeptEntry::mapped(page);
        let pending = SeptEntry::pending(page);
        assert_eq!(mapped.arch_view(), page.get() | 0x8000_0000_0000_00f7);
        assert_eq!(pending.arch_view(), page.get() | 0x8000_0000_0000_00f0);
        let blocked = SeptEntry(mapped.with_state(SeptState::Blocked).0 & !SeptEntry::RWX);
        assert_eq!(blocked.arch_view(), page.get() | 0x8000_0000_0000_00f0);
        let table = SeptEntry::table(page);
        assert_eq!(table.arch_view(), 7);
        let blocked_table = SeptEntry(table.with_state(SeptState::NlBlocked).0 & !SeptEntry::RWX);
        assert_eq!(blocked_table.arch_view(), 0);
        assert_eq!(SeptEntry::FREE.arch_view(), 0x8000_0000_0000_0000);
        assert_eq!(SeptEntry::FREE.with_state(SeptState::Removed).arch_view(), 0);
        let removed = SeptEntry::removed_in(u32::MAX);
        assert_eq!((removed.arch_view(), removed.state()), (0, Some(SeptState::Removed)));
        assert_eq!(removed.removed_epoch(), Some(u32::MAX));
    }
}
