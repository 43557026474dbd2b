//! `tdvisor verify`: one quote, or a file of cases, to explained verdicts.

mod batch;
mod case;
pub mod inputs;

use std::path::PathBuf;

use tdvisor_attest::UnixSeconds;
use tdvisor_attest::collateral::{Bundle, UpdateSet};
use tdvisor_attest::policy::Policy;
use tdvisor_attest::verdict::Report;
use tdvisor_attest::verify::{TrustAnchor, Verifier, VerifyError};
use tdvisor_collateral::fetch::FetchError;

use crate::commands::collateral::source::{self, SourceArgs};
use crate::outcome::{Failure, Status};
use crate::streams::print;
use inputs::{LogFiles, Logs, evaluate, parse_time, read_collateral, read_policy, read_root};

/// Verify a quote: cryptography, TCB status and policy, as three verdicts.
///
/// Ends with status 0 if the quote is accepted (with --update both: by each set), 1 if it is rejected, 2 if an input cannot
/// be used. With --batch: 0 when every line was answered.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The quote: its bytes, hexadecimal, base64, a quote buffer, or the evidence JSON that has it; `-` for standard
    /// input.
    #[arg(value_name = "QUOTE", required_unless_present = "batch")]
    quote: Option<PathBuf>,
    /// Collateral: a bundle, or response bodies, CRLs and chains as files of their own (or a folder of them);
    /// may be given more than once.
    #[arg(long, value_name = "FILE")]
    collateral: Vec<PathBuf>,
    /// Fetch the collateral from Intel's service, or as the options of `collateral fetch` say.
    #[arg(long, conflicts_with_all = ["batch", "collateral"])]
    fetch: bool,
    #[command(flatten)]
    source: SourceArgs,
    /// When to verify for: seconds since 1970 or YYYY-MM-DDThh:mm:ssZ. Default: now.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    at: Option<UnixSeconds>,
    /// What to accept (TOML or JSON). Default: a TD with an up-to-date TCB and no debug; never an enclave.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// What REPORTDATA must be, in hexadecimal: up to 64 bytes, zeros where it is shorter. The nonce, or the hash, that
    /// ties this quote to this request: without it an old quote is as good as a new one.
    #[arg(long, visible_alias = "nonce", value_name = "HEX", value_parser = parse_report_data)]
    report_data: Option<ReportData>,
    /// Extensions of RTMR3 that the running system listed itself, for a policy with `rtmr3 = "log"`, which else takes the
    /// list beside the quote in its evidence (JSON array with
    /// digest, imr or register, event or name). The quote must bear out a list that is given.
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,
    /// The event log (an area, a list, or evidence JSON), for a policy with rules on events, which else takes the log beside
    /// the quote in its evidence. A log that is given must account for RTMR0 to RTMR2.
    #[arg(long, value_name = "LOG")]
    event_log: Option<PathBuf>,
    /// Linux's integrity measurements (ascii_runtime_measurements_sha384), which extend RTMR2 after the event log.
    #[arg(long, value_name = "FILE", requires = "event_log")]
    ima: Option<PathBuf>,
    /// Verify every line of this file; paths in it are relative to it.
    #[arg(long, value_name = "CASES", conflicts_with_all = ["quote", "collateral", "at", "events", "event_log", "report_data"])]
    batch: Option<PathBuf>,
    /// Trust this root certificate (DER or PEM) instead of Intel's.
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// Trust the root of a test PKI instead of Intel's; every verdict says so.
    #[arg(long, value_name = "FILE", conflicts_with = "root")]
    test_root: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What REPORTDATA must begin with; the rest must be zero.
#[derive(Clone, Debug)]
struct ReportData(Vec<u8>);

fn parse_report_data(text: &str) -> Result<ReportData, String> {
    const MAX: usize = 64;
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    if digits.is_empty() || digits.len() > 2 * MAX || !digits.len().is_multiple_of(2) || !is_hex {
        return Err("wanted: 1 to 64 bytes in hexadecimal".to_owned());
    }
    let byte = |pair: &[u8]| {
        std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()).unwrap_or_default()
    };
    Ok(ReportData(digits.as_bytes().chunks(2).map(byte).collect()))
}

/// Runs the command.
pub fn run(args: Args) -> Result<Status, Failure> {
    if let (false, Some(option)) = (args.fetch, args.source.given()) {
        return Err(Failure::input(option, "says how to fetch collateral: --fetch is missing"));
    }
    // What is no quote is said before any word about roots.
    let quote = match &args.quote {
        Some(path) => {
            let file = inputs::read(path)?;
            Some((path, inputs::open_quote(path, &file)?, file))
        }
        None => None,
    };
    if quote.is_some() && args.collateral.is_empty() && !args.fetch {
        return Err(Failure::input(
            "--collateral",
            "missing: it names what verification needs beside the quote; --fetch gets it, `quote show` lists it",
        ));
    }
    let anchor = match args.root.as_ref().or(args.test_root.as_ref()) {
        Some(path) => read_root(path)?,
        None => TrustAnchor::intel(),
    };
    let mut policy = match &args.policy {
        Some(path) => read_policy(path)?,
        None => Policy::default(),
    };
    if let Some(ReportData(wanted)) = args.report_data {
        if policy.report_data.as_ref().is_some_and(|stated| *stated != wanted) {
            return Err(Failure::input("--report-data", "the policy states another one"));
        }
        policy.report_data = Some(wanted);
    }
    if let Some(cases) = &args.batch {
        return batch::run(cases, &anchor, &policy, args.json);
    }
    let Some((path, bytes, file)) = quote else { return Err(Failure::input("QUOTE", "missing")) };
    let at = args.at.map_or_else(inputs::now, Ok)?;
    let files = LogFiles {
        event_log: args.event_log.as_deref(),
        events: args.events.as_deref(),
        ima: args.ima.as_deref(),
    };
    let logs = Logs::read(files, Some((path, &file)), &policy)?;

    let judge =
        Judge { anchor: &anchor, policy: &policy, logs: &logs, at, test_root: args.test_root.is_some() };
    // Collateral that cannot be had or read is unusable input; collateral that does not hold is a verdict.
    let mut verdicts = Vec::new();
    if args.fetch {
        for set in args.source.sets() {
            let bundle = match source::fetch(&args.source.fetcher(anchor.clone(), *set)?, &bytes, at) {
                Err(FetchError::Untrusted(error)) => Err(error),
                fetched => Ok(fetched.map_err(|error| source::failure(&error))?),
            };
            verdicts.push((*set, judge.verdict(&bytes, bundle)));
        }
    } else {
        let bundle = read_collateral(&args.collateral)?.bundle(&bytes)?;
        verdicts.push((None, judge.verdict(&bytes, Ok(bundle))));
    }
    let is_accepted = verdicts.iter().all(|(_, verdict)| verdict.is_accepted);
    print(&if args.json { json(&verdicts) } else { text(&verdicts) })?;
    Ok(if is_accepted { Status::Success } else { Status::Negative })
}

/// What does not depend on the collateral.
struct Judge<'a> {
    anchor: &'a TrustAnchor,
    policy: &'a Policy,
    logs: &'a Logs,
    at: UnixSeconds,
    test_root: bool,
}

/// A verdict by one set of collateral.
struct Verdict {
    is_accepted: bool,
    json: serde_json::Value,
    text: String,
}

impl Judge<'_> {
    fn verdict(&self, quote: &[u8], bundle: Result<Bundle, VerifyError>) -> Verdict {
        let mut verifier = Verifier::new(self.anchor.clone());
        let verified = bundle
            .and_then(|bundle| verifier.add_collateral(&bundle))
            .and_then(|()| verifier.verify(quote, self.at))
            .map_err(Box::new);
        let verdict = verified.as_ref().ok().map(|verified| evaluate(self.policy, verified, self.logs));
        let report = Report {
            verified: verified.as_ref().map_err(|error| **error),
            policy: verdict.as_ref(),
            at: self.at,
            test_root: self.test_root,
        };
        let is_accepted = verdict.as_ref().is_some_and(|verdict| verdict.is_accepted());
        Verdict { is_accepted, json: report.to_json(), text: report.to_text() }
    }
}

/// One verdict as it is; of two, each under the name of its set.
fn json(verdicts: &[(Option<UpdateSet>, Verdict)]) -> String {
    let answer = match verdicts {
        [(_, verdict)] => verdict.json.clone(),
        several => {
            let named =
                several.iter().filter_map(|(set, verdict)| Some((set.as_ref()?.name(), &verdict.json)));
            let named: serde_json::Map<_, _> =
                named.map(|(name, verdict)| (name.to_owned(), verdict.clone())).collect();
            serde_json::json!({ "sets": named })
        }
    };
    format!("{:#}\n", crate::commands::with_version(answer))
}

fn text(verdicts: &[(Option<UpdateSet>, Verdict)]) -> String {
    let mut text = String::new();
    for (set, verdict) in verdicts {
        if let (Some(set), true) = (set, verdicts.len() > 1) {
            text += &format!("set     {}\n", set.name());
        }
        text += &verdict.text;
    }
    text
}
