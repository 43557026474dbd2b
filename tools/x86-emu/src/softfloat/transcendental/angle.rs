//! Sine, cosine and tangent.

use super::super::arithmetic::operands;
use super::super::environment::Environment;
use super::super::format::Format;
use super::super::round::{Outcome, round};
use super::super::value::Value;
use super::super::wide::Wide;
use super::{inexact, series};

/// The 66-bit pi, in units of 2^-64; half of it, in units of 2^-65.
const PI_66: u128 = 0x3_243F_6A88_85A3_08D3;
const HALF_PI_UNIT: i32 = 65;
/// Operands from 2^63 are not reduced.
const RANGE: i32 = 63;

/// A magnitude reduced to at most pi/4.
struct Reduced {
    /// The multiple of pi/2 that was taken off, modulo 4.
    quadrant: u8,
    rest: Wide,
}

/// Reduces a finite magnitude below 2^63.
fn reduce(magnitude: Wide) -> Reduced {
    // Below 1/2 there is nothing to reduce.
    if magnitude.is_zero() || magnitude.exponent < -1 {
        return Reduced { quadrant: 0, rest: magnitude };
    }
    // Operands have 64 bits: whole units.
    let units = (magnitude.significand >> 64) << (magnitude.exponent + HALF_PI_UNIT - 63);
    let (mut quotient, mut rest) = (units / PI_66, units % PI_66);
    let negative = 2 * rest > PI_66;
    if negative {
        rest = PI_66 - rest;
        quotient += 1;
    }
    Reduced { quadrant: (quotient & 3) as u8, rest: Wide::new(negative, 127 - HALF_PI_UNIT, rest) }
}

/// Sine of at most pi/4.
fn sine_series(r: Wide) -> Wide {
    let square = r.mul(r).negated();
    series(r, |term, n| term.mul(square).div_small(2 * n * (2 * n + 1)))
}

/// Cosine of at most pi/4.
fn cosine_series(r: Wide) -> Wide {
    let square = r.mul(r).negated();
    series(Wide::ONE, |term, n| term.mul(square).div_small(2 * n * (2 * n - 1)))
}

fn sine_of(reduced: &Reduced, quarters: u8) -> Wide {
    let r = reduced.rest;
    match (reduced.quadrant + quarters) & 3 {
        0 => sine_series(r),
        1 => cosine_series(r),
        2 => sine_series(r).negated(),
        _ => cosine_series(r).negated(),
    }
}

/// What a function of an angle gives: `None` if the operand is out of range (C2 is set, nothing changes).
fn of_angle(
    a: Value,
    env: &Environment,
    at_zero: impl FnOnce(Value) -> Value,
    function: impl FnOnce(&Reduced, bool) -> Wide,
) -> Option<Outcome> {
    let ([a], raised) = match operands([a], env) {
        Ok(numbers) => numbers,
        Err(outcome) => return Some(outcome),
    };
    if a.is_infinite() {
        return Some(Outcome::invalid());
    }
    if a.is_zero() {
        return Some(Outcome::exact(at_zero(a), raised));
    }
    if a.exponent >= RANGE {
        return None;
    }
    let result = function(&reduce(Wide::from_value(a.magnitude())), a.negative);
    Some(round(inexact(result), Format::EXTENDED, env, raised))
}

fn with_sign(wide: Wide, negate: bool) -> Wide {
    if negate { wide.negated() } else { wide }
}

/// FSIN; `None` out of range.
pub(crate) fn sine(a: Value, env: &Environment) -> Option<Outcome> {
    of_angle(a, env, |zero| zero, |reduced, negative| with_sign(sine_of(reduced, 0), negative))
}

/// FCOS; `None` out of range.
pub(crate) fn cosine(a: Value, env: &Environment) -> Option<Outcome> {
    of_angle(a, env, |_| Value::ONE, |reduced, _| sine_of(reduced, 1))
}

/// FPTAN; `None` out of range.
pub(crate) fn tangent(a: Value, env: &Environment) -> Option<Outcome> {
    of_angle(
        a,
        env,
        |zero| zero,
        |reduced, negative| with_sign(sine_of(reduced, 0).div(sine_of(reduced, 1)), negative),
    )
}
