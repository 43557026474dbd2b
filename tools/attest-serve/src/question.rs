//! What a request asks, decoded: every text in it that is not what it should be is a refusal that names it.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;
use tdvisor_attest::unambiguous_json;

use crate::binding::{Binding, BindingError};
use crate::messages::{AttestationRequest, IndividualAttestationRequest};

/// The policy that there is.
pub const DEFAULT_POLICY: &str = "default";
/// The most attesters in one request.
const MAX_ATTESTERS: usize = 8;

/// Evidence of one TD, and what it must be bound to.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// The quote.
    pub quote: Vec<u8>,
    /// The event log's area, if the evidence has one.
    pub log: Option<Vec<u8>>,
    /// What the quote must say.
    pub binding: Binding,
}

/// Why a request cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QuestionError {
    /// No evidence, or of too many attesters.
    Attesters(usize),
    /// A TEE that is not verified here.
    Tee(String),
    /// A policy that there is not.
    Policy(String),
    /// A field that is not what it should be.
    Field {
        /// The field's name.
        field: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// Run-time or init data that cannot be used.
    Binding(BindingError),
}

impl fmt::Display for QuestionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attesters(0) => f.write_str("no evidence in the request"),
            Self::Attesters(count) => {
                write!(f, "evidence of {count} attesters, and {MAX_ATTESTERS} are allowed")
            }
            Self::Tee(tee) => write!(f, "evidence of `{tee}` is not verified here: only of `tdx`"),
            Self::Policy(id) => {
                write!(f, "there is no policy `{id}`: the operator's policy file is `{DEFAULT_POLICY}`")
            }
            Self::Field { field, problem } => write!(f, "{field}: {problem}"),
            Self::Binding(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for QuestionError {}

fn field(field: &'static str, problem: impl fmt::Display) -> QuestionError {
    QuestionError::Field { field, problem: problem.to_string() }
}

/// Decodes a request.
///
/// # Errors
/// [`QuestionError`]: nothing is passed over, and nothing has a default that would check less.
pub fn questions(request: &AttestationRequest) -> Result<Vec<Question>, QuestionError> {
    if let Some(id) = request.policy_ids.iter().find(|id| *id != DEFAULT_POLICY) {
        return Err(QuestionError::Policy(id.clone()));
    }
    let count = request.verification_requests.len();
    if count == 0 || count > MAX_ATTESTERS {
        return Err(QuestionError::Attesters(count));
    }
    request.verification_requests.iter().map(Question::of).collect()
}

impl Question {
    fn of(request: &IndividualAttestationRequest) -> Result<Self, QuestionError> {
        if request.tee != "tdx" {
            return Err(QuestionError::Tee(request.tee.clone()));
        }
        let binding = Binding::of(request).map_err(QuestionError::Binding)?;
        let json = URL_SAFE_NO_PAD.decode(&request.evidence).map_err(|error| field("evidence", error))?;
        let json = String::from_utf8(json).map_err(|error| field("evidence", error))?;
        let Value::Object(mut members) = unambiguous_json(&json).map_err(|error| field("evidence", error))?
        else {
            return Err(field("evidence", "not a JSON object"));
        };
        // What else attesters put beside these has no part in the verdict, and none in the token.
        let mut text = |name: &'static str| match members.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(text)) => STANDARD.decode(text).map(Some).map_err(|error| field(name, error)),
            Some(_) => Err(field(name, "not a text")),
        };
        let quote = text("quote")?.ok_or_else(|| field("quote", "missing in the evidence"))?;
        Ok(Self { quote, log: text("cc_eventlog")?, binding })
    }
}
