//! IEEE 754 arithmetic as x86 does it: values, NaN rules, and exact status flags.
//!
//! Results come from the host's arithmetic, which rounds to nearest; NaN results never do. Whether a result
//! is inexact is decided with integers or an error-free transformation. `None` means that the flags cannot
//! be told (a result at the border of underflow).

/// Status flags of MXCSR.
pub(super) mod status {
    pub(in crate::ops) const INVALID: u32 = 1;
    pub(in crate::ops) const DENORMAL: u32 = 1 << 1;
    pub(in crate::ops) const ZERO_DIVIDE: u32 = 1 << 2;
    pub(in crate::ops) const OVERFLOW: u32 = 1 << 3;
    pub(in crate::ops) const UNDERFLOW: u32 = 1 << 4;
    pub(in crate::ops) const INEXACT: u32 = 1 << 5;
    pub(in crate::ops) const ALL: u32 = 0x3F;
}
use status::{DENORMAL, INEXACT, INVALID, OVERFLOW, UNDERFLOW, ZERO_DIVIDE};

/// A value as `mantissa * 2^exponent`, the mantissa odd.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Exact {
    mantissa: u128,
    exponent: i32,
}

impl Exact {
    fn new(mantissa: u128, exponent: i32) -> Self {
        if mantissa == 0 {
            return Self { mantissa: 0, exponent: 0 };
        }
        let zeros = mantissa.trailing_zeros();
        Self { mantissa: mantissa >> zeros, exponent: exponent + zeros as i32 }
    }

    fn times(self, other: Self) -> Self {
        Self::new(self.mantissa * other.mantissa, self.exponent + other.exponent)
    }
}

/// The result of an operation and the flags it raises.
#[derive(Clone, Copy)]
pub(super) struct Outcome<F> {
    pub(super) value: F,
    pub(super) raised: u32,
}

/// One of the two formats.
pub(super) trait Float: Copy + PartialOrd + 'static {
    const ZERO: Self;
    const MIN_NORMAL: Self;
    fn is_nan(self) -> bool;
    fn is_infinite(self) -> bool;
    fn is_signalling(self) -> bool;
    fn is_denormal(self) -> bool;
    fn magnitude(self) -> Self;
    fn is_negative(self) -> bool;
    fn quiet(self) -> Self;
    fn default_nan() -> Self;
    fn exact(self) -> Exact;
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    fn sqrt(self) -> Self;
}

macro_rules! float {
    ($type:ident, $bits:ident, $fraction:literal, $bias:literal, $quiet:literal) => {
        impl Float for $type {
            const ZERO: Self = 0.0;
            const MIN_NORMAL: Self = $type::MIN_POSITIVE;
            fn is_nan(self) -> bool {
                $type::is_nan(self)
            }
            fn is_infinite(self) -> bool {
                $type::is_infinite(self)
            }
            fn is_signalling(self) -> bool {
                $type::is_nan(self) && self.to_bits() & $quiet == 0
            }
            fn is_denormal(self) -> bool {
                self.is_subnormal()
            }
            fn magnitude(self) -> Self {
                self.abs()
            }
            fn is_negative(self) -> bool {
                self.is_sign_negative()
            }
            fn quiet(self) -> Self {
                $type::from_bits(self.to_bits() | $quiet)
            }
            fn default_nan() -> Self {
                // The default NaN of x86 has its sign set.
                $type::from_bits(!((1 << ($fraction - 1)) - 1))
            }
            fn exact(self) -> Exact {
                let bits = self.to_bits();
                let fraction = bits & ((1 << $fraction) - 1);
                let exponent = (self.abs().to_bits() >> $fraction) as i32;
                let (mantissa, exponent) =
                    if exponent == 0 { (fraction, 1) } else { (fraction | 1 << $fraction, exponent) };
                Exact::new(u128::from(mantissa), exponent - $bias - $fraction)
            }
            fn add(self, other: Self) -> Self {
                self + other
            }
            fn sub(self, other: Self) -> Self {
                self - other
            }
            fn mul(self, other: Self) -> Self {
                self * other
            }
            fn div(self, other: Self) -> Self {
                self / other
            }
            fn sqrt(self) -> Self {
                $type::sqrt(self)
            }
        }
    };
}
float!(f32, u32, 23, 127, 0x40_0000);
float!(f64, u64, 52, 1023, 0x8_0000_0000_0000);

pub(super) fn denormal_flag<F: Float>(a: F, b: F) -> u32 {
    if a.is_denormal() || b.is_denormal() { DENORMAL } else { 0 }
}

/// NaN operands: the first NaN made quiet; a signalling one is invalid.
pub(super) fn nan_operand<F: Float>(a: F, b: F) -> Option<Outcome<F>> {
    let first = if a.is_nan() {
        a
    } else if b.is_nan() {
        b
    } else {
        return None;
    };
    let invalid = a.is_signalling() || b.is_signalling();
    Some(Outcome { value: first.quiet(), raised: if invalid { INVALID } else { 0 } })
}

/// Flags of a rounded finite operation: overflow, underflow, inexact. `None` if tininess is in doubt.
pub(super) fn rounding_flags<F: Float>(value: F, inexact: bool) -> Option<u32> {
    if value.is_infinite() {
        return Some(OVERFLOW | INEXACT);
    }
    if !inexact {
        return Some(0);
    }
    // Tininess is detected after rounding to unbounded exponents, which the rounded result alone does not
    // tell at the boundary.
    if value.magnitude() == F::MIN_NORMAL {
        return None;
    }
    Some(if value.magnitude() < F::MIN_NORMAL { UNDERFLOW | INEXACT } else { INEXACT })
}

/// The rounding error of a sum is representable, and computable without error (Knuth's TwoSum).
pub(super) fn sum_is_inexact<F: Float>(a: F, b: F, sum: F) -> bool {
    let b_part = sum.sub(a);
    let error = a.sub(sum.sub(b_part)).add(b.sub(b_part));
    error != F::ZERO
}

pub(super) fn add<F: Float>(a: F, b: F) -> Option<Outcome<F>> {
    if let Some(nan) = nan_operand(a, b) {
        return Some(nan);
    }
    let value = a.add(b);
    if a.is_infinite() || b.is_infinite() {
        if value.is_nan() {
            return Some(Outcome { value: F::default_nan(), raised: INVALID });
        }
        return Some(Outcome { value, raised: denormal_flag(a, b) });
    }
    let inexact = !value.is_infinite() && sum_is_inexact_scaled(a, b, value);
    Some(Outcome { value, raised: denormal_flag(a, b) | rounding_flags(value, inexact)? })
}

/// Near the top of the range TwoSum's own intermediates may overflow: then compare exactly.
pub(super) fn sum_is_inexact_scaled<F: Float>(a: F, b: F, sum: F) -> bool {
    let b_part = sum.sub(a);
    let a_part = sum.sub(b_part);
    if b_part.is_infinite() || a_part.is_infinite() {
        // At least one operand is huge: integers hold the exact sum unless the other is so much smaller that
        // the sum cannot be exact.
        return !exact_sum_equals(a, b, sum);
    }
    sum_is_inexact(a, b, sum)
}

pub(super) fn exact_sum_equals<F: Float>(a: F, b: F, sum: F) -> bool {
    let low = a.exact().exponent.min(b.exact().exponent).min(sum.exact().exponent);
    let scaled = |x: F| {
        let e = x.exact();
        let shift = (e.exponent - low) as u32;
        let magnitude = e.mantissa.checked_shl(shift).filter(|m| m >> shift == e.mantissa)?;
        let magnitude = i128::try_from(magnitude).ok()?;
        Some(if x.is_negative() { -magnitude } else { magnitude })
    };
    match (scaled(a), scaled(b), scaled(sum)) {
        (Some(a), Some(b), Some(sum)) => a.checked_add(b) == Some(sum),
        // Too far apart to be exact.
        _ => false,
    }
}

pub(super) trait Negate: Float {
    fn negated(self) -> Self;
}
impl Negate for f32 {
    fn negated(self) -> Self {
        -self
    }
}
impl Negate for f64 {
    fn negated(self) -> Self {
        -self
    }
}

pub(super) fn sub<F: Negate>(a: F, b: F) -> Option<Outcome<F>> {
    if let Some(nan) = nan_operand(a, b) {
        return Some(nan);
    }
    add(a, b.negated())
}

pub(super) fn mul<F: Float>(a: F, b: F) -> Option<Outcome<F>> {
    if let Some(nan) = nan_operand(a, b) {
        return Some(nan);
    }
    let value = a.mul(b);
    if value.is_nan() {
        return Some(Outcome { value: F::default_nan(), raised: INVALID });
    }
    let denormal = denormal_flag(a, b);
    if a.is_infinite() || b.is_infinite() {
        return Some(Outcome { value, raised: denormal });
    }
    let inexact = !value.is_infinite() && a.exact().times(b.exact()) != value.exact();
    Some(Outcome { value, raised: denormal | rounding_flags(value, inexact)? })
}

pub(super) fn div<F: Float>(a: F, b: F) -> Option<Outcome<F>> {
    if let Some(nan) = nan_operand(a, b) {
        return Some(nan);
    }
    let value = a.div(b);
    if value.is_nan() {
        return Some(Outcome { value: F::default_nan(), raised: INVALID });
    }
    if a.is_infinite() {
        return Some(Outcome { value, raised: denormal_flag(a, b) });
    }
    if b == F::ZERO {
        return Some(Outcome { value, raised: ZERO_DIVIDE });
    }
    let denormal = denormal_flag(a, b);
    if b.is_infinite() {
        return Some(Outcome { value, raised: denormal });
    }
    let inexact = !value.is_infinite() && value.exact().times(b.exact()) != a.exact();
    Some(Outcome { value, raised: denormal | rounding_flags(value, inexact)? })
}

pub(super) fn sqrt<F: Float>(_: F, b: F) -> Option<Outcome<F>> {
    if let Some(nan) = nan_operand(b, b) {
        return Some(nan);
    }
    if b.is_negative() && b != F::ZERO {
        return Some(Outcome { value: F::default_nan(), raised: INVALID });
    }
    let value = b.sqrt();
    let inexact = !value.is_infinite() && value.exact().times(value.exact()) != b.exact();
    Some(Outcome { value, raised: denormal_flag(b, b) | if inexact { INEXACT } else { 0 } })
}

/// MIN and MAX give the second operand unless the first is strictly better; any NaN is invalid.
pub(super) fn min<F: Float>(a: F, b: F) -> Option<Outcome<F>> {
    Some(Outcome { value: if a < b { a } else { b }, raised: compare_flags(a, b, Quiet::Signals) })
}
pub(super) fn max<F: Float>(a: F, b: F) -> Option<Outcome<F>> {
    Some(Outcome { value: if a > b { a } else { b }, raised: compare_flags(a, b, Quiet::Signals) })
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Quiet {
    /// Only signalling NaNs are invalid.
    Passes,
    /// Every NaN is.
    Signals,
}

pub(super) fn compare_flags<F: Float>(a: F, b: F, quiet: Quiet) -> u32 {
    let nan = a.is_nan() || b.is_nan();
    if a.is_signalling() || b.is_signalling() || nan && quiet == Quiet::Signals {
        return INVALID;
    }
    if nan { 0 } else { denormal_flag(a, b) }
}

/// The eight predicates of CMPPS and its kin.
pub(super) fn predicate<F: Float>(a: F, b: F, which: u8) -> (bool, u32) {
    let nan = a.is_nan() || b.is_nan();
    let holds = match which & 3 {
        0 => a == b,
        1 => a < b,
        2 => a <= b,
        _ => nan,
    };
    let quiet = if matches!(which & 3, 1 | 2) { Quiet::Signals } else { Quiet::Passes };
    (holds != (which & 4 != 0), compare_flags(a, b, quiet))
}

/// Widens; NaN payloads move up.
pub(super) fn widen(value: f32) -> Outcome<f64> {
    if value.is_nan() {
        let bits = value.quiet().to_bits();
        let sign = u64::from(bits >> 31) << 63;
        let wide = sign | 0x7FF << 52 | u64::from(bits & 0x7F_FFFF) << 29;
        let raised = if value.is_signalling() { INVALID } else { 0 };
        return Outcome { value: f64::from_bits(wide), raised };
    }
    Outcome { value: f64::from(value), raised: denormal_flag(value, value) }
}
/// Narrows; NaN payloads lose their low bits.
pub(super) fn narrow(value: f64) -> Option<Outcome<f32>> {
    if value.is_nan() {
        let bits = value.quiet().to_bits();
        let sign = (bits >> 63) as u32;
        let slim = sign << 31 | 0xFF << 23 | (bits >> 29) as u32 & 0x7F_FFFF;
        let raised = if value.is_signalling() { INVALID } else { 0 };
        return Some(Outcome { value: f32::from_bits(slim), raised });
    }
    let result = value as f32;
    let denormal = denormal_flag(value, value);
    if value.is_infinite() {
        return Some(Outcome { value: result, raised: denormal });
    }
    let inexact = f64::from(result) != value;
    Some(Outcome { value: result, raised: denormal | rounding_flags(result, inexact)? })
}
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rounding {
    Nearest,
    Truncate,
}
/// Converts to a signed integer of this many bits; out of range is the "integer indefinite" value.
pub(super) fn to_integer(value: f64, bits: u32, rounding: Rounding) -> (i64, u32) {
    let rounded = if rounding == Rounding::Nearest { value.round_ties_even() } else { value.trunc() };
    let limit = 2f64.powi(bits as i32 - 1);
    if value.is_nan() || rounded < -limit || rounded >= limit {
        return (i64::MIN >> (64 - bits), INVALID);
    }
    (rounded as i64, inexact_if(rounded != value))
}
pub(super) fn inexact_if(yes: bool) -> u32 {
    if yes { INEXACT } else { 0 }
}
