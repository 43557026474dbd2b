//! MRCONFIGID as text.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What such text looks like, as a regular expression: 96 or 64 hexadecimal digits, or base64, in which a digest ends with one sign
/// that fills it up.
pub(crate) const ID_PATTERN: &str =
    "^([0-9a-fA-F]{96}|[0-9a-fA-F]{64}|[0-9a-zA-Z+/]{64}|[0-9a-zA-Z+/]{42}[048AEIMQUYcgkosw]=)$";
/// Bytes of MRCONFIGID.
pub const MEASUREMENT_BYTES: usize = 48;
/// Bytes of a SHA-256 digest, which stands in front of zeros.
const DIGEST_BYTES: usize = 32;

/// MRCONFIGID: 48 bytes, or a digest of 32, in hexadecimal or base64. What was written is written again.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigIdText {
    text: String,
    id: [u8; MEASUREMENT_BYTES],
}

impl ConfigIdText {
    /// Reads it.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = match text.len() {
            // No base64 of 32 or 48 bytes has so many characters.
            length if length == 2 * MEASUREMENT_BYTES => hexadecimal(text)?,
            length if length == 2 * DIGEST_BYTES => {
                // 64 characters are base64 of 48 bytes too: digits that are all hexadecimal are taken for such.
                hexadecimal(text).or_else(|| STANDARD.decode(text).ok())?
            }
            _ => STANDARD.decode(text).ok()?,
        };
        let mut id = [0; MEASUREMENT_BYTES];
        if !matches!(bytes.len(), DIGEST_BYTES | MEASUREMENT_BYTES) {
            return None;
        }
        id.get_mut(..bytes.len())?.copy_from_slice(&bytes);
        Some(Self { text: text.to_owned(), id })
    }

    /// The bytes.
    pub const fn id(&self) -> [u8; MEASUREMENT_BYTES] {
        self.id
    }
}

/// The bytes of two digits each.
fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let digit = |digit: u8| (digit as char).to_digit(16);
    let byte = |pair: &[u8]| match pair {
        [high, low] => u8::try_from(digit(*high)? << 4 | digit(*low)?).ok(),
        _ => None,
    };
    text.as_bytes().chunks(2).map(byte).collect()
}

impl fmt::Debug for ConfigIdText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

impl Serialize for ConfigIdText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for ConfigIdText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| serde::de::Error::custom("48 bytes, or a digest of 32, in hexadecimal or base64"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_hexadecimal_or_base64_and_a_digest_is_filled_up_with_zeros() {
        let whole: [u8; 48] = std::array::from_fn(|at| at as u8 + 0x80);
        let hex: String = whole.iter().map(|byte| format!("{byte:02x}")).collect();
        for text in [hex.clone(), hex.to_uppercase(), STANDARD.encode(whole)] {
            assert_eq!(ConfigIdText::parse(&text).unwrap().id(), whole, "{text}");
        }
        let mut padded = whole;
        padded[32..].fill(0);
        for text in [&hex[..64], &STANDARD.encode(&whole[..32])] {
            assert_eq!(ConfigIdText::parse(text).unwrap().id(), padded, "{text}");
        }
    }

    #[test]
    fn the_pattern_of_an_id_is_what_is_read_as_one() {
        let pattern = regex_lite::Regex::new(ID_PATTERN).unwrap();
        let digest = STANDARD.encode([0xA5; 32]);
        for text in [
            "5a".repeat(48),
            "5A".repeat(32),
            STANDARD.encode([0xFB; 48]),
            digest.clone(),
            digest.replace('=', ""),
            digest.replace("U=", "V="),
            format!("{digest}="),
            "5a".repeat(33),
            "zz".repeat(48),
            "-".repeat(64),
            String::new(),
        ] {
            assert_eq!(pattern.is_match(&text), ConfigIdText::parse(&text).is_some(), "{text}");
        }
    }

    #[test]
    fn whatever_else_is_refused() {
        for text in
            ["", "00", "zz", &"0".repeat(95), &"g".repeat(96), &"é".repeat(48), &STANDARD.encode([0; 49])]
        {
            assert_eq!(ConfigIdText::parse(text), None, "{text}");
        }
    }
}
