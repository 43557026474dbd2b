//! What a CI shows beside its log: annotations, and a summary of the step (GitHub's workflow commands).

use std::fs::OpenOptions;
use std::io::Write as _;

use super::target::{Outcome, Verdict};
use crate::streams::say_at_the_end;

/// Makes an annotation of a target that failed, where a CI reads them.
pub fn annotate(outcome: &Outcome) {
    if std::env::var_os("GITHUB_ACTIONS").is_some() && outcome.verdict == Verdict::Fail {
        // A runner reads both streams; standard output may be the JSON table.
        say_at_the_end(format_args!("::error title={}::{}", property(&outcome.name), data(&outcome.why())));
    }
}

/// Adds the table to the step's summary, where there is one.
pub fn summarise(outcomes: &[Outcome]) {
    let Some(path) = std::env::var_os("GITHUB_STEP_SUMMARY") else { return };
    let mut text = String::from("| target | verdict | seconds | |\n|---|---|---|---|\n");
    for outcome in outcomes {
        let cell = |text: &str| text.replace('|', "\\|").replace(['\r', '\n'], " ");
        text.push_str(&format!(
            "| {} | {} | {:.1} | {} |\n",
            cell(&outcome.name),
            outcome.verdict.word(),
            outcome.time.as_secs_f64(),
            cell(&outcome.why())
        ));
    }
    let written = OpenOptions::new().append(true).create(true).open(&path);
    if let Err(error) = written.and_then(|mut file| file.write_all(text.as_bytes())) {
        say_at_the_end(format_args!("tdvisor: GITHUB_STEP_SUMMARY: {error}"));
    }
}

/// The text of a workflow command.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// A property of a workflow command.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_name_can_begin_another_command() {
        assert_eq!(property("a::b,\n::error::x"), "a%3A%3Ab%2C%0A%3A%3Aerror%3A%3Ax");
    }
}
