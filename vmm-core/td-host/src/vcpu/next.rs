//! How a vCPU enters its guest next.

use tdx_module_iface::tdh::{Entry, ExposedGprs};

/// How a vCPU enters its guest next: kept by the host between two entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NextEntry {
    /// For the first time, or after an asynchronous exit.
    #[default]
    Plain,
    /// After a call, whose answer the guest sees in these registers.
    Answering(ExposedGprs),
    /// After an exit with a host-recoverability hint, which is confirmed.
    Recoverable,
    /// After an exit of an L2 VM: its L1 goes on.
    ResumingL1,
}

impl From<NextEntry> for Entry {
    fn from(next: NextEntry) -> Self {
        match next {
            NextEntry::Plain => Self::new(),
            NextEntry::Answering(gprs) => Self::answering(gprs),
            NextEntry::Recoverable => Self::new().with_host_recoverability_hint(),
            NextEntry::ResumingL1 => Self::new().resuming_l1(),
        }
    }
}
