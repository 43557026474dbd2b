//! F2XM1.

use super::super::arithmetic::operands;
use super::super::constants::LN_2;
use super::super::environment::Environment;
use super::super::format::Format;
use super::super::round::{Outcome, round};
use super::super::value::{INTEGER_BIT, Value};
use super::super::wide::Wide;
use super::{inexact, series};

const MINUS_HALF: Value = Value::normal(true, -1, INTEGER_BIT);

/// `2^a - 1` for `a` between -1 and 1. Beyond, where the manual leaves the result undefined, it is the operand.
pub(crate) fn exp2_minus_one(a: Value, env: &Environment) -> Outcome {
    let ([a], raised) = match operands([a], env) {
        Ok(numbers) => numbers,
        Err(outcome) => return outcome,
    };
    if a.is_infinite() && a.negative {
        return Outcome::exact(Value::ONE.negated(), raised);
    }
    if a == Value::ONE.negated() {
        return Outcome::exact(MINUS_HALF, raised);
    }
    if !a.is_finite_nonzero() || a.exponent >= 0 {
        return Outcome::exact(a, raised);
    }
    let t = Wide::from_value(a).mul(LN_2);
    let result = series(t, |term, n| term.mul(t).div_small(n + 1));
    round(inexact(result), Format::EXTENDED, env, raised)
}
