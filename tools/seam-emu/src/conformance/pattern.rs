//! The seeded pattern that recordings fill memory with.

use super::model::Pattern;
use crate::module::random::Random;

impl Pattern {
    /// The bytes of the pattern.
    pub fn bytes(self) -> Vec<u8> {
        let len = usize::try_from(self.len).unwrap_or(0);
        let mut out = Vec::with_capacity(len.next_multiple_of(8));
        let words = Random::new(self.seed);
        while out.len() < len {
            out.extend_from_slice(&words.next().to_le_bytes());
        }
        out.truncate(len);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_is_a_prefix_of_itself_and_never_longer_than_asked() {
        let long = Pattern { seed: 7, len: 64 }.bytes();
        for len in 0..64 {
            assert_eq!(Pattern { seed: 7, len }.bytes(), long[..len as usize]);
        }
        assert_ne!(long, Pattern { seed: 8, len: 64 }.bytes());
    }

    #[test]
    fn the_first_word_of_seed_zero_is_the_generators_published_one() {
        let bytes = Pattern { seed: 0, len: 8 }.bytes();
        assert_eq!(bytes, 0xe220_a839_7b1d_cdaf_u64.to_le_bytes());
    }
}
