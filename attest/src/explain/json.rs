//! An explanation as JSON.

use alloc::string::ToString;
use alloc::vec::Vec;

use serde_json::{Value, json};

use super::{Explanation, Line, expected_text};

impl Explanation {
    /// The explanation as JSON: `agrees`, `against`, `first`, `differences`, `lines`, `registers`,
    /// `contradictions`, `warnings`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let lines: Vec<Value> = self.lines.iter().map(line).collect();
        let differences: Vec<Value> = self.differences().map(line).collect();
        let registers: Vec<Value> = self
            .registers
            .iter()
            .map(|report| {
                json!({
                    "register": report.register.to_string(),
                    "verdict": report.verdict.id(),
                    "explained": report.verdict.is_explained(),
                    "text": report.verdict.to_string(),
                    "actual": report.actual.to_string(),
                    "replayed": report.replayed.to_string(),
                })
            })
            .collect();
        json!({
            "agrees": self.agrees(),
            "against": self.against,
            "first": self.first().map(line),
            "differences": differences,
            "lines": lines,
            "registers": registers,
            "contradictions": self.contradictions,
            "warnings": self.warnings,
        })
    }
}

fn line(line: &Line) -> Value {
    json!({
        "register": line.register.to_string(),
        "standing": line.standing.id(),
        "part": line.part(),
        "cause": line.cause.map(|cause| cause.id()),
        "text": line.cause.map(|cause| cause.to_string()),
        "advice": line.cause.map(|cause| cause.advice()),
        "circumstance": line.circumstance(),
        "log": line.logged.as_ref().map(|event| json!({
            "event": event.number,
            "description": event.description,
            "digest": event.digest.to_string(),
        })),
        "predicted": line.predicted.as_ref().map(|event| expected_text(&event.expectation)),
    })
}
