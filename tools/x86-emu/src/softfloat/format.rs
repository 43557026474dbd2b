//! The formats of memory and registers (SDM vol. 1, 4.2.2 and 8.2).

use super::value::{Class, INTEGER_BIT, QUIET_BIT, Value};

/// Where a result has to fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Format {
    /// Bits of the significand, the integer bit included.
    pub(super) precision: u32,
    /// The exponent of the smallest normal number.
    pub(super) min_exponent: i32,
    /// The exponent of the largest finite number; the bias too.
    pub(super) max_exponent: i32,
    /// What an unmasked overflow or underflow adds to or takes from the exponent.
    pub(super) wrap: i32,
}

impl Format {
    /// Half precision, in which numbers are stored but not computed.
    pub(crate) const HALF: Self = Self { precision: 11, min_exponent: -14, max_exponent: 15, wrap: 24 };
    pub(crate) const SINGLE: Self = Self { precision: 24, min_exponent: -126, max_exponent: 127, wrap: 192 };
    pub(crate) const DOUBLE: Self =
        Self { precision: 53, min_exponent: -1022, max_exponent: 1023, wrap: 1536 };
    pub(crate) const EXTENDED: Self =
        Self { precision: 64, min_exponent: -16382, max_exponent: 16383, wrap: 24576 };
}

/// Bits of an 80-bit register.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Extended {
    /// Bit 15 is the sign; the exponent is biased by 16383.
    pub(crate) sign_exponent: u16,
    /// Bit 63 is the integer bit.
    pub(crate) significand: u64,
}

const EXTENDED_EXPONENT: u16 = 0x7FFF;

impl Extended {
    /// From the low 80 bits.
    pub(crate) const fn from_bits(bits: u128) -> Self {
        Self { sign_exponent: (bits >> 64) as u16, significand: bits as u64 }
    }

    /// In the low 80 bits.
    pub(crate) const fn to_bits(self) -> u128 {
        (self.sign_exponent as u128) << 64 | self.significand as u128
    }
}

impl Value {
    /// Takes a half-precision number apart.
    pub(crate) const fn from_half(bits: u16) -> Self {
        Self::from_interchange(bits >> 15 != 0, bits as u64 & 0x3FF, bits as u32 >> 10 & 0x1F, Format::HALF)
    }

    /// Takes a single-precision number apart.
    pub(crate) const fn from_single(bits: u32) -> Self {
        Self::from_interchange(bits >> 31 != 0, bits as u64 & 0x7F_FFFF, bits >> 23 & 0xFF, Format::SINGLE)
    }

    /// Takes a double-precision number apart.
    pub(crate) const fn from_double(bits: u64) -> Self {
        let fraction = bits & ((1 << 52) - 1);
        Self::from_interchange(bits >> 63 != 0, fraction, (bits >> 52) as u32 & 0x7FF, Format::DOUBLE)
    }

    const fn from_interchange(negative: bool, fraction: u64, exponent: u32, format: Format) -> Self {
        let fraction = fraction << (64 - format.precision);
        if exponent == 2 * format.max_exponent as u32 + 1 {
            return Self::maximal_exponent(negative, fraction | INTEGER_BIT);
        }
        if exponent == 0 {
            return Self::finite(negative, format.min_exponent, fraction, Class::Denormal);
        }
        Self::normal(negative, exponent as i32 - format.max_exponent, fraction | INTEGER_BIT)
    }

    /// An infinity or a NaN by its significand.
    const fn maximal_exponent(negative: bool, significand: u64) -> Self {
        let class = if significand << 1 == 0 {
            Class::Infinity
        } else if significand & QUIET_BIT != 0 {
            Class::QuietNan
        } else {
            Class::SignallingNan
        };
        Self { negative, class, exponent: 0, significand }
    }

    /// Takes the contents of an x87 register apart.
    pub(crate) const fn from_extended(bits: Extended) -> Self {
        let Extended { sign_exponent, significand } = bits;
        let negative = sign_exponent & !EXTENDED_EXPONENT != 0;
        let exponent = sign_exponent & EXTENDED_EXPONENT;
        if exponent == 0 {
            return Self::finite(negative, Format::EXTENDED.min_exponent, significand, Class::Denormal);
        }
        if significand & INTEGER_BIT == 0 {
            return Self { negative, class: Class::Unsupported, exponent: 0, significand };
        }
        if exponent == EXTENDED_EXPONENT {
            return Self::maximal_exponent(negative, significand);
        }
        Self::normal(negative, exponent as i32 - Format::EXTENDED.max_exponent, significand)
    }

    /// The bits in half precision; the value fits.
    pub(crate) fn to_half(self) -> u16 {
        let (negative, exponent, significand) = self.fields(Format::HALF);
        u16::from(negative) << 15 | (exponent as u16) << 10 | significand as u16 & 0x3FF
    }

    /// The bits in single precision; the value fits.
    pub(crate) fn to_single(self) -> u32 {
        let (negative, exponent, significand) = self.fields(Format::SINGLE);
        u32::from(negative) << 31 | exponent << 23 | significand as u32 & 0x7F_FFFF
    }

    /// The bits in double precision; the value fits.
    pub(crate) fn to_double(self) -> u64 {
        let (negative, exponent, significand) = self.fields(Format::DOUBLE);
        u64::from(negative) << 63 | u64::from(exponent) << 52 | significand & ((1 << 52) - 1)
    }

    /// The bits of an x87 register; the value fits.
    pub(crate) fn to_extended(self) -> Extended {
        let (negative, exponent, significand) = self.fields(Format::EXTENDED);
        Extended { sign_exponent: u16::from(negative) << 15 | exponent as u16, significand }
    }
}
