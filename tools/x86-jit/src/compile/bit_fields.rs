//! BMI1 and BMI2, by the host's own.

use super::flags::{AuxiliaryCarry, FlagState};
use super::memory::AT;
use super::{Emitter, T0, T1, T2};
use crate::asm::{Rm, Vex, VexMap, VexPrefix};
use crate::ir::{BitField, Operand, Reg, Width};
use crate::tlb::Right;

const fn encoding(kind: BitField) -> Vex {
    let (prefix, opcode) = match kind {
        BitField::Andn => (VexPrefix::None, 0xF2),
        BitField::Blsr | BitField::Blsmsk | BitField::Blsi => (VexPrefix::None, 0xF3),
        BitField::Bzhi => (VexPrefix::None, 0xF5),
        BitField::Pext => (VexPrefix::PF3, 0xF5),
        BitField::Pdep => (VexPrefix::PF2, 0xF5),
        BitField::Bextr => (VexPrefix::None, 0xF7),
        BitField::Shlx => (VexPrefix::P66, 0xF7),
        BitField::Sarx => (VexPrefix::PF3, 0xF7),
        BitField::Shrx => (VexPrefix::PF2, 0xF7),
    };
    Vex { prefix, map: VexMap::Map0F38, opcode }
}

const RORX: Vex = Vex { prefix: VexPrefix::PF2, map: VexMap::Map0F3A, opcode: 0xF0 };

/// The number in ModRM of an operation on the lowest bit.
const fn number(kind: BitField) -> Option<u8> {
    match kind {
        BitField::Blsr => Some(1),
        BitField::Blsmsk => Some(2),
        BitField::Blsi => Some(3),
        _ => None,
    }
}

impl Emitter<'_> {
    pub(super) fn bit_field(
        &mut self,
        n: usize,
        kind: BitField,
        width: Width,
        (to, from, other): (Reg, Operand, Reg),
    ) -> Option<()> {
        let from = self.source(n, width, from)?;
        let target = self.target(to, T1, width);
        let wide = width == Width::Qword;
        match number(kind) {
            Some(number) => self.asm.vex(encoding(kind), wide, number, target, from),
            None => {
                let other = self.get(other, T2);
                self.asm.vex(encoding(kind), wide, target.0, other, from);
            }
        }
        self.put(to, target);
        if !kind.sets_flags() {
            return Some(());
        }
        if !self.live(n + 1) {
            self.flags = FlagState::NOWHERE;
        } else if matches!(kind, BitField::Andn | BitField::Bextr) {
            // As behind a logical operation.
            self.asm.op(width, 0x84, target, Rm::Reg(target));
            self.flags = FlagState::host(AuxiliaryCarry::Clear);
        } else {
            self.flags_of_result(width, target);
        }
        Some(())
    }

    pub(super) fn rotate_right(
        &mut self,
        n: usize,
        width: Width,
        to: Reg,
        from: Operand,
        count: u8,
    ) -> Option<()> {
        let from = self.source(n, width, from)?;
        let target = self.target(to, T1, width);
        // The second register is not used, which is encoded as the first.
        self.asm.vex(RORX, width == Width::Qword, target.0, crate::asm::Host::RAX, from);
        self.asm.raw(&[count]);
        self.put(to, target);
        Some(())
    }

    /// A source: a register, in `T0` if it has no place of its own, or memory.
    fn source(&mut self, n: usize, width: Width, from: Operand) -> Option<Rm> {
        Some(match from {
            Operand::Register(reg) => Rm::Reg(self.get(reg, T0)),
            Operand::Memory(address) => {
                self.access(n, &address, width.bytes(), Right::Read)?;
                AT
            }
        })
    }
}
