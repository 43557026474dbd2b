//! The one place where results are rounded.

use core::cmp::Ordering;

use super::environment::{Environment, Rounding, Tiny};
use super::exceptions::Exceptions;
use super::format::Format;
use super::value::{INTEGER_BIT, Value};
use super::wide::Wide;

/// What an operation gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Outcome {
    pub(crate) value: Value,
    pub(crate) raised: Exceptions,
    /// The magnitude was rounded up (C1 of the x87 status word).
    pub(crate) rounded_up: bool,
}

impl Outcome {
    /// A result that needs no rounding.
    pub(super) const fn exact(value: Value, raised: Exceptions) -> Self {
        Self { value, raised, rounded_up: false }
    }

    /// An invalid operation.
    pub(super) const fn invalid() -> Self {
        Self::exact(Value::INDEFINITE, Exceptions::INVALID)
    }
}

/// An integer cut from a longer one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cut {
    pub(super) kept: u128,
    pub(super) inexact: bool,
    pub(super) up: bool,
}

/// `significand / 2^by`, rounded to an integer.
pub(super) const fn cut(significand: u128, by: u32, rounding: Rounding, negative: bool) -> Cut {
    let (kept, half) = match by {
        0 => return Cut { kept: significand, inexact: false, up: false },
        1..128 => {
            let rest = significand << (128 - by);
            let half = if rest > 1 << 127 {
                Ordering::Greater
            } else if rest == 1 << 127 {
                Ordering::Equal
            } else {
                Ordering::Less
            };
            if rest == 0 {
                return Cut { kept: significand >> by, inexact: false, up: false };
            }
            (significand >> by, half)
        }
        128 if significand > 1 << 127 => (0, Ordering::Greater),
        128 if significand == 1 << 127 => (0, Ordering::Equal),
        _ if significand == 0 => return Cut { kept: 0, inexact: false, up: false },
        _ => (0, Ordering::Less),
    };
    let up = rounding.away(negative, half, kept & 1 != 0);
    Cut { kept: kept + up as u128, inexact: true, up }
}

/// Rounds a number that is not zero to a format and adds what that raises to `raised`.
///
/// Tininess is detected after rounding. An exception of [`Exceptions::BEFORE`] that is not masked leaves no result.
pub(super) fn round(wide: Wide, format: Format, env: &Environment, raised: Exceptions) -> Outcome {
    if env.stops(raised) {
        return Outcome::exact(Value::INDEFINITE, raised);
    }
    let Wide { negative, exponent, significand } = wide;
    if wide.is_zero() {
        return Outcome::exact(Value::zero(negative), raised);
    }
    let unused = 64 - format.precision;
    let rounded = cut(significand, 64 + unused, env.rounding, negative);
    let (kept, exponent_after) = carry(rounded.kept << unused, exponent);
    let inexact = Exceptions::PRECISION.when(rounded.inexact);
    if exponent_after > format.max_exponent {
        return overflow(negative, exponent_after, kept, rounded, format, env, raised);
    }
    if exponent_after >= format.min_exponent {
        let value = Value::normal(negative, exponent_after, kept);
        return Outcome { value, raised: raised | inexact, rounded_up: rounded.up };
    }
    if !env.masked.intersects(Exceptions::UNDERFLOW) {
        let wrapped = exponent_after + format.wrap;
        let value = if wrapped < format.min_exponent {
            Value::zero(negative)
        } else {
            Value::normal(negative, wrapped, kept)
        };
        return Outcome { value, raised: raised | Exceptions::UNDERFLOW | inexact, rounded_up: rounded.up };
    }
    let tiny = Exceptions::UNDERFLOW | Exceptions::PRECISION;
    if env.tiny == Tiny::Zero {
        return Outcome::exact(Value::zero(negative), raised | tiny);
    }
    let below = (format.min_exponent - exponent) as u32;
    let denormal = cut(significand, (64 + unused).saturating_add(below), env.rounding, negative);
    let value = Value::finite(
        negative,
        format.min_exponent,
        (denormal.kept as u64) << unused,
        super::value::Class::Denormal,
    );
    Outcome { value, raised: raised | tiny.when(denormal.inexact), rounded_up: denormal.up }
}

/// Brings a significand that rounding may have carried to 65 bits back.
const fn carry(kept: u128, exponent: i32) -> (u64, i32) {
    if kept >> 64 != 0 { (INTEGER_BIT, exponent + 1) } else { (kept as u64, exponent) }
}

fn overflow(
    negative: bool,
    exponent: i32,
    kept: u64,
    rounded: Cut,
    format: Format,
    env: &Environment,
    raised: Exceptions,
) -> Outcome {
    let raised = raised | Exceptions::OVERFLOW;
    if !env.masked.intersects(Exceptions::OVERFLOW) {
        let wrapped = exponent - format.wrap;
        let value = if wrapped > format.max_exponent {
            Value::infinity(negative)
        } else {
            Value::normal(negative, wrapped, kept)
        };
        let raised = raised | Exceptions::PRECISION.when(rounded.inexact);
        return Outcome { value, raised, rounded_up: rounded.up };
    }
    let to_infinity = env.rounding.overflows_to_infinity(negative);
    let value = if to_infinity {
        Value::infinity(negative)
    } else {
        Value::normal(negative, format.max_exponent, u64::MAX << (64 - format.precision))
    };
    Outcome { value, raised: raised | Exceptions::PRECISION, rounded_up: to_infinity }
}
