//! SSE and SSE2 moves, and the plumbing of packed integer instructions.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::packed::{BINARY, WITH_IMMEDIATE, from_qwords};
use crate::cpu::{Cpu, Env};
use crate::decode::{Decoded, operands, width};
use crate::op::{Handler, Intent, Op, prefix};
use crate::stop::{Step, Stop};
use x86_arch::{Event, cr0, cr4, vector};

const LOW: u128 = u64::MAX as u128;
const LOW32: u128 = u32::MAX as u128;

impl Cpu {
    /// Whether SSE instructions may run.
    #[inline(always)]
    pub(crate) fn check_sse(&mut self) -> Step {
        if self.state.control.cr0 & (cr0::EM | cr0::TS) == 0 && self.state.control.cr4 & cr4::OSFXSR != 0 {
            return Ok(());
        }
        if self.state.control.cr0 & cr0::EM != 0 || self.state.control.cr4 & cr4::OSFXSR == 0 {
            return Err(self.undefined());
        }
        Err(self.raise(Event::exception(vector::NM)))
    }

    #[inline(always)]
    pub(crate) fn xmm(&self, index: u8) -> u128 {
        self.state.simd.xmm[(index & 15) as usize]
    }

    #[inline(always)]
    pub(crate) fn set_xmm(&mut self, index: u8, value: u128) {
        self.state.simd.xmm[(index & 15) as usize] = value;
    }

    /// The address of a 16-byte operand that must be aligned.
    #[inline(always)]
    fn aligned(&mut self, op: &Op, intent: Intent) -> Result<u64, Stop> {
        let linear = self.linear(op, 16, intent)?;
        if linear & 15 != 0 {
            return Err(self.general_protection(0));
        }
        Ok(linear)
    }

    /// A 16-byte source: register, or aligned memory.
    #[inline(always)]
    pub(crate) fn source128(&mut self, env: &mut Env<'_>, op: &Op) -> Result<u128, Stop> {
        if op.has_memory() {
            let linear = self.aligned(op, Intent::Read)?;
            self.load(env, linear)
        } else {
            Ok(self.xmm(op.src))
        }
    }

    /// An 8-byte source: the low half of a register, or memory.
    pub(crate) fn source64(&mut self, env: &mut Env<'_>, op: &Op) -> Result<u64, Stop> {
        if op.has_memory() { self.load_operand(env, op) } else { Ok(self.xmm(op.src) as u64) }
    }

    /// A 4-byte source: the low part of a register, or memory.
    pub(crate) fn source32(&mut self, env: &mut Env<'_>, op: &Op) -> Result<u32, Stop> {
        if op.has_memory() { self.load_operand(env, op) } else { Ok(self.xmm(op.src) as u32) }
    }
}

fn binary(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_sse()?;
    let b = cpu.source128(env, op)?;
    let Some(row) = BINARY.get(op.aux as usize) else { return Err(cpu.undefined()) };
    let r = (row.xmm)(cpu.xmm(op.dst), b);
    cpu.set_xmm(op.dst, r);
    Ok(())
}
fn binary_imm(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_sse()?;
    let Some(row) = BINARY.get(op.aux as usize) else { return Err(cpu.undefined()) };
    let r = (row.xmm)(cpu.xmm(op.dst), u128::from(op.imm as u8));
    cpu.set_xmm(op.dst, r);
    Ok(())
}
fn with_immediate(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_sse()?;
    let b = cpu.source128(env, op)?;
    let Some((_, f)) = WITH_IMMEDIATE.get(op.aux as usize) else { return Err(cpu.undefined()) };
    let r = f(cpu.xmm(op.dst), b, op.imm as u8);
    cpu.set_xmm(op.dst, r);
    Ok(())
}

fn mov_aligned(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_sse()?;
    if op.writes_memory() {
        let linear = cpu.aligned(op, Intent::Write)?;
        let value = cpu.xmm(op.src);
        return cpu.store(env, linear, value);
    }
    let value = cpu.source128(env, op)?;
    cpu.set_xmm(op.dst, value);
    Ok(())
}
fn mov_unaligned(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_sse()?;
    if op.writes_memory() {
        let value = cpu.xmm(op.src);
        return cpu.store_operand(env, op, value);
    }
    let value = if op.has_memory() { cpu.load_operand(env, op)? } else { cpu.xmm(op.src) };
    cpu.set_xmm(op.dst, value);
    Ok(())
}

/// MOVSS: a load clears the rest of the register, a move between registers keeps it.
fn movss(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_sse()?;
    if op.writes_memory() {
        let value = cpu.xmm(op.src) as u32;
        return cpu.store_operand(env, op, value);
    }
    let kept = if op.has_memory() { 0 } else { cpu.xmm(op.dst) & !LOW32 };
    let value = cpu.source32(env, op)?;
    cpu.set_xmm(op.dst, kept | u128::from(value));
    Ok(())
}
fn movsd(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_sse()?;
    if op.writes_memory() {
        let value = cpu.xmm(op.src) as u64;
        return cpu.store_operand(env, op, value);
    }
    let kept = if op.has_memory() { 0 } else { cpu.xmm(op.dst) & !LOW };
    let value = cpu.source64(env, op)?;
    cpu.set_xmm(op.dst, kept | u128::from(value));
    Ok(())
}
/// MOVQ between XMM registers and memory: the upper half is cleared.
fn movq(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_sse()?;
    if op.writes_memory() {
        let value = cpu.xmm(op.src) as u64;
        return cpu.store_operand(env, op, value);
    }
    let value = cpu.source64(env, op)?;
    cpu.set_xmm(op.dst, u128::from(value));
    Ok(())
}
/// MOVD and MOVQ from a general register or memory; SIZE64 selects.
fn to_xmm(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_sse()?;
    let value = if op.operand_bytes() == 8 {
        cpu.source::<u64>(env, op)?
    } else {
        u64::from(cpu.source::<u32>(env, op)?)
    };
    cpu.set_xmm(op.dst, u128::from(value));
    Ok(())
}
fn from_xmm(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_sse()?;
    let value = cpu.xmm(op.src);
    if op.operand_bytes() == 8 {
        cpu.write_target(env, op, value as u64)
    } else {
        cpu.write_target(env, op, value as u32)
    }
}
/// MOVLPS, MOVLPD; between registers MOVHLPS.
fn mov_low(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_sse()?;
    if op.writes_memory() {
        let value = cpu.xmm(op.src) as u64;
        return cpu.store_operand(env, op, value);
    }
    let value = if op.has_memory() { cpu.load_operand(env, op)? } else { (cpu.xmm(op.src) >> 64) as u64 };
    let high = (cpu.xmm(op.dst) >> 64) as u64;
    cpu.set_xmm(op.dst, from_qwords(value, high));
    Ok(())
}
/// MOVHPS, MOVHPD; between registers MOVLHPS.
fn mov_high(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_sse()?;
    if op.writes_memory() {
        let value = (cpu.xmm(op.src) >> 64) as u64;
        return cpu.store_operand(env, op, value);
    }
    let value = cpu.source64(env, op)?;
    let low = cpu.xmm(op.dst) as u64;
    cpu.set_xmm(op.dst, from_qwords(low, value));
    Ok(())
}

fn mask_of(value: u128, element_bits: u32) -> u64 {
    (0..128 / element_bits).map(|n| ((value >> ((n + 1) * element_bits - 1)) as u64 & 1) << n).sum()
}
/// MOVMSKPS, MOVMSKPD and PMOVMSKB: `aux` is the element's bits.
fn movmsk(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_sse()?;
    let mask = mask_of(cpu.xmm(op.src), u32::from(op.aux));
    cpu.state.regs.set_slot(op.dst, mask);
    Ok(())
}
/// PTEST (SSE4.1).
fn ptest(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    use x86_arch::flags::{ARITHMETIC, CF, ZF};
    cpu.check_sse()?;
    let b = cpu.source128(env, op)?;
    let a = cpu.xmm(op.dst);
    let zero = if a & b == 0 { ZF } else { 0 };
    let carry = if !a & b == 0 { CF } else { 0 };
    cpu.state.flags.replace(ARITHMETIC, zero | carry);
    Ok(())
}

fn is_xmm(i: &Instruction, n: u32) -> bool {
    i.op_kind(n) == OpKind::Register && i.op_register(n).is_xmm()
}

fn uses_mmx(i: &Instruction) -> bool {
    (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Register && i.op_register(n).is_mm())
}

pub(super) fn decode(i: &Instruction, long: bool) -> Option<Decoded> {
    use Mnemonic as M;
    let mnemonic = i.mnemonic();
    if uses_mmx(i) || super::string::string_operands(i).is_some() {
        return None;
    }
    let mut aux = 0usize;
    let run: Handler = if let Some(index) = BINARY.iter().position(|row| row.mnemonic == mnemonic) {
        aux = index;
        if i.op1_kind() == OpKind::Immediate8 { binary_imm } else { binary }
    } else if let Some(index) = WITH_IMMEDIATE.iter().position(|(m, _)| *m == mnemonic) {
        aux = index;
        with_immediate
    } else {
        match mnemonic {
            M::Movaps | M::Movapd | M::Movdqa | M::Movntdq | M::Movntps | M::Movntpd | M::Movntdqa => {
                mov_aligned
            }
            M::Movups | M::Movupd | M::Movdqu | M::Lddqu => mov_unaligned,
            M::Movss => movss,
            M::Movsd => movsd,
            M::Movq if is_xmm(i, 0) && is_xmm(i, 1) => movq,
            M::Movq | M::Movd if is_xmm(i, 0) => to_xmm,
            M::Movq | M::Movd => from_xmm,
            M::Movlps | M::Movlpd | M::Movhlps => mov_low,
            M::Movhps | M::Movhpd | M::Movlhps => mov_high,
            M::Movmskps => {
                aux = 32;
                movmsk
            }
            M::Movmskpd => {
                aux = 64;
                movmsk
            }
            M::Pmovmskb => {
                aux = 8;
                movmsk
            }
            M::Ptest => ptest,
            _ => return None,
        }
    };
    let mut op = operands(i, run, long);
    op.aux = aux as u16;
    if matches!(mnemonic, M::Movq | M::Movd) {
        let general = u32::from(is_xmm(i, 0));
        let size = match i.op_kind(general) {
            OpKind::Register if i.op_register(general) != Register::None => width(i, general),
            _ => i.memory_size().size(),
        };
        if size == 8 {
            op.prefix |= prefix::SIZE64;
        }
    }
    Some(Decoded::plain(op))
}
