//! Comparison, minimum and maximum.

use core::cmp::Ordering;

use super::arithmetic::without_denormal;
use super::environment::Environment;
use super::exceptions::Exceptions;
use super::round::Outcome;
use super::value::{Class, Value};

/// How two operands are related.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Relation {
    Less,
    Equal,
    Greater,
    /// One of the operands is no number.
    Unordered,
}

/// Which NaNs make a comparison invalid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NanCompare {
    /// Signalling ones (UCOMISS, FUCOM).
    Quiet,
    /// All (COMISS, FCOM).
    Signalling,
}

/// Compares; denormal operands raise #D.
pub(crate) fn compare(a: Value, b: Value, nans: NanCompare, env: &Environment) -> (Relation, Exceptions) {
    let has = |class| a.class == class || b.class == class;
    if a.is_nan() || b.is_nan() || has(Class::Unsupported) {
        let invalid = has(Class::SignallingNan) || has(Class::Unsupported) || nans == NanCompare::Signalling;
        return (Relation::Unordered, Exceptions::INVALID.when(invalid));
    }
    let (a, b) = (without_denormal(a, env), without_denormal(b, env));
    let raised = Exceptions::DENORMAL.when(a.is_denormal() || b.is_denormal());
    let relation = match order(&a, &b) {
        Ordering::Less => Relation::Less,
        Ordering::Equal => Relation::Equal,
        Ordering::Greater => Relation::Greater,
    };
    (relation, raised)
}

/// The order of two numbers; zeros are equal.
fn order(a: &Value, b: &Value) -> Ordering {
    if a.is_zero() && b.is_zero() {
        return Ordering::Equal;
    }
    let signed = |negative: bool, order: Ordering| if negative { order.reverse() } else { order };
    match (a.is_zero(), b.is_zero()) {
        (true, _) => return signed(b.negative, Ordering::Less),
        (_, true) => return signed(a.negative, Ordering::Greater),
        _ => {}
    }
    if a.negative != b.negative {
        return signed(a.negative, Ordering::Greater);
    }
    let magnitude = (a.is_infinite().cmp(&b.is_infinite()))
        .then_with(|| if a.is_infinite() { Ordering::Equal } else { a.exponent.cmp(&b.exponent) })
        .then_with(|| a.significand.cmp(&b.significand));
    signed(a.negative, magnitude)
}

/// MINSS and its kin: the second operand unless the first is less; every NaN is invalid.
pub(crate) fn minimum(a: Value, b: Value, env: &Environment) -> Outcome {
    choose(a, b, Relation::Less, env)
}

/// MAXSS and its kin: the second operand unless the first is greater; every NaN is invalid.
pub(crate) fn maximum(a: Value, b: Value, env: &Environment) -> Outcome {
    choose(a, b, Relation::Greater, env)
}

fn choose(a: Value, b: Value, wanted: Relation, env: &Environment) -> Outcome {
    let (relation, raised) = compare(a, b, NanCompare::Signalling, env);
    let chosen = if relation == wanted { a } else { b };
    Outcome::exact(without_denormal(chosen, env), raised)
}
