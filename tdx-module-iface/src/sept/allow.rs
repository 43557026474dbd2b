//! Which Secure-EPT states each leaf accepts, and which states share a property.
//!
//! A leaf that meets a state outside its row of the leaf table fails with `EPT_ENTRY_STATE_INCORRECT` and reports the entry.

use super::state::SeptState::{self, *};
use crate::leaf::{TdgLeaf, TdhLeaf};

/// A set of Secure-EPT states: bit n is the state with index n.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SeptStates(u16);

impl SeptStates {
    /// All sixteen.
    pub const ALL: Self = Self(u16::MAX);

    /// The set of these states.
    pub const fn of(states: &[SeptState]) -> Self {
        let mut bits = 0;
        let mut position = 0;
        while position < states.len() {
            bits |= 1 << states[position].index();
            position += 1;
        }
        Self(bits)
    }

    /// Whether the state is in the set.
    pub const fn contains(self, state: SeptState) -> bool {
        self.0 >> state.index() & 1 != 0
    }

    /// The states of the set, by index.
    pub fn iter(self) -> impl Iterator<Item = SeptState> {
        SeptState::ALL.into_iter().filter(move |state| self.contains(*state))
    }

    /// States that may be exported while the TD runs.
    pub const LIVE_EXPORT_ALLOWED: SeptStates = SeptStates::of(&[
        BlockedW,
        ExportedBlockedW,
        ExportedDirtyBlockedW,
        PendingBlockedW,
        PendingExportedBlockedW,
        PendingExportedDirtyBlockedW,
    ]);
    /// States that may be exported while the TD is paused.
    pub const PAUSED_EXPORT_ALLOWED: SeptStates = SeptStates::of(&[
        Mapped,
        BlockedW,
        ExportedBlockedW,
        ExportedDirty,
        ExportedDirtyBlockedW,
        Pending,
        PendingBlockedW,
        PendingExportedBlockedW,
        PendingExportedDirty,
        PendingExportedDirtyBlockedW,
    ]);
    /// States of pages that were not exported before and may be.
    pub const FIRST_TIME_EXPORT_ALLOWED: SeptStates =
        SeptStates::of(&[Mapped, BlockedW, Pending, PendingBlockedW]);
    /// States of exported pages that may be exported again.
    pub const RE_EXPORT_ALLOWED: SeptStates = SeptStates::of(&[
        ExportedDirty,
        ExportedDirtyBlockedW,
        PendingExportedDirty,
        PendingExportedDirtyBlockedW,
    ]);
    /// States whose export may be cancelled.
    pub const EXPORT_CANCEL_ALLOWED: SeptStates = SeptStates::of(&[
        ExportedBlockedW,
        ExportedDirty,
        ExportedDirtyBlockedW,
        PendingExportedBlockedW,
        PendingExportedDirty,
        PendingExportedDirtyBlockedW,
    ]);
    /// States of entries into which a page may be imported first.
    pub const FIRST_TIME_IMPORT_ALLOWED: SeptStates = SeptStates::of(&[Free, Removed]);
    /// States of entries into which a page may be imported again.
    pub const RE_IMPORT_ALLOWED: SeptStates = SeptStates::of(&[Mapped, Pending]);
    /// States whose import may be cancelled.
    pub const IMPORT_CANCEL_ALLOWED: SeptStates = SeptStates::of(&[Mapped, Pending]);
    /// Plain mapped and plain pending.
    pub const MAPPED_OR_PENDING: SeptStates = SeptStates::of(&[Mapped, Pending]);
    /// Exported, in any way.
    pub const ANY_EXPORTED: SeptStates = SeptStates::of(&[
        ExportedBlockedW,
        ExportedDirty,
        ExportedDirtyBlockedW,
        PendingExportedBlockedW,
        PendingExportedDirty,
        PendingExportedDirtyBlockedW,
    ]);
    /// Exported and changed since.
    pub const ANY_EXPORTED_AND_DIRTY: SeptStates = SeptStates::of(&[
        ExportedDirty,
        ExportedDirtyBlockedW,
        PendingExportedDirty,
        PendingExportedDirtyBlockedW,
    ]);
    /// Exported and not changed since.
    pub const ANY_EXPORTED_AND_NON_DIRTY: SeptStates =
        SeptStates::of(&[ExportedBlockedW, PendingExportedBlockedW]);
    /// Waiting for the guest to accept.
    pub const ANY_PENDING: SeptStates = SeptStates::of(&[
        Pending,
        PendingBlocked,
        PendingBlockedW,
        PendingExportedBlockedW,
        PendingExportedDirty,
        PendingExportedDirtyBlockedW,
    ]);
    /// Pending, and the guest may accept now.
    pub const ANY_PENDING_AND_GUEST_ACCEPTABLE: SeptStates = SeptStates::of(&[Pending, PendingExportedDirty]);
    /// Blocked against all access.
    pub const ANY_BLOCKED: SeptStates = SeptStates::of(&[NlBlocked, Blocked, PendingBlocked]);
    /// Blocked against writes.
    pub const ANY_BLOCKEDW: SeptStates = SeptStates::of(&[
        BlockedW,
        ExportedBlockedW,
        ExportedDirtyBlockedW,
        PendingBlockedW,
        PendingExportedBlockedW,
        PendingExportedDirtyBlockedW,
    ]);
    /// Leaves that the guest may read and write.
    pub const GUEST_FULLY_ACCESSIBLE_LEAF: SeptStates = SeptStates::of(&[Mapped, ExportedDirty]);
    /// States that a processor may have cached, so that removal needs TLB tracking.
    pub const TLB_TRACKING_REQUIRED: SeptStates = SeptStates::of(&[
        NlMapped,
        NlBlocked,
        Mapped,
        Blocked,
        BlockedW,
        ExportedDirty,
        ExportedDirtyBlockedW,
        Pending,
        PendingBlocked,
        PendingBlockedW,
        PendingExportedDirty,
        PendingExportedDirtyBlockedW,
    ]);
    /// Leaves that the guest may at least read.
    pub const GUEST_ACCESSIBLE_LEAF: SeptStates =
        SeptStates::of(&[Mapped, BlockedW, ExportedBlockedW, ExportedDirty, ExportedDirtyBlockedW]);
}

/// The states that a host leaf accepts; `None` for a leaf that checks none.
pub const fn tdh_allowed(leaf: TdhLeaf) -> Option<SeptStates> {
    match leaf.info() {
        Some(info) => info.sept_states,
        None => None,
    }
}

/// The states that a guest leaf accepts; `None` for a leaf that checks none.
pub const fn tdg_allowed(leaf: TdgLeaf) -> Option<SeptStates> {
    match leaf.info() {
        Some(info) => info.sept_states,
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_and_unblock_accept_exactly_the_states_that_have_a_successor() {
        let block = tdh_allowed(TdhLeaf::MEM_RANGE_BLOCK).unwrap();
        let unblock = tdh_allowed(TdhLeaf::MEM_RANGE_UNBLOCK).unwrap();
        for state in SeptState::ALL {
            assert_eq!(block.contains(state), state.blocked().is_some(), "{state}");
            assert_eq!(unblock.contains(state), state.unblocked().is_some(), "{state}");
        }
    }

    #[test]
    fn property_sets_agree_with_the_predicates_of_a_state() {
        for state in SeptState::ALL {
            assert_eq!(SeptStates::ANY_PENDING.contains(state), state.is_pending(), "{state}");
            assert_eq!(SeptStates::ANY_BLOCKED.contains(state), state.is_blocked(), "{state}");
        }
        assert_eq!(tdh_allowed(TdhLeaf::MEM_SEPT_RD), Some(SeptStates::ALL));
        assert_eq!(tdh_allowed(TdhLeaf::MEM_TRACK), None);
        assert!(tdg_allowed(TdgLeaf::MEM_PAGE_ACCEPT).unwrap().iter().eq([Pending, PendingExportedDirty]));
    }
}
