//! Events that an application lists itself, because run-time extensions write no CCEL entries.
//!
//! JSON: an array of objects with `digest` (96 hexadecimal digits), `imr` or `register` (a number from 0, or
//! "RTMR3") and, where it has one, `event` or `name`; dstack's lists have `event_type` and `event_payload` as well.
//! A key that is not one of these, twice there, `null` or of another type is an error, and so is an event without a
//! register: nothing is guessed.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use serde::Deserialize;

use super::{Expectation, Part, Prediction};
use crate::digest::Digest384;
use crate::eventlog::Register;
use crate::strict::{self, Object, stated};

/// Longest list, bytes.
pub const MAX_LIST_BYTES: usize = 16 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    digest: String,
    #[serde(alias = "imr")]
    register: Index,
    #[serde(alias = "event", default, deserialize_with = "stated")]
    name: Option<String>,
    #[serde(default, deserialize_with = "stated", rename = "event_type")]
    _event_type: Option<u32>,
    #[serde(default, deserialize_with = "stated", rename = "event_payload")]
    _event_payload: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Index {
    Number(u32),
    Name(String),
}

/// Why a list cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ListError {
    /// Too long.
    Size(usize),
    /// Not a JSON array of such objects.
    Json(String),
    /// A digest that is none.
    Digest {
        /// Position in the array, from 0.
        line: usize,
    },
    /// A register that cannot be extended.
    Register {
        /// Position in the array, from 0.
        line: usize,
    },
}

impl fmt::Display for ListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size(size) => write!(f, "an event list of {size} bytes is too long"),
            Self::Json(error) => write!(f, "not an event list: {error}"),
            Self::Digest { line } => write!(f, "event {line}: {}", crate::digest::NotADigest),
            Self::Register { line } => write!(f, "event {line}: no register from RTMR0 to RTMR3"),
        }
    }
}

impl core::error::Error for ListError {}

/// Reads a list.
///
/// # Errors
/// [`ListError`].
pub fn parse(text: &str) -> Result<Prediction, ListError> {
    if text.len() > MAX_LIST_BYTES {
        return Err(ListError::Size(text.len()));
    }
    let lines: Vec<Object<Line>> = strict::from_json(text)
        .map_err(|(error, path)| ListError::Json(strict::at_path(&error.to_string(), &path)))?;
    let mut prediction = Prediction::default();
    for (line, Object(Line { digest, register, name, .. })) in lines.into_iter().enumerate() {
        let digest: Digest384 = digest.parse().map_err(|_| ListError::Digest { line })?;
        let register = match register {
            Index::Number(number) => {
                usize::try_from(number).ok().and_then(|number| Register::RTMRS.get(number)).copied()
            }
            Index::Name(name) => {
                Register::RTMRS.into_iter().find(|register| register.to_string().eq_ignore_ascii_case(&name))
            }
        };
        let register = register.ok_or(ListError::Register { line })?;
        let name = name.filter(|name| !name.is_empty()).unwrap_or_else(|| alloc::format!("{line}"));
        prediction.push(register, Part::Runtime(name), Expectation::Exactly(digest));
    }
    Ok(prediction)
}
