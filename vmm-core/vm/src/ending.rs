//! How a VM ended.

use alloc::string::String;
use core::fmt;

/// How a VM ended. The first reason counts. `D` is why a VM of this kind cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending<D> {
    /// The guest powered itself off and says how it went: 0 is success.
    PoweredOff {
        /// The guest's exit code.
        code: u8,
    },
    /// The guest reported a fatal error (GHCI ReportFatalError).
    FatalError {
        /// The code that the guest gave.
        code: u32,
        /// The message that the guest gave.
        message: String,
    },
    /// The guest asked for a reset. A TD cannot be reset: it would have to be built anew.
    Reset,
    /// The guest's kernel panicked, as it said through its panic device.
    Panicked,
    /// The VM cannot go on.
    Died(D),
    /// The host asked it to stop.
    Stopped,
}

impl<D: fmt::Display> fmt::Display for Ending<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PoweredOff { code: 0 } => f.write_str("the guest powered off: success"),
            Self::PoweredOff { code } => write!(f, "the guest powered off: failure {code}"),
            Self::FatalError { code, message } => {
                write!(f, "the guest reported a fatal error (code {code:#x}): {message}")
            }
            Self::Reset => f.write_str("the guest asked for a reboot: the TD ends here"),
            Self::Panicked => f.write_str("the guest's kernel panicked"),
            Self::Died(death) => write!(f, "the TD died: {death}"),
            Self::Stopped => f.write_str("the TD was stopped"),
        }
    }
}
