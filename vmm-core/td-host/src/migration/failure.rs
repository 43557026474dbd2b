//! Why a session cannot go on. The session is to be aborted then, on either side.

use core::fmt;

use tdvisor_base::Gfn;

use super::bundle::Oversized;
use crate::error::Error;

/// What the other machine did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerFault {
    /// The other machine says what is not its turn to say.
    OutOfTurn,
    /// The other machine speaks of memory that it did not announce, or on the wrong side of the SHARED bit, or twice.
    NotThere(Gfn),
    /// The other machine announces more memory or vCPUs than this machine has left.
    TooLarge,
    /// A message is larger than it may be.
    Oversized,
}

impl fmt::Display for PeerFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfTurn => f.write_str("the other machine says what is not its turn to say"),
            Self::NotThere(gfn) => {
                write!(f, "guest frame {gfn} cannot be what the other machine takes it for")
            }
            Self::TooLarge => f.write_str("the TD is larger than what this machine has left"),
            Self::Oversized => Oversized.fmt(f),
        }
    }
}

/// Why a session cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// The module or the machine refused.
    Host(Error),
    /// The other machine is at fault.
    Peer(PeerFault),
    /// The TD gave memory up while it was sent: begin anew.
    MemoryWent,
    /// A vCPU did not come to rest within its bound.
    NotAtRest(u32),
    /// Pages that are due stayed busy beyond their bound.
    StaysDirty,
    /// The other machine might run the TD: its token has to prove that it does not.
    NeedsToken,
    /// The session is over, or has not come that far.
    Over,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(error) => error.fmt(f),
            Self::Peer(fault) => fault.fmt(f),
            Self::MemoryWent => f.write_str("the TD gave memory up while it was sent to another machine"),
            Self::NotAtRest(vcpu) => write!(f, "vCPU {vcpu} did not come to rest"),
            Self::StaysDirty => f.write_str("pages that had to be sent stayed busy"),
            Self::NeedsToken => {
                f.write_str("the other machine might run the TD: only its token can prove that it does not")
            }
            Self::Over => f.write_str("the migration session is over, or has not come that far"),
        }
    }
}

impl core::error::Error for Failure {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Host(error)
    }
}

impl From<PeerFault> for Failure {
    fn from(fault: PeerFault) -> Self {
        Self::Peer(fault)
    }
}

impl From<Oversized> for Failure {
    fn from(_: Oversized) -> Self {
        Self::Peer(PeerFault::Oversized)
    }
}
