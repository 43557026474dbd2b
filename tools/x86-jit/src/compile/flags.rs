//! Where the guest's arithmetic flags are, and how they get from there to where they are needed.

use super::{AND, Emitter, T1, T2};
use crate::asm::{Host, Rm};
use crate::context::{FLAGS_MASK, LOW_FLAGS, OVERFLOW};
use crate::ir::{Condition, Width};

/// Where the flags are. Neither place: nobody needs them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FlagState {
    /// In the host's flags; AF may be wrong and is clear then.
    host: Option<AuxiliaryCarry>,
    /// In the context.
    saved: bool,
}

/// What the host's AF means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum AuxiliaryCarry {
    /// The host's AF is the guest's.
    Valid,
    /// Nothing: the guest's is clear.
    Clear,
}

const CF: u8 = 1;
const ZF: u8 = 1 << 6;
/// Bit of the mask beside the saved flags.
const AF: u8 = 1 << 4;
const CARRY_BIT: u8 = 8;
/// AH as an operand of an instruction without REX.
const AH: u8 = 4;

impl FlagState {
    pub(super) const SAVED: Self = Self { host: None, saved: true };
    pub(super) const NOWHERE: Self = Self { host: None, saved: false };

    pub(super) const fn host(auxiliary: AuxiliaryCarry) -> Self {
        Self { host: Some(auxiliary), saved: false }
    }

    pub(super) const fn in_host(self) -> bool {
        self.host.is_some()
    }

    pub(super) const fn auxiliary(self) -> Option<AuxiliaryCarry> {
        self.host
    }
}

impl Emitter<'_> {
    /// Says that the host's flags are about to become something else.
    pub(super) fn clobber_flags(&mut self) {
        self.flags.host = None;
    }

    /// Saves the flags, where they are not; the host's stay as they are.
    pub(super) fn save_flags(&mut self) {
        if self.flags.saved {
            return;
        }
        let Some(auxiliary) = self.flags.host else { return };
        self.asm.copy(T2, Host::RAX);
        self.asm.raw(&[0x9F, 0x0F, 0x90, 0xC0]); // lahf; seto al
        self.asm.store(Width::Word, OVERFLOW, Host::RAX);
        self.flags_mask(auxiliary);
        self.asm.copy(Host::RAX, T2);
        self.flags.saved = true;
    }

    pub(super) fn flags_mask(&mut self, auxiliary: AuxiliaryCarry) {
        let mask = if auxiliary == AuxiliaryCarry::Valid { 0xFF } else { !AF };
        self.asm.op_full(Width::Byte, &[0xC6], 0, FLAGS_MASK);
        self.asm.raw(&[mask]);
    }

    /// Brings saved flags into the host's.
    pub(super) fn restore_flags(&mut self) {
        self.asm.copy(T2, Host::RAX);
        self.asm.op_full(Width::Dword, &[0x0F, 0xB7], Host::RAX.0, OVERFLOW);
        self.asm.op_full(Width::Dword, &[0x22], AH, FLAGS_MASK);
        self.asm.raw(&[0x04, 0x7F, 0x9E]); // add al, 0x7f; sahf
        self.asm.copy(Host::RAX, T2);
    }

    /// Sees to it that the host's flags are the guest's.
    pub(super) fn flags_in_host(&mut self) {
        if self.flags.host.is_none() {
            self.restore_flags();
            self.flags.host = Some(AuxiliaryCarry::Valid);
        }
    }

    /// Sees to it that the host's CF is the guest's.
    pub(super) fn carry_in_host(&mut self) {
        if self.flags.host.is_none() {
            self.asm.op_full(Width::Dword, &[0x0F, 0xBA], 4, OVERFLOW);
            self.asm.raw(&[CARRY_BIT]);
        }
    }

    /// Sees to it that the host can decide a condition; gives the condition of the host that decides it.
    pub(super) fn decide(&mut self, condition: Condition) -> u8 {
        let number = condition.number();
        if self.flags.in_host() {
            return number;
        }
        let (place, bits) = match number >> 1 {
            0 => (OVERFLOW, 1),
            1 => (LOW_FLAGS, 0x01),
            2 => (LOW_FLAGS, 0x40),
            3 => (LOW_FLAGS, 0x41),
            4 => (LOW_FLAGS, 0x80),
            5 => (LOW_FLAGS, 0x04),
            _ => {
                self.flags_in_host();
                return number;
            }
        };
        self.asm.op_full(Width::Byte, &[0xF6], 0, place);
        self.asm.raw(&[bits]);
        super::NOT_EQUAL ^ (number & 1)
    }

    /// Makes the saved CF the host's.
    pub(super) fn merge_carry(&mut self) {
        self.asm.op_full(Width::Byte, &[0x0F, 0x92], 0, Rm::Reg(T2)); // setc
        self.replace_low_flags(CF);
    }

    /// Makes the saved ZF the host's.
    pub(super) fn merge_zero(&mut self) {
        self.asm.op_full(Width::Byte, &[0x0F, 0x94], 0, Rm::Reg(T2)); // setz
        self.shift_to_zero_flag(T2);
        self.replace_low_flags(ZF);
    }

    /// Makes the saved CF and ZF the host's; `T1` goes.
    pub(super) fn merge_carry_and_zero(&mut self) {
        self.asm.op_full(Width::Byte, &[0x0F, 0x92], 0, Rm::Reg(T2)); // setc
        self.asm.op_full(Width::Byte, &[0x0F, 0x94], 0, Rm::Reg(T1)); // setz
        self.shift_to_zero_flag(T1);
        self.asm.op(Width::Byte, 0x08, T1, Rm::Reg(T2)); // or
        self.replace_low_flags(CF | ZF);
    }

    fn shift_to_zero_flag(&mut self, reg: Host) {
        self.asm.op_full(Width::Byte, &[0xC0], 4, Rm::Reg(reg)); // shl
        self.asm.raw(&[ZF.trailing_zeros() as u8]);
    }

    /// Replaces these saved flags by the bits of `T2`, which has no others.
    fn replace_low_flags(&mut self, flags: u8) {
        self.asm.group1(Width::Byte, AND, LOW_FLAGS, i32::from(!flags));
        self.asm.op(Width::Byte, 0x08, T2, LOW_FLAGS); // or
        self.flags = FlagState::SAVED;
    }

    /// Computes the flags of a result: CF is the host's, OF is clear, the others are those of the result.
    pub(super) fn flags_of_result(&mut self, width: Width, result: Host) {
        self.asm.op_full(Width::Byte, &[0x0F, 0x92], 0, OVERFLOW); // setc
        self.low_flags_of(width, result);
        self.asm.op_full(Width::Byte, &[0xC6], 0, OVERFLOW);
        self.asm.raw(&[0]);
        self.flags = FlagState::SAVED;
    }

    /// Computes the flags of a product: CF and OF are the host's, the others those of the result.
    pub(super) fn flags_of_product(&mut self, width: Width, result: Host) {
        self.asm.op_full(Width::Byte, &[0x0F, 0x90], 0, OVERFLOW); // seto
        self.low_flags_of(width, result);
        self.flags = FlagState::SAVED;
    }

    /// Saves the flags of a result, with CF from where OF is saved.
    pub(super) fn low_flags_of(&mut self, width: Width, result: Host) {
        self.asm.op(width, 0x84, result, Rm::Reg(result));
        self.asm.copy(T2, Host::RAX);
        self.asm.raw(&[0x9F]); // lahf
        self.asm.op_full(Width::Dword, &[0x0A], AH, OVERFLOW);
        self.asm.op_full(Width::Dword, &[0x88], AH, LOW_FLAGS);
        self.flags_mask(AuxiliaryCarry::Clear);
        self.asm.copy(Host::RAX, T2);
    }
}
