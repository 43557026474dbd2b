//! Conversions between formats, integers and packed decimals, and rounding to an integral value.

use super::arithmetic::{operands, without_denormal};
use super::environment::{Environment, Rounding};
use super::exceptions::Exceptions;
use super::format::Format;
use super::round::{Cut, Outcome, cut, round};
use super::value::{Class, Value};
use super::wide::Wide;

/// To another format. Denormal operands raise #D: CVTSS2SD, CVTSD2SS, FLD.
pub(crate) fn convert(value: Value, format: Format, env: &Environment) -> Outcome {
    let ([value], raised) = match operands([value], env) {
        Ok(numbers) => numbers,
        Err(outcome) => return outcome,
    };
    if !value.is_finite_nonzero() {
        return Outcome::exact(value, raised);
    }
    round(Wide::from_value(value), format, env, raised)
}

/// An integer in floating point.
pub(crate) fn from_integer(value: i64, format: Format, env: &Environment) -> Outcome {
    round(Wide::from_integer(value), format, env, Exceptions::NONE)
}

/// The size of a signed integer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Integer {
    Bits16,
    Bits32,
    Bits64,
}

impl Integer {
    const fn bits(self) -> u32 {
        match self {
            Self::Bits16 => 16,
            Self::Bits32 => 32,
            Self::Bits64 => 64,
        }
    }

    /// "Integer indefinite", the result of an invalid conversion: the most negative value.
    pub(crate) const fn indefinite(self) -> i64 {
        i64::MIN >> (64 - self.bits())
    }
}

/// A conversion to an integer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ToInteger {
    pub(crate) value: i64,
    pub(crate) raised: Exceptions,
    pub(crate) rounded_up: bool,
}

/// Cuts the fraction off a finite magnitude below 2^65.
fn integer_part(value: Value, rounding: Rounding) -> Cut {
    let significand = u128::from(value.significand);
    match value.exponent {
        63.. => Cut { kept: significand << (value.exponent - 63).min(64), inexact: false, up: false },
        exponent => cut(significand, (63 - exponent) as u32, rounding, value.negative),
    }
}

/// To a signed integer; what does not fit is invalid. Denormal operands do not raise #D.
pub(crate) fn to_integer(value: Value, size: Integer, rounding: Rounding, env: &Environment) -> ToInteger {
    let invalid = ToInteger { value: size.indefinite(), raised: Exceptions::INVALID, rounded_up: false };
    let value = without_denormal(value, env);
    if value.is_zero() {
        return ToInteger { value: 0, raised: Exceptions::NONE, rounded_up: false };
    }
    if !value.is_finite_nonzero() || value.exponent > 64 {
        return invalid;
    }
    let Cut { kept, inexact, up } = integer_part(value, rounding);
    let limit = 1u128 << (size.bits() - 1);
    if kept > limit || kept == limit && !value.negative {
        return invalid;
    }
    let magnitude = kept as i64;
    ToInteger {
        value: if value.negative { magnitude.wrapping_neg() } else { magnitude },
        raised: Exceptions::PRECISION.when(inexact),
        rounded_up: up,
    }
}

/// To an integral value of the same format: FRNDINT and the ROUND instructions, of which only the first reports a
/// denormal operand.
pub(crate) fn round_to_integral(value: Value, rounding: Rounding, env: &Environment) -> Outcome {
    let ([value], raised) = match operands([value], env) {
        Ok(numbers) => numbers,
        Err(outcome) => return outcome,
    };
    if !value.is_finite_nonzero() || value.exponent >= 63 || env.stops(raised) {
        return Outcome::exact(value, raised);
    }
    let Cut { kept, inexact, up } = integer_part(value, rounding);
    Outcome {
        value: Value::finite(value.negative, 63, kept as u64, Class::Normal),
        raised: raised | Exceptions::PRECISION.when(inexact),
        rounded_up: up,
    }
}

/// Decimal digits of a packed decimal.
const DIGITS: u32 = 18;
/// What FBSTP stores for an invalid operand.
pub(crate) const PACKED_INDEFINITE: u128 = 0xFFFF_C000_0000_0000_0000;
const PACKED_SIGN: u128 = 1 << 79;

/// The 80 bits that FBSTP stores.
pub(crate) fn to_packed_decimal(value: Value, env: &Environment) -> (u128, Exceptions, bool) {
    let sign = if value.negative { PACKED_SIGN } else { 0 };
    if value.is_zero() {
        return (sign, Exceptions::NONE, false);
    }
    let integer = to_integer(value, Integer::Bits64, env.rounding, env);
    let mut rest = integer.value.unsigned_abs();
    if integer.raised.intersects(Exceptions::INVALID) || rest >= 10u64.pow(DIGITS) {
        return (PACKED_INDEFINITE, Exceptions::INVALID, false);
    }
    let mut packed = 0u128;
    for digit in 0..DIGITS {
        packed |= u128::from(rest % 10) << (4 * digit);
        rest /= 10;
    }
    (packed | sign, integer.raised, integer.rounded_up)
}

/// What FBLD loads. Digits above nine count as their value; the result of such is undefined.
pub(crate) fn from_packed_decimal(packed: u128) -> Value {
    let magnitude = (0..DIGITS)
        .rev()
        .fold(0u64, |all, digit| all.wrapping_mul(10).wrapping_add((packed >> (4 * digit)) as u64 & 0xF));
    Value::finite(packed & PACKED_SIGN != 0, 63, magnitude, Class::Normal)
}
