//! A benchmark: groups of figures, some with bars, a table on the screen, a file for machines, and an exit status.
//!
//! ```no_run
//! use std::process::ExitCode;
//! use tdvisor_tests::bench::{self, Bar, Report};
//!
//! fn copying(report: &mut Report) {
//!     report.put("copy_vs_fill", 0.9, Bar::AtMost(1.0), "90 ns against 100 ns".into());
//! }
//!
//! fn main() -> ExitCode {
//!     bench::main("memory", &[("copying", &copying)])
//! }
//! ```
//!
//! `cargo bench … -- copying` measures this group only and then writes no file; `--rounds=5` measures a group that
//! did not meet its bars again, up to five times, and keeps the best of each figure. The process ends with 0 where
//! every bar is met, 1 where one is missed, 2 where one could not be measured.

pub mod clock;
mod report;

use std::process::ExitCode;

pub use report::{Bar, Report, Verdict};

/// Figures that are measured together, by the name that chooses them.
pub type Group<'a> = (&'a str, &'a dyn Fn(&mut Report));

/// Measures what the program's arguments ask for, prints it, writes `target/bench/NAME.json`, and judges it.
#[must_use]
pub fn main(name: &'static str, groups: &[Group<'_>]) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (options, wanted): (Vec<_>, Vec<_>) =
        arguments.iter().map(String::as_str).partition(|word| word.starts_with('-'));
    let rounds = options.iter().find_map(|option| option.strip_prefix("--rounds="));
    let Ok(rounds) = rounds.unwrap_or("1").parse::<u32>() else {
        eprintln!("--rounds takes a number");
        return ExitCode::from(2);
    };
    if let Some(unknown) = wanted.iter().find(|word| groups.iter().all(|(name, _)| name != *word)) {
        let known: Vec<&str> = groups.iter().map(|(name, _)| *name).collect();
        eprintln!("no group '{unknown}'; there are {}", known.join(", "));
        return ExitCode::from(2);
    }
    let mut report = Report::new(name);
    for (name, measure) in groups {
        if wanted.is_empty() || wanted.iter().any(|word| word == name) {
            report.best_of(rounds, *measure);
        }
    }
    if wanted.is_empty() { report.finish() } else { report.finish_part() }
}
