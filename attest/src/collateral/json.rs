//! JSON from services: bounded in size and nesting before it is decoded.

use alloc::borrow::Cow;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use serde::Deserialize;

use super::{CollateralError, Part};
use crate::UnixSeconds;
use crate::bytes::hex_array;
use crate::strict;

/// The largest JSON text that is read, in bytes.
pub const MAX_JSON: usize = 4 << 20;
/// The deepest nesting of arrays and objects. Intel's TCB info nests seven deep with its envelope.
pub const MAX_NESTING: usize = 16;

/// The path of keys to what is wrong in JSON, such as `platforms[2].tcbInfo`. Of a long one, the beginning.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyPath {
    text: [u8; Self::MAX],
    len: u8,
}

impl KeyPath {
    /// The longest path that is kept, in bytes.
    pub const MAX: usize = 48;

    /// The beginning of `path`.
    #[must_use]
    pub fn new(path: &str) -> Self {
        let mut text = [0; Self::MAX];
        let fits =
            path.char_indices().map(|(at, char)| at + char.len_utf8()).take_while(|end| *end <= Self::MAX);
        let len = fits.last().unwrap_or(0);
        for (to, from) in text.iter_mut().zip(path.bytes().take(len)) {
            *to = from;
        }
        Self { text, len: u8::try_from(len).unwrap_or(0) }
    }

    /// The path; empty where the whole text is wrong.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let text = self.text.get(..usize::from(self.len)).unwrap_or_default();
        core::str::from_utf8(text).unwrap_or_default()
    }
}

impl fmt::Debug for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

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
    strict::from_json(text).map_err(|(error, path)| CollateralError::Json {
        part,
        line: error.line(),
        column: error.column(),
        key: KeyPath::new(&path),
    })
}

/// Decodes a bounded JSON object. (Decoders of structs also take arrays; the format does not.)
pub(super) fn decode_object<'a, T: Deserialize<'a>>(text: &'a str, part: Part) -> Result<T, CollateralError> {
    if !text.trim_ascii_start().starts_with('{') {
        return Err(CollateralError::Json { part, line: 1, column: 1, key: KeyPath::new("") });
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
    fn a_long_path_is_cut_between_characters() {
        let path = KeyPath::new(&"ü".repeat(40));
        assert_eq!(path.as_str(), "ü".repeat(24));
        assert_eq!(KeyPath::new("a.b").as_str(), "a.b");
        assert_eq!(KeyPath::new(&alloc::format!("a{}", "ü".repeat(40))).as_str().len(), 47);
    }

    #[test]
    fn nesting_is_bounded_and_brackets_inside_strings_do_not_nest() {
        let deep = "[".repeat(MAX_NESTING + 1);
        assert_eq!(check_bounds(&deep, Part::Bundle), Err(CollateralError::TooDeep(Part::Bundle)));
        assert_eq!(check_bounds(&alloc::format!("\"\\\"{deep}\""), Part::Bundle), Ok(()));
        let large = " ".repeat(MAX_JSON + 1);
        assert_eq!(check_bounds(&large, Part::Bundle), Err(CollateralError::TooLarge(Part::Bundle)));
    }
}
