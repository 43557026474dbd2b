//! PUSH, POP, ENTER, LEAVE and the flags on the stack.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use crate::cpu::{Cpu, Env};
use crate::decode::{Decoded, operands};
use crate::memory::FromBytes;
use crate::op::{Handler, Intent, Op, address, prefix};
use crate::stop::{Step, Stop};
use x86_arch::{Seg, Shadow, flags};

const RSP: u8 = 4;
pub(super) const RBP: u8 = 5;

impl Cpu {
    /// The stack pointer as wide as the stack is.
    #[inline(always)]
    pub(crate) fn stack(&self) -> u64 {
        let rsp = self.state.regs.slot(RSP);
        if self.is_long_mode() { rsp } else { rsp & self.stack_mask }
    }

    /// What RSP is with the stack pointer moved: a 16-bit one keeps the rest of ESP.
    #[inline(always)]
    fn moved_stack(&self, rsp: u64) -> u64 {
        if self.stack_mask == 0xFFFF {
            self.state.regs.slot(RSP) & !0xFFFF | rsp & 0xFFFF
        } else {
            rsp & self.stack_mask
        }
    }

    /// Moves the stack pointer.
    #[inline(always)]
    pub(crate) fn set_stack(&mut self, rsp: u64) {
        let moved = if self.is_long_mode() { rsp } else { self.moved_stack(rsp) };
        self.state.regs.set_slot(RSP, moved);
    }

    /// The linear address of a stack offset.
    #[inline(always)]
    pub(crate) fn stack_linear(&mut self, offset: u64, bytes: u64, intent: Intent) -> Result<u64, Stop> {
        if self.is_long_mode() {
            return Ok(offset);
        }
        self.checked_linear(Seg::Ss, offset & self.stack_mask, bytes, intent)
    }

    #[inline(always)]
    pub(crate) fn push<W: FromBytes>(&mut self, env: &mut Env<'_>, value: W) -> Step {
        let bytes = size_of::<W>() as u64;
        let top = self.stack().wrapping_sub(bytes);
        let linear = self.stack_linear(top, bytes, Intent::Write)?;
        self.store(env, linear, value)?;
        self.set_stack(top);
        Ok(())
    }

    /// The word on top of the stack, and the stack pointer behind it.
    #[inline(always)]
    pub(crate) fn peek<W: FromBytes>(&mut self, env: &mut Env<'_>) -> Result<(W, u64), Stop> {
        let bytes = size_of::<W>() as u64;
        let top = self.stack();
        let linear = self.stack_linear(top, bytes, Intent::Read)?;
        Ok((self.load(env, linear)?, top.wrapping_add(bytes)))
    }

    /// Pushes a word of the mode's own size.
    #[inline(always)]
    pub(crate) fn push_native(&mut self, env: &mut Env<'_>, value: u64) -> Step {
        if self.is_long_mode() { self.push(env, value) } else { self.push(env, value as u32) }
    }

    /// Reads a word of the mode's own size from the stack without popping it.
    #[inline(always)]
    pub(crate) fn peek_native(&mut self, env: &mut Env<'_>) -> Result<(u64, u64), Stop> {
        if self.is_long_mode() {
            self.peek::<u64>(env)
        } else {
            let (value, stack) = self.peek::<u32>(env)?;
            Ok((u64::from(value), stack))
        }
    }

    /// Pushes a word of the operation's size.
    fn push_sized(&mut self, env: &mut Env<'_>, op: &Op, value: u64) -> Step {
        match op.operand_bytes() {
            8 => self.push(env, value),
            4 => self.push(env, value as u32),
            _ => self.push(env, value as u16),
        }
    }

    fn peek_sized(&mut self, env: &mut Env<'_>, op: &Op) -> Result<(u64, u64), Stop> {
        match op.operand_bytes() {
            8 => self.peek::<u64>(env),
            4 => self.peek::<u32>(env).map(|(v, s)| (u64::from(v), s)),
            _ => self.peek::<u16>(env).map(|(v, s)| (u64::from(v), s)),
        }
    }

    /// Sets the flags that POPF and IRET may set at this privilege.
    pub(crate) fn load_flags(&mut self, value: u64, bytes: u8, with_resume: bool) {
        let mut mask = flags::ARITHMETIC | flags::TF | flags::DF | flags::NT;
        if bytes > 2 {
            mask |= flags::AC | flags::ID;
            if with_resume {
                mask |= flags::RF;
            }
        }
        let cpl = self.state.cpl();
        if cpl == 0 {
            mask |= flags::IOPL;
            if bytes > 2 && with_resume {
                mask |= flags::VIF | flags::VIP;
            }
        }
        if u64::from(cpl) <= (self.state.flags.rest() & flags::IOPL) >> 12 {
            mask |= flags::IF;
        }
        self.state.flags.replace(mask, value);
        self.attention = true;
        self.refresh_mode();
    }
}

fn push_reg64(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let value = cpu.state.regs.slot(op.dst);
    cpu.push(env, value)
}

fn push_reg(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let value = cpu.state.regs.slot(op.dst);
    cpu.push_sized(env, op, value)
}

fn push_imm(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.push_sized(env, op, op.imm)
}

fn push_mem(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let value = match op.operand_bytes() {
        8 => cpu.load_operand::<u64>(env, op)?,
        4 => u64::from(cpu.load_operand::<u32>(env, op)?),
        _ => u64::from(cpu.load_operand::<u16>(env, op)?),
    };
    cpu.push_sized(env, op, value)
}

/// PUSH of a segment register: `dst` is its number. In a wider slot the selector is zero-extended.
fn push_segment(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let selector = Seg::from_index(op.dst).map_or(0, |s| cpu.state.segment(s).selector);
    cpu.push_sized(env, op, u64::from(selector))
}

fn pop_reg64(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let (value, stack) = cpu.peek::<u64>(env)?;
    cpu.set_stack(stack);
    cpu.state.regs.set_slot(op.dst, value);
    Ok(())
}

fn pop_reg(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    use x86_arch::Width;
    let (value, stack) = cpu.peek_sized(env, op)?;
    cpu.set_stack(stack);
    match op.operand_bytes() {
        8 => u64::write(&mut cpu.state.regs, op.dst, value),
        4 => u32::write(&mut cpu.state.regs, op.dst, value as u32),
        _ => u16::write(&mut cpu.state.regs, op.dst, value as u16),
    }
    Ok(())
}

/// The address of POP's memory operand is computed with the stack pointer already moved.
fn pop_mem(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let (value, stack) = cpu.peek_sized(env, op)?;
    let before = cpu.state.regs.slot(RSP);
    cpu.set_stack(stack);
    let stored = match op.operand_bytes() {
        8 => cpu.store_operand(env, op, value),
        4 => cpu.store_operand(env, op, value as u32),
        _ => cpu.store_operand(env, op, value as u16),
    };
    if stored.is_err() {
        cpu.state.regs.set_slot(RSP, before);
    }
    stored
}

fn pop_segment(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let (value, stack) = cpu.peek_sized(env, op)?;
    let Some(segment) = Seg::from_index(op.dst) else { return Err(cpu.undefined()) };
    // The pointer moves as the old stack does, whatever stack is loaded.
    let moved = cpu.moved_stack(stack);
    cpu.load_data_segment(env, segment, value as u16)?;
    cpu.state.regs.set_slot(RSP, moved);
    if segment == Seg::Ss {
        cpu.state.interruptibility.shadow = Shadow::MovSs;
        cpu.attention = true;
    }
    Ok(())
}

fn pushf(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let value = cpu.state.flags.get() & !(flags::RF | flags::VM);
    cpu.push_sized(env, op, value)
}

fn popf(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let (value, stack) = cpu.peek_sized(env, op)?;
    cpu.set_stack(stack);
    cpu.load_flags(value, op.operand_bytes(), false);
    cpu.state.flags.set_rest(cpu.state.flags.rest() & !flags::RF);
    Ok(())
}

fn leave(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let frame = cpu.state.regs.slot(RBP) & cpu.stack_mask;
    let before = cpu.state.regs.slot(RSP);
    cpu.set_stack(frame);
    match cpu.peek_sized(env, op) {
        Ok((value, stack)) => {
            cpu.set_stack(stack);
            if op.operand_bytes() == 2 {
                cpu.state.regs.set_slot(RBP, cpu.state.regs.slot(RBP) & !0xFFFF | value);
            } else {
                cpu.state.regs.set_slot(RBP, value);
            }
            Ok(())
        }
        Err(stop) => {
            cpu.state.regs.set_slot(RSP, before);
            Err(stop)
        }
    }
}

/// PUSHA and PUSHAD: the registers from DI up to AX, as words of the operand's size.
fn pusha(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let word = usize::from(op.operand_bytes());
    let bytes = 8 * word;
    let top = cpu.stack().wrapping_sub(bytes as u64);
    let linear = cpu.stack_linear(top, bytes as u64, Intent::Write)?;
    let mut image = [0u8; 32];
    for (n, slot) in image.chunks_exact_mut(word).take(8).enumerate() {
        let register = cpu.state.regs.slot(7 - n as u8).to_le_bytes();
        slot.copy_from_slice(register.get(..word).unwrap_or(&[]));
    }
    cpu.write_bytes(env, linear, image.get(..bytes).unwrap_or(&image), cpu.view)?;
    cpu.set_stack(top);
    Ok(())
}

/// POPA and POPAD: the stack pointer's word is read and dropped.
fn popa(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    use x86_arch::Width;
    let word = usize::from(op.operand_bytes());
    let bytes = 8 * word;
    let top = cpu.stack();
    let linear = cpu.stack_linear(top, bytes as u64, Intent::Read)?;
    let mut image = [0u8; 32];
    let part = image.get_mut(..bytes).unwrap_or(&mut []);
    cpu.read_bytes(env, linear, part, crate::paging::Want::Read, cpu.view)?;
    for (n, slot) in image.chunks_exact(word).take(8).enumerate() {
        let register = 7 - n as u8;
        let value = slot.iter().rev().fold(0u32, |value, byte| value << 8 | u32::from(*byte));
        match word {
            _ if register == RSP => {}
            2 => u16::write(&mut cpu.state.regs, register, value as u16),
            _ => u32::write(&mut cpu.state.regs, register, value),
        }
    }
    cpu.set_stack(top.wrapping_add(bytes as u64));
    Ok(())
}

/// The number of a segment register.
pub(super) fn segment_number(register: Register) -> Option<u8> {
    register.is_segment_register().then(|| register.number() as u8)
}

pub(super) fn decode(i: &Instruction, long: bool) -> Option<Decoded> {
    use Mnemonic as M;
    let slot = i.stack_pointer_increment().unsigned_abs();
    let register = i.op0_kind() == OpKind::Register;
    let segment = if register { segment_number(i.op0_register()) } else { None };
    let mut size = slot;
    let run: Handler = match i.mnemonic() {
        M::Push if segment.is_some() => push_segment,
        M::Push if register && slot == 8 => push_reg64,
        M::Push if register => push_reg,
        M::Push if i.op0_kind() == OpKind::Memory => push_mem,
        M::Push => push_imm,
        M::Pop if segment.is_some() => pop_segment,
        M::Pop if register && slot == 8 => pop_reg64,
        M::Pop if register => pop_reg,
        M::Pop => pop_mem,
        M::Pushf | M::Pushfd | M::Pushfq => pushf,
        M::Popf | M::Popfd | M::Popfq => popf,
        M::Pushad | M::Pusha => {
            size = i.code().op_code().operand_size() / 8;
            pusha
        }
        M::Popad | M::Popa => {
            size = i.code().op_code().operand_size() / 8;
            popa
        }
        M::Leave => {
            size = i.code().op_code().operand_size() / 8;
            leave
        }
        M::Enter => {
            size = i.code().op_code().operand_size() / 8;
            super::enter::enter
        }
        _ => return None,
    };
    let mut op = operands(i, run, long);
    if let Some(number) = segment {
        op.dst = number;
    }
    if i.mnemonic() == M::Enter {
        op.imm = u64::from(i.immediate16());
        op.aux = u16::from(i.immediate8_2nd());
    }
    if !op.has_memory() {
        op.address = op.address & !address::SEGMENT | Seg::Ss as u8;
    }
    match size {
        8 => op.prefix |= prefix::SIZE64,
        2 => op.prefix |= prefix::SIZE16,
        _ => {}
    }
    Some(Decoded::plain(op))
}
