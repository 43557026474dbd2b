//! Choices that a seed decides: the same ones for the same seed, on every machine.

/// SplitMix64: all that tests need of chance.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The choices of a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Any byte.
    pub const fn byte(&mut self) -> u8 {
        self.next() as u8
    }

    /// A number below this one, which is not zero.
    pub const fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// An index of something that has so many parts; zero where it has none.
    pub const fn index(&mut self, parts: usize) -> usize {
        self.below(if parts == 0 { 1 } else { parts as u64 }) as usize
    }

    /// Whether something is so that happens one time in `n`.
    pub const fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of these.
    pub fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.index(of.len())].clone()
    }

    /// Fills bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill_with(|| self.byte());
    }
}

/// What SplitMix64 does to its counter: every bit of `value` reaches every bit of the result, and no two values share one.
#[must_use]
pub const fn mix(value: u64) -> u64 {
    let mixed = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_splitmix64() {
        let mut chance = Chance::new(1_234_567);
        let first = [chance.next(), chance.next(), chance.next()];
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn a_pick_is_one_of_those() {
        let mut chance = Chance::new(0);
        for _ in 0..100 {
            assert!(
                [1, 2, 3].contains(&chance.pick(&[1, 2, 3])) && chance.below(7) < 7 && chance.index(2) < 2
            );
        }
        assert!(chance.one_in(1));
        assert_eq!(chance.index(0), 0);
    }
}
