//! FPREM and FPREM1.

use super::arithmetic::operands;
use super::environment::Environment;
use super::format::Format;
use super::round::{Outcome, round};
use super::value::{Class, Value};
use super::wide::Wide;

/// How the quotient is rounded to an integer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Quotient {
    /// FPREM.
    Truncated,
    /// FPREM1, the remainder of IEEE 754.
    Nearest,
}

/// How far a reduction came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reduction {
    /// There is no quotient: the result is a NaN.
    None,
    /// There is more to do.
    Partial,
    /// The low three bits of the quotient.
    Complete(u8),
}

/// A remainder and how far it came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Remainder {
    pub(crate) outcome: Outcome,
    pub(crate) quotient: Reduction,
}

/// The exponent difference from which a reduction is partial.
const COMPLETE: i32 = 64;

/// `a` reduced by `b`, exactly. At most 63 bits of the quotient are done at once.
pub(crate) fn remainder(a: Value, b: Value, how: Quotient, env: &Environment) -> Remainder {
    let done = |outcome, quotient| Remainder { outcome, quotient: Reduction::Complete(quotient) };
    let none = |outcome| Remainder { outcome, quotient: Reduction::None };
    let ([a, b], raised) = match operands([a, b], env) {
        Ok(numbers) => numbers,
        Err(outcome) => return none(outcome),
    };
    if a.is_infinite() || b.is_zero() {
        return none(Outcome::invalid());
    }
    if a.is_zero() || b.is_infinite() {
        return done(whole(a, env, raised), 0);
    }
    let distance = a.exponent - b.exponent;
    if distance >= COMPLETE {
        // As Intel's processors do it: 32 to 63 bits, so that less than 64 remain after some rounds.
        let bits = (distance & 31 | 32) as u32;
        let rest = (u128::from(a.significand) << bits) % u128::from(b.significand);
        let exponent = a.exponent - bits as i32;
        return Remainder {
            outcome: finish(a.negative, exponent, rest, env, raised),
            quotient: Reduction::Partial,
        };
    }
    let divisor = u128::from(b.significand);
    if distance < -1 || distance == -1 && how == Quotient::Truncated {
        return done(whole(a, env, raised), 0);
    }
    // Both in units of the lower exponent's last bit.
    let (dividend, divisor, exponent) = if distance < 0 {
        (u128::from(a.significand), divisor << 1, a.exponent)
    } else {
        (u128::from(a.significand) << distance, divisor, b.exponent)
    };
    let (mut quotient, mut rest) = (dividend / divisor, dividend % divisor);
    let mut negative = a.negative;
    if how == Quotient::Nearest && (2 * rest > divisor || 2 * rest == divisor && quotient & 1 != 0) {
        rest = divisor - rest;
        quotient += 1;
        negative = !negative;
    }
    let outcome = if rest == 0 {
        Outcome::exact(Value::zero(a.negative), raised)
    } else {
        finish(negative, exponent, rest, env, raised)
    };
    done(outcome, (quotient & 7) as u8)
}

/// The dividend itself; a denormal one may underflow.
fn whole(a: Value, env: &Environment, raised: super::Exceptions) -> Outcome {
    round(Wide::from_value(a), Format::EXTENDED, env, raised)
}

fn finish(
    negative: bool,
    exponent: i32,
    rest: u128,
    env: &Environment,
    raised: super::Exceptions,
) -> Outcome {
    let rest = Value::finite(negative, exponent, rest as u64, Class::Normal);
    round(Wide::from_value(rest), Format::EXTENDED, env, raised)
}
