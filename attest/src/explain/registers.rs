//! Is the log true? Replay against the registers of a quote or a TDREPORT.

use alloc::vec::Vec;
use core::fmt;

use super::Evidence;
use crate::eventlog::{EventLog, Register, Replay};
use crate::predict::Prediction;
use td_image::digest::Digest384;

/// Longest run of events for which an omission is searched.
const MAX_SEARCH: usize = 512;

/// What a register says about the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegisterVerdict {
    /// The replay is the register.
    Replays,
    /// The replay followed by the application's own list is the register.
    ReplaysWithList,
    /// RTMR3 is not zero, and the log has no events for it: applications extended it, which writes no log. What they
    /// extended it with is not known without a list of theirs.
    RuntimeOnly,
    /// The register is not zero, and no event accounts for it: they were left out of the log, or the running
    /// system extended it.
    Unaccounted,
    /// The log is behind the register, which the running system may extend: either it did (IMA), or the log is
    /// not that of this boot.
    RuntimeOrForeign,
    /// The register holds what the first events replay to: the rest was logged later, or added to the log.
    Ahead {
        /// How many of the register's events it holds.
        events: u32,
    },
    /// The register holds the replay without this one event: it was added to the log.
    EventAdded {
        /// The event's position in the log.
        number: u32,
    },
    /// No run-time extension explains the difference: the log was changed, or belongs to another boot.
    Contradicts,
}

impl RegisterVerdict {
    /// Whether log (and list) account for the register, or nothing speaks against them.
    #[must_use]
    pub const fn is_explained(self) -> bool {
        matches!(self, Self::Replays | Self::ReplaysWithList | Self::RuntimeOnly)
    }

    /// The name that scripts see.
    #[must_use]
    pub const fn id(self) -> &'static str {
        match self {
            Self::Replays => "replays",
            Self::ReplaysWithList => "replays-with-list",
            Self::RuntimeOnly => "runtime-only",
            Self::Unaccounted => "unaccounted",
            Self::RuntimeOrForeign => "runtime-or-foreign-log",
            Self::Ahead { .. } => "log-ahead",
            Self::EventAdded { .. } => "event-added",
            Self::Contradicts => "contradicts",
        }
    }
}

impl fmt::Display for RegisterVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replays => f.write_str("the log replays to it"),
            Self::ReplaysWithList => f.write_str("the log and the application's list replay to it"),
            Self::RuntimeOnly => f.write_str(
                "extended by applications only, which write no log: give their list with --events to check it",
            ),
            Self::Unaccounted => f.write_str(
                "it is extended, and no event of the log accounts for it: only RTMR3 may grow without a log",
            ),
            Self::RuntimeOrForeign => f.write_str(
                "the log does not reach it: run-time extensions without a log (IMA), or the log of another boot",
            ),
            Self::Ahead { events } => write!(
                f,
                "it holds the first {events} events: the rest came after the quote, or was added to the log"
            ),
            Self::EventAdded { number } => {
                write!(f, "the log replays to it without event {number}, which was added to the log")
            }
            Self::Contradicts => {
                f.write_str("the log does not replay to it: changed, or the log of another boot")
            }
        }
    }
}

/// One register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegisterReport {
    /// The register.
    pub register: Register,
    /// What the quote or TDREPORT says.
    pub actual: Digest384,
    /// What the log replays to.
    pub replayed: Digest384,
    /// The verdict.
    pub verdict: RegisterVerdict,
}

pub(super) fn report(log: &EventLog<'_>, evidence: &Evidence<'_>) -> Vec<RegisterReport> {
    let Some(actual) = evidence.registers else { return Vec::new() };
    let replay = log.replay();
    Register::RTMRS
        .into_iter()
        .filter_map(|register| {
            let actual = *actual.get(register)?;
            let replayed = replay[register];
            let verdict = verdict(log, register, &actual, &replay, evidence);
            Some(RegisterReport { register, actual, replayed, verdict })
        })
        .collect()
}

fn verdict(
    log: &EventLog<'_>,
    register: Register,
    actual: &Digest384,
    replay: &Replay,
    evidence: &Evidence<'_>,
) -> RegisterVerdict {
    let listed = evidence.runtime.is_some_and(|list| list.of(register).next().is_some());
    if !listed && replay[register] == *actual {
        return RegisterVerdict::Replays;
    }
    if let Some(list) = evidence.runtime.filter(|_| listed) {
        // A list that adds to a register that the log alone explains is wrong, and shows here.
        return if with_list(log, list, register) == Some(*actual) {
            RegisterVerdict::ReplaysWithList
        } else {
            RegisterVerdict::Contradicts
        };
    }
    let digests: Vec<(u32, Digest384)> = log
        .events()
        .filter(|event| event.extends() == Some(register))
        .filter_map(|event| Some((event.number, event.digest()?)))
        .collect();
    let runtime = matches!(register, Register::Rtmr2 | Register::Rtmr3);
    if digests.is_empty() {
        return if register == Register::Rtmr3 {
            RegisterVerdict::RuntimeOnly
        } else {
            RegisterVerdict::Unaccounted
        };
    }
    if let Some(events) = prefix(&digests, actual) {
        return RegisterVerdict::Ahead { events };
    }
    if let Some(number) = without_one(&digests, actual) {
        return RegisterVerdict::EventAdded { number };
    }
    if runtime { RegisterVerdict::RuntimeOrForeign } else { RegisterVerdict::Contradicts }
}

/// What log and list replay to together. A list that begins with what the log has for the register is a list of all
/// events, and the log's count once; any other goes on where the log ends. `None` if a digest of the list is not known.
fn with_list(log: &EventLog<'_>, list: &Prediction, register: Register) -> Option<Digest384> {
    let listed: Vec<Digest384> =
        list.of(register).map(|event| event.expectation.only().copied()).collect::<Option<_>>()?;
    let logged: Vec<Digest384> = log
        .events()
        .filter(|event| event.extends() == Some(register))
        .filter_map(|event| event.digest())
        .collect();
    let is_whole = listed.starts_with(&logged);
    let before = if is_whole { &[][..] } else { logged.as_slice() };
    Some(before.iter().chain(&listed).fold(Digest384::ZERO, |value, digest| value.extended_by(digest)))
}

/// How many of the first events make the register, if some but not all do.
fn prefix(digests: &[(u32, Digest384)], actual: &Digest384) -> Option<u32> {
    let mut value = Digest384::ZERO;
    for (count, (_, digest)) in (0u32..).zip(digests) {
        if value == *actual {
            return Some(count);
        }
        value = value.extended_by(digest);
    }
    None
}

/// The one event without which the rest make the register.
fn without_one(digests: &[(u32, Digest384)], actual: &Digest384) -> Option<u32> {
    if digests.len() > MAX_SEARCH {
        return None;
    }
    let mut before = Digest384::ZERO;
    for (index, (number, digest)) in digests.iter().enumerate() {
        let rest = digests.get(index + 1..).unwrap_or_default();
        let value = rest.iter().fold(before, |value, (_, digest)| value.extended_by(digest));
        if value == *actual {
            return Some(*number);
        }
        before = before.extended_by(digest);
    }
    None
}
