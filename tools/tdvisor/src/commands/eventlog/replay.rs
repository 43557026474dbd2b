//! `tdvisor eventlog replay`: from a log to the registers, and whether a quote agrees.

use std::fmt::Write;

use serde_json::json;
use tdvisor_attest::eventlog::{EventLog, Register};
use tdvisor_attest::explain::{Evidence, explain};
use tdvisor_attest::predict::Prediction;

use super::{LogArgs, RegisterArgs, inputs, print};
use crate::outcome::{Failure, Status};

/// Replay a log to the RTMRs, and compare them with those of a quote or TDREPORT.
///
/// Ends with status 0; 1 if the log does not account for a register that was given; 2 if a file cannot be used.
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
    let area = inputs::read(&args.log.log)?;
    let log = EventLog::parse(&area).map_err(|error| Failure::input(args.log.log.display(), error))?;
    let registers = inputs::registers(&args.registers)?;
    let runtime = inputs::events(&args.registers)?;
    let evidence = Evidence { registers: registers.as_ref(), runtime: runtime.as_ref() };
    // Without a prediction, every register is silent: only the registers are explained.
    let silent = Prediction { events: Vec::new(), silent: Register::RTMRS.to_vec() };
    let explanation = explain(&log, &silent, "nothing", &evidence);
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
        let report = json!({ "registers": values, "warnings": explanation.warnings });
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
        for warning in &explanation.warnings {
            let _ = writeln!(text, "warning: {warning}");
        }
    }
    print(&text)?;
    let explained = explanation.registers.iter().all(|report| report.verdict.is_explained());
    Ok(if explained { Status::Success } else { Status::Negative })
}
