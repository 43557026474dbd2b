//! What to accept: a policy over verified quotes, from a TOML or JSON file.
//!
//! What a policy does not mention has a default, and this table has them all. A key that the policy does not
//! know, a key twice, a value of another type and `null` are errors, never a default.
//!
//! | rule | not mentioned | and where the evidence does not say |
//! |---|---|---|
//! | `tee` | `"sgx"` where there are `[enclave]` rules, else `"tdx"` | – |
//! | `report_data` | anything | – |
//! | `tcb.accept` | `["UpToDate"]`; Revoked and NotSupported are never accepted | – |
//! | `tcb.grace_days` | 0: no grace | a TCB without a date has no grace |
//! | `tcb.minimum_evaluation_number` | 0: any | – |
//! | `tcb.minimum_tee_tcb_svn` | any | evidence of SGX, which has none, does not keep it |
//! | `tcb.minimum_qe_svn`, `tcb.minimum_pce_svn` | 0: any | – |
//! | `tcb.minimum_date` | any | a TCB without a date does not keep it |
//! | `tcb.exceptions` | none | a TCB without a known shortfall has no exception |
//! | `tcb.allowed_advisories` | any that an accepted status brings | – |
//! | `tcb.rejected_advisories` | none | – |
//! | `platform.smt`, `.dynamic`, `.cached_keys` | `"any"` | neither `"require"` nor `"forbid"` is kept |
//! | `platform.fmspc` | any | – |
//! | `td.debug`, `td.migratable` | `"forbid"` | – |
//! | `td.sept_ve_disable` | `"require"` | – |
//! | `td.attributes` | any bits that are defined; bits without a meaning must be zero | – |
//! | `td.xfam` | any bits | – |
//! | `td.mr_seam`, `.mr_td`, `.mr_config_id`, `.mr_owner`, `.mr_owner_config`, `.rtmr0` to `.rtmr2` | any value | – |
//! | `td.rtmr3` | `"report"`: any value; but a log that is given must replay to it | `"log"` without a log is not kept |
//! | `td.mr_service_td` | `"none"` | bodies before TDX 1.5 count as having none |
//! | `td.init_service_td`, `td.current_service_td` | `"any"` if `mr_service_td` is, else `"none"` | bodies without the field count as having none |
//! | `td.vm_id` | `[0]`: the TD itself, no partition of it | bodies without the field count as 0 |
//! | `td.events` | any events; but a log that is given must account for RTMR0 to RTMR2 | rules without a log are not kept; text that was not measured keeps none |
//! | `enclave.mr_enclave`, `enclave.mr_signer` | one of the two must be stated; the other is any value | – |
//! | `enclave.debug` | `"forbid"` | – |
//! | `enclave.isv_prod_id` | any | – |
//! | `enclave.minimum_isv_svn` | 0: any | – |
//!
//! A policy is for one TEE: the evidence of another never keeps it, and rules for another are errors.

mod evaluate;
mod events;
mod file;
mod finding;

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

pub use events::{EventRule, Quantifier};
pub use file::PolicyError;
pub use finding::{Finding, PolicyVerdict, Register};

use crate::collateral::TcbStatus;
use crate::eventlog::EventLog;
use crate::predict::Prediction;
use crate::quote::Measurement;
use crate::verify::Component;
use crate::{Hex, UnixSeconds};

/// Whether something must be, must not be, or does not matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// What the rule is about must be so.
    Require,
    /// What the rule is about must not be so.
    Forbid,
    /// What the rule is about does not matter.
    Any,
}

impl Rule {
    pub(crate) const fn allows(self, is_so: bool) -> bool {
        match self {
            Self::Require => is_so,
            Self::Forbid => !is_so,
            Self::Any => true,
        }
    }
}

/// Expected bits: `value & mask` must equal `actual & mask`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct MaskedBits {
    /// Bits that count.
    pub mask: u64,
    /// The values that the bits of the mask must have.
    pub value: u64,
}

/// What a measurement may be.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Expected {
    /// Anything.
    #[default]
    Any,
    /// One of these; never empty.
    OneOf(Vec<Measurement>),
}

impl Expected {
    fn allows(&self, actual: &Measurement) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf(list) => list.contains(actual),
        }
    }
}

/// How RTMR3, which applications extend at run time, is judged.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Rtmr3 {
    /// RTMR3 is reported, and judged only by a runtime log that the caller has.
    #[default]
    Report,
    /// Nothing may have been extended.
    Zero,
    /// RTMR3 must equal the replay of a runtime log that the caller has.
    Log,
    /// One of these.
    OneOf(Vec<Measurement>),
}

/// What a field about service TDs may be.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum ServiceTd {
    /// No service TD: the field is zero.
    #[default]
    None,
    /// Any service TD.
    Any,
    /// One of these.
    OneOf(Vec<Measurement>),
}

/// Which VM of a TD a report may speak for: 0 is the TD itself, 1 to 3 are its partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VmId {
    /// The TD or any partition.
    Any,
    /// One of these.
    OneOf(Vec<u8>),
}

impl VmId {
    /// Evidence without the field satisfies only who would accept the TD itself and nothing less.
    fn allows(&self, actual: Option<u8>) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf(list) => list.contains(&actual.unwrap_or(0)),
        }
    }
}

/// The TEE that a policy is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tee {
    /// Trust domains.
    Tdx,
    /// SGX enclaves.
    Sgx,
}

impl fmt::Display for Tee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tdx => "TDs",
            Self::Sgx => "SGX enclaves",
        })
    }
}

/// One component of one platform family that may lack an update until a date.
///
/// Where a TCB is out of date and everything that it lacks is excepted, its status is no finding. What is excepted by
/// name and by date cannot be forgotten: the exception ends by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcbException {
    /// What the exception is called: verdicts that rest on it say so.
    pub name: String,
    /// The platform family.
    pub fmspc: [u8; 6],
    /// The component.
    pub component: Component,
    /// The last second at which it counts.
    pub until: UnixSeconds,
}

/// Rules about the TCB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcbRules {
    /// Accepted statuses.
    pub accept: BTreeSet<TcbStatus>,
    /// For how long after its date an out-of-date TCB is still accepted, in seconds.
    pub grace: u64,
    /// The least evaluation number of TCB info and QE identity.
    pub minimum_evaluation_number: u32,
    /// The least TEE_TCB_SVN at launch: the module's major and minor version (bytes 1 and 0) as one number, every other
    /// byte by itself. `None`: any.
    pub minimum_tee_tcb_svn: Option<[u8; 16]>,
    /// The least ISVSVN of the quoting enclave.
    pub minimum_qe_svn: u16,
    /// The least PCESVN of the PCK certificate.
    pub minimum_pce_svn: u16,
    /// The least date of the TCB; `None`: any.
    pub minimum_date: Option<UnixSeconds>,
    /// Components that may lack updates for a time.
    pub exceptions: Vec<TcbException>,
    /// Advisories that may apply; `None`: any that an accepted status brings.
    pub allowed_advisories: Option<BTreeSet<String>>,
    /// Advisories that must not apply.
    pub rejected_advisories: BTreeSet<String>,
}

/// Rules about the platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlatformRules {
    /// Hyper-threading.
    pub smt: Rule,
    /// Processor packages may be added.
    pub dynamic: Rule,
    /// Intel keeps the platform's keys.
    pub cached_keys: Rule,
    /// Accepted platform families; `None`: any.
    pub fmspc: Option<Vec<[u8; 6]>>,
}

/// Rules about a TD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TdRules {
    /// TDATTRIBUTES.DEBUG, or any other bit of the group that puts a TD under debug (profiling).
    pub debug: Rule,
    /// TDATTRIBUTES.SEPT_VE_DISABLE.
    pub sept_ve_disable: Rule,
    /// TDATTRIBUTES.MIGRATABLE.
    pub migratable: Rule,
    /// Further bits of TDATTRIBUTES; bits without a meaning must be zero where the mask leaves them out.
    pub attributes: MaskedBits,
    /// Bits of XFAM.
    pub xfam: MaskedBits,
    /// MRSEAM.
    pub mr_seam: Expected,
    /// MRTD.
    pub mr_td: Expected,
    /// MRCONFIGID.
    pub mr_config_id: Expected,
    /// MROWNER.
    pub mr_owner: Expected,
    /// MROWNERCONFIG.
    pub mr_owner_config: Expected,
    /// RTMR0 to RTMR2.
    pub rtmr: [Expected; 3],
    /// RTMR3.
    pub rtmr3: Rtmr3,
    /// MR_SERVICETD.
    pub mr_service_td: ServiceTd,
    /// INIT_SERVTD_HASH of an extended report.
    pub init_service_td: ServiceTd,
    /// CUR_SERVTD_HASH of an extended report.
    pub current_service_td: ServiceTd,
    /// VM_ID of an extended report.
    pub vm_id: VmId,
    /// Rules on the contents of the event log.
    pub events: Vec<EventRule>,
}

/// Rules about an SGX enclave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnclaveRules {
    /// ATTRIBUTES.DEBUG.
    pub debug: Rule,
    /// MRENCLAVE; `None`: any, if MRSIGNER is stated.
    pub mr_enclave: Option<Vec<[u8; 32]>>,
    /// MRSIGNER; `None`: any, if MRENCLAVE is stated.
    pub mr_signer: Option<Vec<[u8; 32]>>,
    /// ISVPRODID; `None`: any.
    pub isv_prod_id: Option<u16>,
    /// The least ISVSVN.
    pub minimum_isv_svn: u16,
}

/// What to accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The TEE that the policy is for.
    pub tee: Tee,
    /// Rules about the TCB.
    pub tcb: TcbRules,
    /// Rules about the platform.
    pub platform: PlatformRules,
    /// Rules about TDs, for [`Tee::Tdx`].
    pub td: TdRules,
    /// Rules about enclaves, for [`Tee::Sgx`].
    pub enclave: EnclaveRules,
    /// What REPORTDATA must begin with; the rest must be zero. `None`: anything.
    pub report_data: Option<Vec<u8>>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            tee: Tee::Tdx,
            tcb: TcbRules {
                accept: BTreeSet::from([TcbStatus::UpToDate]),
                grace: 0,
                minimum_evaluation_number: 0,
                minimum_tee_tcb_svn: None,
                minimum_qe_svn: 0,
                minimum_pce_svn: 0,
                minimum_date: None,
                exceptions: Vec::new(),
                allowed_advisories: None,
                rejected_advisories: BTreeSet::new(),
            },
            platform: PlatformRules {
                smt: Rule::Any,
                dynamic: Rule::Any,
                cached_keys: Rule::Any,
                fmspc: None,
            },
            td: TdRules {
                debug: Rule::Forbid,
                sept_ve_disable: Rule::Require,
                migratable: Rule::Forbid,
                attributes: MaskedBits::default(),
                xfam: MaskedBits::default(),
                mr_seam: Expected::Any,
                mr_td: Expected::Any,
                mr_config_id: Expected::Any,
                mr_owner: Expected::Any,
                mr_owner_config: Expected::Any,
                rtmr: Default::default(),
                rtmr3: Rtmr3::Report,
                mr_service_td: ServiceTd::None,
                init_service_td: ServiceTd::None,
                current_service_td: ServiceTd::None,
                vm_id: VmId::OneOf(alloc::vec![0]),
                events: Vec::new(),
            },
            enclave: EnclaveRules {
                debug: Rule::Forbid,
                mr_enclave: None,
                mr_signer: None,
                isv_prod_id: None,
                minimum_isv_svn: 0,
            },
            report_data: None,
        }
    }
}

/// What a policy may need beside the quote.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context<'a> {
    /// Replay of the runtime log. A log that is given must be borne out by the quote, whatever the policy says of
    /// RTMR3.
    pub rtmr3_replay: Option<Measurement>,
    /// The event log. One that is given must account for RTMR0 to RTMR2 and say nothing that was not measured, whatever
    /// the policy says of events.
    pub log: Option<&'a EventLog<'a>>,
    /// What the running system listed that it extended after the log, into any register.
    pub runtime: Option<&'a Prediction>,
}

/// Prints a measurement as hexadecimal.
pub(crate) struct Register48(pub(crate) Measurement);

impl fmt::Display for Register48 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

/// A time with a grace period added, saturating.
pub(crate) fn after(date: UnixSeconds, grace: u64) -> UnixSeconds {
    UnixSeconds(date.0.saturating_add(grace))
}

#[cfg(test)]
mod tests;
