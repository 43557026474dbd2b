//! `tdvisor eventlog replay`: from a log to the registers, and whether a quote agrees.

use std::fmt::Write;

use serde_json::json;
use tdvisor_attest::eventlog::{EventLog, Register};
use tdvisor_attest::explain::{Evidence, explain};
use tdvisor_attest::predict::Prediction;

use super::{LogArgs, RegisterArgs, inputs, print};
use crate::commands::JSON_VERSION;
use crate::outcome::{Failure, Status};

/// Replay a log to the RTMRs, and compare them with those of a quote or TDREPORT.
///
/// Ends with status 0; 1 if the log does not account for a register that was given, or says what was not measured; 2 if
/// a file cannot be used.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    registers: RegisterArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<Status, Failure> {
    let logs = inputs::Logs::read(&args.log, &args.registers)?;
    let log = EventLog::parse(&logs.area).map_err(|error| Failure::input("LOG", error))?;
    let given = inputs::registers(&args.registers)?;
    let runtime = logs.runtime();
    let evidence =
        Evidence { registers: given.as_ref().map(|given| &given.registers), runtime: runtime.as_ref() };
    // Without a prediction, every register is silent: only the registers are explained.
    let silent = Prediction { events: Vec::new(), silent: Register::RTMRS.to_vec() };
    let mut explanation = explain(&log, &silent, "nothing", &evidence);
    inputs::add_contradictions(&mut explanation, &logs, given.as_ref());
    let replay = log.replay();
    let mut text = String::new();
    if args.json {
        let values: Vec<_> = Register::RTMRS
            .into_iter()
            .map(|register| {
                let report = explanation.registers.iter().find(|report| report.register == register);
                json!({
                    "register": register.to_string(),
                    "replayed": replay[register].to_string(),
                    "events": replay.events(register),
                    "actual": report.map(|report| report.actual.to_string()),
                    "verdict": report.map(|report| report.verdict.id()),
                    "text": report.map(|report| report.verdict.to_string()),
                })
            })
            .collect();
        let report = json!({
            "schema_version": JSON_VERSION,
            "registers": values,
            "contradictions": explanation.contradictions,
            "warnings": explanation.warnings,
        });
        text = format!("{report:#}\n");
    } else {
        for register in Register::RTMRS {
            let _ = writeln!(text, "{register} {} ({} events)", replay[register], replay.events(register));
            if let Some(report) = explanation.registers.iter().find(|report| report.register == register) {
                let _ = writeln!(text, "      {}", report.verdict);
                if report.actual != report.replayed {
                    let _ = writeln!(text, "      register is {}", report.actual);
                }
            }
        }
        for contradiction in &explanation.contradictions {
            let _ = writeln!(text, "NOT MEASURED: {contradiction}");
        }
        for warning in &explanation.warnings {
            let _ = writeln!(text, "warning: {warning}");
        }
    }
    print(&text)?;
    Ok(if explanation.log_holds() { Status::Success } else { Status::Negative })
}
