//! F2XM1, FYL2X, FYL2XP1, FSIN, FCOS, FPTAN and FPATAN.
//!
//! Series on [`Wide`] numbers with a relative error below 2^-115, rounded once to 64 bits as the rounding control says:
//! the results are within half a unit of the last place and a trifle, and monotone. Special operands are
//! exact (SDM vol. 2). FSIN, FCOS and FPTAN reduce their operand by the 66-bit approximation of pi that Intel's
//! processors have (SDM vol. 1, 8.3.8).

mod angle;
mod arctangent;
mod exponential;
mod logarithm;

use super::wide::Wide;

pub(crate) use angle::{cosine, sine, tangent};
pub(crate) use arctangent::arctangent;
pub(crate) use exponential::exp2_minus_one;
pub(crate) use logarithm::{log2, log2_plus_one};

/// Terms this much smaller than the sum do not change it.
const NEGLIGIBLE: i32 = 125;

/// The sum of a series whose first term is `first`; `next` makes the n-th term (from 1) of the one before.
fn series(first: Wide, mut next: impl FnMut(Wide, u32) -> Wide) -> Wide {
    let (mut sum, mut term) = (first, first);
    for n in 1..=NEGLIGIBLE as u32 {
        term = next(term, n);
        if term.is_zero() || term.exponent < sum.exponent - NEGLIGIBLE {
            // What is left still tells that the sum is not exact.
            return sum.add(term);
        }
        sum = sum.add(term);
    }
    sum
}

/// A result that is known not to be exact, whatever the last bits of its approximation are.
fn inexact(wide: Wide) -> Wide {
    Wide { significand: wide.significand | 1, ..wide }
}
