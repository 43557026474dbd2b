//! TDREPORT: what a TD gets from TDG.MR.REPORT and a quoting enclave turns into a quote.
//!
//! The structures, their hashes and the MAC of an emulated platform are those of
//! [`tdx_module_iface::report`]; here is what a quote takes from them.

mod convert;

pub use convert::ToQuoteBody;
pub use tdx_module_iface::report::{
    REPORT_TYPE_TDX, ReportError, ReportKey, ReportMac, ReportType, TdInfo, TdReport, TeeTcbInfo,
};
