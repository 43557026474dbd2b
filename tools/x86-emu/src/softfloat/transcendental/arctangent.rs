//! FPATAN.

use core::cmp::Ordering;

use super::super::arithmetic::operands;
use super::super::constants::{ARCTANGENTS, PI};
use super::super::environment::Environment;
use super::super::format::Format;
use super::super::round::{Outcome, round};
use super::super::value::{Class, Value};
use super::super::wide::Wide;
use super::{inexact, series};

/// The angle of the point (`x`, `y`), between -pi and pi.
pub(crate) fn arctangent(y: Value, x: Value, env: &Environment) -> Outcome {
    let ([y, x], raised) = match operands([y, x], env) {
        Ok(numbers) => numbers,
        Err(outcome) => return outcome,
    };
    let angle = match (y.class, x.class) {
        (Class::Infinity, Class::Infinity) if x.negative => PI.scaled(-2).mul(Wide::from_integer(3)),
        (Class::Infinity, Class::Infinity) => PI.scaled(-2),
        (Class::Infinity, _) => PI.scaled(-1),
        (Class::Zero, _) | (_, Class::Infinity) if x.negative => PI,
        (Class::Zero, _) | (_, Class::Infinity) => return Outcome::exact(Value::zero(y.negative), raised),
        (_, Class::Zero) => PI.scaled(-1),
        _ => of_finite(Wide::from_value(y), Wide::from_value(x)),
    };
    round(inexact(Wide { negative: y.negative, ..angle }), Format::EXTENDED, env, raised)
}

/// The angle without the sign of `y`; neither is zero.
fn of_finite(y: Wide, x: Wide) -> Wide {
    let (height, width) = (y.magnitude(), x.magnitude());
    let acute = if height.compare_magnitude(&width) == Ordering::Greater {
        PI.scaled(-1).sub(of_ratio(width.div(height)))
    } else {
        of_ratio(height.div(width))
    };
    if x.negative { PI.sub(acute) } else { acute }
}

/// The arctangent of a number between 0 and 1.
fn of_ratio(t: Wide) -> Wide {
    const SIXTEENTHS: i32 = 4;
    // The nearest multiple of 1/16.
    let shift = 127 - (t.exponent + SIXTEENTHS);
    let nearest = if shift > 128 { 0 } else { (t.significand >> (shift - 1)).div_ceil(2) as i64 };
    let known = nearest.checked_sub(1).and_then(|n| ARCTANGENTS.get(usize::try_from(n).ok()?));
    let Some(known) = known else { return small(t) };
    let c = Wide::from_integer(nearest).scaled(-SIXTEENTHS);
    let rest = t.sub(c).div(Wide::ONE.add(t.mul(c)));
    known.add(small(rest))
}

/// The series, for at most 1/32.
fn small(t: Wide) -> Wide {
    let square = t.mul(t).negated();
    let mut power = t;
    series(t, |_, n| {
        power = power.mul(square);
        power.div_small(2 * n + 1)
    })
}
