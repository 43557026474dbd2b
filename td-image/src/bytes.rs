//! A bounded cursor over untrusted bytes, and hexadecimal text.
//!
//! Nothing here panics and nothing allocates: every read names what it wanted and what was there.

/// The data ended before a field did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncated {
    /// Offset of the field from the start of the data, in bytes.
    pub offset: usize,
    /// Bytes the field needs.
    pub needed: usize,
    /// Bytes that were left.
    pub left: usize,
}

/// Reads little-endian fields front to back.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// A cursor at the start of `data`.
    #[must_use]
    pub const fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0 }
    }

    /// Offset of the next field.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.at
    }

    /// What has not been read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.data.get(self.at..).unwrap_or_default()
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// [`Truncated`].
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], Truncated> {
        let rest = self.rest();
        let taken = rest.get(..len).ok_or(Truncated { offset: self.at, needed: len, left: rest.len() })?;
        self.at += len;
        Ok(taken)
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// [`Truncated`].
    pub fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], Truncated> {
        let rest = self.rest();
        let taken = rest.first_chunk().ok_or(Truncated { offset: self.at, needed: N, left: rest.len() })?;
        self.at += N;
        Ok(taken)
    }

    /// A 16-bit number.
    ///
    /// # Errors
    /// [`Truncated`].
    pub fn u16(&mut self) -> Result<u16, Truncated> {
        self.array().copied().map(u16::from_le_bytes)
    }

    /// A 32-bit number.
    ///
    /// # Errors
    /// [`Truncated`].
    pub fn u32(&mut self) -> Result<u32, Truncated> {
        self.array().copied().map(u32::from_le_bytes)
    }

    /// A `u32` length followed by that many bytes.
    ///
    /// # Errors
    /// [`Truncated`].
    pub fn sized_u32(&mut self) -> Result<&'a [u8], Truncated> {
        let len = self.u32()?;
        // A length that does not fit `usize` cannot be in memory either.
        self.bytes(usize::try_from(len).unwrap_or(usize::MAX))
    }
}

/// The value of one hexadecimal digit, of either case.
const fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Decodes exactly `out.len()` bytes of hexadecimal text, of either case. `false`: not that.
#[must_use]
pub fn hex_into(text: &[u8], out: &mut [u8]) -> bool {
    if text.len() != out.len().saturating_mul(2) {
        return false;
    }
    for (pair, byte) in text.chunks_exact(2).zip(out) {
        match pair {
            [high, low] => match (nibble(*high), nibble(*low)) {
                (Some(high), Some(low)) => *byte = high << 4 | low,
                _ => return false,
            },
            _ => return false,
        }
    }
    true
}

/// Decodes `2 * N` hexadecimal digits.
#[must_use]
pub fn hex_array<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut out = [0; N];
    hex_into(text.as_bytes(), &mut out).then_some(out)
}

/// Prints bytes as lower-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hex<'a>(pub &'a [u8]);

impl core::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl core::fmt::Debug for Hex<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_says_where_the_data_ended() {
        let mut cursor = Cursor::new(&[1, 0, 2]);
        assert_eq!(cursor.u16(), Ok(1));
        assert_eq!(cursor.u32(), Err(Truncated { offset: 2, needed: 4, left: 1 }));
        assert_eq!(cursor.bytes(usize::MAX), Err(Truncated { offset: 2, needed: usize::MAX, left: 1 }));
        assert_eq!(cursor.rest(), [2]);
    }

    #[test]
    fn hex_is_exact_in_length_and_free_in_case() {
        assert_eq!(hex_array::<2>("aB0f"), Some([0xab, 0x0f]));
        assert_eq!(hex_array::<2>("ab0"), None);
        assert_eq!(hex_array::<2>("ab0g"), None);
    }
}
