//! Where quotes come from.

use alloc::vec::Vec;
use core::fmt;

use tdx_module_iface::report::TdReport;

/// Bytes of a TDREPORT.
pub const TDREPORT_BYTES: usize = TdReport::SIZE;

/// Turns TDREPORTs into quotes.
pub trait QuoteSource: Send + Sync {
    /// The quote for a report. Whether the report's MAC is good is for the source to check.
    ///
    /// # Errors
    /// [`QuoteUnavailable`].
    fn quote(&self, report: &[u8; TDREPORT_BYTES]) -> Result<Vec<u8>, QuoteUnavailable>;
}

/// No quote for this report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuoteUnavailable {
    /// The report cannot be quoted: its MAC is wrong or it is no report.
    BadReport,
    /// The service does not answer.
    Service,
}

impl fmt::Display for QuoteUnavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadReport => "the TDREPORT is not one of this machine",
            Self::Service => "the quoting service does not answer",
        })
    }
}

impl core::error::Error for QuoteUnavailable {}
