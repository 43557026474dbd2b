//! FYL2X and FYL2XP1.

use super::super::arithmetic::operands;
use super::super::constants::{FIRST_LOGARITHM, LOG2_E, LOGARITHMS};
use super::super::environment::Environment;
use super::super::exceptions::Exceptions;
use super::super::format::Format;
use super::super::round::{Outcome, round};
use super::super::value::{Class, INTEGER_BIT, Value};
use super::super::wide::Wide;
use super::{inexact, series};

/// The logarithm to base 2 of a positive finite number.
fn logarithm(x: Wide) -> Wide {
    const SIXTEENTHS: i32 = 4;
    // Bring the number near 1: 11/16 <= m < 23/16.
    const BORDER: u128 = 23 << 123;
    let exponent = if x.significand >= BORDER { x.exponent + 1 } else { x.exponent };
    let m = x.scaled(-exponent);
    let shift = 127 - (m.exponent + SIXTEENTHS);
    let nearest = (m.significand >> (shift - 1)).div_ceil(2) as u32;
    let known = LOGARITHMS.get(nearest.wrapping_sub(FIRST_LOGARITHM) as usize).copied().unwrap_or(Wide::ZERO);
    let c = Wide::from_integer(i64::from(nearest)).scaled(-SIXTEENTHS);
    let near = of_ratio(m.sub(c), m.add(c));
    let integer = Wide::from_integer(i64::from(exponent));
    if m == Wide::ONE { integer } else { inexact(integer.add(known).add(near)) }
}

/// `log2((1 + f) / (1 - f))` for a small `f = difference / sum`.
fn of_ratio(difference: Wide, sum: Wide) -> Wide {
    if difference.is_zero() {
        return Wide::ZERO;
    }
    let f = difference.div(sum);
    let square = f.mul(f);
    let mut power = f;
    let half = series(f, |_, n| {
        power = power.mul(square);
        power.div_small(2 * n + 1)
    });
    inexact(half.scaled(1).mul(LOG2_E))
}

/// `y * log2(x)` (SDM vol. 2, FYL2X).
pub(crate) fn log2(y: Value, x: Value, env: &Environment) -> Outcome {
    let ([y, x], raised) = match operands([y, x], env) {
        Ok(numbers) => numbers,
        Err(outcome) => return outcome,
    };
    if x.is_zero() {
        let infinity = Value::infinity(!y.negative);
        return match y.class {
            Class::Zero => Outcome::invalid(),
            Class::Infinity => Outcome::exact(infinity, raised),
            _ => Outcome::exact(infinity, Exceptions::ZERO_DIVIDE),
        };
    }
    if x.negative {
        return Outcome::invalid();
    }
    let is_one = !x.is_infinite() && x.exponent == 0 && x.significand == INTEGER_BIT;
    if is_one {
        if y.is_infinite() {
            return Outcome::invalid();
        }
        return Outcome::exact(Value::zero(y.negative), raised);
    }
    let negative = !x.is_infinite() && x.exponent < 0;
    product(y, Factor { negative, infinite: x.is_infinite() }, || logarithm(Wide::from_value(x)), env, raised)
}

/// `y * log2(x + 1)` (SDM vol. 2, FYL2XP1).
///
/// The manual defines it near zero only; beyond, the logarithm is what it is, where there is one.
pub(crate) fn log2_plus_one(y: Value, x: Value, env: &Environment) -> Outcome {
    let ([y, x], raised) = match operands([y, x], env) {
        Ok(numbers) => numbers,
        Err(outcome) => return outcome,
    };
    if x.is_zero() {
        if y.is_infinite() {
            return Outcome::invalid();
        }
        return Outcome::exact(Value::zero(y.negative != x.negative), raised);
    }
    if x.negative && (x.is_infinite() || x.exponent >= 0) {
        return Outcome::invalid();
    }
    let of_sum = || {
        const DIRECT: i32 = -6;
        let x = Wide::from_value(x);
        if x.exponent <= DIRECT {
            // log2(1 + x) by f = x / (2 + x), without losing bits of x.
            return of_ratio(x, Wide::from_integer(2).add(x));
        }
        logarithm(Wide::ONE.add(x))
    };
    product(y, Factor { negative: x.negative, infinite: x.is_infinite() }, of_sum, env, raised)
}

/// What is known of a logarithm before it is computed; it is not zero.
struct Factor {
    negative: bool,
    infinite: bool,
}

fn product(
    y: Value,
    factor: Factor,
    logarithm: impl FnOnce() -> Wide,
    env: &Environment,
    raised: Exceptions,
) -> Outcome {
    let negative = y.negative != factor.negative;
    match y.class {
        Class::Zero if factor.infinite => Outcome::invalid(),
        Class::Zero => Outcome::exact(Value::zero(negative), raised),
        Class::Infinity => Outcome::exact(Value::infinity(negative), raised),
        _ if factor.infinite => Outcome::exact(Value::infinity(negative), raised),
        _ => round(Wide::from_value(y).mul(logarithm()), Format::EXTENDED, env, raised),
    }
}
