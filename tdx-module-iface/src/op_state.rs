//! OP_STATE: where a TD is in its life, and which leaves it then accepts.
//!
//! A leaf called in a state outside its row of the leaf table fails with `OP_STATE_INCORRECT`.

use core::fmt;

use self::OpState::*;
use crate::leaf::{TdgLeaf, TdhLeaf};

/// The operation state of a TD. The discriminant is the value of TD field OP_STATE.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum OpState {
    /// Before `TDH.MNG.INIT`.
    Uninitialized = 0,
    /// Being built.
    Initialized = 1,
    /// Finalised: VCPUs may run.
    Runnable = 2,
    /// Being exported while running.
    LiveExport = 3,
    /// Being exported, paused.
    PausedExport = 4,
    /// Exported.
    PostExport = 5,
    /// Memory is being imported.
    MemoryImport = 6,
    /// TD and VCPU state is being imported.
    StateImport = 7,
    /// State is imported, not committed.
    PostImport = 8,
    /// Committed and running while the rest of memory arrives.
    LiveImport = 9,
    /// The import failed.
    FailedImport = 10,
}

impl OpState {
    /// All states, by value.
    pub const ALL: [Self; 11] = [
        Uninitialized,
        Initialized,
        Runnable,
        LiveExport,
        PausedExport,
        PostExport,
        MemoryImport,
        StateImport,
        PostImport,
        LiveImport,
        FailedImport,
    ];

    /// The state with this value.
    pub fn from_value(value: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|state| *state as u32 == value)
    }

    /// The name that the ABI gives to the state.
    pub const fn name(self) -> &'static str {
        match self {
            Uninitialized => "UNINITIALIZED",
            Initialized => "INITIALIZED",
            Runnable => "RUNNABLE",
            LiveExport => "LIVE_EXPORT",
            PausedExport => "PAUSED_EXPORT",
            PostExport => "POST_EXPORT",
            MemoryImport => "MEMORY_IMPORT",
            StateImport => "STATE_IMPORT",
            PostImport => "POST_IMPORT",
            LiveImport => "LIVE_IMPORT",
            FailedImport => "FAILED_IMPORT",
        }
    }
}

impl fmt::Display for OpState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of operation states: bit n is the state with value n.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct OpStates(u16);

impl OpStates {
    /// All states.
    pub const ALL: Self = Self(0x7ff);
    /// States in which VCPUs may run, so that removing a mapping needs blocking and TLB tracking.
    pub const TLB_TRACKING_REQUIRED: Self = Self::of(&[Runnable, LiveExport, LiveImport]);
    /// `TDH.MNG.INIT` (or an import) has happened.
    pub const ANY_INITIALIZED: Self = Self(0x7fe);
    /// The measurement is final.
    pub const ANY_FINALIZED: Self = Self(0x3fc);
    /// In-order export.
    pub const EXPORT_IN_ORDER: Self = Self::of(&[LiveExport, PausedExport]);
    /// In-order import.
    pub const IMPORT_IN_ORDER: Self = Self::of(&[MemoryImport, StateImport]);
    /// Out-of-order import.
    pub const IMPORT_OUT_OF_ORDER: Self = Self::of(&[PostImport, LiveImport]);
    /// Any import that has not ended.
    pub const IMPORT_IN_PROGRESS: Self = Self::of(&[MemoryImport, StateImport, PostImport, LiveImport]);

    /// The set of these states.
    pub const fn of(states: &[OpState]) -> Self {
        let mut bits = 0;
        let mut position = 0;
        while position < states.len() {
            bits |= 1 << states[position] as u16;
            position += 1;
        }
        Self(bits)
    }

    /// Whether the state is in the set.
    pub const fn contains(self, state: OpState) -> bool {
        self.0 >> state as u16 & 1 != 0
    }

    /// The states of the set, by value.
    pub fn iter(self) -> impl Iterator<Item = OpState> {
        OpState::ALL.into_iter().filter(move |state| self.contains(*state))
    }
}

/// The states that `TDH.SERVTD.BIND` demands of the service TD itself.
pub const SERVTD_BIND_OTHER_TD: OpStates =
    OpStates::of(&[Runnable, LiveExport, PausedExport, PostExport, PostImport, LiveImport]);

/// The states in which a host leaf runs; `None` for a leaf that does not look.
pub const fn tdh_allowed(leaf: TdhLeaf) -> Option<OpStates> {
    match leaf.info() {
        Some(info) => info.op_states,
        None => None,
    }
}

/// The states of the *target* TD in which a guest leaf runs; `None` for a leaf that does not look.
pub const fn tdg_allowed(leaf: TdgLeaf) -> Option<OpStates> {
    match leaf.info() {
        Some(info) => info.op_states,
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn building_leaves_run_only_before_finalisation() {
        for leaf in [TdhLeaf::MEM_PAGE_ADD, TdhLeaf::MR_EXTEND, TdhLeaf::MR_FINALIZE, TdhLeaf::VP_INIT] {
            assert!(tdh_allowed(leaf).unwrap().iter().eq([Initialized]), "{leaf}");
        }
        assert_eq!(tdh_allowed(TdhLeaf::PHYMEM_PAGE_RECLAIM), None);
        assert_eq!(tdh_allowed(TdhLeaf::VP_FLUSH), Some(OpStates::ALL));
    }

    #[test]
    fn vcpus_run_exactly_where_tracking_is_required() {
        assert_eq!(tdh_allowed(TdhLeaf::VP_ENTER), Some(OpStates::TLB_TRACKING_REQUIRED));
    }

    #[test]
    fn state_values_and_the_flag_sets_are_those_of_the_abi() {
        for (value, state) in OpState::ALL.into_iter().enumerate() {
            assert_eq!(OpState::from_value(value as u32), Some(state));
        }
        assert_eq!(OpState::from_value(11), None);
        assert!(OpStates::ANY_INITIALIZED.iter().eq(OpState::ALL[1..].iter().copied()));
        assert!(OpStates::ANY_FINALIZED.iter().eq(OpState::ALL[2..10].iter().copied()));
    }
}
