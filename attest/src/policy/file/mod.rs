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
//!
//! [[td.events]]                           # what the event log must say, by the names of `eventlog explain`
//! register = "RTMR2"
//! part = "command line"                   # this, or what begins with these words
//! which = "all"                           # "all" (if not stated), "some" or "none" of them …
//! contains = ["lockdown=integrity"]       # … have these texts in what was measured,
//! lacks = ["init="]                       # none of these,
//! digest = ["…"]                          # and one of these digests
//! ```
//!
//! For SGX, in place of `[td]`:
//!
//! ```toml
//! [enclave]                               # mr_enclave or mr_signer must be there
//! mr_signer = ["…"]
//! minimum_isv_svn = 3
//! ```

mod raw;
mod rules;
mod values;

use alloc::string::{String, ToString};
use core::fmt;

use self::raw::RawPolicy;
use super::Policy;
use crate::strict::{self, Object};

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
        /// The type that the key's value must have.
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
