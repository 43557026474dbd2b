//! `tdvisor conformance`: replay recordings of Intel's own module on the emulated one.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use seam_emu::conformance::{self, Explained, Options, Report};

use crate::outcome::{Failure, Status};
use crate::streams::print;

/// Replay recorded SEAMCALLs and TDCALLs and compare every register.
///
/// Each recording says which release of the module it was made on. Ends with status 0 if all calls agree,
/// 1 if one differs, 2 if a file cannot be read or nothing was found.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Recordings (*.jsonl, *.jsonl.gz) or folders of them.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    /// Replay only sequences of this family; may be given more than once.
    #[arg(long, value_name = "NAME")]
    family: Vec<String>,
    /// Show the first difference of at most this many sequences.
    #[arg(long, value_name = "COUNT")]
    first: Option<usize>,
    /// Show how often each kind of first difference occurs instead of each one.
    #[arg(long)]
    group: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<Status, Failure> {
    let options = Options { families: args.family, threads: None };
    let bar = progress_bar();
    let mut report = conformance::run(&args.paths, &options, &|done| bar.set_position(done))
        .map_err(|error| Failure::Input(error.to_string()))?;
    bar.finish_and_clear();
    let status = if report.agrees() { Status::Success } else { Status::Negative };
    let mut text = String::new();
    if args.json {
        text = format!("{:#}\n", report.to_json());
    } else {
        if args.group {
            text.push_str(&groups(&report));
            report.differing.clear();
        }
        if let Some(most) = args.first {
            report.differing.truncate(most);
        }
        text.push_str(&report.to_string());
    }
    print(&text)?;
    Ok(status)
}

/// A counter of finished sequences, where somebody looks at it.
fn progress_bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {pos} sequences replayed ({elapsed})") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// First differences by leaf and kind, most frequent first, each with one example.
fn groups(report: &Report) -> String {
    let mut groups: BTreeMap<String, (usize, String)> = BTreeMap::new();
    for outcome in &report.differing {
        let Some((site, difference)) = &outcome.first else { continue };
        let key = format!("{}: {}", site.leaf, difference.signature());
        let example = || format!("{}\n{}", outcome.id, Explained { site, difference });
        groups.entry(key).or_insert_with(|| (0, example())).0 += 1;
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
    groups
        .iter()
        .map(|(key, (count, example))| format!("{count} sequences: {key}\n  e.g. {example}"))
        .collect()
}
