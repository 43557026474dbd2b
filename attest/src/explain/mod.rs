//! Why registers are not what was expected: a log beside a prediction, event by event.
//!
//! Two questions are answered apart:
//! - **Is the log true?** Its replay is compared with registers from a quote or a TDREPORT ([`RegisterVerdict`]).
//!   RTMR3 belongs to the running system, which writes no log: an application's own list can account for it. The
//!   other registers must be accounted for by the log. Text that is not what was measured is a difference, too.
//! - **Is it the expected boot?** Its events are aligned with predicted ones, register by register, so that one
//!   changed part shows as one difference and not as a different hash ([`Difference`]), each with its cause in
//!   words ([`Cause`]).
//!
//! Nothing expected is ever taken from the log.

mod align;
mod cause;
mod html;
mod json;
mod registers;
mod text;

#[cfg(test)]
mod tests;

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::eventlog::{Consistency, EventLog, Register, Registers};
use crate::predict::{Expectation, Part, PredictedEvent, Prediction};
use td_image::digest::Digest384;

pub use cause::Cause;
pub use registers::{RegisterReport, RegisterVerdict};

/// An event of the log, as far as an explanation needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedEvent {
    /// Position in the log; the header is 0.
    pub number: u32,
    /// The register that it extends.
    pub register: Register,
    /// What the event measures.
    pub part: Part,
    /// Type and data in words.
    pub description: String,
    /// What the register was extended with.
    pub digest: Digest384,
    /// Whether the digest covers what the log says.
    pub consistency: Consistency,
}

/// How a line of the alignment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// Predicted and there.
    Same,
    /// The event is there as predicted, but nothing says what its digest should be.
    NotPredicted,
    /// The event is there with another digest.
    Differs,
    /// The event is there and was not predicted.
    OnlyInLog,
    /// Predicted and not there.
    OnlyPredicted,
    /// The prediction is silent about the register.
    Silent,
}

impl Standing {
    /// The name that scripts see.
    #[must_use]
    pub const fn id(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::NotPredicted => "not-predicted",
            Self::Differs => "differs",
            Self::OnlyInLog => "only-in-log",
            Self::OnlyPredicted => "only-predicted",
            Self::Silent => "silent",
        }
    }

    /// Whether the line is a difference.
    #[must_use]
    pub const fn is_difference(self) -> bool {
        matches!(self, Self::Differs | Self::OnlyInLog | Self::OnlyPredicted)
    }
}

/// One line of the alignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The register.
    pub register: Register,
    /// How log and prediction stand to each other on this line.
    pub standing: Standing,
    /// The event of the log, if there is one.
    pub logged: Option<LoggedEvent>,
    /// The predicted event, if there is one.
    pub predicted: Option<PredictedEvent>,
    /// The likely cause of a difference.
    pub cause: Option<Cause>,
}

impl Line {
    /// What the line is about.
    #[must_use]
    pub fn part(&self) -> String {
        let part = self.logged.as_ref().map(|event| &event.part);
        let part = part.or_else(|| self.predicted.as_ref().map(|event| &event.part));
        part.map_or_else(String::new, ToString::to_string)
    }

    /// The circumstance under which the logged digest was expected, where there are several.
    #[must_use]
    pub fn circumstance(&self) -> Option<&str> {
        self.predicted.as_ref()?.expectation.circumstance(&self.logged.as_ref()?.digest)
    }
}

/// A line that differs.
pub type Difference<'a> = &'a Line;

/// A log explained.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// What the prediction is called.
    pub against: String,
    /// Every event, register by register.
    pub lines: Vec<Line>,
    /// Replay against the registers, where they were given.
    pub registers: Vec<RegisterReport>,
    /// Where the log contradicts itself: each counts as a difference.
    pub contradictions: Vec<String>,
    /// What is odd about the log.
    pub warnings: Vec<String>,
}

/// What to explain a log with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Evidence<'a> {
    /// The registers of a quote or a TDREPORT.
    pub registers: Option<&'a Registers>,
    /// Extensions that the running system listed itself.
    pub runtime: Option<&'a Prediction>,
}

/// Explains `log` by `prediction`; `against` names the prediction for the reader.
#[must_use]
pub fn explain(
    log: &EventLog<'_>,
    prediction: &Prediction,
    against: &str,
    evidence: &Evidence<'_>,
) -> Explanation {
    let logged: Vec<LoggedEvent> = log
        .events()
        .filter_map(|event| {
            Some(LoggedEvent {
                number: event.number,
                register: event.extends()?,
                part: Part::of(&event),
                description: event.words().to_string(),
                digest: event.digest()?,
                consistency: event.consistency(),
            })
        })
        .collect();
    let mut lines = Vec::new();
    for register in Register::RTMRS {
        let of_log: Vec<&LoggedEvent> = logged.iter().filter(|event| event.register == register).collect();
        if prediction.silent.contains(&register) {
            lines.extend(of_log.into_iter().map(|event| Line {
                register,
                standing: Standing::Silent,
                logged: Some(event.clone()),
                predicted: None,
                cause: None,
            }));
            continue;
        }
        let expected: Vec<&PredictedEvent> = prediction.of(register).collect();
        for (event, predicted) in align::align(&of_log, &expected) {
            let standing = match (event, predicted) {
                (Some(event), Some(predicted)) => match predicted.expectation.admits(&event.digest) {
                    Some(true) => Standing::Same,
                    Some(false) => Standing::Differs,
                    None => Standing::NotPredicted,
                },
                (Some(_), None) => Standing::OnlyInLog,
                (None, _) => Standing::OnlyPredicted,
            };
            let (logged, predicted) = (event.cloned(), predicted.cloned());
            lines.push(Line { register, standing, logged, predicted, cause: None });
        }
    }
    cause::assign(&mut lines);
    Explanation {
        against: against.to_string(),
        lines,
        registers: registers::report(log, evidence),
        contradictions: log.contradictions().map(|warning| warning.to_string()).collect(),
        warnings: log
            .warnings()
            .filter(|warning| !warning.kind.is_contradiction())
            .map(|warning| warning.to_string())
            .collect(),
    }
}

/// Explains `log` by the best of several predictions: the one with the fewest differences, the first of equals.
/// `None` if there is no prediction.
#[must_use]
pub fn explain_by_best(
    log: &EventLog<'_>,
    predictions: &[(String, Prediction)],
    evidence: &Evidence<'_>,
) -> Option<Explanation> {
    predictions
        .iter()
        .map(|(name, prediction)| explain(log, prediction, name, evidence))
        .min_by_key(|explanation| explanation.differences().count())
}

impl Explanation {
    /// The lines that differ, register by register.
    pub fn differences(&self) -> impl Iterator<Item = Difference<'_>> {
        self.lines.iter().filter(|line| line.standing.is_difference())
    }

    /// The difference that happened first in the boot: by position in the log, predicted-only ones where their
    /// neighbours stand.
    #[must_use]
    pub fn first(&self) -> Option<Difference<'_>> {
        let mut position = 0;
        let positioned = self.lines.iter().map(|line| {
            match &line.logged {
                Some(event) => position = event.number,
                None if line.standing == Standing::OnlyPredicted => {}
                None => position = 0,
            }
            (position, line)
        });
        positioned
            .filter(|(_, line)| line.standing.is_difference())
            .min_by_key(|(at, _)| *at)
            .map(|(_, line)| line)
    }

    /// Whether nothing differs, the log does not contradict itself, and no register contradicts the log.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.differences().next().is_none() && self.log_holds()
    }

    /// Whether the log does not contradict itself, and accounts for every register that was given.
    #[must_use]
    pub fn log_holds(&self) -> bool {
        self.contradictions.is_empty() && self.registers.iter().all(|report| report.verdict.is_explained())
    }

    /// Lines whose digest nothing predicts.
    pub fn open(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| line.standing == Standing::NotPredicted)
    }
}

/// How an expectation reads on one line.
fn expected_text(expectation: &Expectation) -> String {
    match expectation {
        Expectation::Exactly(digest) => digest.to_string(),
        Expectation::OneOf(list) => {
            let forms: Vec<String> =
                list.iter().map(|one| alloc::format!("{} ({})", one.digest, one.when)).collect();
            forms.join(" or ")
        }
        Expectation::Unknown { needs } => alloc::format!("not predicted without {needs}"),
    }
}
