//! `tdvisor eventlog show`: every event in words.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tdvisor_attest::Hex;
use tdvisor_attest::ccel::Ccel;
use tdvisor_attest::eventlog::{Event, EventData, EventLog, Found, Whole};

use super::{LogArgs, OWN_LOG, inputs, print};
use crate::commands::JSON_VERSION;
use crate::outcome::{Failure, Status};

/// Show every event of a log in words, and what is odd about it.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    log: LogArgs,
    /// The CCEL table that points to the log.
    #[arg(long, value_name = "FILE")]
    ccel: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<Status, Failure> {
    let path = args.log.log.as_deref().unwrap_or(Path::new(OWN_LOG));
    let area = inputs::read_log(path)?;
    let log = EventLog::parse(&area).map_err(|error| Failure::input(path.display(), error))?;
    let ccel = match &args.ccel {
        Some(path) => {
            Some(Ccel::parse(&inputs::read(path)?).map_err(|error| Failure::input(path.display(), error))?)
        }
        None => None,
    };
    print(&if args.json {
        format!("{:#}\n", to_json(&log, ccel.as_ref()))
    } else {
        to_text(&log, ccel.as_ref())
    })?;
    Ok(Status::Success)
}

/// All of the text that an event's data have.
fn whole_text(event: &Event<'_>) -> Option<String> {
    Some(match event.data() {
        EventData::Text(text) | EventData::Tagged { data: text, .. } => Whole(text).to_string(),
        EventData::WideText(text) => text.to_string(),
        EventData::Blob { description, .. } | EventData::Tables { description, .. } => {
            Whole(description).to_string()
        }
        EventData::Variable { name, .. } => name.to_string(),
        EventData::Runtime { name, .. } | EventData::Named { name, .. } => Whole(name).to_string(),
        EventData::Image { path, .. } => path.to_string(),
        _ => return None,
    })
}

fn to_text(log: &EventLog<'_>, ccel: Option<&Ccel>) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write_text(&mut out, log, ccel);
    out
}

fn write_text(out: &mut String, log: &EventLog<'_>, ccel: Option<&Ccel>) -> std::fmt::Result {
    if let Some(ccel) = ccel {
        let checksum = if ccel.checksum_holds { "" } else { ", wrong checksum" };
        writeln!(
            out,
            "CCEL: {}, log area of {} bytes at {:#x}{checksum}",
            ccel.cc_type, ccel.log_area_bytes, ccel.log_area.0
        )?;
    }
    for found in log.walk() {
        match found {
            Found::Event(event) => {
                writeln!(out, "{:>4} {event}", event.number)?;
                if let Some(digest) = event.digest() {
                    writeln!(out, "     {digest} {}", event.consistency().id())?;
                }
            }
            Found::Warning(warning) if warning.kind.is_contradiction() => {
                writeln!(out, "     NOT MEASURED: {}", warning.kind)?;
            }
            Found::Warning(warning) => writeln!(out, "     ! {}", warning.kind)?,
            Found::End { end, offset } => writeln!(out, "end at {offset:#x}: {end}")?,
        }
    }
    Ok(())
}

fn to_json(log: &EventLog<'_>, ccel: Option<&Ccel>) -> Value {
    let (mut events, mut warnings, mut end) = (Vec::new(), Vec::new(), Value::Null);
    for found in log.walk() {
        match found {
            Found::Event(event) => events.push(json!({
                "event": event.number,
                "offset": event.offset,
                "mr_index": event.mr.0,
                "register": event.extends().map(|register| register.to_string()),
                "type": event.kind.to_string(),
                "type_number": event.kind.0,
                "digest": event.digest().map(|digest| digest.to_string()),
                "description": event.data().to_string(),
                "text": whole_text(&event),
                "measured": event.consistency().id(),
                "data_bytes": event.raw_data.len(),
                "data": Hex(event.raw_data).to_string(),
            })),
            Found::Warning(warning) => warnings.push(json!({
                "event": warning.number,
                "offset": warning.offset,
                "text": warning.kind.to_string(),
                "contradiction": warning.kind.is_contradiction(),
            })),
            Found::End { end: how, offset } => end = json!({ "offset": offset, "how": how.to_string() }),
        }
    }
    json!({
        "schema_version": JSON_VERSION,
        "ccel": ccel.map(|ccel| json!({
            "type": ccel.cc_type.to_string(),
            "subtype": ccel.cc_subtype,
            "log_area_bytes": ccel.log_area_bytes,
            "log_area": format!("{:#x}", ccel.log_area.0),
            "checksum_holds": ccel.checksum_holds,
        })),
        "events": events,
        "warnings": warnings,
        "end": end,
    })
}
