//! JSON from services: bounded in size and nesting before it is decoded.

use alloc::borrow::Cow;
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde::Deserialize;

use super::{CollateralError, Part};
use crate::UnixSeconds;
use crate::bytes::hex_array;

/// The largest JSON text that is read, in bytes.
pub const MAX_JSON: usize = 4 << 20;
/// The deepest nesting of arrays and objects. Intel's TCB info nests seven deep with its envelope.
pub const MAX_NESTING: usize = 16;

/// Checks size and nesting of `text` without decoding it.
fn check_bounds(text: &str, part: Part) -> Result<(), CollateralError> {
    if text.len() > MAX_JSON {
        return Err(CollateralError::TooLarge(part));
    }
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > MAX_NESTING {
                    return Err(CollateralError::TooDeep(part));
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// Decodes bounded JSON.
pub(super) fn decode<'a, T: Deserialize<'a>>(text: &'a str, part: Part) -> Result<T, CollateralError> {
    check_bounds(text, part)?;
    serde_json::from_str(text).map_err(|error| CollateralError::Json {
        part,
        line: error.line(),
        column: error.column(),
    })
}

/// Decodes a bounded JSON object. (Decoders of structs also take arrays; the format does not.)
pub(super) fn decode_object<'a, T: Deserialize<'a>>(text: &'a str, part: Part) -> Result<T, CollateralError> {
    if !text.trim_ascii_start().starts_with('{') {
        return Err(CollateralError::Json { part, line: 1, column: 1 });
    }
    decode(text, part)
}

/// Text that usually needs no copy.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Text<'_> {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn hex<const N: usize>(
        &self,
        part: Part,
        field: &'static str,
    ) -> Result<[u8; N], CollateralError> {
        hex_array(&self.0).ok_or(CollateralError::Field { part, field })
    }

    pub(super) fn date(&self, part: Part, field: &'static str) -> Result<UnixSeconds, CollateralError> {
        UnixSeconds::from_rfc3339(&self.0).ok_or(CollateralError::Field { part, field })
    }
}

/// Advisory identifiers, shared so that verdicts do not copy them.
pub(super) fn advisories(list: &[Text<'_>]) -> Vec<Arc<str>> {
    list.iter().map(|id| Arc::from(id.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_is_bounded_and_brackets_inside_strings_do_not_nest() {
        let deep = "[".repeat(MAX_NESTING + 1);
        assert_eq!(check_bounds(&deep, Part::Bundle), Err(CollateralError::TooDeep(Part::Bundle)));
        assert_eq!(check_bounds(&alloc::format!("\"\\\"{deep}\""), Part::Bundle), Ok(()));
        let large = " ".repeat(MAX_JSON + 1);
        assert_eq!(check_bounds(&large, Part::Bundle), Err(CollateralError::TooLarge(Part::Bundle)));
    }
}
