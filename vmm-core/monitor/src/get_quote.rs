//! GetQuote: a TDREPORT in a shared buffer becomes a quote.
//!
//! The buffer starts with a header (GHCI, "GetQuote"): version u64 = 1, status u64, input bytes
//! u32, output bytes u32; data from byte 24. The input is a TDREPORT. The quote replaces it, and the status
//! says how it went. This host answers before the call returns; a guest that asked for it is notified too.

use alloc::vec;
use core::mem::offset_of;

use tdvisor_base::{Gpa, PAGE_SIZE, SharedBit, Side};
use tdvisor_vm::{Answer, SharedMemory};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::quote::{QuoteSource, QuoteUnavailable, TDREPORT_BYTES};

/// What a buffer begins with.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    version: U64,
    status: U64,
    input_bytes: U32,
    output_bytes: U32,
}

const HEADER_BYTES: u64 = size_of::<Header>() as u64;
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
pub(crate) fn get_quote(
    memory: &dyn SharedMemory,
    source: Option<&dyn QuoteSource>,
    shared_bit: SharedBit,
    gpa: Gpa,
    size: u64,
    told: &dyn Fn(Result<usize, QuoteUnavailable>),
) -> Answer {
    if !gpa.is_aligned(PAGE_SIZE) || !size.is_multiple_of(PAGE_SIZE) {
        return Answer::Misaligned;
    }
    let (Side::Shared, buffer) = shared_bit.split(gpa) else { return Answer::Invalid };
    if size == 0 || size > MAX_BUFFER {
        return Answer::Invalid;
    }
    let mut header = Header::new_zeroed();
    if memory.read(buffer, header.as_mut_bytes()).is_err() {
        return Answer::Invalid;
    }
    let room = size - HEADER_BYTES;
    let input_bytes = u64::from(header.input_bytes.get());
    if header.version.get() != VERSION || input_bytes < TDREPORT_BYTES as u64 || input_bytes > room {
        return Answer::Invalid;
    }
    let data = buffer.wrapping_add(HEADER_BYTES);
    let mut report = [0; TDREPORT_BYTES];
    if memory.read(data, &mut report).is_err() {
        return Answer::Invalid;
    }
    let quote = source.map(|source| source.quote(&report));
    told(match &quote {
        None => Err(QuoteUnavailable::Service),
        Some(Err(error)) => Err(*error),
        Some(Ok(quote)) => Ok(quote.len()),
    });
    let (status, quote) = match quote {
        None | Some(Err(QuoteUnavailable::Service)) => (status::SERVICE_UNAVAILABLE, vec![]),
        Some(Err(QuoteUnavailable::BadReport)) => (status::ERROR, vec![]),
        Some(Ok(quote)) if quote.len() as u64 > room => (status::ERROR, vec![]),
        Some(Ok(quote)) => (status::SUCCESS, quote),
    };
    let Ok(output_bytes) = u32::try_from(quote.len()) else { return Answer::Invalid };
    let field = |offset: usize| buffer.wrapping_add(offset as u64);
    let output_bytes = U32::new(output_bytes);
    // The data first, the status last: a guest that polls the status finds the data complete.
    let written = memory
        .write(data, &quote)
        .and_then(|()| memory.write(field(offset_of!(Header, output_bytes)), output_bytes.as_bytes()))
        .and_then(|()| memory.write(field(offset_of!(Header, status)), U64::new(status).as_bytes()));
    if written.is_ok() { Answer::Done } else { Answer::Invalid }
}
