//! One target: `tdvisor run` as a process of its own, its output kept, its end judged.

use std::collections::VecDeque;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::plan::Target;
use crate::outcome::Failure;

/// Bytes that are kept of each output: the last ones.
const KEPT: usize = 1 << 20;
/// Lines that are shown of what failed.
const SHOWN: usize = 40;
/// What a run may take beyond its own time-out, to end in order.
const TO_END: Duration = Duration::from_secs(60);

/// How a target went.
#[derive(Debug)]
pub struct Outcome {
    /// The target.
    pub name: String,
    /// The line of the plan in which it begins, from 1.
    pub line: usize,
    /// Whether the target passed.
    pub verdict: Verdict,
    /// The exit status of the command; none if it was killed.
    pub status: Option<i32>,
    /// The status that passes.
    pub expected: u8,
    /// How long it took.
    pub time: Duration,
    /// The end of its standard output.
    pub out: String,
    /// The end of its standard error.
    pub err: String,
}

/// What became of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The command ended with the status that was expected, and no point of its TAP failed.
    Pass,
    /// The command ended otherwise, or a point of its TAP failed.
    Fail,
}

impl Verdict {
    /// As the table shows it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Fail => "FAIL",
        }
    }
}

/// What a command said in the Test Anything Protocol.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tap {
    /// Each point: its description, and whether it holds (as it does where it may fail: TODO, SKIP).
    pub points: Vec<(String, bool)>,
    /// How many were announced.
    pub planned: Option<usize>,
}

impl Tap {
    /// Points that failed, and those that never came.
    pub fn failed(&self) -> usize {
        let failed = self.points.iter().filter(|(_, holds)| !holds).count();
        failed + self.planned.unwrap_or(0).saturating_sub(self.points.len())
    }
}

impl Outcome {
    /// The points of its output, if it is TAP: a version or a plan stands in it.
    pub fn tap(&self) -> Option<Tap> {
        let mut tap = Tap::default();
        let mut is_tap = false;
        for line in self.out.lines() {
            is_tap |= line.starts_with("TAP version ");
            if let Some(count) = line.strip_prefix("1..") {
                tap.planned = count.split_whitespace().next().and_then(|count| count.parse().ok());
                is_tap |= tap.planned.is_some();
            }
            let point = line.strip_prefix("ok").map(|rest| (rest, true));
            let point = point.or_else(|| line.strip_prefix("not ok").map(|rest| (rest, false)));
            if let Some((rest, holds)) = point.filter(|(rest, _)| rest.is_empty() || rest.starts_with(' ')) {
                let upper = rest.to_uppercase();
                let may_fail = upper.contains("# TODO") || upper.contains("# SKIP");
                tap.points.push((rest.trim().to_owned(), holds || may_fail));
            }
        }
        is_tap.then_some(tap)
    }

    /// Why the target has its verdict, in a few words.
    pub fn why(&self) -> String {
        let failed = self.tap().map_or(0, |tap| tap.failed());
        match self.status {
            None => "killed: it did not end in its time".to_owned(),
            Some(status) if status != i32::from(self.expected) => {
                format!("status {status} instead of {}", self.expected)
            }
            Some(_) if failed != 0 => format!("{failed} points of its TAP failed"),
            Some(_) => String::new(),
        }
    }

    /// The last lines of what it said.
    pub fn excerpt(&self) -> String {
        let lines: Vec<_> = self.out.lines().chain(self.err.lines()).collect();
        let first = lines.len().saturating_sub(SHOWN);
        lines.iter().skip(first).map(|line| format!("    {line}\n")).collect()
    }
}

/// Runs a target in the plan's folder.
///
/// # Errors
/// This program cannot be started again.
pub fn run(target: &Target, folder: &Path) -> Result<Outcome, Failure> {
    let failed = |error| Failure::Internal(format!("tdvisor cannot start itself: {error}"));
    let program = std::env::current_exe().map_err(failed)?;
    let started = Instant::now();
    let mut child = Command::new(program)
        .args(target.arguments())
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let (tell, told) = mpsc::channel();
    let pipes: [Option<Box<dyn Read + Send>>; 2] = [
        child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
        child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
    ];
    for (index, pipe) in pipes.into_iter().enumerate() {
        let tell = tell.clone();
        thread::spawn(move || tell.send((index, pipe.map(end_of).unwrap_or_default())));
    }
    let deadline = started + Duration::from_secs(target.timeout).saturating_add(TO_END);
    let mut outputs = [String::new(), String::new()];
    let mut is_in_time = true;
    for _ in 0..outputs.len() {
        match told.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok((index, text)) => outputs.get_mut(index).map_or((), |output| *output = text),
            Err(_) => {
                is_in_time = false;
                break;
            }
        }
    }
    if !is_in_time {
        // It may have ended just now, which is as well.
        let _ = child.kill();
    }
    let status = child.wait().map_err(failed)?;
    let [out, err] = outputs;
    let mut outcome = Outcome {
        name: target.name.clone(),
        line: target.line,
        verdict: Verdict::Fail,
        status: status.code().filter(|_| is_in_time),
        expected: target.expect,
        time: started.elapsed(),
        out,
        err,
    };
    if outcome.why().is_empty() {
        outcome.verdict = Verdict::Pass;
    }
    Ok(outcome)
}

/// The last bytes of what comes, until its end.
fn end_of(mut pipe: impl Read) -> String {
    let mut kept = VecDeque::new();
    let mut bytes = [0; 8192];
    while let Ok(count @ 1..) = pipe.read(&mut bytes) {
        kept.extend(bytes.iter().take(count));
        let surplus = kept.len().saturating_sub(KEPT);
        kept.drain(..surplus);
    }
    String::from_utf8_lossy(kept.make_contiguous()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(out: &str, status: i32) -> Outcome {
        Outcome {
            name: "x".into(),
            line: 1,
            verdict: Verdict::Fail,
            status: Some(status),
            expected: 0,
            time: Duration::ZERO,
            out: out.into(),
            err: String::new(),
        }
    }

    #[test]
    fn a_point_of_tap_that_failed_or_never_came_fails_a_target_that_ended_well() {
        assert_eq!(outcome("TAP version 14\n1..2\nok 1 - a\nok 2\n", 0).why(), "");
        assert!(outcome("1..2\nok 1\nnot ok 2 - b\n", 0).why().contains("1 points"));
        assert!(outcome("1..3\nok 1\n", 0).why().contains("2 points"));
        assert_eq!(outcome("1..1\nnot ok 1 - b # TODO later\n", 0).why(), "");
        assert_eq!(outcome("it is not ok\nnot ok at all\n", 0).why(), "", "no TAP, only words");
        assert!(outcome("", 3).why().contains("status 3"));
    }
}
