//! Writes x86-64 instructions. Only the forms that the compiler uses; registers are host registers by number.

use crate::ir::Width;

/// A host register, by its number in ModRM with REX.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Host(pub(crate) u8);

impl Host {
    pub(crate) const RAX: Self = Self(0);
    pub(crate) const RCX: Self = Self(1);
    pub(crate) const RDX: Self = Self(2);
    pub(crate) const RBX: Self = Self(3);
    pub(crate) const RBP: Self = Self(5);
    pub(crate) const RSI: Self = Self(6);
    pub(crate) const RDI: Self = Self(7);
    pub(crate) const R8: Self = Self(8);
    pub(crate) const R9: Self = Self(9);
    pub(crate) const R10: Self = Self(10);
    pub(crate) const R11: Self = Self(11);
    pub(crate) const R12: Self = Self(12);
    pub(crate) const R13: Self = Self(13);
    pub(crate) const R14: Self = Self(14);
    pub(crate) const R15: Self = Self(15);
}

/// A register or memory, as ModRM encodes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rm {
    Reg(Host),
    /// `[base + displacement]`.
    Base(Host, i32),
    /// `[base + index << scale + displacement]`; the index is not RSP.
    Indexed(Option<Host>, Host, u8, i32),
    /// An offset into the code that is written.
    Rip(Label),
}

/// A place in the code, known now or later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Label(u32);

/// What a VEX prefix says beside its operands, and the opcode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Vex {
    pub(crate) prefix: VexPrefix,
    pub(crate) map: VexMap,
    pub(crate) opcode: u8,
}

/// The prefix that a VEX prefix stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum VexPrefix {
    None = 0,
    P66 = 1,
    PF3 = 2,
    PF2 = 3,
}

/// The opcode map that a VEX prefix names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum VexMap {
    Map0F38 = 2,
    Map0F3A = 3,
}

const UNBOUND: u32 = u32::MAX;

/// Bytes of code under construction, with places in them.
#[derive(Default)]
pub(crate) struct Asm {
    bytes: Vec<u8>,
    labels: Vec<u32>,
    /// Four-byte displacements to be filled: where, to which label.
    fixups: Vec<(u32, Label)>,
}

impl Asm {
    pub(crate) fn label(&mut self) -> Label {
        self.labels.push(UNBOUND);
        Label(self.labels.len() as u32 - 1)
    }

    /// A label that is here.
    pub(crate) fn here(&mut self) -> Label {
        let label = self.label();
        self.bind(label);
        label
    }

    pub(crate) fn bind(&mut self, label: Label) {
        let here = self.bytes.len() as u32;
        if let Some(at) = self.labels.get_mut(label.0 as usize) {
            *at = here;
        }
    }

    /// Where a bound label is.
    pub(crate) fn offset(&self, label: Label) -> Option<u32> {
        self.labels.get(label.0 as usize).copied().filter(|at| *at != UNBOUND)
    }

    /// The code with every displacement filled; `None` if a label was never bound.
    pub(crate) fn finish(mut self) -> Option<Vec<u8>> {
        for (at, label) in &self.fixups {
            let target = *self.labels.get(label.0 as usize)?;
            if target == UNBOUND {
                return None;
            }
            let distance = target.wrapping_sub(at + 4);
            self.bytes.get_mut(*at as usize..*at as usize + 4)?.copy_from_slice(&distance.to_le_bytes());
        }
        Some(self.bytes)
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn align(&mut self, to: usize) {
        while !self.bytes.len().is_multiple_of(to) {
            self.bytes.push(0xCC);
        }
    }

    fn displacement_to(&mut self, label: Label) {
        self.fixups.push((self.bytes.len() as u32, label));
        self.raw(&[0; 4]);
    }

    /// An instruction with ModRM. `bytes` says that its registers are bytes, so that SIL and its kin are meant.
    fn modrm(&mut self, prefix: &[u8], opcode: &[u8], wide: bool, bytes: bool, reg: u8, rm: Rm) {
        self.raw(prefix);
        let (x, b) = match rm {
            Rm::Reg(r) | Rm::Base(r, _) => (0, r.0 >> 3),
            Rm::Indexed(base, index, _, _) => (index.0 >> 3, base.map_or(0, |b| b.0 >> 3)),
            Rm::Rip(_) => (0, 0),
        };
        let rex = 0x40 | u8::from(wide) << 3 | (reg >> 3 & 1) << 2 | x << 1 | b;
        let low_byte = bytes && (reg >= 4 || matches!(rm, Rm::Reg(r) if r.0 >= 4));
        if rex != 0x40 || low_byte {
            self.raw(&[rex]);
        }
        self.raw(opcode);
        self.operands(reg, rm);
    }

    /// ModRM and what follows it.
    fn operands(&mut self, reg: u8, rm: Rm) {
        let reg = (reg & 7) << 3;
        match rm {
            Rm::Reg(r) => self.raw(&[0xC0 | reg | r.0 & 7]),
            Rm::Base(base, displacement) => {
                let short = i8::try_from(displacement);
                self.raw(&[if short.is_ok() { 0x40 } else { 0x80 } | reg | base.0 & 7]);
                if base.0 & 7 == 4 {
                    self.raw(&[0x24]);
                }
                match short {
                    Ok(short) => self.raw(&short.to_le_bytes()),
                    Err(_) => self.raw(&displacement.to_le_bytes()),
                }
            }
            Rm::Indexed(base, index, scale, displacement) => {
                let mode = if base.is_some() { 0x80 } else { 0 };
                self.raw(&[mode | reg | 4, scale << 6 | (index.0 & 7) << 3 | base.map_or(5, |b| b.0 & 7)]);
                self.raw(&displacement.to_le_bytes());
            }
            Rm::Rip(label) => {
                self.raw(&[reg | 5]);
                self.displacement_to(label);
            }
        }
    }

    /// One of the instructions whose byte form has an even opcode and whose wider forms have the odd one behind it.
    pub(crate) fn op(&mut self, width: Width, opcode: u8, reg: Host, rm: Rm) {
        let opcode = if width == Width::Byte { opcode } else { opcode | 1 };
        self.op_full(width, &[opcode], reg.0, rm);
    }

    pub(crate) fn op_full(&mut self, width: Width, opcode: &[u8], reg: u8, rm: Rm) {
        let prefix: &[u8] = if width == Width::Word { &[0x66] } else { &[] };
        self.modrm(prefix, opcode, width == Width::Qword, width == Width::Byte, reg, rm);
    }

    /// An instruction of two registers of which the source has another width: `bytes` where it is a byte.
    pub(crate) fn extend(&mut self, width: Width, opcode: &[u8], from: Width, reg: Host, rm: Rm) {
        let prefix: &[u8] = if width == Width::Word { &[0x66] } else { &[] };
        self.modrm(prefix, opcode, width == Width::Qword, from == Width::Byte, reg.0, rm);
    }

    /// An instruction with a prefix that is part of its opcode.
    pub(crate) fn with_prefix(&mut self, prefix: &[u8], opcode: &[u8], wide: bool, reg: u8, rm: Rm) {
        self.modrm(prefix, opcode, wide, false, reg, rm);
    }

    /// An instruction of two registers and a register or memory, with a VEX prefix and general registers.
    pub(crate) fn vex(&mut self, encoding: Vex, wide: bool, reg: u8, second: Host, rm: Rm) {
        let (x, b) = match rm {
            Rm::Reg(r) | Rm::Base(r, _) => (0, r.0 >> 3),
            Rm::Indexed(base, index, _, _) => (index.0 >> 3, base.map_or(0, |b| b.0 >> 3)),
            Rm::Rip(_) => (0, 0),
        };
        let extensions = (reg >> 3 & 1) << 7 | (x & 1) << 6 | (b & 1) << 5;
        let second = (second.0 & 15) << 3;
        self.raw(&[
            0xC4,
            extensions ^ 0xE0 | encoding.map as u8,
            u8::from(wide) << 7 | second ^ 0x78 | encoding.prefix as u8,
            encoding.opcode,
        ]);
        self.operands(reg, rm);
    }

    pub(crate) fn load(&mut self, width: Width, to: Host, from: Rm) {
        self.op(width, 0x8A, to, from);
    }

    pub(crate) fn store(&mut self, width: Width, to: Rm, from: Host) {
        self.op(width, 0x88, from, to);
    }

    /// All 64 bits of a register.
    pub(crate) fn copy(&mut self, to: Host, from: Host) {
        if to != from {
            self.load(Width::Qword, to, Rm::Reg(from));
        }
    }

    pub(crate) fn constant(&mut self, to: Host, value: u64) {
        if let Ok(value) = u32::try_from(value) {
            if to.0 >= 8 {
                self.raw(&[0x41]);
            }
            self.raw(&[0xB8 | to.0 & 7]);
            self.raw(&value.to_le_bytes());
        } else if let Ok(value) = i32::try_from(value as i64) {
            self.op_full(Width::Qword, &[0xC7], 0, Rm::Reg(to));
            self.raw(&value.to_le_bytes());
        } else {
            self.raw(&[0x48 | to.0 >> 3, 0xB8 | to.0 & 7]);
            self.raw(&value.to_le_bytes());
        }
    }

    /// A group-1 operation (by its number in ModRM) with an immediate that is sign-extended.
    pub(crate) fn group1(&mut self, width: Width, number: u8, rm: Rm, value: i32) {
        if width == Width::Byte {
            self.op_full(width, &[0x80], number, rm);
            self.raw(&[value as u8]);
        } else if let Ok(value) = i8::try_from(value) {
            self.op_full(width, &[0x83], number, rm);
            self.raw(&value.to_le_bytes());
        } else {
            self.op_full(width, &[0x81], number, rm);
            self.immediate(width, value);
        }
    }

    /// An immediate as long as an operand has it: at most four bytes.
    pub(crate) fn immediate(&mut self, width: Width, value: i32) {
        let bytes = value.to_le_bytes();
        let length = usize::from(width.bytes().min(4));
        self.raw(bytes.get(..length).unwrap_or(&bytes));
    }

    pub(crate) fn lea(&mut self, width: Width, to: Host, from: Rm) {
        self.op_full(width, &[0x8D], to.0, from);
    }

    /// Jumps if a condition holds.
    pub(crate) fn jump_if(&mut self, condition: u8, to: Label) {
        self.raw(&[0x0F, 0x80 | condition & 15]);
        self.displacement_to(to);
    }

    pub(crate) fn jump(&mut self, to: Label) {
        self.raw(&[0xE9]);
        self.displacement_to(to);
    }

    pub(crate) fn jump_through(&mut self, to: Rm) {
        self.op_full(Width::Dword, &[0xFF], 4, to);
    }

    pub(crate) fn ret(&mut self) {
        self.raw(&[0xC3]);
    }
}
