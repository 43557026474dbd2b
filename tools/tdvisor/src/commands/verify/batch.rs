//! `--batch`: a file with one case per line, one answer per line.

use std::path::Path;

use serde_json::{Value, json};
use tdvisor_attest::policy::Policy;
use tdvisor_attest::verify::{TrustAnchor, Verifier};

use super::case::Case;
use super::inputs::{
    LogFiles, Logs, evaluate, read_collateral, read_policy, read_quote, read_root, read_text,
};
use crate::outcome::{Failure, Status};
use crate::streams::print;

/// An answer's fields.
struct Answer {
    quote: bool,
    tcb: Option<&'static str>,
    advisories: Vec<String>,
    accepted: bool,
    reason: String,
}

impl Case {
    fn answer(&self, anchor: &TrustAnchor, policy: &Policy) -> Result<Answer, Failure> {
        let quote = read_quote(&self.quote)?;
        let files = read_collateral(&self.collateral)?;
        let anchor = self.root.as_ref().map_or_else(|| Ok(anchor.clone()), |path| read_root(path))?;
        let own_policy = self.policy.as_ref().map(|path| read_policy(path)).transpose()?;
        let policy = own_policy.as_ref().unwrap_or(policy);
        let named = LogFiles {
            event_log: self.event_log.as_deref(),
            events: self.events.as_deref(),
            ima: self.ima.as_deref(),
        };
        let logs = Logs::read(named, None, policy)?;

        let mut verifier = Verifier::new(anchor);
        let bundle = files.bundle(&quote)?;
        let verified = verifier.add_collateral(&bundle).and_then(|()| verifier.verify(&quote, self.at));
        Ok(match verified {
            Ok(verified) => {
                let verdict = evaluate(policy, &verified, &logs);
                Answer {
                    quote: true,
                    tcb: Some(verified.tcb.status.name()),
                    advisories: verified.tcb.advisories.iter().map(ToString::to_string).collect(),
                    accepted: verdict.is_accepted(),
                    reason: if verdict.is_accepted() { "accepted".to_string() } else { verdict.reason() },
                }
            }
            Err(error) => Answer {
                quote: false,
                tcb: None,
                advisories: Vec::new(),
                accepted: false,
                reason: format!("{}: {error}", error.code()),
            },
        })
    }
}

/// Answers every line of `cases`.
pub fn run(cases: &Path, anchor: &TrustAnchor, policy: &Policy, as_json: bool) -> Result<Status, Failure> {
    let text = read_text(cases)?;
    let folder = cases.parent().unwrap_or(Path::new(""));
    let mut unanswered = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let (id, answer) = match Case::parse(line, folder) {
            Ok(case) => (case.id.clone(), case.answer(anchor, policy).map_err(|failure| failure.to_string())),
            // The name of a line helps whoever looks for it, whatever else is wrong with it.
            Err(problem) => {
                let fields = serde_json::from_str::<Value>(line).unwrap_or_default();
                (fields.get("id").cloned().unwrap_or_default(), Err(problem))
            }
        };
        let answer = answer.unwrap_or_else(|problem| {
            unanswered.push(format!("line {}: {problem}", number + 1));
            // What cannot be read is not accepted; the exit status tells it from a verdict.
            Answer { quote: false, tcb: None, advisories: Vec::new(), accepted: false, reason: problem }
        });
        let text = if as_json { answer.to_json(&id).to_string() } else { answer.to_text(&id) };
        print(&format!("{text}\n"))?;
    }
    match unanswered.first() {
        None => Ok(Status::Success),
        Some(first) => Err(Failure::input(
            cases.display(),
            format!("{} lines could not be answered; {first}", unanswered.len()),
        )),
    }
}

impl Answer {
    fn to_json(&self, id: &Value) -> Value {
        json!({
            "schema_version": crate::commands::JSON_VERSION,
            "id": id,
            "quote": if self.quote { "valid" } else { "invalid" },
            "tcb": self.tcb,
            "advisories": self.advisories,
            "policy": if self.accepted { "accept" } else { "reject" },
            "reason": self.reason,
        })
    }

    fn to_text(&self, id: &Value) -> String {
        let id = id.as_str().map_or_else(|| id.to_string(), str::to_string);
        let quote = if self.quote { "valid" } else { "invalid" };
        let policy = if self.accepted { "accept" } else { "reject" };
        let tcb = self.tcb.unwrap_or("-");
        format!("{id}: {quote} {tcb} {policy} {}", self.reason).trim_end().to_string()
    }
}
