//! The verdict: cryptography, binding, event log and the operator's policy, and what of it a token may claim.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};
use tdvisor_attest::UnixSeconds;
use tdvisor_attest::collateral::{Bundle, CollateralError, Parts, TcbStatus, Wanted};
use tdvisor_attest::eventlog::{EventLog, LogError, Register, Registers};
use tdvisor_attest::explain::{Evidence, explain};
use tdvisor_attest::policy::{Context, Expected, Policy, PolicyVerdict};
use tdvisor_attest::predict::Prediction;
use tdvisor_attest::quote::{Quote, QuoteError, TdAttributes};
use tdvisor_attest::trustee::intel_dcap::NoClaims;
use tdvisor_attest::trustee::tdx;
use tdvisor_attest::verify::{TrustAnchor, Verifier, VerifyError};
use tdvisor_collateral::fetch::{FetchError, Fetcher};

use crate::binding::BindingError;
use crate::question::Question;

/// Where collateral comes from.
#[derive(Clone, Debug)]
pub enum CollateralSource {
    /// Files that were read at the start.
    Files(Arc<Parts>),
    /// A service, with a cache or without.
    Fetch(Arc<Fetcher>),
}

impl CollateralSource {
    fn bundle(&self, quote: &[u8], at: UnixSeconds) -> Result<Bundle, Refusal> {
        match self {
            Self::Files(parts) => {
                let wanted = Wanted::of(&Quote::parse(quote).map_err(Refusal::Quote)?);
                parts.build_for(&wanted).map_err(Refusal::Collateral)
            }
            Self::Fetch(fetcher) => match fetcher.fetch(quote, at) {
                Ok(fetched) => Ok(fetched.bundle),
                Err(FetchError::Quote(error)) => Err(Refusal::Quote(error)),
                Err(error) => Err(Refusal::Fetch(error.to_string())),
            },
        }
    }
}

/// Whether the root that is trusted is that of real hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootKind {
    /// Intel's, or another that the operator vouches for.
    Hardware,
    /// A test PKI's: what it signs says nothing about hardware, and every token says so.
    Test,
}

/// What appraises evidence.
#[derive(Clone, Debug)]
pub struct Appraiser {
    /// The root.
    pub anchor: TrustAnchor,
    /// What root it is.
    pub root: RootKind,
    /// What is accepted.
    pub policy: Policy,
    /// Where collateral comes from.
    pub collateral: CollateralSource,
}

/// Evidence that was accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct Appraisal {
    /// The trustworthiness vector.
    pub vector: Vector,
    /// TCB status.
    pub tcb_status: TcbStatus,
    /// Claims about the TD, without REPORTDATA and MRCONFIGID.
    pub tdx: Map<String, Value>,
    /// REPORTDATA, in hexadecimal.
    pub report_data: Value,
    /// The run-time data that it is of.
    pub runtime_claims: Value,
    /// MRCONFIGID, in hexadecimal.
    pub init_data: Value,
    /// The init data that it is of.
    pub init_claims: Value,
}

/// Why evidence gets no token.
#[derive(Debug)]
#[non_exhaustive]
pub enum Refusal {
    /// What is no quote.
    Quote(QuoteError),
    /// Collateral that does not go together.
    Collateral(CollateralError),
    /// Collateral that could not be fetched.
    Fetch(String),
    /// The quote does not verify.
    Invalid(VerifyError),
    /// The quote is not of this request.
    Binding(BindingError),
    /// The event log cannot be read.
    Log(LogError),
    /// The event log is not what the registers say.
    LogDiffers(String),
    /// The policy.
    Policy(PolicyVerdict),
    /// A TCB that no policy may accept, or no TD.
    NoClaims(NoClaims),
}

impl Refusal {
    /// Whether the refusal is a fault of the service's surroundings, not of the evidence.
    #[must_use]
    pub const fn is_ours(&self) -> bool {
        matches!(self, Self::Fetch(_) | Self::Collateral(_))
    }

    /// A stable name, for metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Quote(_) => "malformed",
            Self::Collateral(_) | Self::Fetch(_) => "no-collateral",
            Self::Invalid(_) => "invalid",
            Self::Binding(_) => "not-bound",
            Self::Log(_) | Self::LogDiffers(_) => "event-log",
            Self::Policy(_) => "policy",
            Self::NoClaims(_) => "tcb",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quote(error) => error.fmt(f),
            Self::Collateral(error) => write!(f, "collateral: {error}"),
            Self::Fetch(problem) => write!(f, "collateral: {problem}"),
            Self::Invalid(error) => write!(f, "{error} [{}]", error.code()),
            Self::Binding(error) => error.fmt(f),
            Self::Log(error) => write!(f, "cc_eventlog: {error}"),
            Self::LogDiffers(problem) => write!(f, "cc_eventlog: {problem}"),
            Self::Policy(verdict) => {
                f.write_str("the policy rejects it")?;
                verdict.findings.iter().try_for_each(|finding| write!(f, "; {finding} [{}]", finding.code()))
            }
            Self::NoClaims(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Refusal {}

/// A trustworthiness vector (draft-ietf-rats-ar4si): the three of its claims that TDX evidence is about; the others are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vector {
    /// Claims about hardware.
    pub hardware: i8,
    /// Claims about what was started.
    pub executables: i8,
    /// Claims about how it is configured.
    pub configuration: i8,
}

/// Genuine and up to date.
const HARDWARE_GENUINE: i8 = 2;
/// Genuine, with known vulnerabilities.
const HARDWARE_VULNERABLE: i8 = 32;
/// Not recognised, and should be.
const HARDWARE_UNRECOGNISED: i8 = 97;
/// Only what is known was started.
const EXECUTABLES_APPROVED: i8 = 3;
/// What was started is not known.
const EXECUTABLES_UNRECOGNISED: i8 = 33;
/// Nothing in the configuration is known to be vulnerable.
const CONFIGURATION_SAFE: i8 = 3;
/// The configuration gives the TD away.
const CONFIGURATION_UNSAFE: i8 = 96;

impl Vector {
    /// The claims of accepted evidence. Nothing is affirmed because it was not looked at: executables only where the policy
    /// states what MRTD, RTMR1 and RTMR2 must be, hardware never under a test root.
    fn of(status: TcbStatus, root: RootKind, policy: &Policy, attributes: TdAttributes) -> Self {
        let [_, rtmr1, rtmr2] = &policy.td.rtmr;
        let stated = [&policy.td.mr_td, rtmr1, rtmr2];
        let is_stated = stated.into_iter().all(|expected| matches!(expected, Expected::OneOf(_)));
        Self {
            hardware: match (root, status) {
                (RootKind::Test, _) => HARDWARE_UNRECOGNISED,
                (RootKind::Hardware, TcbStatus::UpToDate) => HARDWARE_GENUINE,
                (RootKind::Hardware, _) => HARDWARE_VULNERABLE,
            },
            executables: if is_stated { EXECUTABLES_APPROVED } else { EXECUTABLES_UNRECOGNISED },
            configuration: if attributes.bits() & TdAttributes::TUD != 0 {
                CONFIGURATION_UNSAFE
            } else {
                CONFIGURATION_SAFE
            },
        }
    }
}

impl Appraiser {
    /// Appraises evidence at a time.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn appraise(&self, question: &Question, at: UnixSeconds) -> Result<Appraisal, Refusal> {
        // What is not of this request is not worth fetching anything for.
        let quote = Quote::parse(&question.quote).map_err(Refusal::Quote)?;
        question.binding.check(quote.body()).map_err(Refusal::Binding)?;
        let td = quote.body().td().ok_or(Refusal::Binding(BindingError::NotATd))?;
        let log = match &question.log {
            Some(area) => {
                let log = EventLog::parse(area).map_err(Refusal::Log)?;
                check_log(&log, &td.rtmr.into())?;
                Some(log)
            }
            None => None,
        };
        let bundle = self.collateral.bundle(&question.quote, at)?;
        let mut verifier = Verifier::new(self.anchor.clone());
        verifier.add_collateral(&bundle).map_err(Refusal::Invalid)?;
        let verified = verifier.verify(&question.quote, at).map_err(Refusal::Invalid)?;
        let context = Context {
            rtmr3_replay: log.as_ref().map(|log| log.replay()).and_then(|replay| rtmr3(&replay)),
            log: log.as_ref(),
            runtime: None,
        };
        let verdict = self.policy.evaluate(&verified, &context);
        if !verdict.is_accepted() {
            return Err(Refusal::Policy(verdict));
        }
        let mut tdx = tdx::claims(&verified, &self.anchor, log.as_ref()).map_err(Refusal::NoClaims)?;
        let mut take = |name: &str| tdx.remove(name).unwrap_or(Value::Null);
        let (report_data, init_data) = (take("report_data"), take("init_data"));
        Ok(Appraisal {
            vector: Vector::of(verified.tcb.status, self.root, &self.policy, td.td_attributes),
            tcb_status: verified.tcb.status,
            tdx,
            report_data,
            runtime_claims: question.binding.runtime_claims.clone(),
            init_data,
            init_claims: question.binding.init_claims.clone(),
        })
    }
}

/// RTMR3 as the log has it, if it has events for it.
fn rtmr3(replay: &tdvisor_attest::eventlog::Replay) -> Option<tdvisor_attest::quote::Measurement> {
    (replay.events(Register::Rtmr3) > 0).then(|| replay[Register::Rtmr3].0)
}

/// Whether a log replays to the registers, and says nothing that it did not measure. Only RTMR3 may have grown without it.
fn check_log(log: &EventLog<'_>, registers: &Registers) -> Result<(), Refusal> {
    let silent = Prediction { events: Vec::new(), silent: Register::RTMRS.to_vec() };
    let evidence = Evidence { registers: Some(registers), runtime: None };
    let explanation = explain(log, &silent, "nothing", &evidence);
    if explanation.log_holds() {
        return Ok(());
    }
    let registers = explanation.registers.iter().filter(|report| !report.verdict.is_explained());
    let registers = registers.map(|report| format!("{}: {}", report.register, report.verdict));
    let problems: Vec<String> = registers.chain(explanation.contradictions.iter().cloned()).collect();
    Err(Refusal::LogDiffers(problems.join("; ")))
}
