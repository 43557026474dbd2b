//! `tdvisor doctor`: whether this machine can run TDs, and which link is missing.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tdvisor_runtime::kvm::host::doctor::{Diagnosis, KvmAnswer, Link, LinkState};

use super::kvm_selftest;
use crate::files::Output;
use crate::outcome::{Failure, Status};
use crate::streams::print;

/// Say whether this machine can run TDs on its KVM, and which link is missing.
///
/// Each link from the processor to the service for quotes is a line: whether it holds, what the machine says, and where it does
/// not hold, what to do and the command that shows it. As root it sees more (MSRs with the `msr` module loaded, the kernel's
/// log). The emulated machine of `tdvisor run` needs none of it.
///
/// Exit status: 0 TDs can be run, 1 they cannot.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Write a report to FILE, for those who have no such machine: the links, and the results of `tdvisor kvm-selftest`, as
    /// JSON. Read it before you send it.
    #[arg(long, value_name = "FILE", conflicts_with = "root")]
    report: Option<PathBuf>,
    /// Look at a machine's files below this folder instead of at this machine; KVM is not asked then.
    #[arg(long, value_name = "FOLDER")]
    root: Option<PathBuf>,
}

/// The version of the JSON form, `schemas/doctor.schema.json`.
const JSON_SCHEMA: u32 = 1;

/// Runs the command.
pub fn run(args: Args) -> Result<Status, Failure> {
    let diagnosis = match &args.root {
        Some(root) => Diagnosis::of(root, KvmAnswer::NotAsked),
        None => Diagnosis::of(Path::new("/"), KvmAnswer::of_this_machine()),
    };
    if let Some(path) = &args.report {
        let report = json!({"doctor": to_json(&diagnosis), "selftest": kvm_selftest::to_json()});
        Output::open(path)?.write(format!("{report:#}\n").as_bytes())?;
    }
    print(&if args.json { format!("{:#}\n", to_json(&diagnosis)) } else { to_text(&diagnosis) })?;
    Ok(if diagnosis.can_run_tds() { Status::Success } else { Status::Negative })
}

const fn word(state: LinkState) -> &'static str {
    match state {
        LinkState::Good => "ok",
        LinkState::Missing => "missing",
        LinkState::Unknown => "unknown",
    }
}

fn to_text(diagnosis: &Diagnosis) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    for Link { kind, state, found } in &diagnosis.links {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:<8} {:<37} {found}", word(*state), kind.name());
        if *state != LinkState::Good {
            let _ = writeln!(text, "{:<8} {:<37} to do: {}", "", "", kind.advice());
            let _ = writeln!(text, "{:<8} {:<37} shown by: {}", "", "", kind.command());
        }
    }
    text.push_str(&match (diagnosis.can_run_tds(), diagnosis.first_missing()) {
        (true, _) => "This machine can run TDs: tdvisor run --backend kvm\n".to_owned(),
        (false, Some(link)) => format!(
            "This machine cannot run TDs. The first missing link: {} ({}); to do: {}\n",
            link.kind.name(),
            link.found,
            link.kind.advice()
        ),
        (false, None) => "Whether this machine can run TDs cannot be seen from here.\n".to_owned(),
    });
    text
}

fn to_json(diagnosis: &Diagnosis) -> Value {
    let links: Vec<Value> = diagnosis
        .links
        .iter()
        .map(|Link { kind, state, found }| {
            json!({
                "name": kind.name(),
                "state": word(*state),
                "found": found,
                "command": kind.command(),
                "to_do": kind.advice(),
                "optional": kind.is_optional(),
            })
        })
        .collect();
    json!({
        "schema": JSON_SCHEMA,
        "can_run_tds": diagnosis.can_run_tds(),
        "first_missing": diagnosis.first_missing().map(|link| link.kind.name()),
        "links": links,
    })
}
