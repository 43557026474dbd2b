//! What a quote must say to be the answer to one request and no other: REPORTDATA by the run-time data, MRCONFIGID by the
//! init data.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256, Sha384, Sha512};
use tdvisor_attest::quote::Body;
use tdvisor_attest::unambiguous_json;

use crate::messages::{IndividualAttestationRequest, InitData, RuntimeData};

/// Bytes of REPORTDATA.
const REPORT_DATA: usize = 64;
/// Bytes of MRCONFIGID.
const MR_CONFIG_ID: usize = 48;
/// Integers beyond it are not the same in every JSON implementation.
const MAX_INTEGER: u64 = (1 << 53) - 1;

/// What a quote must say, and the claims that it thereby proves.
#[derive(Clone, Debug, PartialEq)]
pub struct Binding {
    /// REPORTDATA.
    pub report_data: [u8; REPORT_DATA],
    /// The structured run-time data; null for raw ones.
    pub runtime_claims: Value,
    /// MRCONFIGID, if init data were given.
    pub mr_config_id: Option<[u8; MR_CONFIG_ID]>,
    /// The data of an init data document; null otherwise.
    pub init_claims: Value,
}

/// Why there is no binding, or a quote does not keep it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BindingError {
    /// No run-time data: the quote could be anybody's, of any time.
    NoRuntimeData,
    /// Run-time data that cannot be used.
    RuntimeData(String),
    /// A hash algorithm that there is not.
    Algorithm(String),
    /// Init data that cannot be used.
    InitData(String),
    /// REPORTDATA is not of these run-time data.
    ReportDataDiffers,
    /// MRCONFIGID is not of these init data.
    MrConfigIdDiffers,
    /// The quote is of an enclave.
    NotATd,
}

impl fmt::Display for BindingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRuntimeData => {
                f.write_str("runtime_data: missing; without it an old quote would be as good as a new one")
            }
            Self::RuntimeData(problem) => write!(f, "runtime_data: {problem}"),
            Self::Algorithm(name) => {
                write!(f, "runtime_data_hash_algorithm: `{name}` is not sha256, sha384 or sha512")
            }
            Self::InitData(problem) => write!(f, "init_data: {problem}"),
            Self::ReportDataDiffers => f.write_str("REPORTDATA is not that of the request's run-time data"),
            Self::MrConfigIdDiffers => f.write_str("MRCONFIGID is not that of the request's init data"),
            Self::NotATd => f.write_str("not a quote of a TD"),
        }
    }
}

impl std::error::Error for BindingError {}

/// Hash algorithms of run-time and init data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Algorithm {
    Sha256,
    Sha384,
    Sha512,
}

impl Algorithm {
    fn of(name: &str) -> Result<Self, BindingError> {
        match name {
            "sha256" => Ok(Self::Sha256),
            "" | "sha384" => Ok(Self::Sha384),
            "sha512" => Ok(Self::Sha512),
            other => Err(BindingError::Algorithm(other.to_owned())),
        }
    }

    fn digest(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha256 => Sha256::digest(bytes).to_vec(),
            Self::Sha384 => Sha384::digest(bytes).to_vec(),
            Self::Sha512 => Sha512::digest(bytes).to_vec(),
        }
    }
}

/// An init data document.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(rename = "version")]
    _version: String,
    algorithm: Algorithm,
    data: std::collections::BTreeMap<String, String>,
}

impl Binding {
    /// The binding of a request.
    ///
    /// # Errors
    /// No run-time data, or data that cannot be used.
    pub fn of(request: &IndividualAttestationRequest) -> Result<Self, BindingError> {
        let algorithm = Algorithm::of(&request.runtime_data_hash_algorithm)?;
        let (report_data, runtime_claims) = match &request.runtime_data {
            None => return Err(BindingError::NoRuntimeData),
            Some(RuntimeData::Raw(text)) => {
                let raw = URL_SAFE_NO_PAD
                    .decode(text)
                    .map_err(|error| BindingError::RuntimeData(error.to_string()))?;
                if raw.is_empty() || raw.len() > REPORT_DATA {
                    return Err(BindingError::RuntimeData(format!(
                        "{} raw bytes, and REPORTDATA has 1 to {REPORT_DATA}",
                        raw.len()
                    )));
                }
                (raw, Value::Null)
            }
            Some(RuntimeData::Structured(text)) => {
                let value = unambiguous_json(text).map_err(BindingError::RuntimeData)?;
                if !value.is_object() {
                    return Err(BindingError::RuntimeData("not a JSON object".to_owned()));
                }
                let mut canonical = String::new();
                canonicalise(&value, &mut canonical)?;
                (algorithm.digest(canonical.as_bytes()), value)
            }
        };
        let (mr_config_id, init_claims) = match &request.init_data {
            None => (None, Value::Null),
            Some(InitData::Digest(text)) => {
                let digest = URL_SAFE_NO_PAD
                    .decode(text)
                    .map_err(|error| BindingError::InitData(error.to_string()))?;
                if digest.is_empty() || digest.len() > REPORT_DATA {
                    return Err(BindingError::InitData(format!("a digest of {} bytes", digest.len())));
                }
                (Some(digest), Value::Null)
            }
            Some(InitData::Toml(text)) => {
                let document: Document = toml::from_str(text)
                    .map_err(|error| BindingError::InitData(error.message().to_owned()))?;
                (Some(document.algorithm.digest(text.as_bytes())), init_claims(document.data))
            }
        };
        Ok(Self {
            report_data: fitted(&report_data),
            runtime_claims,
            mr_config_id: mr_config_id.as_deref().map(fitted),
            init_claims,
        })
    }

    /// Whether a quote's body says what it must.
    ///
    /// # Errors
    /// What it does not.
    pub fn check(&self, body: &Body<'_>) -> Result<(), BindingError> {
        let td = body.td().ok_or(BindingError::NotATd)?;
        if td.report_data != self.report_data {
            return Err(BindingError::ReportDataDiffers);
        }
        match self.mr_config_id {
            Some(wanted) if td.mr_config_id != wanted => Err(BindingError::MrConfigIdDiffers),
            _ => Ok(()),
        }
    }
}

/// A digest in a field: zeros follow a shorter one, and of a longer one (SHA-512 in MRCONFIGID) the field has the first
/// bytes.
fn fitted<const N: usize>(digest: &[u8]) -> [u8; N] {
    let mut field = [0; N];
    for (place, byte) in field.iter_mut().zip(digest) {
        *place = *byte;
    }
    field
}

/// The documents that guests' agents read are given as JSON, as Trustee gives them.
fn init_claims(data: std::collections::BTreeMap<String, String>) -> Value {
    const DOCUMENTS: [&str; 2] = ["cdh.toml", "aa.toml"];
    let of = |(name, text): (String, String)| {
        let document = DOCUMENTS.contains(&name.as_str()).then(|| toml::from_str::<toml::Value>(&text).ok());
        let value = document.flatten().and_then(|document| serde_json::to_value(document).ok());
        (name, value.unwrap_or(Value::String(text)))
    };
    data.into_iter().map(of).collect()
}

/// Writes JSON as RFC 8785 does: members by the UTF-16 of their names, nothing between tokens, the shortest escapes.
///
/// # Errors
/// Numbers other than the integers that are the same everywhere.
fn canonicalise(value: &Value, out: &mut String) -> Result<(), BindingError> {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(bool) => out.push_str(if *bool { "true" } else { "false" }),
        Value::Number(number) => {
            let is_safe = number.as_u64().is_some_and(|number| number <= MAX_INTEGER)
                || number.as_i64().is_some_and(|number| number.unsigned_abs() <= MAX_INTEGER);
            if !is_safe {
                let problem = format!("the number {number} has no canonical form here: only integers do");
                return Err(BindingError::RuntimeData(problem));
            }
            out.push_str(&number.to_string());
        }
        Value::String(text) => quote(text, out),
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                canonicalise(item, out)?;
            }
            out.push(']');
        }
        Value::Object(members) => {
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            out.push('{');
            for (at, (name, value)) in sorted.into_iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                quote(name, out);
                out.push(':');
                canonicalise(value, out)?;
            }
            out.push('}');
        }
    }
    Ok(())
}

fn quote(text: &str, out: &mut String) {
    // serde_json escapes what RFC 8785 does, in its form: quotation mark, backslash, and control characters.
    out.push_str(&Value::from(text).to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> Result<String, BindingError> {
        let mut out = String::new();
        canonicalise(&unambiguous_json(text).unwrap(), &mut out).map(|()| out)
    }

    #[test]
    fn json_is_canonical_as_rfc_8785_says() {
        // CR is the first of all; an emoji's surrogates come before U+FB33.
        let mixed = " { \"b\" : [ {\"d\":2,\"c\":1}, -3, null, true ], \"\u{fb33}\":0, \"\u{1f600}\":0, \"\\r\":\"cr\", \"1\":1 } ";
        let sorted =
            "{\"\\r\":\"cr\",\"1\":1,\"b\":[{\"c\":1,\"d\":2},-3,null,true],\"\u{1f600}\":0,\"\u{fb33}\":0}";
        assert_eq!(canonical(mixed).unwrap(), sorted);
        assert_eq!(
            canonical(r#"{"a":"\u0041\/\u000b\n\u2028\""}"#).unwrap(),
            "{\"a\":\"A/\\u000b\\n\u{2028}\\\"\"}"
        );
        for number in ["1.5", "1e3", "9007199254740992", "-9007199254740992", "18446744073709551616"] {
            assert!(canonical(&format!("{{\"a\":{number}}}")).is_err(), "{number}");
        }
        assert_eq!(canonical("{\"a\":-9007199254740991}").unwrap(), "{\"a\":-9007199254740991}");
    }

    /// The digest is Trustee's own, of a test of its.
    #[test]
    fn structured_data_have_the_digest_that_trustee_gives_them() {
        let request = IndividualAttestationRequest {
            runtime_data: Some(RuntimeData::Structured(
                r#"{"b": 1, "a": "test", "c": {"d": "e"}}"#.to_owned(),
            )),
            ..Default::default()
        };
        let digest = tdvisor_attest::Hex(&Binding::of(&request).unwrap().report_data).to_string();
        let trustees = "e71ce8e70d814ba6639c3612ebee0ff1f76f650f8dbb5e47157e0f3f525cd22c4597480a186427c813ca941da78870c3";
        assert_eq!(digest, format!("{trustees}{}", "00".repeat(16)));
    }

    #[test]
    fn data_that_cannot_be_bound_to_are_refused() {
        let raw = |bytes: &[u8]| Some(RuntimeData::Raw(URL_SAFE_NO_PAD.encode(bytes)));
        let structured = |text: &str| Some(RuntimeData::Structured(text.to_owned()));
        let with = |runtime_data| IndividualAttestationRequest { runtime_data, ..Default::default() };
        assert!(Binding::of(&with(raw(&[1; 64]))).is_ok());
        for wrong in [
            None,
            raw(&[]),
            raw(&[1; 65]),
            Some(RuntimeData::Raw("+/==".to_owned())),
            structured("[]"),
            structured("{\"a\":1,\"a\":2}"),
            structured("{"),
        ] {
            assert!(Binding::of(&with(wrong.clone())).is_err(), "{wrong:?}");
        }
        for (init_data, is_good) in [
            (InitData::Digest(URL_SAFE_NO_PAD.encode([1; 48])), true),
            (InitData::Digest(String::new()), false),
            (InitData::Digest(URL_SAFE_NO_PAD.encode([1; 65])), false),
            (InitData::Toml("version=\"0.1.0\"\nalgorithm=\"sha256\"\n[data]\na=\"b\"\n".to_owned()), true),
            (InitData::Toml("version=\"0.1.0\"\nalgorithm=\"md5\"\n[data]\n".to_owned()), false),
            (InitData::Toml("version=\"0.1.0\"\nalgorithm=\"sha256\"\nother=1\n[data]\n".to_owned()), false),
            (InitData::Toml("algorithm".to_owned()), false),
        ] {
            let request =
                IndividualAttestationRequest { init_data: Some(init_data.clone()), ..with(raw(b"x")) };
            assert_eq!(Binding::of(&request).is_ok(), is_good, "{init_data:?}");
        }
        let mut request = with(structured("{}"));
        request.runtime_data_hash_algorithm = "SHA384".to_owned();
        assert!(Binding::of(&request).is_err());
    }

    #[test]
    fn the_agents_documents_become_json_and_everything_else_stays_text() {
        let text = "version = \"0.1.0\"\nalgorithm = \"sha384\"\n[data]\n\"aa.toml\" = \"a = 1\"\n\"cdh.toml\" = \"no = \"\nother = \"b = 2\"\n";
        let request = IndividualAttestationRequest {
            runtime_data: Some(RuntimeData::Structured("{}".to_owned())),
            init_data: Some(InitData::Toml(text.to_owned())),
            ..Default::default()
        };
        let binding = Binding::of(&request).unwrap();
        assert_eq!(
            binding.init_claims,
            serde_json::json!({ "aa.toml": { "a": 1 }, "cdh.toml": "no = ", "other": "b = 2" })
        );
        assert_eq!(binding.mr_config_id, Some(Sha384::digest(text.as_bytes()).into()));
    }
}
