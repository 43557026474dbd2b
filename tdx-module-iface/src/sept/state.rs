//! The sixteen states of a Secure-EPT entry, and the five of an entry in an L2 (partitioning) tree.
//!
//! A state has three numbers: its *encoding* in seven scattered bits of the entry, the *public* number that
//! the module reports in bits 15:8 of level-and-state outputs, and its *index* in the allow tables.

use core::fmt;

macro_rules! states {
    ($( $(#[$doc:meta])* $name:ident = $index:literal, $encoding:literal, $public:literal, $text:literal; )*) => {
        /// The state of an entry of a TD's (L1) Secure EPT. The discriminant is the index in the allow tables.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum SeptState {
            $( $(#[$doc])* $name = $index, )*
        }

        impl SeptState {
            /// All states, by index.
            pub const ALL: [Self; 16] = [ $( Self::$name ),* ];

            /// The seven encoding bits: \[0\] = entry bit 9, \[4:1\] = bits 56:53, \[6:5\] = bits 7:6.
            pub const fn encoding(self) -> u8 {
                match self { $( Self::$name => $encoding, )* }
            }

            /// The state with this encoding.
            pub const fn from_encoding(encoding: u8) -> Option<Self> {
                match encoding { $( $encoding => Some(Self::$name), )* _ => None }
            }

            /// The number that outputs report in bits 15:8.
            pub const fn public(self) -> u8 {
                match self { $( Self::$name => $public, )* }
            }

            /// The state that outputs report as this number.
            pub const fn from_public(public: u8) -> Option<Self> {
                match public { $( $public => Some(Self::$name), )* _ => None }
            }

            /// The name that the ABI gives to the state.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$name => $text, )* }
            }
        }
    };
}

states! {
    /// Nothing is mapped and nothing was.
    Free = 0, 0x0e, 0x00, "FREE";
    /// A page was removed here while an import is in progress.
    Removed = 1, 0x0c, 0x05, "REMOVED";
    /// Points to a table.
    NlMapped = 2, 0x00, 0x84, "NL_MAPPED";
    /// Points to a table; new translations through it are blocked.
    NlBlocked = 3, 0x08, 0x81, "NL_BLOCKED";
    /// Maps a page that the guest may access.
    Mapped = 4, 0x60, 0x04, "MAPPED";
    /// Maps a page; new translations are blocked.
    Blocked = 5, 0x68, 0x01, "BLOCKED";
    /// Maps a page; writes are blocked for export.
    BlockedW = 6, 0x64, 0x08, "BLOCKEDW";
    /// Exported; writes still blocked.
    ExportedBlockedW = 7, 0x66, 0x09, "EXPORTED_BLOCKEDW";
    /// Exported, and written since.
    ExportedDirty = 8, 0x63, 0x0b, "EXPORTED_DIRTY";
    /// Exported, written since, and writes blocked again.
    ExportedDirtyBlockedW = 9, 0x67, 0x0c, "EXPORTED_DIRTY_BLOCKEDW";
    /// Added after finalisation and waiting for the guest to accept it.
    Pending = 10, 0x70, 0x02, "PENDING";
    /// Pending, and new translations are blocked.
    PendingBlocked = 11, 0x78, 0x03, "PENDING_BLOCKED";
    /// Pending, and write-blocked for export.
    PendingBlockedW = 12, 0x74, 0x10, "PENDING_BLOCKEDW";
    /// Pending and exported; still write-blocked.
    PendingExportedBlockedW = 13, 0x76, 0x11, "PENDING_EXPORTED_BLOCKEDW";
    /// Pending, exported, and changed since.
    PendingExportedDirty = 14, 0x73, 0x13, "PENDING_EXPORTED_DIRTY";
    /// Pending, exported, changed since, and write-blocked again.
    PendingExportedDirtyBlockedW = 15, 0x77, 0x14, "PENDING_EXPORTED_DIRTY_BLOCKEDW";
}

impl SeptState {
    /// Index in the allow tables.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Whether the entry maps a page (blocked or pending included).
    pub const fn is_leaf(self) -> bool {
        !matches!(self, Self::Free | Self::Removed | Self::NlMapped | Self::NlBlocked)
    }

    /// Whether the entry points to a table.
    pub const fn is_table(self) -> bool {
        matches!(self, Self::NlMapped | Self::NlBlocked)
    }

    /// Whether the guest still has to accept the page.
    pub const fn is_pending(self) -> bool {
        matches!(
            self,
            Self::Pending
                | Self::PendingBlocked
                | Self::PendingBlockedW
                | Self::PendingExportedBlockedW
                | Self::PendingExportedDirty
                | Self::PendingExportedDirtyBlockedW
        )
    }

    /// Whether TDH.MEM.RANGE.BLOCK has blocked the entry.
    pub const fn is_blocked(self) -> bool {
        matches!(self, Self::NlBlocked | Self::Blocked | Self::PendingBlocked)
    }

    /// The state after TDH.MEM.RANGE.BLOCK, where the leaf accepts this state.
    pub const fn blocked(self) -> Option<Self> {
        match self {
            Self::Mapped | Self::BlockedW => Some(Self::Blocked),
            Self::NlMapped => Some(Self::NlBlocked),
            Self::Pending | Self::PendingBlockedW => Some(Self::PendingBlocked),
            _ => None,
        }
    }

    /// The state after TDH.MEM.RANGE.UNBLOCK, where the leaf accepts this state.
    pub const fn unblocked(self) -> Option<Self> {
        match self {
            Self::Blocked => Some(Self::Mapped),
            Self::NlBlocked => Some(Self::NlMapped),
            Self::PendingBlocked => Some(Self::Pending),
            _ => None,
        }
    }
}

impl fmt::Display for SeptState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The state of an entry of an L2 VM's Secure EPT (TD partitioning).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum L2SeptState {
    /// Nothing is mapped.
    Free = 0,
    /// Points to a table.
    NlMapped = 1,
    /// Points to a table and is blocked.
    NlBlocked = 2,
    /// Maps a page.
    Mapped = 3,
    /// Maps a page and is blocked.
    Blocked = 4,
}

impl L2SeptState {
    /// All states.
    pub const ALL: [Self; 5] = [Self::Free, Self::NlMapped, Self::NlBlocked, Self::Mapped, Self::Blocked];

    /// The module's encoding of the state.
    pub const fn encoding(self) -> u8 {
        match self {
            Self::Free => 0,
            Self::NlMapped => 8,
            Self::NlBlocked => 1,
            Self::Mapped => 6,
            Self::Blocked => 7,
        }
    }

    /// The number that outputs report in bits 15:8.
    pub const fn public(self) -> u8 {
        match self {
            Self::Free => 0x40,
            Self::NlMapped => 0xc4,
            Self::NlBlocked => 0xc1,
            Self::Mapped => 0x44,
            Self::Blocked => 0x41,
        }
    }

    /// The state that outputs report as this number.
    pub fn from_public(public: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.public() == public)
    }

    /// The name that the ABI gives to the state.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Free => "L2_FREE",
            Self::NlMapped => "L2_NL_MAPPED",
            Self::NlBlocked => "L2_NL_BLOCKED",
            Self::Mapped => "L2_MAPPED",
            Self::Blocked => "L2_BLOCKED",
        }
    }
}

/// A state number as outputs report it: known or not.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct SeptStateId(pub u8);

impl SeptStateId {
    /// The state of an L1 entry, if it is one.
    pub const fn state(self) -> Option<SeptState> {
        SeptState::from_public(self.0)
    }

    /// The state of an L2 entry, if it is one.
    pub fn l2_state(self) -> Option<L2SeptState> {
        L2SeptState::from_public(self.0)
    }
}

impl From<SeptState> for SeptStateId {
    fn from(state: SeptState) -> Self {
        Self(state.public())
    }
}

impl fmt::Display for SeptStateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.state(), self.l2_state()) {
            (Some(state), _) => f.write_str(state.name()),
            (None, Some(state)) => f.write_str(state.name()),
            (None, None) => write!(f, "state {:#04x}", self.0),
        }
    }
}

impl fmt::Debug for SeptStateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_is_found_again_by_each_of_its_numbers() {
        for (index, state) in SeptState::ALL.into_iter().enumerate() {
            assert_eq!(state.index(), index);
            assert_eq!(SeptState::from_encoding(state.encoding()), Some(state));
            assert_eq!(SeptState::from_public(state.public()), Some(state));
            assert_eq!(SeptStateId::from(state).state(), Some(state));
        }
        for state in L2SeptState::ALL {
            assert_eq!(L2SeptState::from_public(state.public()), Some(state));
            assert_eq!(SeptState::from_public(state.public()), None, "L1 and L2 numbers are disjoint");
        }
    }

    #[test]
    fn unblocking_returns_a_freshly_blocked_entry_to_what_it_was() {
        for state in [SeptState::Mapped, SeptState::NlMapped, SeptState::Pending] {
            let blocked = state.blocked().unwrap();
            assert!(blocked.is_blocked());
            assert_eq!(blocked.unblocked(), Some(state));
            assert_eq!(blocked.blocked(), None);
        }
    }
}
