//! Files and times that verification takes.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use tdvisor_attest::collateral::{Bundle, ClaimedPlatform, CollateralError, Part, Parts, Wanted, requests};
use tdvisor_attest::eventlog::{EventLog, Register};
use tdvisor_attest::evidence::{self, Evidence};
use tdvisor_attest::policy::{Context, Finding, Policy, PolicyVerdict, Rtmr3};
use tdvisor_attest::predict::list::{self, EventList};
use tdvisor_attest::quote::{Measurement, Quote};
use tdvisor_attest::verify::{TrustAnchor, Verification};
use tdvisor_attest::{Hex, UnixSeconds};
use tdvisor_collateral::store::Store;

use crate::commands::eventlog::read_ima;
use crate::outcome::Failure;
use crate::read_bounded::{read_bounded, read_text_bounded};

/// The largest file that is read, in bytes; quotes and collateral are far smaller.
const MAX_FILE: u64 = 16 << 20;

/// Reads a file that evidence can be; `-` is standard input.
pub fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    if path.as_os_str() != "-" {
        return read_bounded(path, MAX_FILE);
    }
    let mut bytes = Vec::new();
    std::io::stdin()
        .lock()
        .take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::input("standard input", error))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(Failure::input("standard input", "larger than any evidence"));
    }
    Ok(bytes)
}

/// Reads a text of the same bound.
pub fn read_text(path: &Path) -> Result<String, Failure> {
    read_text_bounded(path, MAX_FILE)
}

/// The most files that a folder of collateral may have.
const MAX_FILES: usize = 64;

/// Files of collateral, read.
pub struct Collateral {
    paths: Vec<PathBuf>,
    parts: Parts,
}

/// Reads files of collateral; a folder stands for the files in it. Their order does not matter.
pub fn read_collateral(paths: &[PathBuf]) -> Result<Collateral, Failure> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let problem = |error| Failure::input(path.display(), error);
        let entries = std::fs::read_dir(path).map_err(problem)?;
        let mut inside = entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(problem)?;
        inside.sort();
        if inside.len() > MAX_FILES {
            return Err(Failure::input(path.display(), "too many files for collateral"));
        }
        files.extend(inside.into_iter().filter(|file| file.is_file()));
    }
    let mut parts = Parts::default();
    for file in &files {
        parts.add(&read(file)?).map_err(|error| Failure::input(file.display(), error))?;
    }
    Ok(Collateral { paths: files, parts })
}

impl Collateral {
    /// All of it, for quotes to come.
    pub fn into_parts(self) -> Parts {
        self.parts
    }

    /// All of it, by the requests that it answers.
    ///
    /// # Errors
    /// A part that cannot be read, or a body without its issuer chain.
    pub fn store(&self) -> Result<Store, CollateralError> {
        Store::new(&self.parts)
    }

    /// What the quote needs of it.
    pub fn bundle(&self, quote: &[u8]) -> Result<Bundle, Failure> {
        let quote = Quote::parse(quote).ok();
        let built = match &quote {
            Some(quote) => self.parts.build_for(&Wanted::of(quote)),
            // What is wrong with the quote is said by the verdict.
            None => self.parts.build(),
        };
        built.map_err(|error| self.failure(error, quote.as_ref()))
    }

    /// Names the files at fault, or everything that is missing and where it is to be had.
    fn failure(&self, error: CollateralError, quote: Option<&Quote<'_>>) -> Failure {
        let name =
            |file: usize| self.paths.get(file).map_or_else(String::new, |path| path.display().to_string());
        match error {
            CollateralError::Ambiguous { part, files: (first, second) } if first != second => Failure::input(
                "collateral",
                format!(
                    "{part}: {} and {} have different ones, and both fit the quote",
                    name(first),
                    name(second)
                ),
            ),
            CollateralError::Missing(_) => {
                Failure::input("collateral", missing(&self.parts.missing(), quote))
            }
            error => Failure::input("collateral", error),
        }
    }
}

/// All parts that are missing, the platform that they are for, and where to get each.
fn missing(parts: &[Part], quote: Option<&Quote<'_>>) -> String {
    let names: Vec<String> = parts.iter().map(ToString::to_string).collect();
    let mut text = format!("missing: {}", names.join(", "));
    let Some(quote) = quote else { return text };
    if let ClaimedPlatform::Certificate { pck, issuer, .. } = ClaimedPlatform::of(quote) {
        text += &format!("; the platform has FMSPC {}", Hex(&pck.fmspc));
        if let Some(issuer) = issuer {
            text += &format!(" and a PCK certificate of the {issuer} CA");
        }
    }
    for request in requests(quote) {
        // An issuer chain is in a header of the answer that has the body.
        let chain = match request.part {
            Part::TcbInfo => Some(Part::TcbInfoChain),
            Part::QeIdentity => Some(Part::QeIdentityChain),
            _ => None,
        };
        if parts.contains(&request.part) || chain.is_some_and(|chain| parts.contains(&chain)) {
            text += &format!("; {} from {}", request.part, request.url);
        }
    }
    text
}

/// Unwraps a quote from any of the forms that quotes come in.
pub fn open_quote(path: &Path, bytes: &[u8]) -> Result<Vec<u8>, Failure> {
    let unusable = |error: &dyn std::fmt::Display| Failure::input(path.display(), error);
    match evidence::open(bytes).map_err(|error| unusable(&error))?.evidence {
        Evidence::Quote(quote) => Ok(quote),
        Evidence::Report(_) => {
            Err(unusable(&"not a quote: a TDREPORT, which only its own platform can check"))
        }
        Evidence::Hcl(_) => Err(unusable(&"not a quote: an HCL report, whose TDREPORT Azure has quoted")),
    }
}

/// Reads a quote, in any of the forms that quotes come in.
pub fn read_quote(path: &Path) -> Result<Vec<u8>, Failure> {
    open_quote(path, &read(path)?)
}

/// Reads a policy.
pub fn read_policy(path: &Path) -> Result<Policy, Failure> {
    Policy::from_text(&read_text(path)?).map_err(|error| Failure::input(path.display(), error))
}

/// The files of logs that go with a quote.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogFiles<'a> {
    /// The event log.
    pub event_log: Option<&'a Path>,
    /// What the running system listed that it extended RTMR3 with.
    pub events: Option<&'a Path>,
    /// Linux's integrity measurements.
    pub ima: Option<&'a Path>,
}

/// The logs that go with a quote, read.
#[derive(Default)]
pub struct Logs {
    area: Option<Vec<u8>>,
    lists: Vec<EventList>,
    rtmr3: Option<Measurement>,
}

impl Logs {
    /// Reads the files that are named. A policy that asks for what none of them is takes it from the evidence that has the
    /// quote, where it is.
    pub fn read(
        files: LogFiles<'_>,
        beside: Option<(&Path, &[u8])>,
        policy: &Policy,
    ) -> Result<Self, Failure> {
        let mut logs = Self::default();
        if let Some(path) = files.event_log {
            let opened = open_log(path, &read(path)?)?;
            EventLog::parse(&opened.area).map_err(|error| Failure::input(path.display(), error))?;
            logs.area = Some(opened.area);
        }
        if let Some(path) = files.events {
            let list =
                list::parse(&read_text(path)?).map_err(|error| Failure::input(path.display(), error))?;
            logs.add_list(path, list)?;
        }
        if let Some(path) = files.ima {
            logs.lists.push(read_ima(path)?);
        }
        let Some((path, evidence)) = beside else { return Ok(logs) };
        let wants_list = policy.td.rtmr3 == Rtmr3::Log && logs.rtmr3.is_none();
        let wants_log = !policy.td.events.is_empty() && logs.area.is_none();
        if let (true, Ok(opened)) = (wants_list || wants_log, evidence::open_log(evidence)) {
            if wants_log {
                logs.area = Some(opened.area);
            }
            if let Some(list) = opened.list.filter(|_| wants_list) {
                logs.add_list(path, list)?;
            }
        }
        Ok(logs)
    }

    fn add_list(&mut self, path: &Path, list: EventList) -> Result<(), Failure> {
        // Every digest of such a list is known.
        let value = list.prediction().value(Register::Rtmr3);
        self.rtmr3 = Some(value.ok_or_else(|| Failure::input(path.display(), "no value for RTMR3"))?.0);
        self.lists.push(list);
        Ok(())
    }
}

fn open_log(path: &Path, bytes: &[u8]) -> Result<evidence::OpenedLog, Failure> {
    evidence::open_log(bytes).map_err(|error| Failure::input(path.display(), error))
}

/// Holds a policy against a verified quote and the logs that go with it.
pub fn evaluate(policy: &Policy, verified: &Verification<'_>, logs: &Logs) -> PolicyVerdict {
    let log = logs.area.as_deref().and_then(|area| EventLog::parse(area).ok());
    let runtime = logs.lists.iter().map(EventList::prediction).reduce(|mut all, next| {
        all.extend(next);
        all
    });
    let context = Context { rtmr3_replay: logs.rtmr3, log: log.as_ref(), runtime: runtime.as_ref() };
    let mut verdict = policy.evaluate(verified, &context);
    let forged = logs.lists.iter().flat_map(EventList::contradictions);
    verdict.findings.extend(forged.map(|(line, _)| Finding::EventText { line }));
    verdict
}

/// Reads a root certificate.
pub fn read_root(path: &Path) -> Result<TrustAnchor, Failure> {
    TrustAnchor::from_bytes(&read(path)?).map_err(|error| Failure::input(path.display(), error))
}

/// Reads a time: seconds since 1970 or RFC 3339.
pub fn parse_time(text: &str) -> Result<UnixSeconds, String> {
    let seconds = text.parse().map(UnixSeconds).ok();
    seconds
        .or_else(|| UnixSeconds::from_rfc3339(text))
        .ok_or_else(|| "wanted: seconds since 1970, or YYYY-MM-DDThh:mm:ssZ".to_string())
}

/// The time of this machine's clock.
pub fn now() -> Result<UnixSeconds, Failure> {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map(|since| UnixSeconds(since.as_secs()))
        .map_err(|_| Failure::input("clock", "before 1970; give --at"))
}
