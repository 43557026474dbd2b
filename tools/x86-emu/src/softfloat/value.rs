//! An operand taken apart.

use super::format::Format;

/// The highest bit of a significand: the integer bit.
pub(super) const INTEGER_BIT: u64 = 1 << 63;
/// The bit that makes a NaN quiet.
pub(super) const QUIET_BIT: u64 = 1 << 62;

/// What an operand is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Class {
    Zero,
    /// Below the normal range of the format it was read from; a pseudo-denormal too.
    Denormal,
    Normal,
    Infinity,
    QuietNan,
    SignallingNan,
    /// An 80-bit encoding that no processor since the 80387 takes: unnormal, pseudo-infinity, pseudo-NaN.
    Unsupported,
}

/// A sign, a class and, for finite numbers, `significand * 2^(exponent - 63)` with bit 63 set.
///
/// For NaNs the significand is the payload left-aligned under the integer bit; for zero and infinity it has no
/// meaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Value {
    pub(crate) negative: bool,
    pub(crate) class: Class,
    pub(crate) exponent: i32,
    pub(crate) significand: u64,
}

impl Value {
    /// The default NaN ("QNaN floating-point indefinite"): negative, quiet, without a payload.
    pub(crate) const INDEFINITE: Self =
        Self { negative: true, class: Class::QuietNan, exponent: 0, significand: INTEGER_BIT | QUIET_BIT };
    /// +1.0.
    pub(crate) const ONE: Self = Self::normal(false, 0, INTEGER_BIT);

    pub(crate) const fn zero(negative: bool) -> Self {
        Self { negative, class: Class::Zero, exponent: 0, significand: 0 }
    }

    pub(crate) const fn infinity(negative: bool) -> Self {
        Self { negative, class: Class::Infinity, exponent: 0, significand: INTEGER_BIT }
    }

    /// A finite number; bit 63 of the significand is set.
    pub(crate) const fn normal(negative: bool, exponent: i32, significand: u64) -> Self {
        Self { negative, class: Class::Normal, exponent, significand }
    }

    /// The finite number `significand * 2^(exponent - 63)`, whatever bits are set.
    pub(super) const fn finite(negative: bool, exponent: i32, significand: u64, class: Class) -> Self {
        if significand == 0 {
            return Self::zero(negative);
        }
        let zeros = significand.leading_zeros();
        Self { negative, class, exponent: exponent - zeros as i32, significand: significand << zeros }
    }

    pub(crate) const fn is_nan(&self) -> bool {
        matches!(self.class, Class::QuietNan | Class::SignallingNan)
    }

    pub(crate) const fn is_zero(&self) -> bool {
        matches!(self.class, Class::Zero)
    }

    pub(crate) const fn is_infinite(&self) -> bool {
        matches!(self.class, Class::Infinity)
    }

    pub(crate) const fn is_denormal(&self) -> bool {
        matches!(self.class, Class::Denormal)
    }

    pub(crate) const fn is_finite_nonzero(&self) -> bool {
        matches!(self.class, Class::Denormal | Class::Normal)
    }

    /// A number that was denormal only in the format it was read from.
    pub(crate) const fn as_normal(self) -> Self {
        match self.class {
            Class::Denormal => Self { class: Class::Normal, ..self },
            _ => self,
        }
    }

    /// An integer, exactly.
    pub(crate) const fn from_exact_integer(value: i64) -> Self {
        Self::finite(value < 0, 63, value.unsigned_abs(), Class::Normal)
    }

    /// With the opposite sign.
    pub(crate) const fn negated(self) -> Self {
        Self { negative: !self.negative, ..self }
    }

    /// Without its sign.
    pub(crate) const fn magnitude(self) -> Self {
        Self { negative: false, ..self }
    }

    /// A NaN made quiet.
    pub(super) const fn quieted(self) -> Self {
        Self { class: Class::QuietNan, significand: self.significand | QUIET_BIT, ..self }
    }

    /// The sign, the biased exponent and the significand right-aligned under the integer bit, for a format in which
    /// the value fits.
    pub(super) fn fields(&self, format: Format) -> (bool, u32, u64) {
        let ones = (2 * format.max_exponent + 1) as u32;
        let unused = 64 - format.precision;
        match self.class {
            Class::Zero => (self.negative, 0, 0),
            Class::Infinity => (self.negative, ones, INTEGER_BIT >> unused),
            Class::QuietNan | Class::SignallingNan => (self.negative, ones, self.significand >> unused),
            Class::Unsupported => Self::INDEFINITE.fields(format),
            Class::Denormal | Class::Normal => {
                let below = format.min_exponent - self.exponent;
                if below > 0 {
                    (self.negative, 0, self.significand.checked_shr(unused + below as u32).unwrap_or(0))
                } else {
                    (self.negative, (self.exponent + format.max_exponent) as u32, self.significand >> unused)
                }
            }
        }
    }
}
