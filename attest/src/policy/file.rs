//! Policies as files. Every key is optional; what is left out has the default of the table in [`super`]. A key that is
//! not known, twice there, of another type or `null` is an error that names it.
//!
//! ```toml
//! tee = "tdx"                             # or "sgx"; implied by the tables [td] and [enclave]
//! report_data = "00112233…"              # up to 64 bytes; what is missing must be zero
//!
//! [tcb]
//! accept = ["UpToDate", "SWHardeningNeeded"]
//! grace_days = 30                         # out of date is accepted this long after the TCB's date
//! minimum_evaluation_number = 17
//! minimum_tee_tcb_svn = "05010200000000000000000000000000"
//! minimum_qe_svn = 4
//! minimum_pce_svn = 11
//! minimum_date = "2024-03-13T00:00:00Z"   # of the TCB
//! allowed_advisories = ["INTEL-SA-00615"]
//! rejected_advisories = ["INTEL-SA-00837"]
//!
//! [[tcb.exceptions]]                      # one component of one family may lack an update for a time
//! name = "BIOS update waits for the vendor"
//! fmspc = "b0c06f000000"
//! component = "SGX component 1"           # as verdicts name it
//! until = "2026-12-31T00:00:00Z"
//!
//! [platform]
//! smt = "any"                             # "require", "forbid", "any"
//! fmspc = ["b0c06f000000"]
//!
//! [td]
//! debug = "forbid"
//! sept_ve_disable = "require"
//! migratable = "forbid"
//! attributes = { mask = "0x80000000", value = "0x0" }
//! mr_td = ["91eb2b44…"]
//! rtmr0 = ["…"]
//! rtmr3 = "report"                        # "zero", "log", or a list
//! mr_service_td = "none"                  # "any", or a list
//! vm_id = [0]                             # "any", or a list: which part of a partitioned TD
//! ```
//!
//! For SGX, in place of `[td]`:
//!
//! ```toml
//! [enclave]                               # mr_enclave or mr_signer must be there
//! mr_signer = ["…"]
//! minimum_isv_svn = 3
//! ```

use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use serde::Deserialize;

use super::{Expected, MaskedBits, Policy, Rtmr3, Rule, ServiceTd, TcbException, Tee, VmId};
use crate::UnixSeconds;
use crate::bytes::{hex_array, hex_into};
use crate::collateral::TcbStatus;
use crate::strict::{self, Object, stated};
use crate::verify::Component;

/// The largest policy file, in bytes.
pub const MAX_POLICY: usize = 1 << 20;
/// The deepest nesting of a policy file; the format nests four deep.
const MAX_NESTING: usize = 8;

/// The longest piece of a policy that an error quotes, in bytes.
#[cfg(feature = "toml")]
const MAX_TOLD: usize = 64;

/// Why a policy file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PolicyError {
    /// Larger than a policy may be (1 MiB) or nested too deeply.
    TooLarge,
    /// Not TOML or JSON of this format; the text says where.
    Format(String),
    /// A key has a value that cannot be.
    Value {
        /// The key.
        key: &'static str,
        /// What it must be.
        wanted: &'static str,
    },
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => f.write_str("larger or deeper than any policy"),
            Self::Format(text) => f.write_str(text),
            Self::Value { key, wanted } => write!(f, "`{key}` must be {wanted}"),
        }
    }
}

impl core::error::Error for PolicyError {}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawPolicy {
    #[serde(default, deserialize_with = "stated")]
    tee: Option<RawTee>,
    #[serde(default, deserialize_with = "stated")]
    tcb: Option<Object<RawTcb>>,
    #[serde(default, deserialize_with = "stated")]
    platform: Option<Object<RawPlatform>>,
    #[serde(default, deserialize_with = "stated")]
    td: Option<Object<RawTd>>,
    #[serde(default, deserialize_with = "stated")]
    enclave: Option<Object<RawEnclave>>,
    #[serde(default, deserialize_with = "stated")]
    report_data: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawTcb {
    #[serde(default, deserialize_with = "stated")]
    accept: Option<Vec<String>>,
    #[serde(default, deserialize_with = "stated")]
    grace_days: Option<u32>,
    #[serde(default, deserialize_with = "stated")]
    minimum_evaluation_number: Option<u32>,
    #[serde(default, deserialize_with = "stated")]
    minimum_tee_tcb_svn: Option<String>,
    #[serde(default, deserialize_with = "stated")]
    minimum_qe_svn: Option<u16>,
    #[serde(default, deserialize_with = "stated")]
    minimum_pce_svn: Option<u16>,
    #[serde(default, deserialize_with = "stated")]
    minimum_date: Option<String>,
    #[serde(default, deserialize_with = "stated")]
    exceptions: Option<Vec<Object<RawException>>>,
    #[serde(default, deserialize_with = "stated")]
    allowed_advisories: Option<BTreeSet<String>>,
    #[serde(default, deserialize_with = "stated")]
    rejected_advisories: Option<BTreeSet<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawPlatform {
    #[serde(default, deserialize_with = "stated")]
    smt: Option<RawRule>,
    #[serde(default, deserialize_with = "stated")]
    dynamic: Option<RawRule>,
    #[serde(default, deserialize_with = "stated")]
    cached_keys: Option<RawRule>,
    #[serde(default, deserialize_with = "stated")]
    fmspc: Option<Vec<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawTd {
    #[serde(default, deserialize_with = "stated")]
    debug: Option<RawRule>,
    #[serde(default, deserialize_with = "stated")]
    sept_ve_disable: Option<RawRule>,
    #[serde(default, deserialize_with = "stated")]
    migratable: Option<RawRule>,
    #[serde(default, deserialize_with = "stated")]
    attributes: Option<Object<RawBits>>,
    #[serde(default, deserialize_with = "stated")]
    xfam: Option<Object<RawBits>>,
    #[serde(default, deserialize_with = "stated")]
    mr_seam: Option<Vec<String>>,
    #[serde(default, deserialize_with = "stated")]
    mr_td: Option<Vec<String>>,
    #[serde(default, deserialize_with = "stated")]
    mr_config_id: Option<Vec<String>>,
    #[serde(default, deserialize_with = "stated")]
    mr_owner: Option<Vec<String>>,
    #[serde(default, deserialize_with = "stated")]
    mr_owner_config: Option<Vec<String>>,
    #[serde(default, deserialize_with = "stated")]
    rtmr0: Option<Vec<String>>,
    #[serde(default, deserialize_with = "stated")]
    rtmr1: Option<Vec<String>>,
    #[serde(default, deserialize_with = "stated")]
    rtmr2: Option<Vec<String>>,
    #[serde(default, deserialize_with = "stated")]
    rtmr3: Option<WordOrList>,
    #[serde(default, deserialize_with = "stated")]
    mr_service_td: Option<WordOrList>,
    #[serde(default, deserialize_with = "stated")]
    init_service_td: Option<WordOrList>,
    #[serde(default, deserialize_with = "stated")]
    current_service_td: Option<WordOrList>,
    #[serde(default, deserialize_with = "stated")]
    vm_id: Option<WordOrNumbers>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawEnclave {
    #[serde(default, deserialize_with = "stated")]
    debug: Option<RawRule>,
    #[serde(default, deserialize_with = "stated")]
    mr_enclave: Option<Vec<String>>,
    #[serde(default, deserialize_with = "stated")]
    mr_signer: Option<Vec<String>>,
    #[serde(default, deserialize_with = "stated")]
    isv_prod_id: Option<u16>,
    #[serde(default, deserialize_with = "stated")]
    minimum_isv_svn: Option<u16>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawException {
    name: String,
    fmspc: String,
    component: String,
    until: String,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum RawTee {
    Tdx,
    Sgx,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum RawRule {
    Require,
    Forbid,
    Any,
}

impl From<RawRule> for Rule {
    fn from(raw: RawRule) -> Self {
        match raw {
            RawRule::Require => Self::Require,
            RawRule::Forbid => Self::Forbid,
            RawRule::Any => Self::Any,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBits {
    mask: String,
    value: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WordOrList {
    Word(String),
    List(Vec<String>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WordOrNumbers {
    Word(String),
    Numbers(Vec<u8>),
}

fn list<const N: usize>(texts: &[String], key: &'static str) -> Result<Vec<[u8; N]>, PolicyError> {
    let wanted = "a list, not empty, of hexadecimal values of the register's size";
    if texts.is_empty() {
        return Err(PolicyError::Value { key, wanted });
    }
    texts.iter().map(|text| hex_array(text).ok_or(PolicyError::Value { key, wanted })).collect()
}

fn expected(texts: Option<Vec<String>>, key: &'static str) -> Result<Expected, PolicyError> {
    texts.map_or(Ok(Expected::Any), |texts| list(&texts, key).map(Expected::OneOf))
}

fn bits(raw: Option<Object<RawBits>>, key: &'static str) -> Result<MaskedBits, PolicyError> {
    let Some(Object(raw)) = raw else { return Ok(MaskedBits::default()) };
    let number = |text: &str| {
        let digits = text.strip_prefix("0x").unwrap_or(text);
        u64::from_str_radix(digits, 16)
            .ok()
            .filter(|_| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .ok_or(PolicyError::Value { key, wanted: "a mask and a value in hexadecimal" })
    };
    let (mask, value) = (number(&raw.mask)?, number(&raw.value)?);
    if value & !mask != 0 {
        return Err(PolicyError::Value {
            key,
            wanted: "a mask and a value without bits outside of the mask",
        });
    }
    Ok(MaskedBits { mask, value })
}

fn service_td(raw: Option<WordOrList>, key: &'static str) -> Result<Option<ServiceTd>, PolicyError> {
    Ok(Some(match raw {
        None => return Ok(None),
        Some(WordOrList::Word(word)) if word == "none" => ServiceTd::None,
        Some(WordOrList::Word(word)) if word == "any" => ServiceTd::Any,
        Some(WordOrList::Word(_)) => {
            return Err(PolicyError::Value { key, wanted: "\"none\", \"any\" or a list" });
        }
        Some(WordOrList::List(texts)) => ServiceTd::OneOf(list(&texts, key)?),
    }))
}

/// The most VMs that a TD has: itself, and three partitions (TDX module ABI specification, TD partitioning).
const VMS_OF_A_TD: u8 = 4;

fn vm_id(raw: WordOrNumbers) -> Result<VmId, PolicyError> {
    match raw {
        WordOrNumbers::Word(word) if word == "any" => Ok(VmId::Any),
        WordOrNumbers::Numbers(ids) if !ids.is_empty() && ids.iter().all(|id| *id < VMS_OF_A_TD) => {
            Ok(VmId::OneOf(ids))
        }
        _ => Err(PolicyError::Value { key: "td.vm_id", wanted: "\"any\" or a list of numbers from 0 to 3" }),
    }
}

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

    fn into_policy(self) -> Result<Policy, PolicyError> {
        let mut policy = Policy { tee: self.tee()?, ..Policy::default() };
        self.tcb.map_or(Ok(()), |Object(raw)| raw.apply(&mut policy))?;
        self.platform.map_or(Ok(()), |Object(raw)| raw.apply(&mut policy))?;
        self.td.map_or(Ok(()), |Object(raw)| raw.apply(&mut policy))?;
        self.enclave.map_or(Ok(()), |Object(raw)| raw.apply(&mut policy))?;
        policy.report_data = self.report_data.map(|text| report_data(&text)).transpose()?;
        Ok(policy)
    }
}

/// Decodes up to 64 bytes of REPORTDATA.
fn report_data(text: &str) -> Result<Vec<u8>, PolicyError> {
    let mut bytes = alloc::vec![0; text.len().min(128) / 2];
    if text.len() > 128 || !hex_into(text.as_bytes(), &mut bytes) {
        return Err(PolicyError::Value { key: "report_data", wanted: "at most 64 bytes in hexadecimal" });
    }
    Ok(bytes)
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

fn date(text: &str, key: &'static str) -> Result<UnixSeconds, PolicyError> {
    UnixSeconds::from_rfc3339(text)
        .ok_or(PolicyError::Value { key, wanted: "a time, YYYY-MM-DDThh:mm:ssZ, in quotation marks" })
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
        Ok(())
    }
}

/// Bounds size and nesting of a policy text before a parser sees it.
fn check_bounds(text: &str) -> Result<(), PolicyError> {
    let mut depth = 0usize;
    let mut deepest = 0usize;
    for byte in text.bytes() {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    // Brackets inside strings count too: a policy has no use for eight of them.
    if text.len() > MAX_POLICY || deepest > MAX_NESTING { Err(PolicyError::TooLarge) } else { Ok(()) }
}

impl Policy {
    /// Reads a policy from JSON.
    ///
    /// # Errors
    /// Text that is no policy, unknown keys, impossible values.
    pub fn from_json(text: &str) -> Result<Self, PolicyError> {
        check_bounds(text)?;
        let Object(raw): Object<RawPolicy> = strict::from_json(text)
            .map_err(|(error, path)| PolicyError::Format(strict::at_path(&error.to_string(), &path)))?;
        raw.into_policy()
    }

    /// Reads a policy from TOML.
    ///
    /// # Errors
    /// Text that is no policy, unknown keys, impossible values.
    #[cfg(feature = "toml")]
    pub fn from_toml(text: &str) -> Result<Self, PolicyError> {
        check_bounds(text)?;
        let told = |error: &toml::de::Error, path: &str| {
            // The error's own text is a drawing of several lines.
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            // A key that is twice there is not on the path: the text at fault is it.
            let at_fault = error.span().and_then(|span| text.get(span)).unwrap_or_default();
            let is_key = !at_fault.is_empty() && at_fault.len() <= MAX_TOLD && !at_fault.contains('\n');
            let path = if path.is_empty() && is_key { at_fault } else { path };
            let message = strict::at_path(error.message().lines().next().unwrap_or_default(), path);
            PolicyError::Format(alloc::format!("line {line}: {message}"))
        };
        let deserializer = toml::Deserializer::parse(text).map_err(|error| told(&error, ""))?;
        let Object(raw): Object<RawPolicy> = serde_path_to_error::deserialize(deserializer)
            .map_err(|error| told(error.inner(), &error.path().to_string()))?;
        raw.into_policy()
    }

    /// Reads a policy from either form: JSON begins with a brace.
    ///
    /// # Errors
    /// Text that is no policy, unknown keys, impossible values.
    #[cfg(feature = "toml")]
    pub fn from_text(text: &str) -> Result<Self, PolicyError> {
        if text.trim_ascii_start().starts_with('{') { Self::from_json(text) } else { Self::from_toml(text) }
    }
}
