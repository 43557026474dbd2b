//! Moves of SSE and AVX, and the plumbing of packed integer instructions.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::packed::{BINARY, WITH_IMMEDIATE, from_qwords};
use super::vector::{Form, Shape, by_form, halves, vector_operands};
use crate::cpu::{Cpu, Env};
use crate::decode::{Decoded, width};
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

fn binary<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    let b = cpu.second::<F>(env, op)?;
    let Some(row) = BINARY.get(op.aux as usize) else { return Err(cpu.undefined()) };
    let a = cpu.first::<F>(op);
    cpu.finish::<F>(op, halves::<F>(|n| (row.xmm)(a[n], b[n])));
    Ok(())
}
/// Shifts by a count in 16 bytes, of which there is one for all elements.
fn shift<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    let count = if F::VEX { cpu.low_of_second(env, op)? } else { cpu.source128(env, op)? };
    let Some(row) = BINARY.get(op.aux as usize) else { return Err(cpu.undefined()) };
    let a = cpu.first::<F>(op);
    cpu.finish::<F>(op, halves::<F>(|n| (row.xmm)(a[n], count)));
    Ok(())
}
fn binary_imm<F: Form>(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    let Some(row) = BINARY.get(op.aux as usize) else { return Err(cpu.undefined()) };
    let a = cpu.first::<F>(op);
    cpu.finish::<F>(op, halves::<F>(|n| (row.xmm)(a[n], u128::from(op.imm as u8))));
    Ok(())
}
fn with_immediate<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    let b = cpu.second::<F>(env, op)?;
    let Some(row) = WITH_IMMEDIATE.get(op.aux as usize) else { return Err(cpu.undefined()) };
    let a = cpu.first::<F>(op);
    let immediate = |half: usize| op.imm as u8 >> (row.bits_of_lane * half as u32);
    cpu.finish::<F>(op, halves::<F>(|n| (row.function)(a[n], b[n], immediate(n))));
    Ok(())
}

fn mov_aligned<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    if op.writes_memory() {
        let value = cpu.register::<F>(op.src);
        return cpu.store_aligned::<F>(env, op, value);
    }
    let value = if op.has_memory() { cpu.load_aligned::<F>(env, op)? } else { cpu.register::<F>(op.src) };
    cpu.finish::<F>(op, value);
    Ok(())
}
fn mov_unaligned<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    if op.writes_memory() {
        let value = cpu.register::<F>(op.src);
        return cpu.store_vector::<F>(env, op, value);
    }
    let value = if op.has_memory() { cpu.load_vector::<F>(env, op)? } else { cpu.register::<F>(op.src) };
    cpu.finish::<F>(op, value);
    Ok(())
}

/// MOVSS: a load clears the rest of the register, a move between registers takes it from the first source.
fn movss<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    if op.writes_memory() {
        let value = cpu.xmm(op.src) as u32;
        return cpu.store_operand(env, op, value);
    }
    let kept = if op.has_memory() { 0 } else { cpu.first::<F>(op)[0] & !LOW32 };
    let value = cpu.source32(env, op)?;
    cpu.finish::<F>(op, [kept | u128::from(value), 0]);
    Ok(())
}
fn movsd<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    if op.writes_memory() {
        let value = cpu.xmm(op.src) as u64;
        return cpu.store_operand(env, op, value);
    }
    let kept = if op.has_memory() { 0 } else { cpu.first::<F>(op)[0] & !LOW };
    let value = cpu.source64(env, op)?;
    cpu.finish::<F>(op, [kept | u128::from(value), 0]);
    Ok(())
}
/// MOVQ between XMM registers and memory: the upper half is cleared.
fn movq<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    if op.writes_memory() {
        let value = cpu.xmm(op.src) as u64;
        return cpu.store_operand(env, op, value);
    }
    let value = cpu.source64(env, op)?;
    cpu.finish::<F>(op, [u128::from(value), 0]);
    Ok(())
}
/// MOVD and MOVQ from a general register or memory; SIZE64 selects.
fn to_xmm<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    let value = if op.operand_bytes() == 8 {
        cpu.source::<u64>(env, op)?
    } else {
        u64::from(cpu.source::<u32>(env, op)?)
    };
    cpu.finish::<F>(op, [u128::from(value), 0]);
    Ok(())
}
fn from_xmm<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    let value = cpu.xmm(op.src);
    if op.operand_bytes() == 8 {
        cpu.write_target(env, op, value as u64)
    } else {
        cpu.write_target(env, op, value as u32)
    }
}
/// MOVLPS, MOVLPD; between registers MOVHLPS.
fn mov_low<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    if op.writes_memory() {
        let value = cpu.xmm(op.src) as u64;
        return cpu.store_operand(env, op, value);
    }
    let value = if op.has_memory() { cpu.load_operand(env, op)? } else { (cpu.xmm(op.src) >> 64) as u64 };
    let high = (cpu.first::<F>(op)[0] >> 64) as u64;
    cpu.finish::<F>(op, [from_qwords(value, high), 0]);
    Ok(())
}
/// MOVHPS, MOVHPD; between registers MOVLHPS.
fn mov_high<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    if op.writes_memory() {
        let value = (cpu.xmm(op.src) >> 64) as u64;
        return cpu.store_operand(env, op, value);
    }
    let value = cpu.source64(env, op)?;
    let low = cpu.first::<F>(op)[0] as u64;
    cpu.finish::<F>(op, [from_qwords(low, value), 0]);
    Ok(())
}

fn mask_of(value: u128, element_bits: u32) -> u64 {
    (0..128 / element_bits).map(|n| ((value >> ((n + 1) * element_bits - 1)) as u64 & 1) << n).sum()
}
/// MOVMSKPS, MOVMSKPD and PMOVMSKB: `aux` is the element's bits.
fn movmsk<F: Form>(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    let bits = u32::from(op.aux);
    let [low, high] = cpu.register::<F>(op.src).map(|half| mask_of(half, bits));
    cpu.state.regs.set_slot(op.dst, low | high << (128 / bits));
    Ok(())
}
/// PTEST, VTESTPS and VTESTPD: `aux` is the bits of an element of which the sign counts, or zero where all bits count.
fn test<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    use x86_arch::flags::{ARITHMETIC, CF, ZF};
    cpu.begin::<F>()?;
    let b = cpu.second::<F>(env, op)?;
    let a = cpu.register::<F>(op.dst);
    let counts = match op.aux {
        32 => 0x8000_0000_8000_0000_8000_0000_8000_0000,
        64 => 0x8000_0000_0000_0000_8000_0000_0000_0000,
        _ => u128::MAX,
    };
    let zero = if (a[0] & b[0] | a[1] & b[1]) & counts == 0 { ZF } else { 0 };
    let carry = if (!a[0] & b[0] | !a[1] & b[1]) & counts == 0 { CF } else { 0 };
    cpu.state.flags.replace(ARITHMETIC, zero | carry);
    Ok(())
}

fn is_xmm(i: &Instruction, n: u32) -> bool {
    i.op_kind(n) == OpKind::Register && i.op_register(n).is_xmm()
}

fn uses_mmx(i: &Instruction) -> bool {
    (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Register && i.op_register(n).is_mm())
}

/// Shifts whose count is one for all elements.
const fn is_shift(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(mnemonic, M::Psllw | M::Pslld | M::Psllq | M::Psrlw | M::Psrld | M::Psrlq | M::Psraw | M::Psrad)
        || matches!(
            mnemonic,
            M::Vpsllw | M::Vpslld | M::Vpsllq | M::Vpsrlw | M::Vpsrld | M::Vpsrlq | M::Vpsraw | M::Vpsrad
        )
}

pub(super) fn decode(i: &Instruction, long: bool) -> Option<Decoded> {
    use Mnemonic as M;
    let mnemonic = i.mnemonic();
    if uses_mmx(i) || super::string::string_operands(i).is_some() {
        return None;
    }
    let shape = Shape::of(i)?;
    let mut aux = 0usize;
    let run: Handler = if let Some(index) = BINARY.iter().position(|row| row.is(mnemonic)) {
        aux = index;
        let by_immediate = i.op_count() > 1 && i.op_kind(i.op_count() - 1) == OpKind::Immediate8;
        if by_immediate {
            by_form!(shape, binary_imm)
        } else if is_shift(mnemonic) {
            by_form!(shape, shift)
        } else {
            by_form!(shape, binary)
        }
    } else if let Some(index) = WITH_IMMEDIATE.iter().position(|row| row.is(mnemonic)) {
        aux = index;
        by_form!(shape, with_immediate)
    } else {
        match mnemonic {
            M::Movaps | M::Movapd | M::Movdqa | M::Movntdq | M::Movntps | M::Movntpd | M::Movntdqa => {
                by_form!(shape, mov_aligned)
            }
            M::Vmovaps | M::Vmovapd | M::Vmovdqa | M::Vmovntdq | M::Vmovntps | M::Vmovntpd | M::Vmovntdqa => {
                by_form!(shape, mov_aligned)
            }
            M::Movups | M::Movupd | M::Movdqu | M::Lddqu => by_form!(shape, mov_unaligned),
            M::Vmovups | M::Vmovupd | M::Vmovdqu | M::Vlddqu => by_form!(shape, mov_unaligned),
            M::Movss | M::Vmovss => by_form!(shape, movss),
            M::Movsd | M::Vmovsd => by_form!(shape, movsd),
            M::Movq | M::Vmovq if is_xmm(i, 0) && is_xmm(i, 1) => by_form!(shape, movq),
            M::Movq | M::Vmovq | M::Movd | M::Vmovd if is_xmm(i, 0) => by_form!(shape, to_xmm),
            M::Movq | M::Vmovq | M::Movd | M::Vmovd => by_form!(shape, from_xmm),
            M::Movlps | M::Movlpd | M::Movhlps | M::Vmovlps | M::Vmovlpd | M::Vmovhlps => {
                by_form!(shape, mov_low)
            }
            M::Movhps | M::Movhpd | M::Movlhps | M::Vmovhps | M::Vmovhpd | M::Vmovlhps => {
                by_form!(shape, mov_high)
            }
            M::Movmskps | M::Vmovmskps => {
                aux = 32;
                by_form!(shape, movmsk)
            }
            M::Movmskpd | M::Vmovmskpd => {
                aux = 64;
                by_form!(shape, movmsk)
            }
            M::Pmovmskb | M::Vpmovmskb => {
                aux = 8;
                by_form!(shape, movmsk)
            }
            M::Ptest | M::Vptest => by_form!(shape, test),
            M::Vtestps => {
                aux = 32;
                by_form!(shape, test)
            }
            M::Vtestpd => {
                aux = 64;
                by_form!(shape, test)
            }
            _ => return None,
        }
    };
    let mut op = vector_operands(i, run, long);
    op.aux = aux as u16;
    if matches!(mnemonic, M::Movq | M::Movd | M::Vmovq | M::Vmovd) {
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
