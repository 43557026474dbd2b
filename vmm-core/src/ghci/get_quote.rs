//! GetQuote: a TDREPORT in a shared buffer becomes a quote.
//!
//! The buffer starts with a header (GHCI, "GetQuote"): version u64 = 1, status u64, input bytes
//! u32, output bytes u32; data from byte 24. The input is a TDREPORT. The quote replaces it, and the status
//! says how it went. This host answers before the call returns; a guest that asked for it is notified too.

use alloc::vec;

use base::{Gpa, PAGE_SIZE, SharedBit, Side};
use tdx_module_iface::ghci::CallStatus;

use super::Reply;
use crate::memory::GuestMemory;
use crate::platform::Platform;
use crate::quote::{QuoteSource, QuoteUnavailable, TDREPORT_BYTES};

const HEADER_BYTES: usize = 24;
const VERSION: u64 = 1;
/// The largest buffer that is looked at.
const MAX_BUFFER: u64 = 128 << 10;

/// Status values of the header.
mod status {
    pub const SUCCESS: u64 = 0;
    pub const ERROR: u64 = 0x8000_0000_0000_0000;
    pub const SERVICE_UNAVAILABLE: u64 = 0x8000_0000_0000_0001;
}

/// Answers a request. `gpa` carries the SHARED bit.
pub(crate) fn get_quote<P: Platform>(
    memory: &GuestMemory<'_, P>,
    source: Option<&dyn QuoteSource>,
    shared_bit: SharedBit,
    gpa: Gpa,
    size: u64,
) -> Reply {
    let invalid = Reply::status(CallStatus::INVALID_OPERAND);
    if !gpa.is_aligned(PAGE_SIZE) || !size.is_multiple_of(PAGE_SIZE) {
        return Reply::status(CallStatus::ALIGN_ERROR);
    }
    let (Side::Shared, buffer) = shared_bit.split(gpa) else { return invalid };
    if size == 0 || size > MAX_BUFFER {
        return invalid;
    }
    let mut header = [0; HEADER_BYTES];
    if memory.read_shared(buffer, &mut header).is_err() {
        return invalid;
    }
    let field = |at: usize| u64::from_le_bytes(header.get(at..at + 8).map_or([0; 8], to_array));
    let input_bytes = (field(16) & 0xffff_ffff) as usize;
    if field(0) != VERSION || input_bytes < TDREPORT_BYTES || input_bytes > size as usize - HEADER_BYTES {
        return invalid;
    }
    let mut report = [0; TDREPORT_BYTES];
    if memory.read_shared(buffer.wrapping_add(HEADER_BYTES as u64), &mut report).is_err() {
        return invalid;
    }
    let room = size as usize - HEADER_BYTES;
    let (status, quote) = match source.map(|source| source.quote(&report)) {
        None | Some(Err(QuoteUnavailable::Service)) => (status::SERVICE_UNAVAILABLE, vec![]),
        Some(Err(QuoteUnavailable::BadReport)) => (status::ERROR, vec![]),
        Some(Ok(quote)) if quote.len() > room => (status::ERROR, vec![]),
        Some(Ok(quote)) => (status::SUCCESS, quote),
    };
    // The data first, the status last: a guest that polls the status finds the data complete.
    let written = memory
        .write_shared(buffer.wrapping_add(HEADER_BYTES as u64), &quote)
        .and_then(|()| memory.write_shared(buffer.wrapping_add(20), &(quote.len() as u32).to_le_bytes()))
        .and_then(|()| memory.write_shared(buffer.wrapping_add(8), &status.to_le_bytes()));
    if written.is_ok() { Reply::SUCCESS } else { invalid }
}

fn to_array(bytes: &[u8]) -> [u8; 8] {
    let mut array = [0; 8];
    array.copy_from_slice(bytes);
    array
}
