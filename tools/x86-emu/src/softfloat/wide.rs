//! Numbers with 128 significant bits.
//!
//! Sums and products of two 64-bit significands are exact here but for a sticky last bit, so that rounding them to
//! at most 64 bits is right. Chains of operations (the transcendental functions) lose about one unit of the last
//! place each, 2^-127 of the value.

use core::cmp::Ordering;

use super::value::{Class, Value};

const TOP: u128 = 1 << 127;

/// `significand * 2^(exponent - 127)`, bit 127 set, or zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Wide {
    pub(super) negative: bool,
    pub(super) exponent: i32,
    pub(super) significand: u128,
}

/// Shifts right; bits that fall off set the last one.
pub(super) const fn shift_right_sticky(value: u128, by: u32) -> u128 {
    match by {
        0 => value,
        1..128 => value >> by | (value << (128 - by) != 0) as u128,
        _ => (value != 0) as u128,
    }
}

/// The 256-bit product: high half, low half.
const fn product(a: u128, b: u128) -> (u128, u128) {
    const LOW: u128 = u64::MAX as u128;
    let (a1, a0, b1, b0) = (a >> 64, a & LOW, b >> 64, b & LOW);
    let low = a0 * b0;
    let middle = a1 * b0 + (low >> 64);
    let other = a0 * b1 + (middle & LOW);
    (a1 * b1 + (middle >> 64) + (other >> 64), other << 64 | low & LOW)
}

impl Wide {
    pub(super) const ZERO: Self = Self { negative: false, exponent: 0, significand: 0 };
    pub(super) const ONE: Self = Self { negative: false, exponent: 0, significand: TOP };

    /// `significand * 2^(exponent - 127)`, whatever bits are set.
    pub(super) const fn new(negative: bool, exponent: i32, significand: u128) -> Self {
        if significand == 0 {
            return Self { negative, ..Self::ZERO };
        }
        let zeros = significand.leading_zeros();
        Self { negative, exponent: exponent - zeros as i32, significand: significand << zeros }
    }

    pub(super) const fn from_integer(value: i64) -> Self {
        Self::new(value < 0, 127, value.unsigned_abs() as u128)
    }

    /// A finite value.
    pub(super) const fn from_value(value: Value) -> Self {
        match value.class {
            Class::Denormal | Class::Normal => Self {
                negative: value.negative,
                exponent: value.exponent,
                significand: (value.significand as u128) << 64,
            },
            _ => Self { negative: value.negative, ..Self::ZERO },
        }
    }

    pub(super) const fn is_zero(&self) -> bool {
        self.significand == 0
    }

    pub(super) const fn negated(self) -> Self {
        Self { negative: !self.negative, ..self }
    }

    pub(super) const fn magnitude(self) -> Self {
        Self { negative: false, ..self }
    }

    /// Times a power of two.
    pub(super) const fn scaled(self, by: i32) -> Self {
        Self { exponent: self.exponent + by, ..self }
    }

    /// Compares magnitudes.
    pub(super) fn compare_magnitude(&self, other: &Self) -> Ordering {
        match (self.is_zero(), other.is_zero()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            _ => (self.exponent, self.significand).cmp(&(other.exponent, other.significand)),
        }
    }

    /// The sum; an exact zero is positive.
    pub(super) fn add(self, other: Self) -> Self {
        let (large, small) =
            if self.compare_magnitude(&other) == Ordering::Less { (other, self) } else { (self, other) };
        if small.is_zero() {
            return large;
        }
        // One bit of room for the carry.
        let distance = (large.exponent - small.exponent) as u32;
        let a = shift_right_sticky(large.significand, 1);
        let b = shift_right_sticky(small.significand, distance.saturating_add(1));
        let sum = if large.negative == small.negative { a + b } else { a - b };
        if sum == 0 {
            return Self::ZERO;
        }
        Self::new(large.negative, large.exponent + 1, sum)
    }

    pub(super) fn sub(self, other: Self) -> Self {
        self.add(other.negated())
    }

    pub(super) fn mul(self, other: Self) -> Self {
        let negative = self.negative != other.negative;
        if self.is_zero() || other.is_zero() {
            return Self { negative, ..Self::ZERO };
        }
        let (high, low) = product(self.significand, other.significand);
        let exponent = self.exponent + other.exponent;
        if high & TOP != 0 {
            return Self { negative, exponent: exponent + 1, significand: high | u128::from(low != 0) };
        }
        let significand = high << 1 | low >> 127 | u128::from(low << 1 != 0);
        Self { negative, exponent, significand }
    }

    /// The quotient; the divisor is not zero.
    pub(super) fn div(self, divisor: Self) -> Self {
        let negative = self.negative != divisor.negative;
        if self.is_zero() || divisor.is_zero() {
            return Self { negative, ..Self::ZERO };
        }
        let (mut rest, mut exponent) = (self.significand, self.exponent - divisor.exponent);
        // The first bit of the quotient is its integer bit.
        let (mut carry, mut quotient) = (0u128, 0u128);
        if rest < divisor.significand {
            exponent -= 1;
            carry = rest >> 127;
            rest <<= 1;
        }
        for _ in 0..128 {
            quotient <<= 1;
            if carry != 0 || rest >= divisor.significand {
                rest = rest.wrapping_sub(divisor.significand);
                quotient |= 1;
            }
            carry = rest >> 127;
            rest <<= 1;
        }
        Self { negative, exponent, significand: quotient | u128::from(carry != 0 || rest != 0) }
    }

    /// Divided by a small integer that is not zero.
    pub(super) const fn div_small(self, divisor: u32) -> Self {
        if self.significand == 0 || divisor == 0 {
            return self;
        }
        let divisor = divisor as u128;
        let quotient = self.significand / divisor;
        let rest = self.significand % divisor;
        let zeros = quotient.leading_zeros();
        let further = (rest << zeros) / divisor;
        Self {
            negative: self.negative,
            exponent: self.exponent - zeros as i32,
            significand: quotient << zeros | further,
        }
    }
}
