//! `tdvisor collateral`: get what verification of a quote needs, or hand it on.

mod fetch;
mod serve;
pub mod source;

use crate::outcome::{Failure, Status};

/// Fetch the collateral of a quote, or serve collateral as a PCCS does.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    Fetch(fetch::Args),
    Serve(serve::Args),
}

/// Runs the command.
pub fn run(args: Args) -> Result<Status, Failure> {
    match args.action {
        Action::Fetch(args) => fetch::run(args),
        Action::Serve(args) => serve::run(args),
    }
}
