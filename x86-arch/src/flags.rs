//! RFLAGS with lazy arithmetic flags.
//!
//! An operation stores its sign-extended result and the vector of carries out of each bit; CF, OF and AF are
//! bits of the carry vector, ZF, SF and PF follow from the result. Nothing depends on which operation it
//! was, so a condition costs a few instructions and no dispatch. Two corrections (for PF, and for SF with
//! ZF) let any combination of flags be represented, as POPF and SAHF need.

use crate::width::Width;
use x86::bits64::rflags::RFlags;

/// Carry flag.
pub const CF: u64 = RFlags::FLAGS_CF.bits();
/// Parity flag.
pub const PF: u64 = RFlags::FLAGS_PF.bits();
/// Auxiliary carry flag.
pub const AF: u64 = RFlags::FLAGS_AF.bits();
/// Zero flag.
pub const ZF: u64 = RFlags::FLAGS_ZF.bits();
/// Sign flag.
pub const SF: u64 = RFlags::FLAGS_SF.bits();
/// Trap flag.
pub const TF: u64 = RFlags::FLAGS_TF.bits();
/// Interrupt enable flag.
pub const IF: u64 = RFlags::FLAGS_IF.bits();
/// Direction flag.
pub const DF: u64 = RFlags::FLAGS_DF.bits();
/// Overflow flag.
pub const OF: u64 = RFlags::FLAGS_OF.bits();
/// I/O privilege level.
pub const IOPL: u64 = RFlags::FLAGS_IOPL3.bits();
/// Nested task.
pub const NT: u64 = RFlags::FLAGS_NT.bits();
/// Resume flag.
pub const RF: u64 = RFlags::FLAGS_RF.bits();
/// Virtual-8086 mode.
pub const VM: u64 = RFlags::FLAGS_VM.bits();
/// Alignment check, access control.
pub const AC: u64 = RFlags::FLAGS_AC.bits();
/// Virtual interrupt flag: what CLI and STI change under CR4.PVI.
pub const VIF: u64 = RFlags::FLAGS_VIF.bits();
/// Virtual interrupt pending.
pub const VIP: u64 = RFlags::FLAGS_VIP.bits();
/// CPUID can be used.
pub const ID: u64 = RFlags::FLAGS_ID.bits();
/// The six arithmetic flags.
pub const ARITHMETIC: u64 = CF | PF | AF | ZF | SF | OF;
/// Every flag that an instruction of this CPU can set.
pub const DEFINED: u64 = ARITHMETIC | TF | IF | DF | IOPL | NT | RF | AC | VIF | VIP | ID;

/// Bit 1 always reads one.
const FIXED: u64 = 2;
const CARRY: u32 = 63;
const CARRY_IN: u32 = 62;
const AUX: u32 = 3;
const PARITY_FIX: u32 = 8;
const SIGN_FIX: u32 = 16;

/// The flags register.
#[derive(Clone, Copy, Debug)]
pub struct Flags {
    /// Last result, sign-extended.
    result: u64,
    /// Bit 63 carry out, bit 62 carry into the top bit, bit 3 carry out of bit 3, bits 15:8 parity
    /// correction, bit 16 sign correction.
    carries: u64,
    /// All flags but the arithmetic ones.
    rest: u64,
}

impl Default for Flags {
    fn default() -> Self {
        let mut flags = Self { result: 0, carries: 0, rest: 0 };
        flags.set(0);
        flags
    }
}

impl PartialEq for Flags {
    /// One value has several representations.
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl Eq for Flags {}

impl Flags {
    /// RFLAGS.
    pub const fn get(&self) -> u64 {
        self.rest
            | FIXED
            | self.cf() as u64
            | (self.pf() as u64) << 2
            | (self.af() as u64) << 4
            | (self.zf() as u64) << 6
            | (self.sf() as u64) << 7
            | (self.of() as u64) << 11
    }

    /// Sets RFLAGS; undefined bits are dropped.
    pub const fn set(&mut self, value: u64) {
        self.rest = value & DEFINED & !ARITHMETIC;
        self.set_arithmetic(value);
    }

    /// Sets the six arithmetic flags from their places in RFLAGS.
    pub const fn set_arithmetic(&mut self, value: u64) {
        let negative = value & SF != 0;
        let mut carries = 0;
        if value & ZF != 0 {
            self.result = 0;
            carries |= (negative as u64) << SIGN_FIX;
        } else {
            self.result = if negative { 1 << 63 } else { 1 << 32 };
        }
        if value & PF == 0 {
            carries |= 1 << PARITY_FIX;
        }
        if value & AF != 0 {
            carries |= 1 << AUX;
        }
        let carry = value & CF != 0;
        carries |= (carry as u64) << CARRY | ((carry != (value & OF != 0)) as u64) << CARRY_IN;
        self.carries = carries;
    }

    /// Replaces the flags in `mask` by those of `value`.
    pub const fn replace(&mut self, mask: u64, value: u64) {
        self.set(self.get() & !mask | value & mask);
    }

    /// The flags other than the arithmetic ones.
    #[inline(always)]
    pub const fn rest(&self) -> u64 {
        self.rest
    }

    /// Replaces the flags other than the arithmetic ones.
    #[inline(always)]
    pub const fn set_rest(&mut self, rest: u64) {
        self.rest = rest;
    }

    /// Carry.
    #[inline(always)]
    pub const fn cf(&self) -> bool {
        self.carries >> CARRY != 0
    }

    /// Overflow.
    #[inline(always)]
    pub const fn of(&self) -> bool {
        (self.carries ^ self.carries << 1) >> 63 != 0
    }

    /// Zero.
    #[inline(always)]
    pub const fn zf(&self) -> bool {
        self.result == 0
    }

    /// Sign.
    #[inline(always)]
    pub const fn sf(&self) -> bool {
        (self.result >> 63 ^ self.carries >> SIGN_FIX) & 1 != 0
    }

    /// Parity of the low byte: set when even.
    #[inline(always)]
    pub const fn pf(&self) -> bool {
        ((self.result ^ self.carries >> PARITY_FIX) as u8).count_ones() & 1 == 0
    }

    /// Carry out of bit 3.
    #[inline(always)]
    pub const fn af(&self) -> bool {
        self.carries >> AUX & 1 != 0
    }

    /// Records a result with its carries out of each bit.
    #[inline(always)]
    pub fn arithmetic<W: Width>(&mut self, result: W, carries: W) {
        let carries = carries.to64();
        self.result = result.sext64();
        self.carries = carries << (64 - W::BITS) & 3 << 62 | carries & 1 << AUX;
    }

    /// Records a logical result: CF, OF and AF clear.
    #[inline(always)]
    pub fn logic<W: Width>(&mut self, result: W) {
        self.result = result.sext64();
        self.carries = 0;
    }

    /// Records a result with its carries out of each bit, and keeps CF: INC and DEC.
    #[inline(always)]
    pub fn arithmetic_keep_carry<W: Width>(&mut self, result: W, carries: W) {
        let kept = self.carries & 1 << CARRY;
        let carries = carries.to64();
        let top = carries << (64 - W::BITS);
        let overflow = (top ^ top << 1) & 1 << CARRY;
        self.result = result.sext64();
        self.carries = kept | (kept ^ overflow) >> 1 | carries & 1 << AUX;
    }

    /// Records a result with CF and OF as given and AF clear: shifts and multiplications.
    #[inline(always)]
    pub fn result_with<W: Width>(&mut self, result: W, carry: bool, overflow: bool) {
        self.result = result.sext64();
        self.carries = u64::from(carry) << CARRY | u64::from(carry != overflow) << CARRY_IN;
    }

    /// Replaces CF and OF, keeps the others: rotates.
    #[inline(always)]
    pub fn set_cf_of(&mut self, carry: bool, overflow: bool) {
        self.carries = self.carries & !(3 << CARRY_IN)
            | u64::from(carry) << CARRY
            | u64::from(carry != overflow) << CARRY_IN;
    }

    /// Replaces CF, keeps the others.
    #[inline(always)]
    pub fn set_cf(&mut self, carry: bool) {
        self.set_cf_of(carry, self.of());
    }

    /// Replaces ZF, keeps the others.
    pub fn set_zf(&mut self, zero: bool) {
        self.replace(ZF, if zero { ZF } else { 0 });
    }

    /// Whether a condition code (the low four bits of Jcc opcodes) holds.
    #[inline(always)]
    pub const fn condition(&self, code: u8) -> bool {
        let holds = match code >> 1 & 7 {
            0 => self.of(),
            1 => self.cf(),
            2 => self.zf(),
            3 => self.cf() || self.zf(),
            4 => self.sf(),
            5 => self.pf(),
            6 => self.sf() != self.of(),
            _ => self.zf() || self.sf() != self.of(),
        };
        holds != (code & 1 != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_of_arithmetic_flags_survives_set_and_get() {
        let bits = [CF, PF, AF, ZF, SF, OF];
        for pick in 0u32..64 {
            let value = bits.iter().enumerate().filter(|(i, _)| pick >> i & 1 != 0).map(|(_, b)| b).sum();
            let mut flags = Flags::default();
            flags.set(value);
            assert_eq!(flags.get(), value | FIXED);
            for carry in [false, true] {
                let mut changed = flags;
                changed.set_cf(carry);
                assert_eq!(changed.get(), value & !CF | u64::from(carry) | FIXED);
            }
        }
    }

    #[test]
    fn undefined_flags_cannot_be_set() {
        let mut flags = Flags::default();
        flags.set(u64::MAX);
        assert_eq!(flags.get(), DEFINED | FIXED);
    }
}
