//! `tdvisor quote`: look at a quote, or issue one from the test PKI.

mod issue;
mod serve;
mod show;

use crate::outcome::{Failure, Status};

/// Show a quote, or issue test quotes with their collateral.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    Show(show::Args),
    Issue(issue::Args),
    Serve(serve::Args),
}

/// Runs the command.
pub fn run(args: Args) -> Result<Status, Failure> {
    match args.action {
        Action::Show(args) => show::run(args),
        Action::Issue(args) => issue::run(args),
        Action::Serve(args) => serve::run(args),
    }
}
