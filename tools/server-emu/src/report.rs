//! What a server did that a person should know: once each, and boundedly many.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::interrupts::Unsupported;
use crate::remapping::Lost;

/// Something that the server's host did and that deserves a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Notice {
    /// An MSR that the processor has not, or a value that it does not take: the host got #GP.
    UnknownMsr {
        /// The MSR's number.
        index: u32,
        /// The value, if it was written.
        write: Option<u64>,
    },
    /// An address with a private key id, outside of the module: the host got #PF.
    PrivateKey {
        /// Which processor.
        processor: usize,
        /// The key id.
        key: u16,
    },
    /// Memory that is not there, or a page that is held under another key: the host got #MC.
    MachineCheck {
        /// Which processor.
        processor: usize,
        /// The physical address.
        hpa: u64,
    },
    /// INIT, SIPI or SMI.
    Unsupported {
        /// Which processor sent it.
        processor: usize,
        /// What was sent.
        what: Unsupported,
    },
    /// An interrupt of a device that interrupt remapping did not let pass.
    LostInterrupt(Lost),
    /// VMLAUNCH or VMRESUME: an ordinary VM.
    OrdinaryVm,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownMsr { index, write: None } => write!(f, "RDMSR {index:#x}: #GP"),
            Self::UnknownMsr { index, write: Some(value) } => {
                write!(f, "WRMSR {index:#x} := {value:#x}: #GP")
            }
            Self::PrivateKey { processor, key } => {
                write!(
                    f,
                    "CPU {processor} used an address with private key id {key} outside of the TDX module: #PF"
                )
            }
            Self::MachineCheck { processor, hpa } => {
                write!(f, "CPU {processor} at physical {hpa:#x}: machine check")
            }
            Self::Unsupported { processor, what } => {
                let what = match what {
                    Unsupported::Init => "INIT",
                    Unsupported::StartUp => "SIPI",
                    Unsupported::Smi => "SMI",
                };
                write!(
                    f,
                    "CPU {processor} sent {what}: not emulated; processors start by the ACPI wake-up mailbox"
                )
            }
            Self::LostInterrupt(why) => write!(f, "an interrupt of a device was lost: {why}"),
            Self::OrdinaryVm => f.write_str("ordinary VMs are not emulated; start a TD"),
        }
    }
}

/// The most notices that are kept.
const LIMIT: usize = 256;

/// The notices of a server.
#[derive(Debug, Default)]
pub struct Report {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    known: BTreeSet<Notice>,
    in_order: Vec<Notice>,
    lost: u64,
}

impl Report {
    /// Takes a notice down, unless it is known.
    pub(crate) fn note(&self, notice: Notice) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.known.contains(&notice) {
            return;
        }
        if seen.in_order.len() >= LIMIT {
            seen.lost += 1;
            return;
        }
        seen.known.insert(notice);
        seen.in_order.push(notice);
    }

    /// A report that goes on from such notices.
    pub(crate) fn restore(in_order: Vec<Notice>, lost: u64) -> Self {
        Self { seen: Mutex::new(Seen { known: in_order.iter().copied().collect(), in_order, lost }) }
    }

    /// The notices in the order in which they came first, and the number of those that were too many.
    pub fn notices(&self) -> (Vec<Notice>, u64) {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        (seen.in_order.clone(), seen.lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_is_taken_down_once_and_their_number_is_bounded() {
        let report = Report::default();
        for round in 0..2 {
            for index in 0..LIMIT as u32 + 10 {
                report.note(Notice::UnknownMsr { index, write: None });
            }
            let (notices, lost) = report.notices();
            assert_eq!((notices.len(), lost), (LIMIT, 10 * (round + 1)));
        }
    }
}
