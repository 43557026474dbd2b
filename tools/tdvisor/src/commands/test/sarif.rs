//! What failed, in SARIF 2.1.0: the form in which code scanning takes results, each at a line of the plan.

use std::path::Path;

use serde_json::{Value, json};

use super::target::{Outcome, Verdict};

/// Rules, and what each says.
const RULES: [(&str, &str); 2] = [
    ("target", "A target ended otherwise than its plan expects."),
    ("tap", "A point of a target's TAP output did not hold."),
];

/// The log of a run of `plan`.
pub fn log(plan: &Path, outcomes: &[Outcome]) -> Value {
    let failed = outcomes.iter().filter(|outcome| outcome.verdict == Verdict::Fail);
    let results: Vec<_> = failed.flat_map(|outcome| of_target(plan, outcome)).collect();
    let rules = RULES.map(|(id, text)| json!({"id": id, "shortDescription": {"text": text}}));
    json!({
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {"name": "tdvisor", "version": env!("CARGO_PKG_VERSION"), "rules": rules}},
            "results": results,
        }],
    })
}

fn of_target(plan: &Path, outcome: &Outcome) -> Vec<Value> {
    let uri = plan.to_string_lossy().replace('%', "%25").replace(' ', "%20");
    let result = |rule: &str, text: String| {
        json!({
            "ruleId": rule,
            "level": "error",
            "message": {"text": text},
            "locations": [{"physicalLocation": {
                "artifactLocation": {"uri": uri},
                "region": {"startLine": outcome.line},
            }}],
        })
    };
    let points = outcome.tap().into_iter().flat_map(|tap| tap.points).filter(|(_, holds)| !holds);
    let mut results: Vec<_> =
        points.map(|(name, _)| result("tap", format!("{}: not ok {name}", outcome.name))).collect();
    results.push(result("target", format!("{}: {}", outcome.name, outcome.why())));
    results
}
