//! What a policy says of a quote: the rules that it does not keep.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use super::{Register48, Rule, Tee};
use crate::collateral::TcbStatus;
use crate::quote::Measurement;
use crate::{Hex, UnixSeconds};

/// A measurement of a TD.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Register {
    /// MRSEAM.
    MrSeam,
    /// MRTD.
    MrTd,
    /// MRCONFIGID.
    MrConfigId,
    /// MROWNER.
    MrOwner,
    /// MROWNERCONFIG.
    MrOwnerConfig,
    /// RTMR0 to RTMR3.
    Rtmr(u8),
    /// MR_SERVICETD.
    MrServiceTd,
    /// INIT_SERVTD_HASH of an extended report: service TDs at the TD's creation.
    InitServiceTd,
    /// CUR_SERVTD_HASH of an extended report: service TDs bound now.
    CurrentServiceTd,
}

impl fmt::Display for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MrSeam => f.write_str("MRSEAM"),
            Self::MrTd => f.write_str("MRTD"),
            Self::MrConfigId => f.write_str("MRCONFIGID"),
            Self::MrOwner => f.write_str("MROWNER"),
            Self::MrOwnerConfig => f.write_str("MROWNERCONFIG"),
            Self::Rtmr(index) => write!(f, "RTMR{index}"),
            Self::MrServiceTd => f.write_str("MR_SERVICETD"),
            Self::InitServiceTd => f.write_str("INIT_SERVTD_HASH"),
            Self::CurrentServiceTd => f.write_str("CUR_SERVTD_HASH"),
        }
    }
}

/// One rule that a quote does not keep.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// The quote is of another TEE than the policy is for.
    Tee(Tee),
    /// The TCB status is not accepted.
    TcbStatus(TcbStatus),
    /// The TCB is out of date for longer than the grace period.
    GraceOver {
        /// The status.
        status: TcbStatus,
        /// When the grace period ended.
        until: UnixSeconds,
    },
    /// The collateral is of an older TCB recovery.
    EvaluationNumber {
        /// The number it has.
        have: u32,
        /// The least number.
        need: u32,
    },
    /// A security version is below the least that the policy takes.
    MinimumSvn {
        /// Of what.
        what: &'static str,
        /// The version it has.
        have: u32,
        /// The least version.
        need: u32,
    },
    /// The TCB is older than the policy takes, or has no date.
    MinimumDate {
        /// The date that the collateral has.
        have: Option<UnixSeconds>,
        /// The least date.
        need: UnixSeconds,
    },
    /// An advisory applies that is not allowed.
    Advisory(Arc<str>),
    /// A property of the platform is not as the policy wants it.
    Platform(&'static str),
    /// The platform's family is not accepted.
    Fmspc([u8; 6]),
    /// An attribute is not as the policy wants it.
    Attribute {
        /// The attribute's name.
        name: &'static str,
        /// What the policy wants.
        rule: Rule,
    },
    /// Masked bits of TDATTRIBUTES or XFAM differ.
    Bits {
        /// Which field.
        field: &'static str,
        /// The value that the TD has.
        actual: u64,
    },
    /// A measurement is not an expected one.
    Measurement {
        /// Which.
        register: Register,
        /// The value that the TD has.
        actual: Measurement,
    },
    /// RTMR3 must equal the replay of a runtime log, and there was no log.
    NoRuntimeLog,
    /// The report speaks for a partition of the TD, or does not say which, and the policy does not allow it.
    VmId(Option<u8>),
    /// The policy states neither MRENCLAVE nor MRSIGNER: any enclave whatever would keep it.
    EnclaveNotPinned,
    /// An event of the runtime log is not what its digest measured.
    EventText {
        /// The event's position in the list, from 0.
        line: usize,
    },
    /// There are rules on events, and no event log.
    NoEventLog,
    /// The event log is not that of the TD, or says what was not measured; the text says where.
    EventLog(String),
    /// The event log does not keep a rule.
    Event {
        /// The rule.
        rule: String,
    },
    /// A field of an enclave is not an expected one.
    Enclave(&'static str),
    /// REPORTDATA is not the expected one.
    ReportData,
}

impl Finding {
    /// A stable name, for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Tee(_) => "tee",
            Self::TcbStatus(_) => "tcb-status",
            Self::GraceOver { .. } => "tcb-grace-over",
            Self::EvaluationNumber { .. } => "evaluation-number",
            Self::MinimumSvn { .. } => "minimum-svn",
            Self::MinimumDate { .. } => "minimum-date",
            Self::Advisory(_) => "advisory",
            Self::Platform(_) => "platform",
            Self::Fmspc(_) => "fmspc",
            Self::Attribute { .. } => "attribute",
            Self::Bits { .. } => "attribute-bits",
            Self::Measurement { .. } => "measurement",
            Self::NoRuntimeLog => "no-runtime-log",
            Self::VmId(_) => "vm-id",
            Self::EventText { .. } => "event-text",
            Self::NoEventLog => "no-event-log",
            Self::EventLog(_) => "event-log",
            Self::Event { .. } => "event",
            Self::EnclaveNotPinned => "enclave-not-pinned",
            Self::Enclave(_) => "enclave",
            Self::ReportData => "report-data",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tee(tee) => write!(f, "the policy is for {tee}, and the quote is of none"),
            Self::TcbStatus(status) => write!(f, "TCB status {status} is not accepted"),
            Self::GraceOver { status, until } => {
                write!(f, "TCB status {status}: the grace period ended at {until}")
            }
            Self::EvaluationNumber { have, need } => {
                write!(f, "collateral has evaluation number {have}, at least {need} is wanted")
            }
            Self::MinimumSvn { what, have, need } => write!(f, "{what} is {have}, at least {need} is wanted"),
            Self::MinimumDate { have: Some(have), need } => {
                write!(f, "the TCB is of {have}, one of {need} or later is wanted")
            }
            Self::MinimumDate { have: None, need } => {
                write!(f, "the TCB has no date, one of {need} or later is wanted")
            }
            Self::Advisory(id) => write!(f, "advisory {id} applies and is not allowed"),
            Self::Platform(what) => write!(f, "platform: {what}"),
            Self::Fmspc(fmspc) => write!(f, "platform family {} is not accepted", Hex(fmspc)),
            Self::Attribute { name, rule } => match rule {
                Rule::Require => write!(f, "{name} must be set"),
                _ => write!(f, "{name} must not be set"),
            },
            Self::Bits { field, actual } => write!(f, "{field} {actual:#018x} has other bits than expected"),
            Self::Measurement { register, actual } => {
                write!(f, "{register} is {}, which is not expected", Register48(*actual))
            }
            Self::NoRuntimeLog => f.write_str("RTMR3 is judged by a runtime log, and there is none"),
            Self::VmId(Some(id)) => write!(f, "VM_ID {id}: this part of a TD is not allowed"),
            Self::VmId(None) => {
                f.write_str("the report does not say which part of a TD it speaks for (VM_ID)")
            }
            Self::EventText { line } => {
                write!(f, "event {line} of the runtime log is not what its digest measured")
            }
            Self::NoEventLog => f.write_str("the policy has rules on events, and there is no event log"),
            Self::EventLog(problem) => write!(f, "event log: {problem}"),
            Self::Event { rule } => write!(f, "events are not as wanted: {rule}"),
            Self::EnclaveNotPinned => {
                f.write_str("the policy states neither MRENCLAVE nor MRSIGNER: it would accept any enclave")
            }
            Self::Enclave(what) => write!(f, "enclave: {what}"),
            Self::ReportData => f.write_str("REPORTDATA is not the expected one"),
        }
    }
}

/// The policy's verdict: accepted if there is no finding.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PolicyVerdict {
    /// Every rule that the quote does not keep.
    pub findings: Vec<Finding>,
    /// The names of the exceptions that the verdict rests on.
    pub exceptions: Vec<String>,
}

impl PolicyVerdict {
    /// Whether the quote keeps every rule.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        self.findings.is_empty()
    }

    /// The findings as one line.
    #[must_use]
    pub fn reason(&self) -> String {
        let mut text = String::new();
        for finding in &self.findings {
            if !text.is_empty() {
                text.push_str("; ");
            }
            text.push_str(&finding.to_string());
        }
        text
    }
}
