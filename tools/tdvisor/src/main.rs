//! `tdvisor`: run, measure, explain and verify TDs from one command line.
//!
//! This program only wires: arguments in, a crate's API called, text or JSON out, and an exit status that
//! scripts can use. Logic belongs to the crates below it.
//!
//! A new subcommand is one file in `commands/` (its clap `Args` and `fn run(Args) -> Result<Status, Failure>`)
//! and one variant of [`Command`].

// A print macro panics when nobody reads, and cannot be told to give up: `streams` has what to use.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod commands;
mod files;
mod guest_log;
mod outcome;
mod read_bounded;
mod streams;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tdvisor::machine;

use outcome::Failure;

/// A confidential-computing (Intel TDX) hypervisor with an emulated TDX module.
///
/// Without a subcommand, `tdvisor` runs the built-in `hello-td` guest.
#[derive(Debug, Parser)]
#[command(name = "tdvisor", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What `tdvisor` can be asked to do.
#[derive(Debug, Subcommand)]
enum Command {
    Conformance(commands::conformance::Args),
    Decode(commands::decode::Args),
    Eventlog(commands::eventlog::Args),
    Measure(commands::measure::Args),
    Quote(commands::quote::Args),
    Run(commands::run::Args),
    Verify(commands::verify::Args),
}

fn main() -> ExitCode {
    let mut arguments: Vec<_> = std::env::args_os().collect();
    if arguments.len() <= 1 {
        arguments.push("run".into());
    }
    let cli = Cli::parse_from(arguments);
    let result: Result<outcome::Status, Failure> = match cli.command {
        Command::Conformance(args) => commands::conformance::run(args),
        Command::Decode(args) => commands::decode::run(args),
        Command::Eventlog(args) => commands::eventlog::run(args),
        Command::Measure(args) => commands::measure::run(args),
        Command::Quote(args) => commands::quote::run(args),
        Command::Run(args) => commands::run::run(args),
        Command::Verify(args) => commands::verify::run(args),
    };
    outcome::report(result)
}
