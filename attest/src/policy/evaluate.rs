//! Holding a policy against a verified quote.

use alloc::string::String;
use alloc::vec::Vec;

use super::{
    Context, EnclaveRules, Expected, Finding, Policy, PolicyVerdict, Register, Rtmr3, Rule, ServiceTd,
    TcbRules, TdRules, Tee, after, events,
};
use crate::UnixSeconds;
use crate::collateral::TcbStatus;
use crate::quote::{Body, EnclaveReport, Measurement, TdAttributes, TdReport10};
use crate::verify::Verification;

impl Policy {
    /// Holds this policy against a verified quote.
    #[must_use]
    pub fn evaluate(&self, verified: &Verification<'_>, context: &Context<'_>) -> PolicyVerdict {
        let mut findings = Vec::new();
        let exceptions = self.tcb.check(verified, &mut findings);
        self.check_platform(verified, &mut findings);
        let body = verified.quote.body();
        match (self.tee, *body, body.td()) {
            (Tee::Sgx, Body::Sgx(enclave), _) => self.enclave.check(enclave, &mut findings),
            (Tee::Tdx, _, Some(td)) => {
                self.td.check(td, context, &mut findings);
                self.td.check_extension(body, &mut findings);
                events::check(&self.td.events, td, context, &mut findings);
            }
            _ => findings.push(Finding::Tee(self.tee)),
        }
        if let Some(expected) = &self.report_data {
            let (head, tail) = verified.quote.body().report_data().split_at(expected.len().min(64));
            if head != expected.as_slice() || tail.iter().any(|byte| *byte != 0) {
                findings.push(Finding::ReportData);
            }
        }
        PolicyVerdict { findings, exceptions }
    }

    fn check_platform(&self, verified: &Verification<'_>, findings: &mut Vec<Finding>) {
        let (rules, platform) = (&self.platform, &verified.platform);
        for (rule, actual, wrong) in [
            (rules.smt, platform.smt_enabled, "hyper-threading (SMT) is not as wanted"),
            (rules.dynamic, platform.dynamic_platform, "dynamic platform is not as wanted"),
            (rules.cached_keys, platform.cached_keys, "cached keys are not as wanted"),
        ] {
            // A certificate that does not say keeps no rule.
            if !actual.map_or(rule == Rule::Any, |actual| rule.allows(actual)) {
                findings.push(Finding::Platform(wrong));
            }
        }
        if rules.fmspc.as_ref().is_some_and(|list| !list.contains(&platform.fmspc)) {
            findings.push(Finding::Fmspc(platform.fmspc));
        }
    }
}

impl TcbRules {
    /// The names of the exceptions without which there would be a finding more.
    fn check(&self, verified: &Verification<'_>, findings: &mut Vec<Finding>) -> Vec<String> {
        let tcb = &verified.tcb;
        let mut exceptions = Vec::new();
        if !self.accept.contains(&tcb.status)
            && let Some(finding) = self.check_grace(tcb.status, tcb.date, verified.at)
        {
            match self.excepted(verified) {
                Some(names) => exceptions = names,
                None => findings.push(finding),
            }
        }
        self.check_minima(verified, findings);
        let have = verified.evaluation_number();
        if have < self.minimum_evaluation_number {
            findings.push(Finding::EvaluationNumber { have, need: self.minimum_evaluation_number });
        }
        // A TD of TDX 1.5 carries what applied at launch and what applies now.
        let current = tcb.current.iter().flat_map(|current| &current.advisories);
        for id in tcb.advisories.iter().chain(current) {
            let listed = |list: &alloc::collections::BTreeSet<String>| {
                list.iter().any(|listed| listed.eq_ignore_ascii_case(id))
            };
            let allowed = self.allowed_advisories.as_ref().is_none_or(&listed);
            if !allowed || listed(&self.rejected_advisories) {
                let finding = Finding::Advisory(id.clone());
                if !findings.contains(&finding) {
                    findings.push(finding);
                }
            }
        }
        exceptions
    }

    fn check_minima(&self, verified: &Verification<'_>, findings: &mut Vec<Finding>) {
        let mut at_least = |what, have: u32, need: u32| {
            if have < need {
                findings.push(Finding::MinimumSvn { what, have, need });
            }
        };
        let qe = verified.quote.signature.qe_report.isv_svn.get();
        at_least("the quoting enclave's ISVSVN", qe.into(), self.minimum_qe_svn.into());
        at_least("PCESVN", verified.platform.pce_svn, self.minimum_pce_svn.into());
        if let Some(need) = self.minimum_tee_tcb_svn {
            let have = verified.quote.body().td().map_or([0; 16], |td| td.tee_tcb_svn);
            let module = |[minor, major, ..]: [u8; 16]| u32::from(u16::from_be_bytes([major, minor]));
            at_least("the TDX module's version in TEE_TCB_SVN", module(have), module(need));
            for (have, need) in have.iter().zip(need).skip(2) {
                at_least("a component of TEE_TCB_SVN", u32::from(*have), need.into());
            }
        }
        let date = verified.tcb.date;
        if let Some(need) = self.minimum_date.filter(|need| date.is_none_or(|date| date < *need)) {
            findings.push(Finding::MinimumDate { have: date, need });
        }
    }

    /// The exceptions for everything that an out-of-date TCB lacks; `None` if there is something else.
    fn excepted(&self, verified: &Verification<'_>) -> Option<Vec<String>> {
        let tcb = &verified.tcb;
        if !self.forgives_age(tcb.status) || tcb.shortfalls.is_empty() {
            return None;
        }
        let exception = |component| {
            let of_platform = self.exceptions.iter().filter(|one| one.fmspc == verified.platform.fmspc);
            let mut valid = of_platform.filter(|one| verified.at <= one.until);
            valid.find(|one| one.component == component).map(|one| one.name.clone())
        };
        tcb.shortfalls.iter().map(|shortfall| exception(shortfall.component)).collect()
    }

    /// Whether age is all that speaks against a status.
    fn forgives_age(&self, status: TcbStatus) -> bool {
        match status {
            TcbStatus::OutOfDate => true,
            // What is forgiven is the date, not the configuration.
            TcbStatus::OutOfDateConfigurationNeeded => self.accept.contains(&TcbStatus::ConfigurationNeeded),
            _ => false,
        }
    }

    /// Why a status that is not accepted as such is not accepted by grace either.
    fn check_grace(&self, status: TcbStatus, date: Option<UnixSeconds>, at: UnixSeconds) -> Option<Finding> {
        match date {
            Some(date) if self.forgives_age(status) && self.grace > 0 => {
                let until = after(date, self.grace);
                (at > until).then_some(Finding::GraceOver { status, until })
            }
            _ => Some(Finding::TcbStatus(status)),
        }
    }
}

impl TdRules {
    fn check(&self, td: &TdReport10, context: &Context<'_>, findings: &mut Vec<Finding>) {
        let attributes = td.td_attributes;
        for (rule, bit, name) in [
            (self.debug, TdAttributes::TUD, "TDATTRIBUTES.DEBUG"),
            (self.sept_ve_disable, TdAttributes::SEPT_VE_DISABLE, "TDATTRIBUTES.SEPT_VE_DISABLE"),
            (self.migratable, TdAttributes::MIGRATABLE, "TDATTRIBUTES.MIGRATABLE"),
        ] {
            if !rule.allows(attributes.bits() & bit != 0) {
                findings.push(Finding::Attribute { name, rule });
            }
        }
        for (field, rule, actual) in
            [("TDATTRIBUTES", self.attributes, attributes.bits()), ("XFAM", self.xfam, td.xfam.get())]
        {
            if actual & rule.mask != rule.value & rule.mask {
                findings.push(Finding::Bits { field, actual });
            }
        }
        let undefined = !(TdAttributes::DEFINED | self.attributes.mask);
        if attributes.bits() & undefined != 0 {
            findings.push(Finding::Bits { field: "TDATTRIBUTES", actual: attributes.bits() });
        }
        let [rtmr0, rtmr1, rtmr2, rtmr3] = &td.rtmr;
        let [expected0, expected1, expected2] = &self.rtmr;
        let expectations: [(Register, &Expected, &Measurement); 8] = [
            (Register::MrSeam, &self.mr_seam, &td.mr_seam),
            (Register::MrTd, &self.mr_td, &td.mr_td),
            (Register::MrConfigId, &self.mr_config_id, &td.mr_config_id),
            (Register::MrOwner, &self.mr_owner, &td.mr_owner),
            (Register::MrOwnerConfig, &self.mr_owner_config, &td.mr_owner_config),
            (Register::Rtmr(0), expected0, rtmr0),
            (Register::Rtmr(1), expected1, rtmr1),
            (Register::Rtmr(2), expected2, rtmr2),
        ];
        for (register, expected, actual) in expectations {
            if !expected.allows(actual) {
                findings.push(Finding::Measurement { register, actual: *actual });
            }
        }
        if self.rtmr3 == Rtmr3::Log && context.rtmr3_replay.is_none() {
            findings.push(Finding::NoRuntimeLog);
        }
        let is_expected = match &self.rtmr3 {
            Rtmr3::Report | Rtmr3::Log => true,
            Rtmr3::Zero => *rtmr3 == [0; 48],
            Rtmr3::OneOf(list) => list.contains(rtmr3),
        };
        if !is_expected || context.rtmr3_replay.is_some_and(|replay| replay != *rtmr3) {
            findings.push(Finding::Measurement { register: Register::Rtmr(3), actual: *rtmr3 });
        }
    }
}

impl ServiceTd {
    fn allows(&self, actual: &Measurement) -> bool {
        match self {
            Self::Any => true,
            Self::None => *actual == [0; 48],
            Self::OneOf(list) => list.contains(actual),
        }
    }
}

impl TdRules {
    /// What reports of TDX 1.5 have beyond those of TDX 1.0.
    fn check_extension(&self, body: &Body<'_>, findings: &mut Vec<Finding>) {
        let extended = match body {
            Body::Td15Ex(td) => Some(td),
            _ => None,
        };
        let bound = body.td15().map_or([0; 48], |td| td.mr_service_td);
        // A binding of the extended kind shows in the other two, also one that has ended.
        let initial = extended.map_or([0; 48], |td| td.init_servtd_hash);
        let current = extended.map_or([0; 48], |td| td.cur_servtd_hash);
        for (register, rule, actual) in [
            (Register::MrServiceTd, &self.mr_service_td, bound),
            (Register::InitServiceTd, &self.init_service_td, initial),
            (Register::CurrentServiceTd, &self.current_service_td, current),
        ] {
            if !rule.allows(&actual) {
                findings.push(Finding::Measurement { register, actual });
            }
        }
        let vm_id = extended.map(|td| td.vm_id);
        if !self.vm_id.allows(vm_id) {
            findings.push(Finding::VmId(vm_id));
        }
    }
}

impl EnclaveRules {
    fn check(&self, enclave: &EnclaveReport, findings: &mut Vec<Finding>) {
        if self.mr_enclave.is_none() && self.mr_signer.is_none() {
            findings.push(Finding::EnclaveNotPinned);
        }
        if !self.debug.allows(enclave.is_debug()) {
            findings.push(Finding::Attribute { name: "ATTRIBUTES.DEBUG", rule: self.debug });
        }
        if self.mr_enclave.as_ref().is_some_and(|list| !list.contains(&enclave.mr_enclave)) {
            findings.push(Finding::Enclave("MRENCLAVE is not an expected one"));
        }
        if self.mr_signer.as_ref().is_some_and(|list| !list.contains(&enclave.mr_signer)) {
            findings.push(Finding::Enclave("MRSIGNER is not an expected one"));
        }
        if self.isv_prod_id.is_some_and(|id| id != enclave.isv_prod_id.get()) {
            findings.push(Finding::Enclave("ISVPRODID is not the expected one"));
        }
        if enclave.isv_svn.get() < self.minimum_isv_svn {
            findings.push(Finding::Enclave("ISVSVN is below the least one"));
        }
    }
}
