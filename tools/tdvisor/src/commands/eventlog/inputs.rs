//! Files that the event log commands take.

use std::path::Path;

use tdvisor_attest::eventlog::Registers;
use tdvisor_attest::evidence::{self, Evidence, HclReport};
use tdvisor_attest::explain::Explanation;
use tdvisor_attest::predict::list::{self, EventList};
use tdvisor_attest::quote::Quote;
use tdvisor_attest::report::{ReportError, TdReport};

use super::{LogArgs, OWN_LOG, RegisterArgs};
use crate::commands::verify::inputs as files;
use crate::outcome::Failure;
use crate::read_bounded::{read_bounded, read_text_bounded};

/// Kernels and firmware are far smaller.
const MAX_FILE: u64 = 1 << 30;

/// Reads a file that an event log, a quote or a part of a boot can be.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    if path.as_os_str() == "-" { files::read(path) } else { read_bounded(path, MAX_FILE) }
}

/// Reads a log in any of its forms: the area.
pub(super) fn read_log(path: &Path) -> Result<Vec<u8>, Failure> {
    let opened = evidence::open_log(&read(path)?).map_err(|error| Failure::input(path.display(), error))?;
    Ok(opened.area)
}

/// What an event log command is about.
pub(super) struct Logs {
    /// The area of the log.
    pub(super) area: Vec<u8>,
    /// The running system's own list beside it.
    pub(super) list: Option<EventList>,
}

impl Logs {
    /// The log that the arguments name, and the list beside it. A list without a log is the log.
    pub(super) fn read(log: &LogArgs, registers: &RegisterArgs) -> Result<Self, Failure> {
        let list = registers.events.as_deref().map(read_list).transpose()?;
        match (&log.log, list) {
            (Some(path), list) => Ok(Self { area: read_log(path)?, list }),
            (None, Some(list)) => Ok(Self { area: list.to_log(), list: None }),
            (None, None) => Ok(Self { area: read_log(Path::new(OWN_LOG))?, list: None }),
        }
    }
}

fn read_list(path: &Path) -> Result<EventList, Failure> {
    list::parse(&read_text_bounded(path, list::MAX_LIST_BYTES as u64)?)
        .map_err(|error| Failure::input(path.display(), error))
}

/// Registers from a quote or a TDREPORT, and whether the TDREPORT's own hashes hold.
pub(super) struct Given {
    pub(super) registers: Registers,
    report: Result<(), ReportError>,
}

/// The registers that the arguments name, if any.
pub(super) fn registers(args: &RegisterArgs) -> Result<Option<Given>, Failure> {
    let Some(path) = args.quote.as_deref().or(args.report.as_deref()) else { return Ok(None) };
    let unusable = |error: &dyn std::fmt::Display| Failure::input(path.display(), error);
    let opened = evidence::open(&read(path)?);
    let given =
        |report: &TdReport| Given { registers: report.td_info.rtmr.into(), report: report.check_hashes() };
    match (opened, args.quote.is_some()) {
        (Ok(opened), is_quote) => match (opened.evidence, is_quote) {
            (Evidence::Quote(bytes), true) => {
                let quote = Quote::parse(&bytes).map_err(|error| unusable(&error))?;
                let td = quote.body().td().ok_or_else(|| unusable(&"not a quote of a TD"))?;
                Ok(Some(Given { registers: td.rtmr.into(), report: Ok(()) }))
            }
            (Evidence::Report(bytes), false) => {
                Ok(Some(given(TdReport::from_bytes(&bytes).map_err(|error| unusable(&error))?)))
            }
            (Evidence::Hcl(bytes), false) => {
                Ok(Some(given(HclReport::parse(&bytes).map_err(|error| unusable(&error))?.report)))
            }
            (_, true) => Err(unusable(&"not a quote")),
            (Evidence::Quote(_), false) => Err(unusable(&"not a TDREPORT but a quote: give it with --quote")),
        },
        (Err(error), true) => Err(unusable(&error)),
        (Err(_), false) => Err(unusable(&"not a TDREPORT, which has 1024 bytes")),
    }
}

/// Counts what a list and a TDREPORT contradict among the contradictions of the log.
pub(super) fn add_contradictions(
    explanation: &mut Explanation,
    list: Option<&EventList>,
    given: Option<&Given>,
) {
    let forged = list.into_iter().flat_map(EventList::contradictions);
    explanation.contradictions.extend(
        forged.map(|(line, name)| {
            format!("event {line} of the list, {name}: it is not what its digest measured")
        }),
    );
    if let Some(Err(error)) = given.map(|given| given.report) {
        explanation.contradictions.push(format!("the TDREPORT does not hold: {error}"));
    }
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
