//! `tdvisor man`: the manual pages, from the same descriptions as `--help`.

use std::path::PathBuf;

use clap::Command;

use crate::outcome::{Failure, Status};
use crate::streams::print;

/// Write the manual pages: one for tdvisor and one for each of its commands.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder to write them to. It has to exist; pages that are there are replaced.
    folder: PathBuf,
}

/// Runs the command; `whole` is the program's own description.
pub fn run(args: Args, whole: Command) -> Result<Status, Failure> {
    if !args.folder.is_dir() {
        return Err(Failure::input(args.folder.display(), "there is no such folder; make it first"));
    }
    // A page has the name by which the command is typed, also where a command calls itself otherwise.
    let program = whole.get_name().to_owned();
    let whole = whole.mut_subcommands(|command| {
        let name = format!("{program}-{}", command.get_name());
        command.display_name(name)
    });
    clap_mangen::generate_to(whole, &args.folder)
        .map_err(|error| Failure::output(args.folder.display(), error))?;
    print(&format!("manual pages are in {}\n", args.folder.display()))?;
    Ok(Status::Success)
}
