//! What a random model draws its operations by.

/// Numbers that look random and follow from the first, which is not zero (xorshift).
pub struct Numbers(pub u64);

impl Numbers {
    /// A number below a bound, which is not zero.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}
