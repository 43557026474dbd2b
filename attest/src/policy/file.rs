//! Policies as files. Every key is optional; unknown keys are errors.
//!
//! ```toml
//! report_data = "00112233…"              # up to 64 bytes; what is missing must be zero
//!
//! [tcb]
//! accept = ["UpToDate", "SWHardeningNeeded"]
//! grace_days = 30                         # out of date is accepted this long after the TCB's date
//! minimum_evaluation_number = 17
//! allowed_advisories = ["INTEL-SA-00615"]
//! rejected_advisories = ["INTEL-SA-00837"]
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
//!
//! [enclave]
//! mr_signer = ["…"]
//! minimum_isv_svn = 3
//! ```

use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use serde::Deserialize;

use super::{Expected, MaskedBits, Policy, Rtmr3, Rule, ServiceTd};
use crate::bytes::{hex_array, hex_into};
use crate::collateral::TcbStatus;
use crate::quote::Measurement;

/// The largest policy file, in bytes.
pub const MAX_POLICY: usize = 1 << 20;
/// The deepest nesting of a policy file; the format nests four deep.
const MAX_NESTING: usize = 8;

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
#[serde(deny_unknown_fields, default)]
struct RawPolicy {
    tcb: RawTcb,
    platform: RawPlatform,
    td: RawTd,
    enclave: RawEnclave,
    report_data: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawTcb {
    accept: Option<Vec<String>>,
    grace_days: Option<u32>,
    minimum_evaluation_number: Option<u32>,
    allowed_advisories: Option<BTreeSet<String>>,
    rejected_advisories: BTreeSet<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawPlatform {
    smt: Option<RawRule>,
    dynamic: Option<RawRule>,
    cached_keys: Option<RawRule>,
    fmspc: Option<Vec<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawTd {
    debug: Option<RawRule>,
    sept_ve_disable: Option<RawRule>,
    migratable: Option<RawRule>,
    attributes: Option<RawBits>,
    xfam: Option<RawBits>,
    mr_seam: Option<Vec<String>>,
    mr_td: Option<Vec<String>>,
    mr_config_id: Option<Vec<String>>,
    mr_owner: Option<Vec<String>>,
    mr_owner_config: Option<Vec<String>>,
    rtmr0: Option<Vec<String>>,
    rtmr1: Option<Vec<String>>,
    rtmr2: Option<Vec<String>>,
    rtmr3: Option<WordOrList>,
    mr_service_td: Option<WordOrList>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawEnclave {
    debug: Option<RawRule>,
    mr_enclave: Option<Vec<String>>,
    mr_signer: Option<Vec<String>>,
    isv_prod_id: Option<u16>,
    minimum_isv_svn: Option<u16>,
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

fn bits(raw: Option<RawBits>, key: &'static str) -> Result<MaskedBits, PolicyError> {
    let Some(raw) = raw else { return Ok(MaskedBits::default()) };
    let number = |text: &str| {
        let digits = text.strip_prefix("0x").unwrap_or(text);
        u64::from_str_radix(digits, 16)
            .map_err(|_| PolicyError::Value { key, wanted: "a mask and a value in hexadecimal" })
    };
    Ok(MaskedBits { mask: number(&raw.mask)?, value: number(&raw.value)? })
}

fn put<T, U: From<T>>(place: &mut U, value: Option<T>) {
    if let Some(value) = value {
        *place = value.into();
    }
}

impl RawPolicy {
    fn into_policy(self) -> Result<Policy, PolicyError> {
        let mut policy = Policy::default();
        self.tcb.apply(&mut policy)?;
        put(&mut policy.platform.smt, self.platform.smt);
        put(&mut policy.platform.dynamic, self.platform.dynamic);
        put(&mut policy.platform.cached_keys, self.platform.cached_keys);
        policy.platform.fmspc =
            self.platform.fmspc.map(|texts| list(&texts, "platform.fmspc")).transpose()?;
        self.td.apply(&mut policy)?;
        let enclave = &mut policy.enclave;
        put(&mut enclave.debug, self.enclave.debug);
        enclave.mr_enclave =
            self.enclave.mr_enclave.map(|texts| list(&texts, "enclave.mr_enclave")).transpose()?;
        enclave.mr_signer =
            self.enclave.mr_signer.map(|texts| list(&texts, "enclave.mr_signer")).transpose()?;
        enclave.isv_prod_id = self.enclave.isv_prod_id;
        put(&mut enclave.minimum_isv_svn, self.enclave.minimum_isv_svn);
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
        tcb.allowed_advisories = self.allowed_advisories;
        tcb.rejected_advisories = self.rejected_advisories;
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
        if let Some(rule) = self.mr_service_td {
            td.mr_service_td = match rule {
                WordOrList::Word(word) if word == "none" => ServiceTd::None,
                WordOrList::Word(word) if word == "any" => ServiceTd::Any,
                WordOrList::Word(_) => {
                    let wanted = "\"none\", \"any\" or a list";
                    return Err(PolicyError::Value { key: "td.mr_service_td", wanted });
                }
                WordOrList::List(texts) => {
                    let values: Vec<Measurement> = list(&texts, "td.mr_service_td")?;
                    ServiceTd::OneOf(values)
                }
            };
        }
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
        let raw: RawPolicy =
            serde_json::from_str(text).map_err(|error| PolicyError::Format(error.to_string()))?;
        raw.into_policy()
    }

    /// Reads a policy from TOML.
    ///
    /// # Errors
    /// Text that is no policy, unknown keys, impossible values.
    #[cfg(feature = "toml")]
    pub fn from_toml(text: &str) -> Result<Self, PolicyError> {
        check_bounds(text)?;
        let raw: RawPolicy = toml::from_str(text).map_err(|error| {
            // The error's own text is a drawing of several lines.
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            PolicyError::Format(alloc::format!("line {line}: {}", error.message()))
        })?;
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
