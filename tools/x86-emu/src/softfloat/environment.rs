//! What MXCSR and the x87 control word say about arithmetic (SDM vol. 1, 8.1.5 and 10.2.3).

use super::exceptions::Exceptions;
use super::format::Format;

/// The rounding control of MXCSR, of the x87 control word and of the ROUND instructions' immediates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rounding {
    /// To the nearest; ties to even.
    Nearest,
    /// Toward minus infinity.
    Down,
    /// Toward plus infinity.
    Up,
    /// Toward zero.
    Truncate,
}

impl Rounding {
    /// From the two bits of the field.
    pub(crate) const fn from_bits(bits: u32) -> Self {
        match bits & 3 {
            0 => Self::Nearest,
            1 => Self::Down,
            2 => Self::Up,
            _ => Self::Truncate,
        }
    }

    /// Whether a magnitude that lies between two representable ones becomes the larger.
    ///
    /// `half` compares the part that is cut off with half a unit, `odd` is the last bit kept.
    pub(super) const fn away(self, negative: bool, half: core::cmp::Ordering, odd: bool) -> bool {
        match self {
            Self::Nearest => half.is_gt() || half.is_eq() && odd,
            Self::Down => negative,
            Self::Up => !negative,
            Self::Truncate => false,
        }
    }

    /// Whether a magnitude beyond the largest finite one becomes infinity.
    pub(super) const fn overflows_to_infinity(self, negative: bool) -> bool {
        match self {
            Self::Nearest => true,
            Self::Down => negative,
            Self::Up => !negative,
            Self::Truncate => false,
        }
    }
}

/// What becomes of a tiny result while underflow is masked (MXCSR.FTZ).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tiny {
    /// The tiny result is denormal.
    Denormal,
    /// The tiny result is zero.
    Zero,
}

/// What a denormal operand counts as (MXCSR.DAZ).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Denormals {
    /// The operand counts as the number that it is.
    Kept,
    /// A zero of its sign.
    Zero,
}

/// Which of two NaNs an operation gives (SDM vol. 1, table 4-7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NanRule {
    /// SSE: the first operand.
    First,
    /// x87: a quiet one before a signalling one, then the larger significand.
    LargerSignificand,
}

/// How operations round and what they do about exceptions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Environment {
    pub(crate) rounding: Rounding,
    /// Exceptions with a masked response.
    pub(crate) masked: Exceptions,
    pub(crate) tiny: Tiny,
    pub(crate) denormals: Denormals,
    pub(crate) nans: NanRule,
}

impl Environment {
    /// What MXCSR says.
    pub(crate) const fn from_mxcsr(mxcsr: u32) -> Self {
        const DAZ: u32 = 1 << 6;
        const MASKS: u32 = 7;
        const RC: u32 = 13;
        const FTZ: u32 = 1 << 15;
        Self {
            rounding: Rounding::from_bits(mxcsr >> RC),
            masked: Exceptions::from_bits(mxcsr >> MASKS),
            tiny: if mxcsr & FTZ != 0 { Tiny::Zero } else { Tiny::Denormal },
            denormals: if mxcsr & DAZ != 0 { Denormals::Zero } else { Denormals::Kept },
            nans: NanRule::First,
        }
    }

    /// What the x87 control word says; its precision control is [`Format::from_control_word`].
    pub(crate) const fn from_control_word(word: u16) -> Self {
        const RC: u32 = 10;
        Self {
            rounding: Rounding::from_bits(word as u32 >> RC),
            masked: Exceptions::from_bits(word as u32),
            tiny: Tiny::Denormal,
            denormals: Denormals::Kept,
            nans: NanRule::LargerSignificand,
        }
    }

    /// Whether one of these exceptions was found before the operation and is not masked.
    pub(super) fn stops(&self, raised: Exceptions) -> bool {
        raised.intersects(Exceptions::BEFORE & !self.masked)
    }
}

impl Format {
    /// Where results of FADD, FSUB, FMUL, FDIV and FSQRT are rounded (precision control, SDM vol. 1, 8.1.5.2).
    pub(crate) const fn from_control_word(word: u16) -> Self {
        const PC: u32 = 8;
        match word >> PC & 3 {
            0 => Self { precision: Self::SINGLE.precision, ..Self::EXTENDED },
            2 => Self { precision: Self::DOUBLE.precision, ..Self::EXTENDED },
            // 1 is reserved; processors round to 64 bits.
            _ => Self::EXTENDED,
        }
    }
}
