//! Lanes inserted, extracted, widened and blended by a mask in a register (SSE4.1 and its VEX forms); the masked store of SSE2.

use iced_x86::{Instruction, Mnemonic, OpKind};

use super::packed::{dwords_of, from_dwords, from_qwords};
use super::vector::{Form, Shape, by_form, halves, vector_operands};
use crate::cpu::{Cpu, Env};
use crate::decode::{Decoded, segment_bits};
use crate::op::{Handler, Intent, Op};
use crate::stop::{Step, Stop};

const RDI: u8 = 7;

fn lane_mask(bits: u32) -> u128 {
    u128::MAX >> (128 - bits)
}

fn insert<const BITS: u32, F: Form>(cpu: &mut Cpu, op: &Op, value: u64) {
    let shift = BITS * (op.imm as u32 % (128 / BITS));
    let kept = cpu.first::<F>(op)[0] & !(lane_mask(BITS) << shift);
    cpu.finish::<F>(op, [kept | (u128::from(value) & lane_mask(BITS)) << shift, 0]);
}
fn pinsrb<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    // A register operand has 32 bits, of which SPL's kind is not one.
    let value = if op.has_memory() {
        u64::from(cpu.load_operand::<u8>(env, op)?)
    } else {
        cpu.state.regs.slot(op.src)
    };
    insert::<8, F>(cpu, op, value);
    Ok(())
}
fn pinsrw<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    let value = cpu.source::<u16>(env, op)?;
    insert::<16, F>(cpu, op, value.into());
    Ok(())
}
fn pinsrd<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    let value = cpu.source::<u32>(env, op)?;
    insert::<32, F>(cpu, op, value.into());
    Ok(())
}
fn pinsrq<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    let value = cpu.source::<u64>(env, op)?;
    insert::<64, F>(cpu, op, value);
    Ok(())
}

fn extract<const BITS: u32>(cpu: &Cpu, op: &Op) -> u64 {
    (cpu.xmm(op.src) >> (BITS * (op.imm as u32 % (128 / BITS))) & lane_mask(BITS)) as u64
}
fn pextrb<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    let value = extract::<8>(cpu, op);
    if op.writes_memory() {
        return cpu.store_operand(env, op, value as u8);
    }
    cpu.state.regs.set_slot(op.dst, value);
    Ok(())
}
fn pextrw<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    let value = extract::<16>(cpu, op);
    if op.writes_memory() {
        return cpu.store_operand(env, op, value as u16);
    }
    cpu.state.regs.set_slot(op.dst, value);
    Ok(())
}
/// PEXTRD and EXTRACTPS.
fn pextrd<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    let value = extract::<32>(cpu, op);
    cpu.write_target(env, op, value as u32)
}
fn pextrq<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    let value = extract::<64>(cpu, op);
    cpu.write_target(env, op, value)
}

/// INSERTPS: one lane of the source, then zeros where the immediate's low bits are set.
fn insertps<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    let value = if op.has_memory() {
        cpu.load_operand::<u32>(env, op)?
    } else {
        (cpu.xmm(op.src) >> (32 * (op.imm as u32 >> 6 & 3))) as u32
    };
    let mut lanes = dwords_of(cpu.first::<F>(op)[0]);
    if let Some(lane) = lanes.get_mut((op.imm >> 4 & 3) as usize) {
        *lane = value;
    }
    for (n, lane) in lanes.iter_mut().enumerate() {
        if op.imm >> n & 1 != 0 {
            *lane = 0;
        }
    }
    cpu.finish::<F>(op, [from_dwords(lanes), 0]);
    Ok(())
}

/// MOVDDUP: the even quadwords, each twice.
fn movddup<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    let source = if F::WIDE { cpu.second::<F>(env, op)? } else { [cpu.source64(env, op)?.into(), 0] };
    cpu.finish::<F>(op, source.map(|half| from_qwords(half as u64, half as u64)));
    Ok(())
}

/// The low `bytes` of the source operand: a register, or memory of that size.
fn narrow_source(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, bytes: u32) -> Result<u128, Stop> {
    Ok(match bytes {
        _ if !op.has_memory() => cpu.xmm(op.src),
        2 => cpu.load_operand::<u16>(env, op)?.into(),
        4 => cpu.load_operand::<u32>(env, op)?.into(),
        8 => cpu.load_operand::<u64>(env, op)?.into(),
        _ => cpu.load_operand(env, op)?,
    })
}
/// Bytes of the elements that become a register of wider ones.
const fn source_bytes<F: Form>(from: u32, to: u32) -> u32 {
    let bytes = from * (128 / to) / 8;
    if F::WIDE { 2 * bytes } else { bytes }
}
/// A register of elements of `to` bits.
fn widened<F: Form>(to: u32, element: impl Fn(u32) -> u128) -> [u128; 2] {
    let count = 128 / to;
    halves::<F>(|half| (0..count).fold(0, |all, n| all | element(half as u32 * count + n) << (to * n)))
}
/// PMOVZX: lanes of `FROM` bits become lanes of `TO` bits.
fn widen<const FROM: u32, const TO: u32, F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    let source = narrow_source(cpu, env, op, source_bytes::<F>(FROM, TO))?;
    let lane = |n: u32| source >> (FROM * n) & lane_mask(FROM);
    cpu.finish::<F>(op, widened::<F>(TO, lane));
    Ok(())
}
/// PMOVSX.
fn widen_signed<const FROM: u32, const TO: u32, F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    let source = narrow_source(cpu, env, op, source_bytes::<F>(FROM, TO))?;
    let extended = |n: u32| (source << (128 - FROM * (n + 1))) as i128 >> (128 - FROM);
    let lane = |n: u32| extended(n) as u128 & lane_mask(TO);
    cpu.finish::<F>(op, widened::<F>(TO, lane));
    Ok(())
}

/// PBLENDVB, BLENDVPS, BLENDVPD: lanes of the source where the lane of the mask has its sign set. The mask is XMM0; VEX encodings
/// name it.
fn blend_variable<const BITS: u32, F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    let (a, b) = (cpu.first::<F>(op), cpu.second::<F>(env, op)?);
    let mask = cpu.register::<F>(if F::VEX { op.imm as u8 } else { 0 });
    let result = halves::<F>(|half| {
        (0..128 / BITS).fold(0, |all, n| {
            let signed = mask[half] >> (BITS * (n + 1) - 1) & 1 != 0;
            all | (if signed { b[half] } else { a[half] }) & lane_mask(BITS) << (BITS * n)
        })
    });
    cpu.finish::<F>(op, result);
    Ok(())
}

/// SHA256RNDS2: as the variable blends, with a third operand in XMM0.
fn sha256_rounds(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_sse()?;
    let (a, b, wk) = (cpu.xmm(op.dst), cpu.source128(env, op)?, cpu.xmm(0));
    cpu.set_xmm(op.dst, super::packed::sha256_rounds(a, b, wk));
    Ok(())
}

/// Stores the bytes of a register whose mask bytes have their sign set, at DS:RDI.
pub(super) fn masked_store(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, value: u128, mask: u128) -> Step {
    let chosen = |n: u32| mask >> (8 * n + 7) & 1 != 0;
    let mut bytes = (0..16).filter(|n| chosen(*n));
    let Some(first) = bytes.next() else { return Ok(()) };
    let last = bytes.next_back().unwrap_or(first);
    let offset = cpu.state.regs.slot(RDI) & op.address_mask();
    let offset = offset.wrapping_add(first.into());
    let bytes = u64::from(last - first) + 1;
    let linear = cpu.linear_in(op, offset, bytes, Intent::Write)?;
    // A fault stores nothing; bytes in between that are not chosen belong to others.
    cpu.prepare_store(env, linear, bytes as usize)?;
    for n in (first..=last).filter(|n| chosen(*n)) {
        cpu.store(env, linear.wrapping_add((n - first).into()), (value >> (8 * n)) as u8)?;
    }
    Ok(())
}
fn maskmovdqu<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    let (value, mask) = (cpu.xmm(op.dst), cpu.xmm(op.src));
    masked_store(cpu, env, op, value, mask)
}

/// The operation of MASKMOVQ or MASKMOVDQU: `dst` is the value, `src` the mask.
pub(super) fn masked_store_operands(i: &Instruction, run: Handler, long: bool) -> Op {
    let mut op = Op::new(run);
    op.dst = i.op1_register().number() as u8;
    op.src = i.op2_register().number() as u8;
    op.address = segment_bits(i.memory_segment(), long);
    op.set_address_size(match i.op0_kind() {
        OpKind::MemorySegDI => 2,
        OpKind::MemorySegEDI => 4,
        _ => 8,
    });
    op
}

pub(super) fn decode(i: &Instruction, long: bool) -> Option<Decoded> {
    use Mnemonic as M;
    let has_mmx = (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Register && i.op_register(n).is_mm());
    if has_mmx {
        return None;
    }
    let shape = Shape::of(i)?;
    let run: Handler = match i.mnemonic() {
        M::Maskmovdqu | M::Vmaskmovdqu => {
            let run = by_form!(shape, maskmovdqu);
            return Some(Decoded::plain(masked_store_operands(i, run, long)));
        }
        M::Pinsrb | M::Vpinsrb => by_form!(shape, pinsrb),
        M::Pinsrw | M::Vpinsrw => by_form!(shape, pinsrw),
        M::Pinsrd | M::Vpinsrd => by_form!(shape, pinsrd),
        M::Pinsrq | M::Vpinsrq => by_form!(shape, pinsrq),
        M::Pextrb | M::Vpextrb => by_form!(shape, pextrb),
        M::Pextrw | M::Vpextrw => by_form!(shape, pextrw),
        M::Pextrd | M::Vpextrd | M::Extractps | M::Vextractps => by_form!(shape, pextrd),
        M::Pextrq | M::Vpextrq => by_form!(shape, pextrq),
        M::Insertps | M::Vinsertps => by_form!(shape, insertps),
        M::Movddup | M::Vmovddup => by_form!(shape, movddup),
        M::Pmovzxbw | M::Vpmovzxbw => by_form!(shape, widen, 8, 16),
        M::Pmovzxbd | M::Vpmovzxbd => by_form!(shape, widen, 8, 32),
        M::Pmovzxbq | M::Vpmovzxbq => by_form!(shape, widen, 8, 64),
        M::Pmovzxwd | M::Vpmovzxwd => by_form!(shape, widen, 16, 32),
        M::Pmovzxwq | M::Vpmovzxwq => by_form!(shape, widen, 16, 64),
        M::Pmovzxdq | M::Vpmovzxdq => by_form!(shape, widen, 32, 64),
        M::Pmovsxbw | M::Vpmovsxbw => by_form!(shape, widen_signed, 8, 16),
        M::Pmovsxbd | M::Vpmovsxbd => by_form!(shape, widen_signed, 8, 32),
        M::Pmovsxbq | M::Vpmovsxbq => by_form!(shape, widen_signed, 8, 64),
        M::Pmovsxwd | M::Vpmovsxwd => by_form!(shape, widen_signed, 16, 32),
        M::Pmovsxwq | M::Vpmovsxwq => by_form!(shape, widen_signed, 16, 64),
        M::Pmovsxdq | M::Vpmovsxdq => by_form!(shape, widen_signed, 32, 64),
        M::Pblendvb | M::Vpblendvb => by_form!(shape, blend_variable, 8),
        M::Sha256rnds2 => sha256_rounds,
        M::Blendvps | M::Vblendvps => by_form!(shape, blend_variable, 32),
        M::Blendvpd | M::Vblendvpd => by_form!(shape, blend_variable, 64),
        _ => return None,
    };
    Some(Decoded::plain(vector_operands(i, run, long)))
}
