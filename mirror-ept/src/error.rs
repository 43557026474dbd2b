//! What an operation reports when it did not do all it was asked.
//!
//! An error means that nothing changed, except for [`MmuError::Dead`]: then this TD must end, and only this
//! one. Retries are outcomes, not errors.

use core::fmt;

use tdvisor_base::{Gfn, Pfn};

use crate::external::HookError;
use crate::range::Position;
use crate::table::NoMemory;

/// The step of a protocol at which a hook failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Linking a table.
    Link,
    /// Mapping a leaf.
    Set,
    /// Blocking an entry.
    Block,
    /// Tracking a batch.
    Track,
    /// Removing a leaf.
    Remove,
    /// Splitting a leaf.
    Split,
    /// Merging a table.
    Promote,
    /// Unlinking a table.
    Free,
    /// Making a blocked entry usable again.
    Unblock,
    /// Allowing writes to a leaf that was held for sending.
    Release,
}

/// Why nothing changed, or why the TD must end. `E` is what the external side said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MmuError<E> {
    /// The frame is outside what this MMU maps: the caller's mistake.
    OutOfRange(Gfn),
    /// A guard of another MMU: the caller's mistake.
    ForeignGuard,
    /// A page is mapped already, and it is another one. Nothing is ever swapped in place (29): remove first.
    PfnMismatch {
        /// The mapped entry.
        at: Position,
        /// The page it maps for the frame.
        mapped: Pfn,
        /// The page that was to be mapped.
        wanted: Pfn,
    },
    /// The cache has too few tables: top it up and repeat.
    NeedTables {
        /// Mirror tables that the operation needs in all.
        mirror: usize,
    },
    /// No memory for a list or a table.
    NoMemory,
    /// The operation does not fit the range: not aligned, or not one table of leaves.
    NotApplicable(Position),
    /// The guest touched more device space than there are tables for ([`crate::Config::device_tables`]).
    TooManyDevices(Gfn),
    /// A hook failed and everything is as it was before.
    Hook {
        /// At which entry.
        at: Position,
        /// In which step.
        step: Step,
        /// Why.
        why: HookError<E>,
    },
    /// An entry refers to a table that does not exist: memory was corrupted. The TD must end.
    Corrupt(Position),
    /// The mirror and the external table can no longer be made to agree. The TD must end; everything it
    /// owns is reclaimed or quarantined by its owner.
    Dead(Death<E>),
}

/// The step that could not be undone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Death<E> {
    /// At which entry, if at one; `None` where the MMU was dead before.
    pub at: Option<(Position, Step)>,
    /// Why, if a hook said so.
    pub why: Option<HookError<E>>,
}

impl<E> MmuError<E> {
    /// Whether the same call may succeed later, nothing having changed now.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::NeedTables { .. } | Self::NoMemory => true,
            Self::Hook { why, .. } => why.is_retryable(),
            _ => false,
        }
    }

    /// Whether the TD must end.
    pub const fn is_fatal(&self) -> bool {
        match self {
            Self::Dead(_) | Self::Corrupt(_) => true,
            Self::Hook { why, .. } => matches!(why, HookError::Fatal(_)),
            _ => false,
        }
    }
}

impl<E> From<NoMemory> for MmuError<E> {
    fn from(_: NoMemory) -> Self {
        Self::NoMemory
    }
}

impl<E: fmt::Display> fmt::Display for MmuError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfRange(gfn) => write!(f, "guest frame {gfn} is outside the guest-physical space"),
            Self::ForeignGuard => f.write_str("the guard belongs to another MMU"),
            Self::PfnMismatch { at, mapped, wanted } => {
                write!(f, "{at} maps {mapped}, {wanted} was to be mapped: remove the mapping first")
            }
            Self::NeedTables { mirror } => write!(f, "{mirror} mirror tables must be reserved first"),
            Self::NoMemory => f.write_str("no memory for page tables"),
            Self::TooManyDevices(gfn) => {
                write!(f, "device space at guest frame {gfn} is beyond what one guest is given tables for")
            }
            Self::NotApplicable(at) => write!(f, "the operation does not apply to {at}"),
            Self::Hook { at, step, why } => write!(f, "{step:?} of {at} failed: {why}"),
            Self::Corrupt(at) => write!(f, "{at} refers to a table that does not exist"),
            Self::Dead(Death { at: Some((at, step)), why: Some(why) }) => {
                write!(f, "{step:?} of {at} can neither be done nor undone: {why}")
            }
            Self::Dead(Death { at: Some((at, step)), why: None }) => {
                write!(f, "{step:?} of {at} can neither be done nor undone")
            }
            Self::Dead(_) => f.write_str("the MMU is dead: the TD must end"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for MmuError<E> {}
