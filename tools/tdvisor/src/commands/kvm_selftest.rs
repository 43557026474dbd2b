//! `tdvisor kvm-selftest`: what KVM_TDX promises, asked of this machine's kernel.

use std::fmt::Write;

use serde_json::{Value, json};
use tdvisor_runtime::kvm::host::selftest::{Guests, Outcome, cases};
use tdvisor_runtime::kvm::host::{Asked, Error, Linux};

use crate::outcome::{Failure, Status};
use crate::streams::print;

/// Ask this machine's KVM what KVM_TDX promises, case by case, in TAP.
///
/// The cases make and end some hundred TDs of a few pages; the last ones run a guest in 32 MiB. They take a machine on which
/// `tdvisor doctor` finds no missing link.
///
/// Exit status: 0 all cases passed, 1 one did not, 2 there is no KVM with TDs.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run the cases with these words in their names only.
    words: Option<String>,
}

/// The guests that cases run.
static GUESTS: Guests<'static> = Guests {
    hello: tdvisor_guest_images::HELLO_TD.image,
    fault: tdvisor_guest_images::FAULT_TD.image,
    command_guid: tdvisor_guest_images::COMMAND_HOB_GUID,
};

/// Runs the command.
pub fn run(args: Args) -> Result<Status, Failure> {
    let results = results(args.words.as_deref())?;
    let mut text = format!("TAP version 13\n1..{}\n", results.len());
    for (number, (name, outcome)) in (1..).zip(&results) {
        // Writing to a string cannot fail.
        let _ = match outcome {
            Ok(()) => writeln!(text, "ok {number} - {name}"),
            Err(mismatch) => writeln!(text, "not ok {number} - {name}\n# {mismatch}"),
        };
    }
    print(&text)?;
    Ok(if results.iter().all(|(_, outcome)| outcome.is_ok()) { Status::Success } else { Status::Negative })
}

/// Runs the cases.
///
/// # Errors
/// KVM cannot be opened, or has no TDs.
fn results(words: Option<&str>) -> Result<Vec<(&'static str, Outcome)>, Failure> {
    let no = |asked, errno| Failure::Input(Error::new(asked, errno).to_string());
    let kernel = Linux::open().map_err(|errno| no(Asked::Open, errno))?;
    drop(tdvisor_runtime::kvm::host::Kernel::create_td(&kernel).map_err(|errno| no(Asked::CreateTd, errno))?);
    let wanted = cases().into_iter().filter(|case| words.is_none_or(|words| case.name.contains(words)));
    Ok(wanted.map(|case| (case.name, case.run(&kernel, &GUESTS))).collect())
}

/// All results, for a report; a sentence where there is nothing to ask.
pub fn to_json() -> Value {
    match results(None) {
        Ok(results) => results
            .iter()
            .map(|(name, outcome)| {
                json!({
                    "name": name,
                    "passed": outcome.is_ok(),
                    "problem": outcome.err().map(|mismatch| mismatch.to_string()),
                })
            })
            .collect(),
        Err(failure) => json!(failure.to_string()),
    }
}
