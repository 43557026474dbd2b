//! Rules on the contents of the event log: what a boot may have measured, and not only what it came to.
//!
//! A rule is about the events of one register that measure one part of the boot, by the names that `tdvisor eventlog
//! explain` prints. Text counts only where it is what the digest measured; an event that says nothing measured is taken
//! for the worse answer.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use super::{Context, Finding};
use crate::eventlog::{Event, Register};
use crate::explain::{Evidence, explain};
use crate::predict::{Part, Prediction};
use crate::quote::{Measurement, TdReport10};

/// Which events of a part must keep the conditions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quantifier {
    /// There is at least one event, and the rule holds for every one.
    #[default]
    All,
    /// At least one does.
    Some,
    /// None does, or may for all that is known.
    None,
}

impl fmt::Display for Quantifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "every",
            Self::Some => "some",
            Self::None => "no",
        })
    }
}

/// A rule about events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRule {
    /// The register that the events extend.
    pub register: Register,
    /// The part of the boot, or the first words of its name: `action` is every action.
    pub part: String,
    /// Which of the events must keep the conditions.
    pub quantifier: Quantifier,
    /// What the digest may be; `None`: any.
    pub digest: Option<Vec<Measurement>>,
    /// Texts that the measured text must have in it.
    pub contains: Vec<String>,
    /// Texts that it must not have in it.
    pub lacks: Vec<String>,
}

impl fmt::Display for EventRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} of {}", self.quantifier, self.part, self.register)?;
        if self.digest.is_some() {
            f.write_str(" with a digest of the list")?;
        }
        for text in &self.contains {
            write!(f, " with {text:?}")?;
        }
        self.lacks.iter().try_for_each(|text| write!(f, " without {text:?}"))
    }
}

impl EventRule {
    /// Whether the event is one that the rule is about.
    fn is_about(&self, event: &Event<'_>) -> bool {
        if event.extends() != Some(self.register) {
            return false;
        }
        let part = Part::of(event).to_string();
        part.strip_prefix(&*self.part).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    }

    /// Whether the event keeps the conditions; `None` where nothing measured says so.
    fn keeps(&self, event: &Event<'_>) -> Option<bool> {
        if let Some(list) = &self.digest
            && !event.digest().is_some_and(|digest| list.contains(&digest.0))
        {
            return Some(false);
        }
        if self.contains.is_empty() && self.lacks.is_empty() {
            return Some(true);
        }
        let text = event.measured_text()?;
        let has = |wanted: &String| text.contains(wanted.as_str());
        Some(self.contains.iter().all(has) && !self.lacks.iter().any(has))
    }

    fn holds<'a>(&self, events: impl Iterator<Item = Event<'a>>) -> bool {
        let mut kept = events.filter(|event| self.is_about(event)).map(|event| self.keeps(&event)).peekable();
        match self.quantifier {
            Quantifier::All => kept.peek().is_some() && kept.all(|kept| kept == Some(true)),
            Quantifier::Some => kept.any(|kept| kept == Some(true)),
            Quantifier::None => kept.all(|kept| kept == Some(false)),
        }
    }
}

/// Holds rules against the log of the context, which must be that of the TD: it accounts for RTMR0 to RTMR2 (together with
/// what the running system listed), and says nothing that was not measured.
pub(super) fn check(
    rules: &[EventRule],
    td: &TdReport10,
    context: &Context<'_>,
    findings: &mut Vec<Finding>,
) {
    let Some(log) = context.log else {
        if !rules.is_empty() {
            findings.push(Finding::NoEventLog);
        }
        return;
    };
    let silent = Prediction { events: Vec::new(), silent: Register::RTMRS.to_vec() };
    let registers = td.rtmr.into();
    let evidence = Evidence { registers: Some(&registers), runtime: context.runtime };
    let explained = explain(log, &silent, "nothing", &evidence);
    let wrong = explained.registers.iter().filter(|report| !report.verdict.is_explained());
    let wrong = wrong.map(|report| alloc::format!("{}: {}", report.register, report.verdict));
    let before = findings.len();
    findings.extend(wrong.chain(explained.contradictions.iter().cloned()).map(Finding::EventLog));
    // Of a log that does not hold, nothing more is said.
    if findings.len() == before {
        let broken = rules.iter().filter(|rule| !rule.holds(log.events()));
        findings.extend(broken.map(|rule| Finding::Event { rule: rule.to_string() }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventlog::{EventLog, EventType, LogBuilder};
    use alloc::vec;
    use td_image::digest::Digest384;

    const LINE: &str = "/vmlinuz root=/dev/vda1 lockdown=integrity";

    fn log(line: &str, measured: &str) -> Vec<u8> {
        let mut log = LogBuilder::new();
        let text = alloc::format!("kernel_cmdline: {line}\0");
        log.push(Register::Rtmr2, EventType::IPL, &Digest384::of(measured.as_bytes()), text.as_bytes());
        log.push(Register::Rtmr2, EventType::IPL, &Digest384::of(b"a file"), b"initrd\0");
        log.finish()
    }

    fn rule(part: &str, quantifier: Quantifier, contains: &[&str], lacks: &[&str]) -> EventRule {
        let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        EventRule {
            register: Register::Rtmr2,
            part: part.to_string(),
            quantifier,
            digest: None,
            contains: owned(contains),
            lacks: owned(lacks),
        }
    }

    /// Findings' codes for a TD whose RTMR2 is what the log replays to.
    fn judged(area: &[u8], rules: &[EventRule]) -> Vec<&'static str> {
        let log = EventLog::parse(area).unwrap();
        let mut td: TdReport10 = zerocopy::FromZeros::new_zeroed();
        td.rtmr[2] = log.replay()[Register::Rtmr2].0;
        let mut findings = Vec::new();
        check(rules, &td, &Context { log: Some(&log), ..Context::default() }, &mut findings);
        findings.iter().map(Finding::code).collect()
    }

    #[test]
    fn what_a_command_line_has_in_it_is_judged_by_what_was_measured_of_it() {
        let area = log(LINE, LINE);
        use Quantifier::{All, None, Some};
        for (quantifier, contains, lacks, is_kept) in [
            (All, &["lockdown=integrity"][..], &["init="][..], true),
            (All, &["lockdown=confidentiality"], &[], false),
            (All, &[], &["root=/dev/vda1"], false),
            (Some, &["lockdown"], &[], true),
            (Some, &["selinux=0"], &[], false),
            (None, &["selinux=0"], &[], true),
            (None, &["lockdown"], &[], false),
        ] {
            let found = judged(&area, &[rule("command line", quantifier, contains, lacks)]);
            assert_eq!(found.is_empty(), is_kept, "{quantifier} {contains:?} {lacks:?}: {found:?}");
            assert!(found.iter().all(|code| *code == "event"));
        }
    }

    #[test]
    fn an_event_that_is_not_there_keeps_only_a_rule_that_wants_none() {
        let area = log(LINE, LINE);
        for (quantifier, is_kept) in
            [(Quantifier::All, false), (Quantifier::Some, false), (Quantifier::None, true)]
        {
            assert_eq!(judged(&area, &[rule("UEFI image", quantifier, &[], &[])]).is_empty(), is_kept);
        }
        // "init" is no word of "initrd".
        assert!(judged(&area, &[rule("init", Quantifier::None, &[], &[])]).is_empty());
        assert!(!judged(&area, &[rule("initrd", Quantifier::None, &[], &[])]).is_empty());
    }

    #[test]
    fn a_file_has_a_digest_and_no_text() {
        let area = log(LINE, LINE);
        let with = |digest: &[u8]| EventRule {
            digest: Some(vec![Digest384::of(digest).0]),
            ..rule("initrd", Quantifier::All, &[], &[])
        };
        assert!(judged(&area, &[with(b"a file")]).is_empty());
        assert_eq!(judged(&area, &[with(b"another")]), ["event"]);
        for quantifier in [Quantifier::All, Quantifier::Some, Quantifier::None] {
            let found = judged(&area, &[rule("initrd", quantifier, &["initrd"], &[])]);
            assert_eq!(found, ["event"], "{quantifier}: nobody knows what the file says");
        }
    }

    #[test]
    fn a_log_that_does_not_hold_or_is_missing_keeps_no_rule() {
        let rules = [rule("command line", Quantifier::All, &["lockdown=integrity"], &[])];
        assert_eq!(judged(&log(LINE, "quiet"), &rules), ["event-log"], "text that was not measured");
        let area = log(LINE, LINE);
        let parsed = EventLog::parse(&area).unwrap();
        let td: TdReport10 = zerocopy::FromZeros::new_zeroed();
        let mut findings = Vec::new();
        check(&rules, &td, &Context { log: Some(&parsed), ..Context::default() }, &mut findings);
        assert_eq!(findings.iter().map(Finding::code).collect::<Vec<_>>(), ["event-log"], "another TD's");
        findings.clear();
        check(&rules, &td, &Context::default(), &mut findings);
        assert_eq!(findings, [Finding::NoEventLog]);
        findings.clear();
        check(&[], &td, &Context::default(), &mut findings);
        assert!(findings.is_empty(), "no rule asks for no log");
    }
}
