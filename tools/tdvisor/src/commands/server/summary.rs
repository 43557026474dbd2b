//! What is to be said of a server that has ended.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};
use server_emu::Ending;
use tdvisor_runtime::server::{Executed, Mark, ServerReport};

/// Version of what `--json` prints: `schemas/server.schema.json`.
const SCHEMA: u32 = 1;

/// How a server went.
pub struct Summary {
    report: ServerReport,
    panic: Option<String>,
    snapshot: Option<String>,
    marks: Vec<Mark>,
    time: Duration,
}

impl Summary {
    /// The summary of a server that has ended; `panic` is the line with which its kernel panicked, if it did, and `snapshot`
    /// what was saved of it, if anything was. `marks` is where it stood when its console said what was asked for.
    pub const fn of(
        report: ServerReport,
        panic: Option<String>,
        snapshot: Option<String>,
        marks: Vec<Mark>,
        time: Duration,
    ) -> Self {
        Self { report, panic, snapshot, marks, time }
    }

    /// How the server ended, as one line.
    pub fn ending(&self) -> String {
        match &self.report.ending {
            Ending::PowerOff { code: 0 } => "the host powered off: success".to_owned(),
            Ending::PowerOff { code } => format!("the host powered off: code {code}"),
            Ending::Reset => match &self.panic {
                Some(panic) => format!("the host's kernel panicked, then asked for a reset: {panic}"),
                None => "the host asked for a reset".to_owned(),
            },
            Ending::Panicked => match &self.panic {
                Some(panic) => format!("the host's kernel panicked: {panic}"),
                None => "the host's kernel panicked".to_owned(),
            },
            Ending::Stopped => "the machine was switched off".to_owned(),
            Ending::Frozen => {
                format!("the machine was frozen: {}", self.snapshot.as_deref().unwrap_or("not saved"))
            }
            Ending::TripleFault { processor, rip } => {
                format!(
                    "CPU {processor} shut down at {rip:#x}: an exception while it delivered a double fault"
                )
            }
            Ending::Unimplemented { processor, what } => format!("CPU {processor}: {what}"),
        }
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let mut text = format!("\n{}\n", self.ending());
        let mut row = |name: &str, value: &str| {
            let _ = writeln!(text, "  {name:<11}{value}");
        };
        let calls: Vec<String> = self
            .report
            .calls
            .by_leaf
            .iter()
            .map(|((leaf, status), count)| format!("{leaf} {status} {count}"))
            .collect();
        row("SEAMCALLs", &if calls.is_empty() { "none".to_owned() } else { calls.join(", ") });
        if self.report.calls.failed_invalid != 0 {
            row("unanswered", &format!("{} (VMfailInvalid)", self.report.calls.failed_invalid));
        }
        for notice in &self.report.notices {
            row("host", &notice.to_string());
        }
        if self.report.lost_notices != 0 {
            row("host", &format!("and {} more", self.report.lost_notices));
        }
        for violation in &self.report.violations {
            row("violation", &violation.to_string());
        }
        for finding in &self.report.audit {
            row("audit", &finding.to_string());
        }
        if self.report.audit.is_empty() {
            row("audit", "the module's structures add up");
        }
        for Mark { text, reached } in &self.marks {
            let place = reached.map_or_else(|| "not reached".to_owned(), executed);
            row("mark", &format!("{place}: {text}"));
        }
        row("executed", &executed(self.report.executed));
        row("time", &format!("{:.3} s", self.time.as_secs_f64()));
        text
    }

    /// For scripts.
    pub fn to_json(&self) -> Value {
        let calls: Vec<Value> = self
            .report
            .calls
            .by_leaf
            .iter()
            .map(|((leaf, status), count)| {
                json!({"leaf": leaf.to_string(), "status": status.to_string(), "count": count})
            })
            .collect();
        let marks: Vec<Value> = self
            .marks
            .iter()
            .map(|Mark { text, reached }| match reached {
                Some(Executed { host, tds }) => {
                    json!({"text": text, "instructions": host, "td_instructions": tds})
                }
                None => json!({"text": text}),
            })
            .collect();
        json!({
            "schema": SCHEMA,
            "ending": self.ending(),
            "seamcalls": calls,
            "unanswered": self.report.calls.failed_invalid,
            "host": self.report.notices.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "violations": self.report.violations.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "audit": self.report.audit.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "instructions": self.report.executed.host,
            "td_instructions": self.report.executed.tds,
            "marks": marks,
            "seconds": self.time.as_secs_f64(),
        })
    }
}

/// Instructions, for people.
fn executed(Executed { host, tds }: Executed) -> String {
    format!("{host} instructions of the host, {tds} of TDs")
}
