//! `tdvisor completions`: what a shell needs to complete tdvisor's words.

use clap::Command;
use clap_complete::Shell;

use crate::outcome::{Failure, Status};
use crate::streams::print;

/// Print the completions of tdvisor for a shell: `tdvisor completions bash > ~/.local/share/bash-completion/completions/tdvisor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell.
    shell: Shell,
}

/// Runs the command; `whole` is the program's own description.
pub fn run(args: Args, mut whole: Command) -> Result<Status, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut whole, "tdvisor", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(Status::Success)
}
