//! Why a vCPU is not running, and what it is told.

use core::fmt;

use tdvisor_base::{Gpa, Side};

use crate::Ending;

/// Bytes of one access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessSize {
    /// One byte.
    Byte,
    /// Two bytes.
    Word,
    /// Four bytes.
    Double,
    /// Eight bytes: MMIO only.
    Quad,
}

impl AccessSize {
    /// The size of this many bytes.
    pub const fn from_bytes(bytes: u64) -> Option<Self> {
        match bytes {
            1 => Some(Self::Byte),
            2 => Some(Self::Word),
            4 => Some(Self::Double),
            8 => Some(Self::Quad),
            _ => None,
        }
    }

    /// Bytes.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Byte => 1,
            Self::Word => 2,
            Self::Double => 4,
            Self::Quad => 8,
        }
    }

    /// A value with all bits of this size set: what reading nothing gives.
    pub const fn all_ones(self) -> u64 {
        u64::MAX >> (64 - 8 * self.bytes())
    }
}

/// Which way an access goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// The guest reads; answered by [`Answer::Value`].
    Read,
    /// The guest writes this value; answered by [`Answer::Done`].
    Write(u64),
}

/// Why a vCPU left its runner. `D` is why a VM of this kind cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VmExit<D> {
    /// IN or OUT.
    Io {
        /// The port.
        port: u16,
        /// Bytes: 1, 2 or 4.
        size: AccessSize,
        /// Which way.
        transfer: Transfer,
    },
    /// An access to emulated memory.
    Mmio {
        /// The address, without the SHARED bit.
        gpa: Gpa,
        /// Bytes.
        size: AccessSize,
        /// Which way.
        transfer: Transfer,
    },
    /// The guest wants memory on another side. Nothing about the range is checked.
    MapGpa {
        /// First byte; the SHARED bit says to which side.
        gpa: Gpa,
        /// Bytes.
        size: u64,
    },
    /// The guest wants the TDREPORT in a buffer turned into a quote. Nothing about the buffer is checked.
    GetQuote {
        /// The buffer, SHARED bit included.
        gpa: Gpa,
        /// The size of the buffer at the address, bytes.
        size: u64,
    },
    /// The guest says which vector tells it that a request is done.
    EventNotify {
        /// The vector, 32 to 255 in a good request.
        vector: u64,
    },
    /// The guest asks what its monitor offers.
    CallInfo {
        /// 0: whether the base functions are there; 1: which functions beyond them.
        leaf: u64,
    },
    /// The guest touched memory that it cannot have: see [`Partition::die_of`](crate::Partition::die_of).
    MemoryFault(MemoryFault),
    /// Somebody asked for the vCPU ([`Partition::interrupt`](crate::Partition::interrupt)). The guest did nothing and is
    /// told nothing.
    Interrupted,
    /// The VM has ended; the vCPU never runs again.
    Ended(Ending<D>),
}

/// What the guest is told of the exit before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Answer {
    /// What the exit asked for is done. For the first run, too, and after an exit that asked for nothing.
    #[default]
    Done,
    /// What the exit asked for is done, and this is its result.
    Value(u64),
    /// A part is done: go on from here.
    Retry(Gpa),
    /// The request has no meaning.
    Invalid,
    /// The request's address or size is not aligned as it has to be.
    Misaligned,
}

/// An access of the guest to memory that it cannot have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryFault {
    /// Where, without the SHARED bit.
    pub gpa: Gpa,
    /// On which side the guest touched it.
    pub touched: Side,
    /// What is wrong with that.
    pub reason: FaultReason,
}

/// What is wrong with an access to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultReason {
    /// No memory is at the address.
    NoMemory,
    /// The memory at the address is on the other side.
    WrongSide,
}

impl fmt::Display for MemoryFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gpa = self.gpa;
        match (self.reason, self.touched) {
            (FaultReason::NoMemory, _) => write!(f, "touched {gpa}, where it has no memory"),
            (FaultReason::WrongSide, Side::Private) => {
                write!(f, "touched shared memory at {gpa} as private")
            }
            (FaultReason::WrongSide, Side::Shared) => {
                write!(f, "touched private memory at {gpa} as shared")
            }
        }
    }
}
