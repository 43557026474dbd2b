//! How a typed call ends when it does not simply succeed.
//!
//! Three kinds, which callers treat differently:
//! - [`SeamError::Retry`]: control flow. Nothing is wrong; the caller waits, kicks VCPUs or goes on, and calls
//!   again ([`Retry`] says which).
//! - [`SeamError::Refused`]: the module will not do it with these inputs in this state.
//! - [`SeamError::Fault`]: the instruction did not reach a module.
//!
//! Statuses that carry a code but are not errors (already blocked, already initialised, ...) are not here:
//! the wrapper of their leaf returns them as values.

use core::convert::Infallible;
use core::fmt;

use crate::leaf::TdhLeaf;
use crate::regs::SeamCallFault;
use crate::status::{Operand, Status, StatusCode};

/// Why a call has to be issued again, and what has to happen before.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Retry {
    /// The lock of this operand is held by another LP, or by the guest.
    Busy {
        /// The locked operand or object.
        operand: Operand,
    },
    /// A system leaf that excludes all others runs on another LP.
    SysBusy,
    /// TDH.MEM.TRACK: a VCPU still runs in the previous epoch. Kick VCPUs out of the guest first.
    PreviousTlbEpochBusy,
    /// The processor's random-number generator has nothing to give (or a key could not be generated for that
    /// reason).
    NoEntropy,
    /// An interrupt is pending; the progress is saved. Continue with the updated operands.
    InterruptedResumable,
    /// An interrupt is pending; nothing was done. Issue the identical call.
    InterruptedRestartable,
}

impl Retry {
    /// What a status asks for; `None` where it is no request to call again.
    pub const fn of(status: Status) -> Option<Self> {
        Some(match status.code() {
            StatusCode::OPERAND_BUSY => Self::Busy { operand: status.operand() },
            StatusCode::SYS_BUSY => Self::SysBusy,
            StatusCode::PREVIOUS_TLB_EPOCH_BUSY => Self::PreviousTlbEpochBusy,
            StatusCode::RND_NO_ENTROPY | StatusCode::KEY_GENERATION_FAILED => Self::NoEntropy,
            StatusCode::INTERRUPTED_RESUMABLE => Self::InterruptedResumable,
            StatusCode::INTERRUPTED_RESTARTABLE => Self::InterruptedRestartable,
            _ => return None,
        })
    }
}

impl fmt::Display for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy { operand } => write!(f, "{operand} is locked by another user"),
            Self::SysBusy => f.write_str("another LP runs a system leaf"),
            Self::PreviousTlbEpochBusy => f.write_str("a VCPU still runs in the previous TLB epoch"),
            Self::NoEntropy => f.write_str("no entropy is available now"),
            Self::InterruptedResumable => f.write_str("interrupted, to be resumed"),
            Self::InterruptedRestartable => f.write_str("interrupted, to be restarted"),
        }
    }
}

/// A leaf that did not succeed.
///
/// `D` is what the leaf reports beside the status; leaves that report nothing have the uninhabited default.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SeamError<D = Infallible> {
    /// Call again.
    Retry {
        /// The leaf.
        leaf: TdhLeaf,
        /// The whole status.
        status: Status,
        /// What has to happen before.
        retry: Retry,
    },
    /// The module refused.
    Refused {
        /// The leaf.
        leaf: TdhLeaf,
        /// The whole status.
        status: Status,
        /// What the leaf reports about this status, if it does.
        details: Option<D>,
    },
    /// The instruction did not reach a module.
    Fault {
        /// The leaf.
        leaf: TdhLeaf,
        /// What happened instead.
        fault: SeamCallFault,
    },
}

impl<D> SeamError<D> {
    /// The leaf that was called.
    pub const fn leaf(&self) -> TdhLeaf {
        match self {
            Self::Retry { leaf, .. } | Self::Refused { leaf, .. } | Self::Fault { leaf, .. } => *leaf,
        }
    }

    /// The status, where the module gave one.
    pub const fn status(&self) -> Option<Status> {
        match self {
            Self::Retry { status, .. } | Self::Refused { status, .. } => Some(*status),
            Self::Fault { .. } => None,
        }
    }

    /// The status code, where the module gave one.
    pub const fn code(&self) -> Option<StatusCode> {
        match self.status() {
            Some(status) => Some(status.code()),
            None => None,
        }
    }

    /// The request to call again, if it is one.
    pub const fn retry(&self) -> Option<Retry> {
        match self {
            Self::Retry { retry, .. } => Some(*retry),
            Self::Refused { .. } | Self::Fault { .. } => None,
        }
    }

    /// What the leaf reports beside the status.
    pub const fn details(&self) -> Option<&D> {
        match self {
            Self::Refused { details, .. } => details.as_ref(),
            Self::Retry { .. } | Self::Fault { .. } => None,
        }
    }

    /// This error with its details replaced by what `map` makes of them.
    pub fn map_details<E>(self, map: impl FnOnce(D) -> E) -> SeamError<E> {
        match self {
            Self::Retry { leaf, status, retry } => SeamError::Retry { leaf, status, retry },
            Self::Refused { leaf, status, details } => {
                SeamError::Refused { leaf, status, details: details.map(map) }
            }
            Self::Fault { leaf, fault } => SeamError::Fault { leaf, fault },
        }
    }

    /// This error without its details: for callers that keep errors of different leaves together.
    pub fn without_details(self) -> SeamError {
        match self {
            Self::Retry { leaf, status, retry } => SeamError::Retry { leaf, status, retry },
            Self::Refused { leaf, status, .. } => SeamError::Refused { leaf, status, details: None },
            Self::Fault { leaf, fault } => SeamError::Fault { leaf, fault },
        }
    }
}

impl<D: fmt::Display> fmt::Display for SeamError<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retry { leaf, retry, .. } => write!(f, "{leaf}: {retry}"),
            Self::Refused { leaf, status, details } => {
                write!(f, "{leaf}: {status}")?;
                match details {
                    Some(details) => write!(f, " [{details}]"),
                    None => Ok(()),
                }
            }
            Self::Fault { leaf, fault } => write!(f, "{leaf}: {fault}"),
        }
    }
}

impl<D: fmt::Display + fmt::Debug> core::error::Error for SeamError<D> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_six_retry_codes_are_control_flow_and_nothing_else_is() {
        let retries = StatusCode::ALL.iter().filter(|code| Retry::of(Status::new(**code)).is_some());
        assert!(retries.eq(&[
            StatusCode::INTERRUPTED_RESUMABLE,
            StatusCode::INTERRUPTED_RESTARTABLE,
            StatusCode::OPERAND_BUSY,
            StatusCode::PREVIOUS_TLB_EPOCH_BUSY,
            StatusCode::SYS_BUSY,
            StatusCode::RND_NO_ENTROPY,
            StatusCode::KEY_GENERATION_FAILED,
        ]));
    }

    #[test]
    fn a_busy_status_names_its_operand() {
        let status = Status::with_operand(StatusCode::OPERAND_BUSY, Operand::SEPT_TREE);
        assert_eq!(Retry::of(status), Some(Retry::Busy { operand: Operand::SEPT_TREE }));
    }
}
