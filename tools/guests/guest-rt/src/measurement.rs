//! What the TDX module measured: RTMR extension, the TDREPORT, and quotes over it.

use core::fmt;

use tdx_guest::tdcall::{TdCallError, extend_rtmr, get_report};
use tdx_guest::tdvmcall::{TdVmcallError, get_quote};

use crate::shared::SharedBuffer;
use crate::smp::wait_until;

/// Bytes of a TDREPORT.
pub const REPORT_LENGTH: usize = 1024;
/// Bytes of an MRTD or RTMR (SHA-384).
pub const DIGEST_LENGTH: usize = 48;
/// Number of RTMRs.
pub const RTMRS: usize = 4;
/// Bytes of REPORTDATA.
pub const REPORT_DATA_LENGTH: usize = 64;

/// Offsets inside the TDREPORT: TDINFO begins at 512.
const MRTD: usize = 512 + 16;
const RTMR0: usize = 512 + 208;

/// Extends RTMR `index` by `digest`, using `page` (4K-aligned private memory) as the operand.
///
/// # Errors
/// What the TDX module said.
pub fn extend(page: &mut [u8], index: u64, digest: &[u8; DIGEST_LENGTH]) -> Result<(), TdCallError> {
    let operand = page.get_mut(..DIGEST_LENGTH).ok_or(TdCallError::TdxOperandInvalid)?;
    operand.copy_from_slice(digest);
    extend_rtmr(operand.as_mut_ptr() as u64, index)
}

/// A TDREPORT in private memory.
#[derive(Debug)]
pub struct Report<'a>(&'a [u8; REPORT_LENGTH]);

impl<'a> Report<'a> {
    /// Asks for a report over `data`; `page` is a private 4K page.
    ///
    /// # Errors
    /// What the TDX module said.
    pub fn take(page: &'a mut [u8], data: &[u8; REPORT_DATA_LENGTH]) -> Result<Self, TdCallError> {
        let (report, rest) = page.split_first_chunk_mut().ok_or(TdCallError::TdxOperandInvalid)?;
        let report: &mut [u8; REPORT_LENGTH] = report;
        let operand = rest.get_mut(..REPORT_DATA_LENGTH).ok_or(TdCallError::TdxOperandInvalid)?;
        operand.copy_from_slice(data);
        get_report(report.as_mut_ptr() as u64, operand.as_mut_ptr() as u64)?;
        Ok(Self(report))
    }

    /// All its bytes.
    pub fn bytes(&self) -> &[u8; REPORT_LENGTH] {
        self.0
    }

    /// The measurement of the TD's initial memory.
    pub fn mrtd(&self) -> Hex<'_> {
        self.digest(MRTD)
    }

    /// RTMR 0 to 3.
    pub fn rtmrs(&self) -> [Hex<'_>; RTMRS] {
        core::array::from_fn(|index| self.digest(RTMR0 + index * DIGEST_LENGTH))
    }

    fn digest(&self, offset: usize) -> Hex<'_> {
        Hex(self.0.get(offset..offset + DIGEST_LENGTH).unwrap_or_default())
    }
}

/// Bytes printed as lower-case hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Header of the GetQuote buffer (GHCI): version, status, length of the input, length of the output.
const QUOTE_VERSION: u64 = 1;
const QUOTE_STATUS_OFFSET: usize = 8;
const QUOTE_LENGTHS_OFFSET: usize = 16;
/// Where the quote stands in the buffer.
pub const QUOTE_DATA_OFFSET: usize = 24;
const STATUS_IN_FLIGHT: u64 = u64::MAX;

/// A request for a quote that brought none.
#[derive(Debug, PartialEq)]
pub enum QuoteError {
    /// The buffer is too short for a report.
    TooShort,
    /// The host refused the call.
    Refused(TdVmcallError),
    /// The host took the request and then failed, with this status.
    Failed(u64),
    /// No answer came.
    NoAnswer,
}

/// Asks the host for a quote over `report`; on success says how many bytes it has.
///
/// # Errors
/// [`QuoteError`].
pub fn quote(buffer: &SharedBuffer, report: &Report<'_>) -> Result<u32, QuoteError> {
    if buffer.len() < QUOTE_DATA_OFFSET + REPORT_LENGTH {
        return Err(QuoteError::TooShort);
    }
    buffer.write(0, QUOTE_VERSION);
    buffer.write(QUOTE_STATUS_OFFSET, 0);
    buffer.write(QUOTE_LENGTHS_OFFSET, REPORT_LENGTH as u64);
    for (index, word) in report.bytes().as_chunks::<8>().0.iter().enumerate() {
        buffer.write(QUOTE_DATA_OFFSET + 8 * index, u64::from_le_bytes(*word));
    }
    get_quote(buffer.gpa(), buffer.len() as u64).map_err(QuoteError::Refused)?;
    if !wait_until(|| buffer.read(QUOTE_STATUS_OFFSET) != Some(STATUS_IN_FLIGHT)) {
        return Err(QuoteError::NoAnswer);
    }
    match buffer.read(QUOTE_STATUS_OFFSET) {
        Some(0) => Ok((buffer.read(QUOTE_LENGTHS_OFFSET).unwrap_or(0) >> 32) as u32),
        status => Err(QuoteError::Failed(status.unwrap_or(STATUS_IN_FLIGHT))),
    }
}
