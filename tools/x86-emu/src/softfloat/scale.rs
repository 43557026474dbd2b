//! FSCALE and FXTRACT.

use super::arithmetic::operands;
use super::convert::{Integer, from_integer, to_integer};
use super::environment::{Environment, Rounding};
use super::exceptions::Exceptions;
use super::format::Format;
use super::round::{Outcome, round};
use super::value::{Class, Value};
use super::wide::Wide;

/// Exponents beyond this overflow or underflow whatever they are added to.
const ENOUGH: i64 = 1 << 17;

/// `a * 2^trunc(b)` (SDM vol. 2, FSCALE).
pub(crate) fn scale(a: Value, b: Value, env: &Environment) -> Outcome {
    let ([a, b], raised) = match operands([a, b], env) {
        Ok(numbers) => numbers,
        Err(outcome) => return outcome,
    };
    if b.is_infinite() {
        return match (a.class, b.negative) {
            (Class::Infinity, true) | (Class::Zero, false) => Outcome::invalid(),
            (_, true) => Outcome::exact(Value::zero(a.negative), raised),
            (_, false) => Outcome::exact(Value::infinity(a.negative), raised),
        };
    }
    if !a.is_finite_nonzero() {
        return Outcome::exact(a, raised);
    }
    let exact = Environment { rounding: Rounding::Truncate, ..*env };
    let by = to_integer(b, Integer::Bits64, Rounding::Truncate, &exact);
    let by = if by.raised.intersects(Exceptions::INVALID) {
        if b.negative { -ENOUGH } else { ENOUGH }
    } else {
        by.value.clamp(-ENOUGH, ENOUGH)
    };
    let outcome = round(Wide::from_value(a).scaled(by as i32), Format::EXTENDED, env, raised);
    // An exponent that not even wrapping brings into the range.
    let inexact = Exceptions::PRECISION.when(outcome.value.is_infinite() || outcome.value.is_zero());
    Outcome {
        raised: outcome.raised | inexact,
        rounded_up: outcome.rounded_up || outcome.value.is_infinite(),
        ..outcome
    }
}

/// The exponent and the significand as numbers (SDM vol. 2, FXTRACT): what replaces ST(0), and what is pushed.
pub(crate) fn extract(a: Value, env: &Environment) -> (Outcome, Outcome) {
    let ([a], raised) = match operands([a], env) {
        Ok(numbers) => numbers,
        Err(outcome) => return (outcome, outcome),
    };
    let both = |exponent, significand, raised| {
        (Outcome::exact(exponent, raised), Outcome::exact(significand, raised))
    };
    match a.class {
        Class::Zero => both(Value::infinity(true), a, Exceptions::ZERO_DIVIDE),
        Class::Infinity => both(Value::infinity(false), a, raised),
        _ => {
            let exponent = from_integer(i64::from(a.exponent), Format::EXTENDED, env).value;
            both(exponent, Value::normal(a.negative, 0, a.significand), raised)
        }
    }
}
