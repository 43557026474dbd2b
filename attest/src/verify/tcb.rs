//! TCB evaluation: which level a platform, its TDX module and its quoting enclave reach.
//!
//! The rules are those of Intel's library (EvaluateTcb and TDRelaunchCheck):
//! - the platform takes the first level, from the highest, whose SGX components, PCESVN and TDX
//!   components it all reaches; from TDX module major version 1 on, TDX components 0 and 1 are judged by
//!   the module's identity instead;
//! - an out-of-date or revoked component drags the platform's status down; nothing else of a component
//!   propagates;
//! - a TD of TDX 1.5 is evaluated at launch and now; out of date at launch but not now means: relaunch.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::shortfall::{self, Action, Shortfall};
use super::{Item, VerifyError};
use crate::UnixSeconds;
use crate::collateral::{QeIdentity, TcbInfo, TcbStatus};
use crate::pck::PckExtension;
use crate::quote::{Body, EnclaveReport};

/// Statuses of the parts of a TCB, and what they converge to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluation {
    /// The converged status.
    pub status: TcbStatus,
    /// The oldest date of the matched levels.
    pub date: UnixSeconds,
    /// Advisories of platform, quoting enclave and module, each once.
    pub advisories: Vec<Arc<str>>,
    /// Status of the platform's level.
    pub platform: TcbStatus,
    /// Status of the TDX module's level, from major version 1 on.
    pub module: Option<TcbStatus>,
    /// Status of the quoting enclave's level.
    pub qe: TcbStatus,
}

/// What was below every level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unsupported {
    /// The platform's components.
    Platform,
    /// The TDX module.
    Module,
    /// The quoting enclave.
    QuotingEnclave,
}

/// The TCB's verdict: a status with everything that explains it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcbVerdict {
    /// The status.
    pub status: TcbStatus,
    /// The oldest date of the levels matched at launch; `None` when no level was.
    pub date: Option<UnixSeconds>,
    /// Advisories that apply (at launch), each once.
    pub advisories: Vec<Arc<str>>,
    /// What was below every level, if the status is [`TcbStatus::NotSupported`].
    pub unsupported: Option<Unsupported>,
    /// The TCB at launch.
    pub launch: Option<Evaluation>,
    /// The TCB now, for TDs of TDX 1.5.
    pub current: Option<Evaluation>,
    /// What has which version and needs which, to be up to date.
    pub shortfalls: Vec<Shortfall>,
    /// What the operator can do.
    pub actions: Vec<Action>,
}

/// Inputs of an evaluation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inputs<'a> {
    pub(super) info: &'a TcbInfo,
    pub(super) identity: &'a QeIdentity,
    pub(super) pck: &'a PckExtension,
    pub(super) qe_svn: u16,
}

pub(super) enum NotMet {
    Unsupported(Unsupported),
    Unrecognized(Item),
}

/// The first TDX component that platform levels judge.
pub(super) const fn first_tdx_component(tee_tcb_svn: &[u8; 16]) -> usize {
    if tee_tcb_svn[1] > 0 { 2 } else { 0 }
}

fn reaches(have: &[u8; 16], need: &[u8; 16], from: usize) -> bool {
    have.iter().zip(need).skip(from).all(|(have, need)| have >= need)
}

impl Inputs<'_> {
    /// Evaluates the TCB for `tee_tcb_svn` (`None`: SGX).
    fn evaluate(&self, tee_tcb_svn: Option<&[u8; 16]>) -> Result<Evaluation, NotMet> {
        let level = self
            .info
            .levels
            .iter()
            .find(|level| {
                reaches(&self.pck.sgx_components, &level.sgx, 0)
                    && self.pck.pce_svn >= level.pce_svn
                    && tee_tcb_svn.is_none_or(|svn| reaches(svn, &level.tdx, first_tdx_component(svn)))
            })
            .ok_or(NotMet::Unsupported(Unsupported::Platform))?;
        let mut date = level.date;

        let mut module = None;
        let mut module_advisories: &[Arc<str>] = &[];
        if let Some([minor, major @ 1..=255, ..]) = tee_tcb_svn {
            let level = self
                .info
                .module_identity(*major)
                .and_then(|identity| identity.levels.iter().find(|level| u32::from(*minor) >= level.isv_svn))
                .ok_or(NotMet::Unsupported(Unsupported::Module))?;
            let status = level.status.filter(|status| status.is_of_module());
            module = Some(status.ok_or(NotMet::Unrecognized(Item::TcbInfo))?);
            module_advisories = &level.advisories;
            date = date.min(level.date);
        }

        let qe_level = self
            .identity
            .levels
            .iter()
            .find(|level| u32::from(self.qe_svn) >= level.isv_svn)
            .ok_or(NotMet::Unsupported(Unsupported::QuotingEnclave))?;
        if !qe_level.status.is_of_qe() {
            return Err(NotMet::Unrecognized(Item::QeIdentity));
        }
        date = date.min(qe_level.date);

        let mut advisories: Vec<Arc<str>> =
            Vec::with_capacity(level.advisories.len() + qe_level.advisories.len() + module_advisories.len());
        for id in level.advisories.iter().chain(&qe_level.advisories).chain(module_advisories) {
            if !advisories.contains(id) {
                advisories.push(id.clone());
            }
        }
        Ok(Evaluation {
            status: converge(level.status, qe_level.status, module),
            date,
            advisories,
            platform: level.status,
            module,
            qe: qe_level.status,
        })
    }

    /// Evaluates a quote's TCB.
    pub(super) fn verdict(&self, body: &Body<'_>) -> Result<TcbVerdict, VerifyError> {
        let launch_svn = body.td().map(|td| &td.tee_tcb_svn);
        let current_svn = body.td15().map(|td| &td.tee_tcb_svn2);
        let launch = self.evaluate(launch_svn);
        let current = match &launch {
            Ok(_) => current_svn.map(|svn| self.evaluate(Some(svn))).transpose(),
            Err(_) => Ok(None),
        };
        let (launch, current, unsupported) = match (launch, current) {
            (Ok(launch), Ok(current)) => (Some(launch), current, None),
            (Ok(launch), Err(NotMet::Unsupported(what))) => (Some(launch), None, Some(what)),
            (Err(NotMet::Unsupported(what)), _) => (None, None, Some(what)),
            (Err(NotMet::Unrecognized(item)), _) | (_, Err(NotMet::Unrecognized(item))) => {
                return Err(VerifyError::UnrecognizedStatus(item));
            }
        };
        let status = match (&launch, &current) {
            _ if unsupported.is_some() => TcbStatus::NotSupported,
            (Some(launch), Some(current)) => relaunch(launch.status, current.status),
            (Some(launch), None) => launch.status,
            (None, _) => TcbStatus::NotSupported,
        };
        let (date, advisories) = match &launch {
            Some(launch) if unsupported.is_none() => (Some(launch.date), launch.advisories.clone()),
            _ => (None, Vec::new()),
        };
        let mut verdict = TcbVerdict {
            status,
            date,
            advisories,
            unsupported,
            launch,
            current,
            shortfalls: Vec::new(),
            actions: Vec::new(),
        };
        if status != TcbStatus::UpToDate {
            // The platform as it is now is what an operator can update.
            shortfall::explain(self, current_svn.or(launch_svn), &mut verdict);
        }
        Ok(verdict)
    }
}

/// Drags the platform's status down by its components.
fn converge(platform: TcbStatus, qe: TcbStatus, module: Option<TcbStatus>) -> TcbStatus {
    let any = |status| qe == status || module == Some(status);
    if any(TcbStatus::Revoked) {
        return TcbStatus::Revoked;
    }
    match platform {
        TcbStatus::UpToDate | TcbStatus::SwHardeningNeeded if any(TcbStatus::OutOfDate) => {
            TcbStatus::OutOfDate
        }
        TcbStatus::ConfigurationNeeded | TcbStatus::ConfigurationAndSwHardeningNeeded
            if any(TcbStatus::OutOfDate) =>
        {
            TcbStatus::OutOfDateConfigurationNeeded
        }
        other => other,
    }
}

/// Whether a TD that was launched on an older TCB should be launched again on the present one.
fn relaunch(launch: TcbStatus, current: TcbStatus) -> TcbStatus {
    let outdated = matches!(launch, TcbStatus::OutOfDate | TcbStatus::OutOfDateConfigurationNeeded);
    let good_now = matches!(
        current,
        TcbStatus::UpToDate
            | TcbStatus::SwHardeningNeeded
            | TcbStatus::ConfigurationNeeded
            | TcbStatus::ConfigurationAndSwHardeningNeeded
    );
    if !(outdated && good_now) {
        launch
    } else if launch.needs_configuration() || current.needs_configuration() {
        TcbStatus::TdRelaunchAdvisedConfigurationNeeded
    } else {
        TcbStatus::TdRelaunchAdvised
    }
}

/// ISVSVN of a quoting enclave's report.
pub(super) fn qe_svn(report: &EnclaveReport) -> u16 {
    report.isv_svn.get()
}

#[cfg(test)]
mod tests {
    use super::*;
    use TcbStatus as S;

    #[test]
    fn components_drag_a_platform_down_exactly_as_intels_table_says() {
        for platform in S::ALL.into_iter().filter(|status| status.is_of_platform()) {
            for component in [S::UpToDate, S::ConfigurationNeeded, S::OutOfDateConfigurationNeeded] {
                assert_eq!(converge(platform, component, Some(S::UpToDate)), platform);
            }
            assert_eq!(converge(platform, S::Revoked, None), S::Revoked);
            assert_eq!(converge(platform, S::OutOfDate, Some(S::Revoked)), S::Revoked);
            let expected = match platform {
                S::UpToDate | S::SwHardeningNeeded => S::OutOfDate,
                S::ConfigurationNeeded | S::ConfigurationAndSwHardeningNeeded => {
                    S::OutOfDateConfigurationNeeded
                }
                other => other,
            };
            assert_eq!(converge(platform, S::OutOfDate, None), expected);
            assert_eq!(converge(platform, S::UpToDate, Some(S::OutOfDate)), expected);
        }
    }

    #[test]
    fn a_relaunch_is_advised_only_from_out_of_date_to_something_good() {
        assert_eq!(relaunch(S::OutOfDate, S::UpToDate), S::TdRelaunchAdvised);
        assert_eq!(relaunch(S::OutOfDate, S::SwHardeningNeeded), S::TdRelaunchAdvised);
        assert_eq!(relaunch(S::OutOfDate, S::ConfigurationNeeded), S::TdRelaunchAdvisedConfigurationNeeded);
        assert_eq!(
            relaunch(S::OutOfDateConfigurationNeeded, S::UpToDate),
            S::TdRelaunchAdvisedConfigurationNeeded
        );
        for same in [S::UpToDate, S::Revoked, S::ConfigurationNeeded, S::SwHardeningNeeded] {
            assert_eq!(relaunch(same, S::UpToDate), same);
        }
        for bad in [S::OutOfDate, S::OutOfDateConfigurationNeeded, S::Revoked] {
            assert_eq!(relaunch(S::OutOfDate, bad), S::OutOfDate);
        }
    }
}
