//! Files that the event log commands take.

use std::path::Path;

use tdvisor_attest::eventlog::Registers;
use tdvisor_attest::predict::{Prediction, list};
use tdvisor_attest::quote::Quote;
use tdvisor_attest::report::TdReport;

use super::RegisterArgs;
use crate::commands::verify::inputs::read_quote;
use crate::outcome::Failure;
use crate::read_bounded::{read_bounded, read_text_bounded};

/// Kernels and firmware are far smaller.
const MAX_FILE: u64 = 1 << 30;

/// Reads a file that an event log, a quote or a part of a boot can be.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    read_bounded(path, MAX_FILE)
}

/// The registers that the arguments name, if any.
pub(super) fn registers(args: &RegisterArgs) -> Result<Option<Registers>, Failure> {
    if let Some(path) = &args.quote {
        let bytes = read_quote(path)?;
        let quote = Quote::parse(&bytes).map_err(|error| Failure::input(path.display(), error))?;
        let td = quote.body().td().ok_or_else(|| Failure::input(path.display(), "not a quote of a TD"))?;
        return Ok(Some(td.rtmr.into()));
    }
    if let Some(path) = &args.report {
        let bytes = read(path)?;
        let report = TdReport::from_bytes(&bytes).map_err(|error| Failure::input(path.display(), error))?;
        return Ok(Some(report.td_info.rtmr.into()));
    }
    Ok(None)
}

/// The running system's own list, if one is named.
pub(super) fn events(args: &RegisterArgs) -> Result<Option<Prediction>, Failure> {
    let Some(path) = &args.events else { return Ok(None) };
    list::parse(&read_text_bounded(path, MAX_FILE)?)
        .map(Some)
        .map_err(|error| Failure::input(path.display(), error))
}

/// Parses a memory size such as `512M` or `16G`.
pub(in crate::commands) fn parse_memory(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let value: u64 = digits.parse().map_err(|_| "a size is a number with K, M or G".to_owned())?;
    value
        .checked_mul(1 << shift)
        .filter(|bytes| (1..1 << 52).contains(bytes))
        .ok_or_else(|| "no machine has this much memory".to_owned())
}
