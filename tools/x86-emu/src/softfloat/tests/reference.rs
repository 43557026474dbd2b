//! Exact numbers, and rounding by the words of IEEE 754: divide by the unit of the last place, look at the rest.

use num_bigint::{BigInt, BigUint, Sign};

use crate::softfloat::environment::Tiny;
use crate::softfloat::{Environment, Exceptions, Format, Rounding, Value};

/// `numerator / denominator * 2^exponent`.
#[derive(Clone, Debug)]
pub(super) struct Exact {
    pub(super) numerator: BigInt,
    pub(super) denominator: BigUint,
    pub(super) exponent: i64,
}

pub(super) fn one() -> BigUint {
    BigUint::from(1u32)
}

impl Exact {
    pub(super) fn integer(value: i64) -> Self {
        Self { numerator: value.into(), denominator: one(), exponent: 0 }
    }

    pub(super) fn of(value: &Value) -> Self {
        let magnitude = if value.is_zero() { 0u64 } else { value.significand };
        let sign = if value.negative { Sign::Minus } else { Sign::Plus };
        Self {
            numerator: BigInt::from_biguint(sign, magnitude.into()),
            denominator: one(),
            exponent: i64::from(value.exponent) - 63,
        }
    }

    pub(super) fn is_zero(&self) -> bool {
        self.numerator.sign() == Sign::NoSign
    }

    pub(super) fn is_negative(&self) -> bool {
        self.numerator.sign() == Sign::Minus
    }

    /// The numerators of both numbers with the lower of their exponents, and that exponent.
    fn aligned(&self, other: &Self) -> (BigInt, BigInt, i64) {
        let low = self.exponent.min(other.exponent);
        let a = &self.numerator << (self.exponent - low) as u64;
        let b = &other.numerator << (other.exponent - low) as u64;
        (a, b, low)
    }

    pub(super) fn add(&self, other: &Self) -> Self {
        assert!(self.denominator == one() && other.denominator == one());
        let (a, b, exponent) = self.aligned(other);
        Self { numerator: a + b, denominator: one(), exponent }
    }

    pub(super) fn mul(&self, other: &Self) -> Self {
        Self {
            numerator: &self.numerator * &other.numerator,
            denominator: &self.denominator * &other.denominator,
            exponent: self.exponent + other.exponent,
        }
    }

    pub(super) fn div(&self, other: &Self) -> Self {
        let sign = if other.is_negative() { -1 } else { 1 };
        Self {
            numerator: &self.numerator * BigInt::from_biguint(Sign::Plus, other.denominator.clone()) * sign,
            denominator: &self.denominator * other.numerator.magnitude(),
            exponent: self.exponent - other.exponent,
        }
    }

    /// The root to 200 bits; a last bit stands for what is cut off.
    pub(super) fn sqrt(&self) -> Self {
        assert!(self.denominator == one());
        let even = self.exponent & !1;
        let radicand = (self.numerator.magnitude() << (self.exponent - even) as u64) << 400u32;
        let root = radicand.sqrt();
        let sticky = u32::from(&root * &root != radicand);
        Self {
            numerator: BigInt::from_biguint(Sign::Plus, (root << 1u32) + sticky),
            denominator: one(),
            exponent: even / 2 - 201,
        }
    }

    /// The quotient cut to an integer, and what remains.
    pub(super) fn divide_with_rest(&self, other: &Self) -> (BigInt, Self) {
        let (a, b, exponent) = self.aligned(other);
        (&a / &b, Self { numerator: &a % &b, denominator: one(), exponent })
    }

    /// The magnitude divided by `2^unit`: the integer below it, and the remainder compared with one half.
    fn split(&self, unit: i64) -> (BigUint, std::cmp::Ordering, bool) {
        let shift = self.exponent - unit;
        let numerator = self.numerator.magnitude() << shift.max(0) as u64;
        let denominator = &self.denominator << (-shift).max(0) as u64;
        let whole = &numerator / &denominator;
        let rest = numerator - &whole * &denominator;
        let exact = rest == BigUint::ZERO;
        (whole, (rest << 1u32).cmp(&denominator), exact)
    }

    /// The exponent of the highest bit of the magnitude.
    pub(super) fn magnitude_exponent(&self) -> i64 {
        let guess = self.numerator.magnitude().bits() as i64 - self.denominator.bits() as i64 + self.exponent;
        if self.split(guess).0 == BigUint::ZERO { guess - 1 } else { guess }
    }

    /// The magnitude as a multiple of `2^unit`, rounded; whether that is inexact and whether it is larger.
    pub(super) fn rounded_to(&self, unit: i64, rounding: Rounding) -> (BigUint, bool, bool) {
        use std::cmp::Ordering::{Equal, Greater};
        let (whole, half, exact) = self.split(unit);
        let odd = whole.bit(0);
        let up = !exact
            && match rounding {
                Rounding::Nearest => half == Greater || half == Equal && odd,
                Rounding::Down => self.is_negative(),
                Rounding::Up => !self.is_negative(),
                Rounding::Truncate => false,
            };
        (if up { whole + 1u32 } else { whole }, !exact, up)
    }

    /// Value, exceptions and direction that the SDM wants (vol. 1, 4.9.1), where the value is not zero.
    pub(super) fn expected(&self, format: Format, env: &Environment) -> (Value, Exceptions, bool) {
        use Exceptions as E;
        let precision = i64::from(format.precision);
        let (min, max) = (i64::from(format.min_exponent), i64::from(format.max_exponent));
        let negative = self.is_negative();
        let as_value = |significand: &BigUint, unit: i64, wrap: i64| {
            let bits = significand.bits() as i64;
            if bits == 0 {
                return Value::zero(negative);
            }
            // A carry into bit 64 leaves zeros below.
            let aligned = if bits > 64 { significand >> 1u32 } else { significand << (64 - bits) as u64 };
            let digits = aligned.to_u64_digits();
            let exponent = unit + bits - 1 + wrap;
            let class = if exponent < min { Class::Denormal } else { Class::Normal };
            Value { class, ..Value::normal(negative, exponent as i32, digits[0]) }
        };
        use crate::softfloat::Class;
        let unit = self.magnitude_exponent() - precision + 1;
        let (unbounded, inexact, up) = self.rounded_to(unit, env.rounding);
        let exponent = unit + unbounded.bits() as i64 - 1;
        let precision_lost = E::PRECISION.when(inexact);
        let wrap = i64::from(format.wrap);
        if exponent > max {
            if !env.masked.intersects(E::OVERFLOW) {
                let value = if exponent - wrap > max {
                    Value::infinity(negative)
                } else {
                    as_value(&unbounded, unit, -wrap)
                };
                return (value, E::OVERFLOW | precision_lost, up);
            }
            let away = match env.rounding {
                Rounding::Nearest => true,
                Rounding::Down => negative,
                Rounding::Up => !negative,
                Rounding::Truncate => false,
            };
            let largest = (one() << precision as u64) - 1u32;
            let value =
                if away { Value::infinity(negative) } else { as_value(&largest, max - precision + 1, 0) };
            return (value, E::OVERFLOW | E::PRECISION, away);
        }
        if exponent >= min {
            return (as_value(&unbounded, unit, 0), precision_lost, up);
        }
        if !env.masked.intersects(E::UNDERFLOW) {
            let value =
                if exponent + wrap < min { Value::zero(negative) } else { as_value(&unbounded, unit, wrap) };
            return (value, E::UNDERFLOW | precision_lost, up);
        }
        if env.tiny == Tiny::Zero {
            return (Value::zero(negative), E::UNDERFLOW | E::PRECISION, false);
        }
        let unit = min - precision + 1;
        let (rounded, inexact, up) = self.rounded_to(unit, env.rounding);
        let raised = (E::UNDERFLOW | E::PRECISION).when(inexact);
        (as_value(&rounded, unit, 0), raised, up)
    }
}

/// Whether two values have the same encoding; the class of a number does not matter.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    let zero = a.is_zero() == b.is_zero();
    let number = !a.is_finite_nonzero() || a.exponent == b.exponent && a.significand == b.significand;
    a.negative == b.negative && zero && a.is_finite_nonzero() == b.is_finite_nonzero() && number
}
