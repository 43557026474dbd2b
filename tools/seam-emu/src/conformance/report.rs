//! What a replay found: counts, first differences, and their two printed forms.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};

use super::compare::{CallSite, Difference, Explained};

/// Counts over some sequences.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Tally {
    /// Sequences.
    pub sequences: u64,
    /// SEAMCALLs and TDCALLs in them.
    pub calls: u64,
    /// Calls whose registers agree.
    pub agreeing: u64,
    /// Sequences with a difference.
    pub differing_sequences: u64,
    /// Registers that differ where the recording allows it.
    pub soft: u64,
}

impl Tally {
    fn add(&mut self, outcome: &SequenceOutcome) {
        self.sequences += 1;
        self.calls += outcome.calls;
        self.agreeing += outcome.agreeing;
        self.differing_sequences += u64::from(outcome.first.is_some());
        self.soft += outcome.soft;
    }
}

/// How one sequence went.
#[derive(Clone, Debug)]
pub struct SequenceOutcome {
    /// The file that the sequence is in.
    pub file: Arc<PathBuf>,
    /// Line of its header.
    pub line: u64,
    /// The sequence's id.
    pub id: Arc<str>,
    /// The sequence's family.
    pub family: Arc<str>,
    /// The sequence's shape.
    pub shape: Arc<str>,
    /// SEAMCALLs and TDCALLs in it.
    pub calls: u64,
    /// Calls whose registers agree.
    pub agreeing: u64,
    /// Registers that differ where the recording allows it.
    pub soft: u64,
    /// The first difference.
    pub first: Option<(CallSite, Difference)>,
    /// Differences in all.
    pub differences: u64,
}

/// The result of a replay.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Counts by family.
    pub families: BTreeMap<Arc<str>, Tally>,
    /// The sequences with a difference, in the order of the files.
    pub differing: Vec<SequenceOutcome>,
}

impl Report {
    /// Collects the outcomes of sequences.
    pub fn new(outcomes: impl IntoIterator<Item = SequenceOutcome>) -> Self {
        let mut report = Self::default();
        for outcome in outcomes {
            report.families.entry(Arc::clone(&outcome.family)).or_default().add(&outcome);
            if outcome.first.is_some() {
                report.differing.push(outcome);
            }
        }
        report
    }

    /// The counts of all families.
    pub fn total(&self) -> Tally {
        let mut total = Tally::default();
        for tally in self.families.values() {
            total.sequences += tally.sequences;
            total.calls += tally.calls;
            total.agreeing += tally.agreeing;
            total.differing_sequences += tally.differing_sequences;
            total.soft += tally.soft;
        }
        total
    }

    /// Whether every sequence agrees in everything.
    pub fn agrees(&self) -> bool {
        self.total().differing_sequences == 0
    }

    /// The report as JSON.
    pub fn to_json(&self) -> Value {
        let total = self.total();
        json!({
            "agreeing": total.agreeing,
            "calls": total.calls,
            "sequences": total.sequences,
            "soft_differences": total.soft,
            "agrees": self.agrees(),
            "families": self.families.iter().map(|(family, tally)| (family.to_string(), json!({
                "sequences": tally.sequences,
                "calls": tally.calls,
                "agreeing": tally.agreeing,
                "differing_sequences": tally.differing_sequences,
                "soft_differences": tally.soft,
            }))).collect::<serde_json::Map<_, _>>(),
            "differing": self.differing.iter().map(|outcome| json!({
                "sequence": &*outcome.id,
                "family": &*outcome.family,
                "shape": &*outcome.shape,
                "file": outcome.file.display().to_string(),
                "line": outcome.line,
                "calls": outcome.calls,
                "agreeing": outcome.agreeing,
                "differences": outcome.differences,
                "first": outcome.first.as_ref().map(|(site, difference)| json!({
                    "step": site.step,
                    "event": site.event,
                    "lp": site.lp,
                    "leaf": &*site.leaf,
                    "difference": difference_to_json(site, difference),
                    "text": Explained { site, difference }.to_string(),
                })),
            })).collect::<Vec<_>>(),
        })
    }
}

fn difference_to_json(site: &CallSite, difference: &Difference) -> Value {
    let Difference::Registers { input, expected, actual, registers, .. } = difference else {
        return json!({ "what": difference.signature() });
    };
    let hex = |value: u64| format!("{value:#x}");
    json!({
        "what": difference.signature(),
        "leaf": &*site.leaf,
        "in": input.iter().filter(|(_, value)| *value != 0)
            .map(|(reg, value)| (reg.name().to_owned(), json!(hex(value))))
            .collect::<serde_json::Map<_, _>>(),
        "registers": registers.iter().map(|reg| (reg.name().to_owned(), json!({
            "expected": expected.of(*reg, input).map(hex),
            "actual": hex(actual.get(*reg)),
        }))).collect::<serde_json::Map<_, _>>(),
    })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for outcome in &self.differing {
            writeln!(
                f,
                "{} ({}:{}, shape {}): {} of {} calls agree; first difference:",
                outcome.id,
                outcome.file.display(),
                outcome.line,
                outcome.shape,
                outcome.agreeing,
                outcome.calls
            )?;
            if let Some((site, difference)) = &outcome.first {
                Explained { site, difference }.fmt(f)?;
            }
        }
        for (family, tally) in &self.families {
            writeln!(
                f,
                "  {family:<10} {} of {} calls agree ({} sequences)",
                tally.agreeing, tally.calls, tally.sequences
            )?;
        }
        let total = self.total();
        if total.soft != 0 {
            writeln!(f, "{} registers differ where the recordings allow it", total.soft)?;
        }
        writeln!(f, "{} of {} calls agree ({} sequences)", total.agreeing, total.calls, total.sequences)
    }
}
