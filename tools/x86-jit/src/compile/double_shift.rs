//! SHLD and SHRD of registers.

use super::flags::FlagState;
use super::{Emitter, T0, T1, T2};
use crate::asm::{Host, Rm};
use crate::context::{LOW_FLAGS, OVERFLOW, TARGET};
use crate::ir::{Count, Reg, Shift, Width};

/// Numbers of shifts in ModRM.
const SHR: u8 = 5;
/// SF among the low flags, whose bit 0 is CF.
const SF_BIT: u8 = 7;

impl Emitter<'_> {
    pub(super) fn shift_double(
        &mut self,
        n: usize,
        kind: Shift,
        width: Width,
        (to, from): (Reg, Reg),
        count: Count,
    ) -> Option<()> {
        let opcode = match kind {
            Shift::Shl => 0xA4,
            Shift::Shr => 0xAC,
            _ => return None,
        };
        let live = self.live(n + 1);
        if live && count == Count::Cl {
            self.save_flags();
            // RCX itself may be shifted.
            self.asm.copy(T0, Host::RCX);
        }
        let target = self.get(to, T1);
        let from = self.get(from, T2);
        match count {
            Count::Immediate(count) => {
                self.asm.op_full(width, &[0x0F, opcode], from.0, Rm::Reg(target));
                self.asm.raw(&[count]);
            }
            Count::Cl => self.asm.op_full(width, &[0x0F, opcode | 1], from.0, Rm::Reg(target)),
        }
        self.put(to, target);
        if !live {
            self.flags = FlagState::NOWHERE;
            return Some(());
        }
        match count {
            Count::Immediate(_) => {
                self.asm.op_full(Width::Byte, &[0x0F, 0x92], 0, OVERFLOW); // setc
                self.flags_of_double_shift(kind, width, target);
            }
            Count::Cl => {
                self.asm.op_full(Width::Byte, &[0x0F, 0x92], 0, TARGET); // setc
                let kept = self.asm.label();
                self.asm.op_full(Width::Byte, &[0xF6], 0, Rm::Reg(T0));
                self.asm.raw(&[if width == Width::Qword { 63 } else { 31 }]);
                self.asm.jump_if(super::EQUAL, kept);
                self.asm.load(Width::Byte, T2, TARGET);
                self.asm.store(Width::Byte, OVERFLOW, T2);
                self.flags_of_double_shift(kind, width, target);
                self.asm.bind(kept);
            }
        }
        self.flags = FlagState::SAVED;
        Some(())
    }

    /// Saves the flags of a result, CF being where OF is saved. OF is whether the last step changed the sign, for counts too
    /// that leave it undefined.
    fn flags_of_double_shift(&mut self, kind: Shift, width: Width, result: Host) {
        self.low_flags_of(width, result);
        if kind == Shift::Shl {
            // CF is the sign before the last step.
            self.asm.op_full(Width::Dword, &[0x0F, 0xB6], T2.0, LOW_FLAGS); // movzx
            self.asm.copy(T0, T2);
            self.shift_right(T0, SF_BIT);
            self.asm.op(Width::Dword, 0x32, T0, Rm::Reg(T2)); // xor
        } else {
            // The sign before it is beside the sign by now.
            self.asm.lea(Width::Qword, T0, Rm::Indexed(None, result, 1, 0));
            self.asm.op(Width::Qword, 0x32, T0, Rm::Reg(result));
            self.shift_right(T0, 8 * width.bytes() - 1);
        }
        self.asm.group1(Width::Dword, super::AND, Rm::Reg(T0), 1);
        self.asm.store(Width::Byte, OVERFLOW, T0);
    }

    fn shift_right(&mut self, reg: Host, count: u8) {
        self.asm.op_full(Width::Qword, &[0xC1], SHR, Rm::Reg(reg));
        self.asm.raw(&[count]);
    }
}
