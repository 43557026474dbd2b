//! A set of interrupt vectors, as IRR, ISR and TMR hold it.

use serde::{Deserialize, Serialize};

/// Which of the 256 vectors are set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VectorSet([u32; 8]);

impl VectorSet {
    /// No vector.
    pub const EMPTY: Self = Self([0; 8]);

    /// Adds a vector.
    pub const fn insert(&mut self, vector: u8) {
        self.0[(vector >> 5) as usize] |= 1 << (vector & 31);
    }

    /// Takes a vector out.
    pub const fn remove(&mut self, vector: u8) {
        self.0[(vector >> 5) as usize] &= !(1 << (vector & 31));
    }

    /// Whether a vector is in the set.
    pub const fn contains(&self, vector: u8) -> bool {
        self.0[(vector >> 5) as usize] & 1 << (vector & 31) != 0
    }

    /// The vector of the highest priority.
    pub const fn highest(&self) -> Option<u8> {
        let mut word = 8;
        while word > 0 {
            word -= 1;
            if self.0[word] != 0 {
                return Some((word as u8) << 5 | (31 - self.0[word].leading_zeros() as u8));
            }
        }
        None
    }

    /// Thirty-two vectors as the register with this number shows them; 0 beyond the eighth.
    pub fn word(&self, index: u32) -> u32 {
        self.0.get(index as usize).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_vector_of_a_set_is_the_last_one_left_out() {
        let mut set = VectorSet::default();
        for vector in 0..=255 {
            set.insert(vector);
            assert_eq!(set.highest(), Some(vector));
            assert!(set.contains(vector));
        }
        for vector in (0..=255).rev() {
            assert_eq!(set.highest(), Some(vector));
            set.remove(vector);
        }
        assert_eq!(set, VectorSet::default());
    }

    #[test]
    fn a_register_shows_thirty_two_vectors() {
        let mut set = VectorSet::default();
        set.insert(0xf2);
        assert_eq!(set.word(7), 1 << 18);
        assert_eq!(set.word(8), 0);
    }
}
