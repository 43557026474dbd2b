//! RCPSS, RSQRTSS and their packed forms.
//!
//! The manual promises a relative error of at most 1.5 * 2^-12 and leaves the rest to the processor (SDM vol. 2,
//! RCPPS). The rule here: the true value rounded to the nearest number with 12 significant bits, an error of at
//! most 2^-12. Nothing depends on MXCSR and nothing is raised; denormal operands count as zeros, and tiny
//! results are zeros.

use super::environment::{Denormals, Environment, NanRule, Rounding, Tiny};
use super::exceptions::Exceptions;
use super::format::Format;
use super::value::Value;
use super::{div, sqrt};

const ESTIMATE: Format = Format { precision: 12, ..Format::SINGLE };
const FIXED: Environment = Environment {
    rounding: Rounding::Nearest,
    masked: Exceptions::ALL,
    tiny: Tiny::Zero,
    denormals: Denormals::Zero,
    nans: NanRule::First,
};

/// About `1 / a`.
pub(crate) fn reciprocal(a: Value) -> Value {
    div(Value::ONE, a, ESTIMATE, &FIXED).value
}

/// About `1 / sqrt(a)`.
pub(crate) fn reciprocal_square_root(a: Value) -> Value {
    let root = sqrt(a, Format::EXTENDED, &FIXED).value;
    div(Value::ONE, root, ESTIMATE, &FIXED).value
}
