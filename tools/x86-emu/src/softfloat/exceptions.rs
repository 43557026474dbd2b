//! The six floating-point exceptions, in the bit order of MXCSR and of the x87 status word.

use core::ops::{BitAnd, BitOr, BitOrAssign, Not};

/// A set of exceptions.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Exceptions(u8);

impl Exceptions {
    pub(crate) const NONE: Self = Self(0);
    /// #I: no meaningful result.
    pub(crate) const INVALID: Self = Self(1);
    /// #D: a denormal operand.
    pub(crate) const DENORMAL: Self = Self(1 << 1);
    /// #Z: an exact infinity from finite operands.
    pub(crate) const ZERO_DIVIDE: Self = Self(1 << 2);
    /// #O.
    pub(crate) const OVERFLOW: Self = Self(1 << 3);
    /// #U.
    pub(crate) const UNDERFLOW: Self = Self(1 << 4);
    /// #P: the result was rounded.
    pub(crate) const PRECISION: Self = Self(1 << 5);
    /// All six.
    pub(crate) const ALL: Self = Self(0x3F);
    /// The exceptions that are found before the operation: unmasked, they leave no result.
    pub(crate) const BEFORE: Self = Self(0b111);

    /// The low six bits of a register.
    pub(crate) const fn from_bits(bits: u32) -> Self {
        Self(bits as u8 & Self::ALL.0)
    }

    /// The bits for a register.
    pub(crate) const fn bits(self) -> u8 {
        self.0
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether one of `others` is in the set.
    pub(crate) const fn intersects(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }

    /// The set, if a condition holds.
    pub(crate) const fn when(self, condition: bool) -> Self {
        if condition { self } else { Self::NONE }
    }
}

impl BitOr for Exceptions {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Exceptions {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl BitAnd for Exceptions {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl Not for Exceptions {
    type Output = Self;
    fn not(self) -> Self {
        Self(!self.0 & Self::ALL.0)
    }
}
