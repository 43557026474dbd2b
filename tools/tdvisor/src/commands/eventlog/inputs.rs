//! Files that the event log commands take.

use std::path::Path;

use tdvisor_attest::eventlog::Registers;
use tdvisor_attest::evidence::{self, Evidence, HclReport};
use tdvisor_attest::explain::Explanation;
use tdvisor_attest::predict::Prediction;
use tdvisor_attest::predict::ima;
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
    list: Option<EventList>,
    /// The list of its integrity measurements.
    ima: Option<EventList>,
}

impl Logs {
    /// The log that the arguments name, and the list beside it. A list without a log is the log.
    pub(super) fn read(log: &LogArgs, registers: &RegisterArgs) -> Result<Self, Failure> {
        let list = registers.events.as_deref().map(read_list).transpose()?;
        let ima = registers.ima.as_deref().map(read_ima).transpose()?;
        let (area, list) = match (&log.log, list) {
            (Some(path), list) => (read_log(path)?, list),
            (None, Some(list)) => (list.to_log(), None),
            (None, None) => (read_log(Path::new(OWN_LOG))?, None),
        };
        Ok(Self { area, list, ima })
    }

    /// What the running system says that it extended after the log.
    pub(super) fn runtime(&self) -> Option<Prediction> {
        let lists = [&self.list, &self.ima].into_iter().flatten().map(EventList::prediction);
        lists.reduce(|mut all, next| {
            all.extend(next);
            all
        })
    }
}

/// Reads the list of Linux's integrity measurements.
pub(in crate::commands) fn read_ima(path: &Path) -> Result<EventList, Failure> {
    ima::parse(&read_text_bounded(path, ima::MAX_LIST_BYTES as u64)?)
        .map_err(|error| Failure::input(path.display(), error))
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

/// Counts what the lists and a TDREPORT contradict among the contradictions of the log.
pub(super) fn add_contradictions(explanation: &mut Explanation, logs: &Logs, given: Option<&Given>) {
    for (list, called) in [(&logs.list, "the list"), (&logs.ima, "the IMA list")] {
        let forged = list.iter().flat_map(EventList::contradictions);
        explanation.contradictions.extend(forged.map(|(line, name)| {
            format!("event {line} of {called}, {name}: it is not what its digest measured")
        }));
    }
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
