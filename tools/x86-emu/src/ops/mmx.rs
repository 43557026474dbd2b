//! MMX instructions, SSE's on MMX registers, and conversions between MMX and XMM registers.
//!
//! MM0 to MM7 are the significands of the physical x87 registers. An instruction that uses one makes the x87 stack start
//! at register 0 with every register in use, and sets the exponents of what it writes (SDM vol. 1, 9.5).

use iced_x86::{Instruction, Mnemonic, OpKind, Register};
use x86_arch::{Event, cr0, vector};

use super::lane_moves::{masked_store, masked_store_operands};
use super::packed::{BINARY, MMX_WITH_IMMEDIATE, MmxWithImmediate};
use crate::cpu::{Cpu, Env};
use crate::decode::{Decoded, operands, width};
use crate::op::{Handler, Op, prefix};
use crate::stop::{Step, Stop};

/// Sign and exponent of a register that MMX wrote.
const EXPONENT: u128 = 0xFFFF << 64;
const ALL_IN_USE: u8 = 0xFF;

impl Cpu {
    /// Whether MMX instructions may run.
    pub(super) fn check_mmx(&mut self) -> Step {
        if self.state.control.cr0 & cr0::EM != 0 {
            return Err(self.undefined());
        }
        if self.state.control.cr0 & cr0::TS != 0 {
            return Err(self.raise(Event::exception(vector::NM)));
        }
        self.raise_pending_x87()
    }

    /// The transition from x87 to MMX; nothing faults behind it.
    pub(super) fn enter_mmx(&mut self) {
        self.state.simd.x87.set_top(0);
        self.state.simd.x87.tags = ALL_IN_USE;
    }

    pub(super) fn mm(&self, index: u8) -> u64 {
        self.state.simd.x87.registers[(index & 7) as usize] as u64
    }

    /// Writes a register, after the transition.
    pub(super) fn set_mm(&mut self, index: u8, value: u64) {
        self.enter_mmx();
        self.state.simd.x87.registers[(index & 7) as usize] = EXPONENT | u128::from(value);
    }

    /// An 8-byte source: register, or memory.
    pub(super) fn mm_source(&mut self, env: &mut Env<'_>, op: &Op) -> Result<u64, Stop> {
        if op.has_memory() { self.load_operand(env, op) } else { Ok(self.mm(op.src)) }
    }
}

fn binary(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_mmx()?;
    let b = cpu.mm_source(env, op)?;
    let Some(row) = BINARY.get(op.aux as usize) else { return Err(cpu.undefined()) };
    let result = row.mmx(cpu.mm(op.dst), b);
    cpu.set_mm(op.dst, result);
    Ok(())
}
/// PUNPCKLBW and its kin read four bytes of memory.
fn binary_dword(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_mmx()?;
    let b = if op.has_memory() { cpu.load_operand::<u32>(env, op)?.into() } else { cpu.mm(op.src) };
    let Some(row) = BINARY.get(op.aux as usize) else { return Err(cpu.undefined()) };
    let result = row.mmx(cpu.mm(op.dst), b);
    cpu.set_mm(op.dst, result);
    Ok(())
}
/// Shifts by an immediate.
fn binary_imm(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_mmx()?;
    let Some(row) = BINARY.get(op.aux as usize) else { return Err(cpu.undefined()) };
    let result = row.mmx(cpu.mm(op.dst), op.imm & 0xFF);
    cpu.set_mm(op.dst, result);
    Ok(())
}
fn with_immediate(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_mmx()?;
    let b = cpu.mm_source(env, op)?;
    let function: Option<MmxWithImmediate> = MMX_WITH_IMMEDIATE.get(op.aux as usize).map(|row| row.1);
    let Some(function) = function else { return Err(cpu.undefined()) };
    let result = function(cpu.mm(op.dst), b, op.imm as u8);
    cpu.set_mm(op.dst, result);
    Ok(())
}

fn emms(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    cpu.check_mmx()?;
    cpu.state.simd.x87.set_top(0);
    cpu.state.simd.x87.tags = 0;
    Ok(())
}

/// MOVQ and MOVNTQ between MMX registers and memory.
fn movq(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_mmx()?;
    if op.writes_memory() {
        let value = cpu.mm(op.src);
        cpu.store_operand(env, op, value)?;
        cpu.enter_mmx();
        return Ok(());
    }
    let value = cpu.mm_source(env, op)?;
    cpu.set_mm(op.dst, value);
    Ok(())
}
/// MOVD and MOVQ from a general register or memory; SIZE64 selects.
fn from_general(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_mmx()?;
    let value = if op.operand_bytes() == 8 {
        cpu.source::<u64>(env, op)?
    } else {
        u64::from(cpu.source::<u32>(env, op)?)
    };
    cpu.set_mm(op.dst, value);
    Ok(())
}
fn to_general(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_mmx()?;
    let value = cpu.mm(op.src);
    if op.operand_bytes() == 8 {
        cpu.write_target(env, op, value)?;
    } else {
        cpu.write_target(env, op, value as u32)?;
    }
    cpu.enter_mmx();
    Ok(())
}

fn pmovmskb(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_mmx()?;
    let value = cpu.mm(op.src).to_le_bytes();
    let mask = value.iter().rev().fold(0, |mask, byte| mask << 1 | u64::from(byte >> 7));
    cpu.state.regs.set_slot(op.dst, mask);
    cpu.enter_mmx();
    Ok(())
}
const WORD: u32 = 16;
fn pinsrw(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_mmx()?;
    let word: u16 = cpu.source(env, op)?;
    let shift = WORD * (op.imm as u32 & 3);
    let value = cpu.mm(op.dst) & !(0xFFFF << shift) | u64::from(word) << shift;
    cpu.set_mm(op.dst, value);
    Ok(())
}
fn pextrw(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_mmx()?;
    let value = cpu.mm(op.src) >> (WORD * (op.imm as u32 & 3)) & 0xFFFF;
    cpu.state.regs.set_slot(op.dst, value);
    cpu.enter_mmx();
    Ok(())
}
fn maskmovq(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_mmx()?;
    let (value, mask) = (cpu.mm(op.dst), cpu.mm(op.src));
    masked_store(cpu, env, op, value.into(), mask.into())?;
    cpu.enter_mmx();
    Ok(())
}

fn movq2dq(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_sse()?;
    cpu.check_mmx()?;
    let value = cpu.mm(op.src);
    cpu.set_xmm(op.dst, value.into());
    cpu.enter_mmx();
    Ok(())
}
fn movdq2q(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_sse()?;
    cpu.check_mmx()?;
    let value = cpu.xmm(op.src) as u64;
    cpu.set_mm(op.dst, value);
    Ok(())
}

pub(super) fn is_mm(i: &Instruction, n: u32) -> bool {
    i.op_kind(n) == OpKind::Register && i.op_register(n).is_mm()
}

pub(super) fn decode(i: &Instruction, long: bool) -> Option<Decoded> {
    use Mnemonic as M;
    let mnemonic = i.mnemonic();
    if mnemonic == M::Emms {
        return Some(Decoded::plain(operands(i, emms, long)));
    }
    if !(0..i.op_count()).any(|n| is_mm(i, n)) {
        return None;
    }
    if mnemonic == M::Maskmovq {
        return Some(Decoded::plain(masked_store_operands(i, maskmovq, long)));
    }
    let mut aux = 0;
    let run: Handler = if let Some(index) = BINARY.iter().position(|row| row.is(mnemonic) && row.has_mmx()) {
        aux = index;
        match i.op1_kind() {
            OpKind::Immediate8 => binary_imm,
            OpKind::Memory if i.memory_size().size() == 4 => binary_dword,
            _ => binary,
        }
    } else if let Some(index) = MMX_WITH_IMMEDIATE.iter().position(|row| row.0 == mnemonic) {
        aux = index;
        with_immediate
    } else {
        match mnemonic {
            M::Movntq => movq,
            M::Movq if (0..2).all(|n| is_mm(i, n) || i.op_kind(n) == OpKind::Memory) => movq,
            M::Movd | M::Movq if is_mm(i, 0) => from_general,
            M::Movd | M::Movq => to_general,
            M::Pmovmskb => pmovmskb,
            M::Pinsrw => pinsrw,
            M::Pextrw => pextrw,
            M::Movq2dq => movq2dq,
            M::Movdq2q => movdq2q,
            _ => return None,
        }
    };
    let mut op = operands(i, run, long);
    op.aux = aux as u16;
    let general = u32::from(is_mm(i, 0));
    if matches!(mnemonic, M::Movd | M::Movq)
        && (i.op_kind(general) == OpKind::Register && i.op_register(general) != Register::None)
        && width(i, general) == 8
    {
        op.prefix |= prefix::SIZE64;
    }
    Some(Decoded::plain(op))
}
