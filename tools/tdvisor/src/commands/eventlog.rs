//! `tdvisor eventlog`: show, replay and explain the event log of a TD.

mod explain;
mod inputs;
mod replay;
mod show;

use std::path::PathBuf;

use crate::outcome::{Failure, Status};
use crate::streams::print;
pub(super) use inputs::{parse_memory, read_ima};

/// Where Linux shows a TD its own log.
const OWN_LOG: &str = "/sys/firmware/acpi/tables/data/CCEL";

/// Show, replay or explain the event log of a TD.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

/// What to do with the log.
#[derive(Debug, clap::Subcommand)]
enum Command {
    Show(show::Args),
    Replay(replay::Args),
    Explain(Box<explain::Args>),
}

/// The log itself.
#[derive(Debug, clap::Args)]
struct LogArgs {
    /// The log: its area, a list of events, or the evidence JSON that has either; `-` for standard input. Without it, the
    /// list of --events alone, or else the log of the TD that tdvisor runs in.
    #[arg(value_name = "LOG")]
    log: Option<PathBuf>,
}

/// Where the registers come from.
#[derive(Debug, clap::Args)]
struct RegisterArgs {
    /// Compare with the registers of this quote (in any form; not verified here).
    #[arg(long, value_name = "FILE", conflicts_with = "report")]
    quote: Option<PathBuf>,
    /// Compare with the registers of this TDREPORT (or HCL report).
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Extensions that the running system listed itself (JSON array with digest, imr or register, event or name); a list
    /// of all events counts those of the log once.
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,
    /// Linux's integrity measurements, which extend RTMR2 after the log: ascii_runtime_measurements_sha384 of
    /// /sys/kernel/security/integrity/ima.
    #[arg(long, value_name = "FILE")]
    ima: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: Args) -> Result<Status, Failure> {
    match args.command {
        Command::Show(args) => show::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Explain(args) => explain::run(&args),
    }
}
