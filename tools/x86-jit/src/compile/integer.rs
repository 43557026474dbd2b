//! Moves and arithmetic.

use super::flags::{AuxiliaryCarry, FlagState};
use super::memory::AT;
use super::{ABOVE_OR_EQUAL, AND, BELOW_OR_EQUAL, CMP, EQUAL, Emitter, NOT_EQUAL, SideAddress, T0, T1, T2};
use crate::ExitKind;
use crate::asm::{Host, Rm};
use crate::context::{OVERFLOW, PRIVILEGED, REST, host_of};
use crate::ir::{
    Address, Arithmetic, Atomicity, Condition, Count, Fetch, Insn, Operand, Reg, Shift, SignExtension,
    Source, Unary, Width,
};
use crate::tlb::Right;
use x86_arch::flags;

/// Numbers from here on are AH, CH, DH and BH where an operand is a byte and there is no REX.
const HIGH_BYTES: u8 = 4;

/// An immediate as its operand has it.
fn truncated(width: Width, value: u64) -> Option<i32> {
    match width {
        Width::Byte => Some(i32::from(value as i8)),
        Width::Word => Some(i32::from(value as i16)),
        Width::Dword => Some(value as i32),
        Width::Qword => i32::try_from(value as i64).ok(),
    }
}

const fn is_wide(width: Width) -> bool {
    matches!(width, Width::Dword | Width::Qword)
}

impl Emitter<'_> {
    /// Compiles instruction `n`; `None` if it has a form that is not done here.
    pub(super) fn instruction(&mut self, n: usize, insn: &Insn) -> Option<()> {
        match *insn {
            Insn::Nothing => Some(()),
            Insn::Move { width, to, from } => self.mov(n, width, to, from),
            Insn::Extend { signed, from_width, from, width, to } => {
                self.extend(n, signed, (from_width, from), (width, to))
            }
            Insn::LoadAddress { width, to, address } => self.load_address(width, to, &address),
            Insn::Arithmetic { kind, width, to, from, atomicity } => {
                self.arithmetic(n, (kind, atomicity), width, to, from)
            }
            Insn::Unary { kind, width, to, atomicity } => self.unary(n, (kind, atomicity), width, to),
            Insn::Fetch { kind, width, at, register, atomicity } => {
                self.fetch(n, (kind, atomicity), width, &at, register)
            }
            Insn::ExchangeWide { at, atomicity } => self.exchange_wide(n, &at, atomicity),
            Insn::HighByte { kind, of, value } => self.high_byte(kind, of, value),
            Insn::Shift { kind, width, to, count } => self.shift_register(n, kind, width, to, count),
            Insn::ShiftDouble { kind, width, to, from, count } => {
                self.shift_double(n, kind, width, (to, from), count)
            }
            Insn::Multiply { width, to, from, by } => self.multiply(n, width, to, from, by),
            Insn::MultiplyWide { signed, width, by } => self.multiply_wide(n, signed, width, by),
            Insn::Divide { signed, width, by } => self.divide(n, signed, width, by),
            Insn::ConditionalMove { condition, width, to, from } => {
                if let Operand::Memory(address) = from {
                    self.access(n, &address, width.bytes(), Right::Read)?;
                    self.asm.load(width, T0, AT);
                }
                let decided = self.decide(condition);
                let target = self.get(to, T1);
                let from = match from {
                    Operand::Register(reg) => self.get(reg, T2),
                    Operand::Memory(_) => T0,
                };
                (width != Width::Byte).then_some(())?;
                self.asm.op_full(width, &[0x0F, 0x40 | decided], target.0, Rm::Reg(from));
                self.put(to, target);
                Some(())
            }
            Insn::Set { condition, to } => self.set_by_condition(n, condition, to),
            Insn::Bit { kind, width, of: Operand::Register(of), bit, .. } => {
                self.bit_of_register(n, kind, width, of, bit)
            }
            Insn::Bit { kind, width, of: Operand::Memory(of), bit, atomicity } => {
                self.bit_of_memory(n, (kind, atomicity), width, &of, bit)
            }
            Insn::Scan { kind, width, to, from } => self.scan(n, kind, width, to, from),
            Insn::BitField { kind, width, to, from, other } => {
                self.bit_field(n, kind, width, (to, from, other))
            }
            Insn::RotateRight { width, to, from, count } => self.rotate_right(n, width, to, from, count),
            Insn::Fence { kind } => {
                self.asm.raw(&[0x0F, 0xAE, kind as u8]);
                Some(())
            }
            Insn::Touch { address } => self.access(n, &address, 1, Right::Read),
            Insn::ClearInterrupts => {
                self.need_privilege(n);
                self.clear_rest(flags::IF);
                Some(())
            }
            Insn::ClearDirection => {
                self.clear_rest(flags::DF);
                Some(())
            }
            Insn::Exchange { width, a, b } => {
                is_wide(width).then_some(())?;
                let first = self.get(a, T1);
                self.asm.copy(T0, first);
                let second = self.get(b, T2);
                self.set(a, width, second);
                self.set(b, width, T0);
                Some(())
            }
            Insn::SwapBytes { width, of } => {
                is_wide(width).then_some(())?;
                let target = self.get(of, T1);
                let rex = 0x40 | u8::from(width == Width::Qword) << 3 | target.0 >> 3;
                self.asm.raw(&[rex, 0x0F, 0xC8 | target.0 & 7]);
                self.put(of, target);
                Some(())
            }
            Insn::SignExtend { kind, width } => {
                let opcode = if kind == SignExtension::Within { 0x98 } else { 0x99 };
                match width {
                    Width::Word => self.asm.raw(&[0x66, opcode]),
                    Width::Dword => self.asm.raw(&[opcode]),
                    Width::Qword => self.asm.raw(&[0x48, opcode]),
                    Width::Byte => return None,
                }
                Some(())
            }
            _ if insn.is_vector() => self.vector(n, insn),
            _ => self.transfer(n, insn),
        }
    }

    fn mov(&mut self, n: usize, width: Width, to: Operand, from: Source) -> Option<()> {
        match (to, from) {
            (Operand::Register(to), Source::Register(from)) => {
                let from = self.get(from, T2);
                if is_wide(width) {
                    self.set(to, width, from);
                } else {
                    let target = self.get(to, T1);
                    self.asm.load(width, target, Rm::Reg(from));
                    self.put(to, target);
                }
            }
            (Operand::Register(to), Source::Immediate(value)) => {
                let target = self.target(to, T1, width);
                match width {
                    Width::Qword => self.asm.constant(target, value),
                    Width::Dword => self.asm.constant(target, value & 0xFFFF_FFFF),
                    Width::Byte | Width::Word => {
                        self.move_immediate(width, Rm::Reg(target), value)?;
                    }
                }
                self.put(to, target);
            }
            (Operand::Register(to), Source::Memory(address)) => {
                self.access(n, &address, width.bytes(), Right::Read)?;
                let target = self.target(to, T2, width);
                self.asm.load(width, target, AT);
                self.put(to, target);
            }
            (Operand::Memory(address), Source::Register(from)) => {
                self.access(n, &address, width.bytes(), Right::Write)?;
                self.store_register(width, from);
                self.after_store(n, None);
            }
            (Operand::Memory(address), Source::Immediate(value)) => {
                self.access(n, &address, width.bytes(), Right::Write)?;
                self.move_immediate(width, AT, value)?;
                self.after_store(n, None);
            }
            (Operand::Memory(_), Source::Memory(_)) => return None,
        }
        Some(())
    }

    fn move_immediate(&mut self, width: Width, to: Rm, value: u64) -> Option<()> {
        let value = truncated(width, value)?;
        self.asm.op_full(width, &[if width == Width::Byte { 0xC6 } else { 0xC7 }], 0, to);
        self.asm.immediate(width, value);
        Some(())
    }

    fn extend(
        &mut self,
        n: usize,
        signed: bool,
        (from_width, from): (Width, Operand),
        (width, to): (Width, Reg),
    ) -> Option<()> {
        let opcode: &[u8] = match (from_width, signed) {
            (Width::Byte, false) => &[0x0F, 0xB6],
            (Width::Word, false) => &[0x0F, 0xB7],
            (Width::Byte, true) => &[0x0F, 0xBE],
            (Width::Word, true) => &[0x0F, 0xBF],
            (Width::Dword, true) => &[0x63],
            _ => return None,
        };
        if from_width.bytes() >= width.bytes() {
            return None;
        }
        let from = match from {
            Operand::Register(reg) => Rm::Reg(self.get(reg, T2)),
            Operand::Memory(address) => {
                self.access(n, &address, from_width.bytes(), Right::Read)?;
                AT
            }
        };
        let target = self.target(to, T1, width);
        self.asm.extend(width, opcode, from_width, target, from);
        self.put(to, target);
        Some(())
    }

    fn load_address(&mut self, width: Width, to: Reg, address: &Address) -> Option<()> {
        is_wide(width).then_some(())?;
        self.effective(width, T0, address)?;
        self.set(to, width, T0);
        Some(())
    }

    fn arithmetic(
        &mut self,
        n: usize,
        (kind, atomicity): (Arithmetic, Atomicity),
        width: Width,
        to: Operand,
        from: Source,
    ) -> Option<()> {
        let writes = !matches!(kind, Arithmetic::Cmp | Arithmetic::Test);
        let with_carry = matches!(kind, Arithmetic::Adc | Arithmetic::Sbb);
        let right = if writes { Right::Write } else { Right::Read };
        let stores = match (to, from) {
            (Operand::Memory(address), _) => {
                self.access(n, &address, width.bytes(), right)?;
                writes
            }
            (_, Source::Memory(address)) => {
                self.access(n, &address, width.bytes(), Right::Read)?;
                false
            }
            _ => false,
        };
        if with_carry {
            self.flags_in_host();
        }
        let target = match to {
            Operand::Memory(_) => None,
            // The entry of a read is not needed any more.
            Operand::Register(reg) => Some((reg, self.get(reg, T1))),
        };
        let rm = target.map_or(AT, |(_, host)| Rm::Reg(host));
        match from {
            Source::Register(reg) => {
                let from = self.get(reg, T2);
                self.lock(atomicity);
                self.asm.op(width, opcode(kind, false), from, rm);
            }
            Source::Memory(_) => {
                let (_, host) = target?;
                self.asm.op(width, opcode(kind, true), host, AT);
            }
            Source::Immediate(value) => {
                let value = truncated(width, value)?;
                self.lock(atomicity);
                if kind == Arithmetic::Test {
                    self.asm.op_full(width, &[if width == Width::Byte { 0xF6 } else { 0xF7 }], 0, rm);
                    self.asm.immediate(width, value);
                } else {
                    self.asm.group1(width, kind as u8, rm, value);
                }
            }
        }
        self.flags = FlagState::host(auxiliary_of(kind));
        if let Some((reg, host)) = target.filter(|_| writes) {
            self.put(reg, host);
        }
        if stores {
            self.save_flags();
            self.after_store(n, None);
        }
        Some(())
    }

    fn set_by_condition(&mut self, n: usize, condition: Condition, to: Operand) -> Option<()> {
        match to {
            Operand::Register(to) => {
                let decided = self.decide(condition);
                let target = self.get(to, T1);
                self.asm.op_full(Width::Byte, &[0x0F, 0x90 | decided], 0, Rm::Reg(target));
                self.put(to, target);
            }
            Operand::Memory(address) => {
                self.access(n, &address, 1, Right::Write)?;
                let decided = self.decide(condition);
                self.asm.op_full(Width::Byte, &[0x0F, 0x90 | decided], 0, AT);
                self.after_store(n, None);
            }
        }
        Some(())
    }

    fn high_byte(&mut self, kind: Arithmetic, of: Reg, value: u8) -> Option<()> {
        let host = host_of(of).filter(|host| host.0 < HIGH_BYTES)?;
        let rm = 0xC0 | HIGH_BYTES | host.0;
        match kind {
            Arithmetic::Test => self.asm.raw(&[0xF6, rm, value]),
            _ => self.asm.raw(&[0x80, rm | (kind as u8) << 3, value]),
        }
        self.flags = FlagState::host(auxiliary_of(kind));
        Some(())
    }

    /// Leaves where the privilege level is not 0.
    fn need_privilege(&mut self, n: usize) {
        let refused = self.side(ExitKind::Interpret, n, SideAddress::None, None);
        self.clobber_flags();
        self.asm.op_full(Width::Byte, &[0xF6], 0, PRIVILEGED);
        self.asm.raw(&[1]);
        self.asm.jump_if(EQUAL, refused);
    }

    /// Clears a flag that is not an arithmetic one.
    fn clear_rest(&mut self, flag: u64) {
        self.clobber_flags();
        self.asm.group1(Width::Dword, AND, REST, !(flag as i32));
    }

    pub(super) fn lock(&mut self, atomicity: Atomicity) {
        if atomicity == Atomicity::Locked {
            self.asm.raw(&[0xF0]);
        }
    }

    fn fetch(
        &mut self,
        n: usize,
        (kind, atomicity): (Fetch, Atomicity),
        width: Width,
        at: &Address,
        register: Reg,
    ) -> Option<()> {
        self.access(n, at, width.bytes(), Right::Write)?;
        let host = self.get(register, T2);
        match kind {
            Fetch::Exchange => self.asm.op(width, 0x86, host, AT),
            Fetch::Add | Fetch::Compare => {
                self.lock(atomicity);
                let opcode = if kind == Fetch::Add { 0xC0 } else { 0xB0 };
                let opcode = opcode | u8::from(width != Width::Byte);
                self.asm.op_full(width, &[0x0F, opcode], host.0, AT);
                self.flags = FlagState::host(AuxiliaryCarry::Valid);
            }
        }
        if kind != Fetch::Compare {
            self.put(register, host);
        }
        self.save_flags();
        self.after_store(n, None);
        Some(())
    }

    fn exchange_wide(&mut self, n: usize, at: &Address, atomicity: Atomicity) -> Option<()> {
        const BYTES: u8 = 16;
        self.linear(at)?;
        self.need_alignment(n, BYTES);
        self.access_at(n, BYTES, Right::Write);
        self.lock(atomicity);
        self.asm.op_full(Width::Qword, &[0x0F, 0xC7], 1, AT);
        self.merge_zero();
        self.after_store(n, None);
        Some(())
    }

    fn unary(
        &mut self,
        n: usize,
        (kind, atomicity): (Unary, Atomicity),
        width: Width,
        to: Operand,
    ) -> Option<()> {
        let target = match to {
            Operand::Memory(address) => {
                self.access(n, &address, width.bytes(), Right::Write)?;
                None
            }
            Operand::Register(reg) => Some((reg, self.get(reg, T1))),
        };
        let rm = target.map_or(AT, |(_, host)| Rm::Reg(host));
        let steps = matches!(kind, Unary::Increment | Unary::Decrement);
        if steps && (target.is_none() || self.live(n + 1)) {
            self.carry_in_host();
        }
        let (opcode, number) = match kind {
            Unary::Increment => (0xFE, 0),
            Unary::Decrement => (0xFE, 1),
            Unary::Not => (0xF6, 2),
            Unary::Negate => (0xF6, 3),
        };
        self.lock(atomicity);
        self.asm.op(width, opcode, Host(number), rm);
        if kind != Unary::Not {
            self.flags = FlagState::host(AuxiliaryCarry::Valid);
        }
        match target {
            Some((reg, host)) => self.put(reg, host),
            None => {
                self.save_flags();
                self.after_store(n, None);
            }
        }
        Some(())
    }

    fn shift_register(&mut self, n: usize, kind: Shift, width: Width, to: Reg, count: Count) -> Option<()> {
        let live = self.live(n + 1);
        if kind.is_rotate() {
            if live {
                self.flags_in_host();
            }
        } else if count == Count::Cl && live {
            self.save_flags();
            // The shift may be one of RCX itself.
            self.asm.copy(T0, Host::RCX);
        }
        let target = self.get(to, T1);
        let bits = if width == Width::Byte { 0 } else { 1 };
        match count {
            Count::Immediate(count) => {
                self.asm.op_full(width, &[0xC0 | bits], kind as u8, Rm::Reg(target));
                self.asm.raw(&[count]);
            }
            Count::Cl => {
                is_wide(width).then_some(())?;
                self.asm.op_full(width, &[0xD2 | bits], kind as u8, Rm::Reg(target));
            }
        }
        self.put(to, target);
        if kind.is_rotate() {
            // AF is what it was.
            self.flags = match self.flags.auxiliary() {
                Some(auxiliary) if live => FlagState::host(auxiliary),
                _ => FlagState::NOWHERE,
            };
        } else if let Count::Immediate(_) = count {
            self.flags = FlagState::host(AuxiliaryCarry::Clear);
        } else if live {
            self.flags_of_counted_shift(width);
        } else {
            self.flags = FlagState::NOWHERE;
        }
        Some(())
    }

    /// A count of zero, of which `T0` has a copy, keeps the flags, which are saved; any other replaces them.
    fn flags_of_counted_shift(&mut self, width: Width) {
        self.asm.copy(T2, Host::RAX);
        self.asm.raw(&[0x9F, 0x0F, 0x90, 0xC0]); // lahf; seto al
        let kept = self.asm.label();
        self.asm.op_full(Width::Byte, &[0xF6], 0, Rm::Reg(T0));
        self.asm.raw(&[if width == Width::Qword { 63 } else { 31 }]);
        self.asm.jump_if(super::EQUAL, kept);
        self.asm.store(Width::Word, OVERFLOW, Host::RAX);
        self.flags_mask(AuxiliaryCarry::Clear);
        self.asm.bind(kept);
        self.asm.copy(Host::RAX, T2);
        self.flags = FlagState::SAVED;
    }

    fn multiply(&mut self, n: usize, width: Width, to: Reg, from: Operand, by: Option<i32>) -> Option<()> {
        is_wide(width).then_some(())?;
        let from = match from {
            Operand::Register(reg) => Rm::Reg(self.get(reg, T2)),
            Operand::Memory(address) => {
                self.access(n, &address, width.bytes(), Right::Read)?;
                AT
            }
        };
        let target = match by {
            Some(value) => {
                let target = self.target(to, T1, width);
                self.asm.op_full(width, &[0x69], target.0, from);
                self.asm.immediate(Width::Dword, value);
                target
            }
            None => {
                let target = self.get(to, T1);
                self.asm.op_full(width, &[0x0F, 0xAF], target.0, from);
                target
            }
        };
        self.put(to, target);
        self.product(n, width, target);
        Some(())
    }

    fn product(&mut self, n: usize, width: Width, result: Host) {
        if self.live(n + 1) {
            self.flags_of_product(width, result);
        } else {
            self.flags = FlagState::NOWHERE;
        }
    }

    fn multiply_wide(&mut self, n: usize, signed: bool, width: Width, by: Operand) -> Option<()> {
        is_wide(width).then_some(())?;
        let by = match by {
            Operand::Register(reg) => Rm::Reg(self.get(reg, T2)),
            Operand::Memory(address) => {
                self.access(n, &address, width.bytes(), Right::Read)?;
                AT
            }
        };
        self.asm.op_full(width, &[0xF7], if signed { 5 } else { 4 }, by);
        self.product(n, width, Host::RAX);
        Some(())
    }

    /// A division that could fault is left alone.
    fn divide(&mut self, n: usize, signed: bool, width: Width, by: Operand) -> Option<()> {
        is_wide(width).then_some(())?;
        let by = match by {
            Operand::Register(reg) => self.get(reg, T2),
            Operand::Memory(address) => {
                self.access(n, &address, width.bytes(), Right::Read)?;
                self.asm.load(width, T2, AT);
                T2
            }
        };
        let hard = self.side(ExitKind::Interpret, n, SideAddress::None, None);
        self.clobber_flags();
        if signed {
            // The dividend is a sign-extended word, and the divisor neither zero nor minus one: the quotient fits.
            self.asm.load(width, T1, Rm::Reg(Host::RAX));
            self.asm.op_full(width, &[0xC1], 7, Rm::Reg(T1));
            self.asm.raw(&[8 * width.bytes() - 1]);
            self.asm.op(width, 0x3A, T1, Rm::Reg(Host::RDX));
            self.asm.jump_if(NOT_EQUAL, hard);
            self.asm.lea(width, T1, Rm::Base(by, 1));
            self.asm.group1(width, CMP, Rm::Reg(T1), 1);
            self.asm.jump_if(BELOW_OR_EQUAL, hard);
        } else {
            // The quotient fits exactly if the dividend's upper half is less than the divisor.
            self.asm.op(width, 0x3A, Host::RDX, Rm::Reg(by));
            self.asm.jump_if(ABOVE_OR_EQUAL, hard);
        }
        self.asm.op_full(width, &[0xF7], if signed { 7 } else { 6 }, Rm::Reg(by));
        Some(())
    }
}

/// What AF of the host means behind an operation.
const fn auxiliary_of(kind: Arithmetic) -> AuxiliaryCarry {
    match kind {
        Arithmetic::And | Arithmetic::Or | Arithmetic::Xor | Arithmetic::Test => AuxiliaryCarry::Clear,
        _ => AuxiliaryCarry::Valid,
    }
}

/// The opcode of an operation for bytes, with the register as its source or as its destination.
const fn opcode(kind: Arithmetic, to_register: bool) -> u8 {
    match kind {
        Arithmetic::Test => 0x84,
        _ => (kind as u8) << 3 | if to_register { 2 } else { 0 },
    }
}
