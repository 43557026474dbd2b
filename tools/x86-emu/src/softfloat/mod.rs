//! Floating point in software: half, single, double and 80-bit extended format, with every rounding mode and every
//! exception of x86. Pure functions; no CPU.
//!
//! # Shape
//! - A [`Value`] is an operand taken apart, whatever its format was: sign, class, exponent and a 64-bit
//!   significand. A [`Format`] is where a result has to fit: precision and exponent range. So one addition
//!   serves `ADDSS`, `ADDSD` and `FADD` at each precision.
//! - An operation makes an exact result, or one with 128 significant bits of which the last is sticky
//!   ([`wide::Wide`]), and rounds it once ([`round`]).
//! - An [`Outcome`] has the value, the exceptions it raises, and whether it was rounded away from zero. With
//!   an unmasked exception of [`Exceptions::BEFORE`] there is no result; with unmasked overflow or underflow
//!   the result has its exponent wrapped as x87 registers get it (SDM vol. 1, 4.9.1 and 8.5).
//! - [`Environment`] is the control register's part: rounding, masks, what becomes of denormals and NaNs.

mod arithmetic;
mod compare;
mod constants;
mod convert;
mod environment;
mod estimate;
mod exceptions;
mod format;
mod remainder;
mod round;
mod scale;
mod transcendental;
mod value;
mod wide;

#[cfg(test)]
mod tests;

pub(crate) use arithmetic::{add, div, fused_multiply_add, mul, sqrt, sub};
pub(crate) use compare::{NanCompare, Relation, compare, maximum, minimum};
pub(crate) use constants::Constant;
pub(crate) use convert::{
    Integer, PACKED_INDEFINITE, convert, from_integer, from_packed_decimal, round_to_integral, to_integer,
    to_packed_decimal,
};
pub(crate) use environment::{Environment, Rounding, Tiny};
pub(crate) use estimate::{reciprocal, reciprocal_square_root};
pub(crate) use exceptions::Exceptions;
pub(crate) use format::{Extended, Format};
pub(crate) use remainder::{Quotient, Reduction, remainder};
pub(crate) use round::Outcome;
pub(crate) use scale::{extract, scale};
pub(crate) use transcendental::{arctangent, cosine, exp2_minus_one, log2, log2_plus_one, sine, tangent};
pub(crate) use value::{Class, Value};
