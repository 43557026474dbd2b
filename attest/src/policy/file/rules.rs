//! From the keys of a policy file to the policy: each table by itself.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::PolicyError;
use super::raw::{
    RawEnclave, RawEventRule, RawException, RawPlatform, RawPolicy, RawTcb, RawTd, RawTee, WordOrList,
};
use super::values::{bits, date, expected, list, report_data, service_td, vm_id};
use crate::bytes::hex_array;
use crate::collateral::TcbStatus;
use crate::eventlog::Register;
use crate::policy::{EventRule, Policy, Quantifier, Rtmr3, ServiceTd, TcbException, Tee};
use crate::strict::Object;
use crate::verify::Component;

fn put<T, U: From<T>>(place: &mut U, value: Option<T>) {
    if let Some(value) = value {
        *place = value.into();
    }
}

impl RawPolicy {
    /// The TEE that is stated, by its name or by having rules.
    fn tee(&self) -> Result<Tee, PolicyError> {
        let key = "tee";
        match (self.tee, &self.td, &self.enclave) {
            (None, Some(_), Some(_)) => {
                let wanted = "of one TEE: `td` and `enclave` rules are for different ones";
                Err(PolicyError::Value { key, wanted })
            }
            (Some(RawTee::Tdx), _, Some(_)) => {
                Err(PolicyError::Value { key, wanted: "\"sgx\" where there are `enclave` rules" })
            }
            (Some(RawTee::Sgx), Some(_), _) => {
                Err(PolicyError::Value { key, wanted: "\"tdx\" where there are `td` rules" })
            }
            (Some(RawTee::Sgx), ..) | (None, _, Some(_)) => Ok(Tee::Sgx),
            (Some(RawTee::Tdx) | None, ..) => Ok(Tee::Tdx),
        }
    }

    pub(super) fn into_policy(self) -> Result<Policy, PolicyError> {
        let mut policy = Policy { tee: self.tee()?, ..Policy::default() };
        self.tcb.map_or(Ok(()), |Object(raw)| raw.apply(&mut policy))?;
        self.platform.map_or(Ok(()), |Object(raw)| raw.apply(&mut policy))?;
        self.td.map_or(Ok(()), |Object(raw)| raw.apply(&mut policy))?;
        self.enclave.map_or(Ok(()), |Object(raw)| raw.apply(&mut policy))?;
        policy.report_data = self.report_data.map(|text| report_data(&text)).transpose()?;
        Ok(policy)
    }
}

impl RawTcb {
    fn apply(self, policy: &mut Policy) -> Result<(), PolicyError> {
        let tcb = &mut policy.tcb;
        if let Some(names) = self.accept {
            let wanted = "a list of TCB statuses other than Revoked and NotSupported";
            tcb.accept = names
                .iter()
                .map(|name| {
                    TcbStatus::from_name(name)
                        .filter(|status| !matches!(status, TcbStatus::Revoked | TcbStatus::NotSupported))
                        .ok_or(PolicyError::Value { key: "tcb.accept", wanted })
                })
                .collect::<Result<_, _>>()?;
        }
        tcb.grace = self.grace_days.map_or(0, |days| u64::from(days) * 86_400);
        put(&mut tcb.minimum_evaluation_number, self.minimum_evaluation_number);
        let svn = self.minimum_tee_tcb_svn.as_deref().map(|text| {
            let wanted = "16 bytes in hexadecimal";
            hex_array(text).ok_or(PolicyError::Value { key: "tcb.minimum_tee_tcb_svn", wanted })
        });
        tcb.minimum_tee_tcb_svn = svn.transpose()?;
        put(&mut tcb.minimum_qe_svn, self.minimum_qe_svn);
        put(&mut tcb.minimum_pce_svn, self.minimum_pce_svn);
        tcb.minimum_date = self.minimum_date.map(|text| date(&text, "tcb.minimum_date")).transpose()?;
        let exceptions = self.exceptions.into_iter().flatten().map(|Object(raw)| raw.exception());
        tcb.exceptions = exceptions.collect::<Result<_, _>>()?;
        tcb.allowed_advisories = self.allowed_advisories;
        tcb.rejected_advisories = self.rejected_advisories.unwrap_or_default();
        Ok(())
    }
}

impl RawException {
    fn exception(self) -> Result<TcbException, PolicyError> {
        let value = |key, wanted| PolicyError::Value { key, wanted };
        let components = (0..16).flat_map(|index| [Component::Sgx(index), Component::Tdx(index)]);
        let modules = (0..=u8::MAX).map(|major| Component::Module { major });
        let mut all = components.chain(modules).chain([Component::Pce, Component::QuotingEnclave]);
        let wanted =
            "\"SGX component N\", \"TDX component N\", \"TDX module N.x\", \"PCE\" or \"quoting enclave\"";
        let component = all.find(|component| component.to_string() == self.component);
        if self.name.trim().is_empty() {
            return Err(value("tcb.exceptions.name", "a text that is not empty"));
        }
        Ok(TcbException {
            name: self.name,
            fmspc: hex_array(&self.fmspc).ok_or(value("tcb.exceptions.fmspc", "6 bytes in hexadecimal"))?,
            component: component.ok_or(value("tcb.exceptions.component", wanted))?,
            until: date(&self.until, "tcb.exceptions.until")?,
        })
    }
}

impl RawPlatform {
    fn apply(self, policy: &mut Policy) -> Result<(), PolicyError> {
        let platform = &mut policy.platform;
        put(&mut platform.smt, self.smt);
        put(&mut platform.dynamic, self.dynamic);
        put(&mut platform.cached_keys, self.cached_keys);
        platform.fmspc = self.fmspc.map(|texts| list(&texts, "platform.fmspc")).transpose()?;
        Ok(())
    }
}

impl RawEnclave {
    fn apply(self, policy: &mut Policy) -> Result<(), PolicyError> {
        let enclave = &mut policy.enclave;
        put(&mut enclave.debug, self.debug);
        enclave.mr_enclave = self.mr_enclave.map(|texts| list(&texts, "enclave.mr_enclave")).transpose()?;
        enclave.mr_signer = self.mr_signer.map(|texts| list(&texts, "enclave.mr_signer")).transpose()?;
        enclave.isv_prod_id = self.isv_prod_id;
        put(&mut enclave.minimum_isv_svn, self.minimum_isv_svn);
        Ok(())
    }
}

impl RawTd {
    fn apply(self, policy: &mut Policy) -> Result<(), PolicyError> {
        let td = &mut policy.td;
        put(&mut td.debug, self.debug);
        put(&mut td.sept_ve_disable, self.sept_ve_disable);
        put(&mut td.migratable, self.migratable);
        td.attributes = bits(self.attributes, "td.attributes")?;
        td.xfam = bits(self.xfam, "td.xfam")?;
        td.mr_seam = expected(self.mr_seam, "td.mr_seam")?;
        td.mr_td = expected(self.mr_td, "td.mr_td")?;
        td.mr_config_id = expected(self.mr_config_id, "td.mr_config_id")?;
        td.mr_owner = expected(self.mr_owner, "td.mr_owner")?;
        td.mr_owner_config = expected(self.mr_owner_config, "td.mr_owner_config")?;
        td.rtmr = [
            expected(self.rtmr0, "td.rtmr0")?,
            expected(self.rtmr1, "td.rtmr1")?,
            expected(self.rtmr2, "td.rtmr2")?,
        ];
        if let Some(rule) = self.rtmr3 {
            td.rtmr3 = match rule {
                WordOrList::Word(word) if word == "report" => Rtmr3::Report,
                WordOrList::Word(word) if word == "zero" => Rtmr3::Zero,
                WordOrList::Word(word) if word == "log" => Rtmr3::Log,
                WordOrList::Word(_) => {
                    let wanted = "\"report\", \"zero\", \"log\" or a list";
                    return Err(PolicyError::Value { key: "td.rtmr3", wanted });
                }
                WordOrList::List(texts) => Rtmr3::OneOf(list::<48>(&texts, "td.rtmr3")?),
            };
        }
        put(&mut td.mr_service_td, service_td(self.mr_service_td, "td.mr_service_td")?);
        if td.mr_service_td == ServiceTd::Any {
            (td.init_service_td, td.current_service_td) = (ServiceTd::Any, ServiceTd::Any);
        }
        put(&mut td.init_service_td, service_td(self.init_service_td, "td.init_service_td")?);
        put(&mut td.current_service_td, service_td(self.current_service_td, "td.current_service_td")?);
        put(&mut td.vm_id, self.vm_id.map(vm_id).transpose()?);
        let events = self.events.into_iter().flatten().map(|Object(raw)| raw.rule());
        td.events = events.collect::<Result<_, _>>()?;
        Ok(())
    }
}

impl RawEventRule {
    fn rule(self) -> Result<EventRule, PolicyError> {
        let value = |key, wanted| PolicyError::Value { key, wanted };
        let register =
            Register::RTMRS.into_iter().find(|one| one.to_string().eq_ignore_ascii_case(&self.register));
        if self.part.trim() != self.part || self.part.is_empty() {
            return Err(value("td.events.part", "the name of a part of the boot"));
        }
        let texts = |texts: Option<Vec<String>>, key| match texts {
            Some(texts) if texts.is_empty() || texts.iter().any(String::is_empty) => {
                Err(value(key, "a list, not empty, of texts that are not empty"))
            }
            texts => Ok(texts.unwrap_or_default()),
        };
        Ok(EventRule {
            register: register.ok_or(value("td.events.register", "\"RTMR0\" to \"RTMR3\""))?,
            part: self.part,
            quantifier: self.which.map_or_else(Quantifier::default, Into::into),
            digest: self.digest.map(|texts| list(&texts, "td.events.digest")).transpose()?,
            contains: texts(self.contains, "td.events.contains")?,
            lacks: texts(self.lacks, "td.events.lacks")?,
        })
    }
}
