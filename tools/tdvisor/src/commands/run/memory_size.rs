//! Sizes on the command line: `256M`, `1G`, `4096`.

use std::fmt;
use std::str::FromStr;

/// A size without a unit is bytes, from here on.
const LEAST_BYTES: u64 = 1 << 20;

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemorySize(u64);

impl MemorySize {
    /// What a TD gets that asks for nothing.
    pub const DEFAULT: Self = Self(128 << 20);
    /// What a Linux kernel gets.
    pub const FOR_LINUX: Self = Self(512 << 20);

    /// `bytes` bytes, or this size where it is more.
    pub fn or_more(self, bytes: Option<u64>) -> Self {
        Self(bytes.map_or(self.0, |bytes| bytes.max(self.0)))
    }

    /// Bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for MemorySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, shift) in [("G", 30), ("M", 20), ("K", 10)] {
            if self.0 != 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

impl FromStr for MemorySize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("'{text}' is not a size: write a number of bytes, or one with K, M, G or T");
        let text = text.trim();
        let (digits, shift) = match text.char_indices().next_back() {
            Some((at, 'k' | 'K')) => (&text[..at], 10),
            Some((at, 'm' | 'M')) => (&text[..at], 20),
            Some((at, 'g' | 'G')) => (&text[..at], 30),
            Some((at, 't' | 'T')) => (&text[..at], 40),
            _ => (text, 0),
        };
        let number: u64 = digits.parse().map_err(|_| bad())?;
        // No TD has so few bytes: whoever writes this thinks of MiB, or of something that is no memory at all.
        if shift == 0 && (1..LEAST_BYTES).contains(&number) {
            return Err(format!(
                "{number} bytes are no memory of a TD (a multiple of 4 KiB, {} MiB or more): did you mean {number}M?",
                LEAST_BYTES >> 20
            ));
        }
        number.checked_mul(1 << shift).map(Self).ok_or_else(bad)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_and_print_as_they_are_written() {
        for text in ["256M", "1G", "4K", "1234567"] {
            assert_eq!(text.parse::<MemorySize>().unwrap().to_string(), text);
        }
        assert_eq!("1g".parse(), Ok(MemorySize(1 << 30)));
    }

    #[test]
    fn a_number_that_was_meant_in_mebibytes_is_asked_about() {
        let said = "512".parse::<MemorySize>().unwrap_err();
        assert!(said.contains("did you mean 512M?"), "{said}");
        assert_eq!("1048576".parse(), Ok(MemorySize(1 << 20)));
        assert_eq!("1T".parse(), Ok(MemorySize(1 << 40)));
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "M", "-1", "1P", "1.5G", "99999999999G"] {
            assert!(text.parse::<MemorySize>().is_err(), "{text}");
        }
    }
}
