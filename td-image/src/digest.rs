//! SHA-384, the hash of every TDX measurement, and its 48-byte value.
//!
//! With feature `ring` the hash runs on ring's assembly, without it on RustCrypto's `sha2`; the values are the
//! same, and a test says so.

use core::fmt;
use core::str::FromStr;

use crate::bytes::{Hex, hex_into};

/// A SHA-384 value: a measurement, or the digest of one event.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest384(pub [u8; 48]);

impl Digest384 {
    /// What a run-time register holds before its first extension.
    pub const ZERO: Self = Self([0; 48]);

    /// The digest of one contiguous message.
    #[must_use]
    pub fn of(message: &[u8]) -> Self {
        let mut hasher = Sha384::new();
        hasher.update(message);
        hasher.finish()
    }

    /// The digest of a message given byte by byte.
    #[must_use]
    pub fn of_bytes(message: impl Iterator<Item = u8>) -> Self {
        let mut hasher = Sha384::new();
        message.for_each(|byte| hasher.update(&[byte]));
        hasher.finish()
    }

    /// What a run-time register holds after `event` extends it: SHA-384(register ‖ event).
    #[must_use]
    pub fn extended_by(&self, event: &Self) -> Self {
        let mut hasher = Sha384::new();
        hasher.update(&self.0);
        hasher.update(&event.0);
        hasher.finish()
    }

    /// Whether every byte is zero: a register that nobody extended.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }
}

impl fmt::Display for Digest384 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

impl fmt::Debug for Digest384 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not 96 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotADigest;

impl fmt::Display for NotADigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a SHA-384 value is written as 96 hexadecimal digits")
    }
}

impl core::error::Error for NotADigest {}

impl FromStr for Digest384 {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let text = text.strip_prefix("0x").unwrap_or(text);
        let mut value = [0; 48];
        if hex_into(text.as_bytes(), &mut value) { Ok(Self(value)) } else { Err(NotADigest) }
    }
}

/// A running SHA-384 over a stream. Input that starts on a block boundary is hashed where it lies.
#[derive(Clone)]
pub struct Sha384(Backend);

#[cfg(feature = "ring")]
type Backend = ring::digest::Context;
#[cfg(not(feature = "ring"))]
type Backend = sha2::Sha384;

impl Default for Sha384 {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(feature = "ring")]
impl Sha384 {
    /// The hash of nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self(ring::digest::Context::new(&ring::digest::SHA384))
    }

    /// Appends `bytes` to the stream.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of the stream.
    #[must_use]
    pub fn finish(self) -> Digest384 {
        let digest = self.0.finish();
        // SHA-384 values have 48 bytes; anything else is no digest and compares equal to nothing.
        Digest384(digest.as_ref().try_into().unwrap_or([0xff; 48]))
    }
}

#[cfg(not(feature = "ring"))]
impl Sha384 {
    /// The hash of nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self(<sha2::Sha384 as sha2::Digest>::new())
    }

    /// Appends `bytes` to the stream.
    pub fn update(&mut self, bytes: &[u8]) {
        sha2::Digest::update(&mut self.0, bytes);
    }

    /// The digest of the stream.
    #[must_use]
    pub fn finish(self) -> Digest384 {
        Digest384(sha2::Digest::finalize(self.0).into())
    }
}

impl fmt::Debug for Sha384 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sha384")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_backends_hash_alike() {
        let message = [0x5a; 1000];
        let expected: [u8; 48] = <sha2::Sha384 as sha2::Digest>::digest(message).into();
        assert_eq!(Digest384::of(&message), Digest384(expected));
    }

    /// INDEX of the attestation vectors, "Values".
    #[test]
    fn one_separator_extends_a_fresh_register_to_the_published_value() {
        let separator = Digest384::of(&[0; 4]);
        let expected = "518923b0f955d08da077c96aaba522b9decede61c599cea6c41889cfbea4ae4d\
                        50529d96fe4d1afdafb65e7f95bf23c4";
        assert_eq!(Ok(Digest384::ZERO.extended_by(&separator)), expected.parse());
    }

    #[test]
    fn a_digest_is_exactly_96_hexadecimal_digits() {
        assert_eq!("00".parse::<Digest384>(), Err(NotADigest));
        let text = "Ab".repeat(48);
        assert_eq!(text.parse(), Ok(Digest384([0xab; 48])));
        assert_eq!(Digest384([0xab; 48]).to_string(), text.to_lowercase());
    }
}
