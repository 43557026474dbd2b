//! Operand widths: how a byte, word, dword or qword is read from and written to the register file.

use crate::registers::{HIGH_BYTES, Registers};

/// An integer operand size.
pub trait Width: Copy + Eq {
    /// Bits.
    const BITS: u32;
    /// Bytes.
    const BYTES: u64 = Self::BITS as u64 / 8;
    /// The low bits.
    fn from64(value: u64) -> Self;
    /// Zero-extended.
    fn to64(self) -> u64;
    /// Sign-extended.
    fn sext64(self) -> u64;
    /// Reads a register operand.
    fn read(registers: &Registers, index: u8) -> Self;
    /// Writes a register operand: 32-bit writes clear the upper half, smaller ones keep the rest.
    fn write(registers: &mut Registers, index: u8, value: Self);
}

impl Width for u8 {
    const BITS: u32 = 8;

    #[inline(always)]
    fn from64(value: u64) -> Self {
        value as u8
    }
    #[inline(always)]
    fn to64(self) -> u64 {
        u64::from(self)
    }
    #[inline(always)]
    fn sext64(self) -> u64 {
        self as i8 as u64
    }
    #[inline(always)]
    fn read(registers: &Registers, index: u8) -> Self {
        if index >= HIGH_BYTES { (registers.slot(index & 3) >> 8) as u8 } else { registers.slot(index) as u8 }
    }
    #[inline(always)]
    fn write(registers: &mut Registers, index: u8, value: Self) {
        if index >= HIGH_BYTES {
            let old = registers.slot(index & 3);
            registers.set_slot(index & 3, old & !0xFF00 | u64::from(value) << 8);
        } else {
            let old = registers.slot(index);
            registers.set_slot(index, old & !0xFF | u64::from(value));
        }
    }
}

impl Width for u16 {
    const BITS: u32 = 16;

    #[inline(always)]
    fn from64(value: u64) -> Self {
        value as u16
    }
    #[inline(always)]
    fn to64(self) -> u64 {
        u64::from(self)
    }
    #[inline(always)]
    fn sext64(self) -> u64 {
        self as i16 as u64
    }
    #[inline(always)]
    fn read(registers: &Registers, index: u8) -> Self {
        registers.slot(index) as u16
    }
    #[inline(always)]
    fn write(registers: &mut Registers, index: u8, value: Self) {
        let old = registers.slot(index);
        registers.set_slot(index, old & !0xFFFF | u64::from(value));
    }
}

impl Width for u32 {
    const BITS: u32 = 32;

    #[inline(always)]
    fn from64(value: u64) -> Self {
        value as u32
    }
    #[inline(always)]
    fn to64(self) -> u64 {
        u64::from(self)
    }
    #[inline(always)]
    fn sext64(self) -> u64 {
        self as i32 as u64
    }
    #[inline(always)]
    fn read(registers: &Registers, index: u8) -> Self {
        registers.slot(index) as u32
    }
    #[inline(always)]
    fn write(registers: &mut Registers, index: u8, value: Self) {
        registers.set_slot(index, u64::from(value));
    }
}

impl Width for u64 {
    const BITS: u32 = 64;

    #[inline(always)]
    fn from64(value: u64) -> Self {
        value
    }
    #[inline(always)]
    fn to64(self) -> u64 {
        self
    }
    #[inline(always)]
    fn sext64(self) -> u64 {
        self
    }
    #[inline(always)]
    fn read(registers: &Registers, index: u8) -> Self {
        registers.slot(index)
    }
    #[inline(always)]
    fn write(registers: &mut Registers, index: u8, value: Self) {
        registers.set_slot(index, value);
    }
}
