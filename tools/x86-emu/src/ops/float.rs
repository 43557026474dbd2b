//! SSE and SSE2 floating-point instructions.
//!
//! Other rounding modes than to nearest, DAZ and FTZ stop as unimplemented where they would matter. The
//! arithmetic is in [`super::ieee`].

use iced_x86::{Instruction, Mnemonic, OpKind};

use super::ieee::{
    Float, Outcome, Quiet, Rounding, add, compare_flags, div, inexact_if, max, min, mul, narrow, predicate,
    sqrt, status, sub, to_integer, widen,
};
use super::packed::{dwords_of, from_dwords, from_qwords};
use crate::cpu::{Cpu, Env};
use crate::decode::{Decoded, operands, width};
use crate::events::{Event, vector};
use crate::flags;
use crate::op::{Handler, Op, prefix};
use crate::state::cr4;
use crate::stop::{Step, Stop};

/// RC, FTZ and DAZ.
const MODES: u32 = 0x6000 | 0x8040;
const MASK_SHIFT: u32 = 7;

impl Cpu {
    /// Adds status flags to MXCSR, or raises #XM for one that is not masked.
    fn raise_status(&mut self, raised: u32) -> Step {
        self.simd.mxcsr |= raised & status::ALL;
        if raised & !(self.simd.mxcsr >> MASK_SHIFT) & status::ALL != 0 {
            if self.control.cr4 & cr4::OSXMMEXCPT == 0 {
                return Err(self.undefined());
            }
            return Err(self.raise(Event::exception(vector::XM)));
        }
        Ok(())
    }

    fn check_float(&mut self) -> Step {
        self.check_sse()?;
        if self.simd.mxcsr & MODES != 0 {
            return Err(self.unimplemented("rounding, DAZ or FTZ other than the reset state of MXCSR"));
        }
        Ok(())
    }
}

type Binary<F> = fn(F, F) -> Option<Outcome<F>>;

const ARITHMETIC32: [Binary<f32>; 7] = [add, sub, mul, div, min, max, sqrt];
const ARITHMETIC64: [Binary<f64>; 7] = [add, sub, mul, div, min, max, sqrt];

fn scalar32(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_float()?;
    let b = f32::from_bits(cpu.source32(env, op)?);
    let old = cpu.xmm(op.dst);
    let r = apply(cpu, &ARITHMETIC32, op.aux, f32::from_bits(old as u32), b)?;
    cpu.raise_status(r.raised)?;
    cpu.set_xmm(op.dst, old & !0xFFFF_FFFF | u128::from(r.value.to_bits()));
    Ok(())
}
fn scalar64(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_float()?;
    let b = f64::from_bits(cpu.source64(env, op)?);
    let old = cpu.xmm(op.dst);
    let r = apply(cpu, &ARITHMETIC64, op.aux, f64::from_bits(old as u64), b)?;
    cpu.raise_status(r.raised)?;
    cpu.set_xmm(op.dst, from_qwords(r.value.to_bits(), (old >> 64) as u64));
    Ok(())
}
fn apply<F: Float>(cpu: &mut Cpu, table: &[Binary<F>], which: u16, a: F, b: F) -> Result<Outcome<F>, Stop> {
    let outcome = table.get(which as usize).and_then(|f| f(a, b));
    outcome.ok_or_else(|| cpu.unimplemented("a result at the border of underflow"))
}
fn packed32(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_float()?;
    let (a, b) = (dwords_of(cpu.xmm(op.dst)), dwords_of(cpu.source128(env, op)?));
    let mut result = [0u32; 4];
    let mut raised = 0;
    for ((slot, a), b) in result.iter_mut().zip(a).zip(b) {
        let r = apply(cpu, &ARITHMETIC32, op.aux, f32::from_bits(a), f32::from_bits(b))?;
        raised |= r.raised;
        *slot = r.value.to_bits();
    }
    cpu.raise_status(raised)?;
    cpu.set_xmm(op.dst, from_dwords(result));
    Ok(())
}
fn qwords(value: u128) -> [u64; 2] {
    [value as u64, (value >> 64) as u64]
}
fn packed64(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_float()?;
    let (a, b) = (qwords(cpu.xmm(op.dst)), qwords(cpu.source128(env, op)?));
    let mut result = [0u64; 2];
    let mut raised = 0;
    for ((slot, a), b) in result.iter_mut().zip(a).zip(b) {
        let r = apply(cpu, &ARITHMETIC64, op.aux, f64::from_bits(a), f64::from_bits(b))?;
        raised |= r.raised;
        *slot = r.value.to_bits();
    }
    cpu.raise_status(raised)?;
    let [low, high] = result;
    cpu.set_xmm(op.dst, from_qwords(low, high));
    Ok(())
}

fn compare_scalar32(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_float()?;
    let b = f32::from_bits(cpu.source32(env, op)?);
    let old = cpu.xmm(op.dst);
    let (holds, raised) = predicate(f32::from_bits(old as u32), b, op.imm as u8);
    cpu.raise_status(raised)?;
    cpu.set_xmm(op.dst, old & !0xFFFF_FFFF | if holds { 0xFFFF_FFFF } else { 0 });
    Ok(())
}
fn compare_scalar64(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_float()?;
    let b = f64::from_bits(cpu.source64(env, op)?);
    let old = cpu.xmm(op.dst);
    let (holds, raised) = predicate(f64::from_bits(old as u64), b, op.imm as u8);
    cpu.raise_status(raised)?;
    cpu.set_xmm(op.dst, from_qwords(if holds { u64::MAX } else { 0 }, (old >> 64) as u64));
    Ok(())
}
fn compare_packed32(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_float()?;
    let (a, b) = (dwords_of(cpu.xmm(op.dst)), dwords_of(cpu.source128(env, op)?));
    let mut raised = 0;
    let mut result = [0u32; 4];
    for ((slot, a), b) in result.iter_mut().zip(a).zip(b) {
        let (holds, flags) = predicate(f32::from_bits(a), f32::from_bits(b), op.imm as u8);
        raised |= flags;
        *slot = if holds { u32::MAX } else { 0 };
    }
    cpu.raise_status(raised)?;
    cpu.set_xmm(op.dst, from_dwords(result));
    Ok(())
}
fn compare_packed64(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_float()?;
    let (a, b) = (qwords(cpu.xmm(op.dst)), qwords(cpu.source128(env, op)?));
    let mut raised = 0;
    let mut result = [0u64; 2];
    for ((slot, a), b) in result.iter_mut().zip(a).zip(b) {
        let (holds, flags) = predicate(f64::from_bits(a), f64::from_bits(b), op.imm as u8);
        raised |= flags;
        *slot = if holds { u64::MAX } else { 0 };
    }
    cpu.raise_status(raised)?;
    let [low, high] = result;
    cpu.set_xmm(op.dst, from_qwords(low, high));
    Ok(())
}

/// COMISS and its kin: `aux` is 1 for the unordered forms.
fn set_compare_flags<F: Float>(cpu: &mut Cpu, a: F, b: F, unordered: u16) -> Step {
    let quiet = if unordered == 1 { Quiet::Passes } else { Quiet::Signals };
    cpu.raise_status(compare_flags(a, b, quiet))?;
    let value = if a.is_nan() || b.is_nan() {
        flags::ZF | flags::PF | flags::CF
    } else if a < b {
        flags::CF
    } else if a == b {
        flags::ZF
    } else {
        0
    };
    cpu.flags.replace(flags::ARITHMETIC, value);
    Ok(())
}
fn comis32(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_float()?;
    let b = f32::from_bits(cpu.source32(env, op)?);
    let a = f32::from_bits(cpu.xmm(op.dst) as u32);
    set_compare_flags(cpu, a, b, op.aux)
}
fn comis64(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_float()?;
    let b = f64::from_bits(cpu.source64(env, op)?);
    let a = f64::from_bits(cpu.xmm(op.dst) as u64);
    set_compare_flags(cpu, a, b, op.aux)
}

/// The integer source of CVTSI2SS and CVTSI2SD.
fn integer_source(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Result<i64, Stop> {
    Ok(if op.operand_bytes() == 8 {
        cpu.source::<u64>(env, op)? as i64
    } else {
        i64::from(cpu.source::<u32>(env, op)? as i32)
    })
}
fn integer_to_32(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_float()?;
    let value = integer_source(cpu, env, op)?;
    let result = value as f32;
    cpu.raise_status(inexact_if(result as i128 != i128::from(value)))?;
    let kept = cpu.xmm(op.dst) & !0xFFFF_FFFF;
    cpu.set_xmm(op.dst, kept | u128::from(result.to_bits()));
    Ok(())
}
fn integer_to_64(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_float()?;
    let value = integer_source(cpu, env, op)?;
    let result = value as f64;
    cpu.raise_status(inexact_if(result as i128 != i128::from(value)))?;
    let high = (cpu.xmm(op.dst) >> 64) as u64;
    cpu.set_xmm(op.dst, from_qwords(result.to_bits(), high));
    Ok(())
}

/// `aux` 0 rounds, 1 truncates.
fn rounding(op: &Op) -> Rounding {
    if op.aux == 1 { Rounding::Truncate } else { Rounding::Nearest }
}
fn finish_integer(cpu: &mut Cpu, op: &Op, value: f64) -> Step {
    let wide = op.operand_bytes() == 8;
    let (result, raised) = to_integer(value, if wide { 64 } else { 32 }, rounding(op));
    cpu.raise_status(raised)?;
    cpu.regs.set_slot(op.dst, if wide { result as u64 } else { u64::from(result as u32) });
    Ok(())
}
fn integer_from_32(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_float()?;
    let value = f32::from_bits(cpu.source32(env, op)?);
    finish_integer(cpu, op, f64::from(value))
}
fn integer_from_64(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_float()?;
    let value = f64::from_bits(cpu.source64(env, op)?);
    finish_integer(cpu, op, value)
}

fn narrow_or_stop(cpu: &mut Cpu, bits: u64) -> Result<Outcome<f32>, Stop> {
    narrow(f64::from_bits(bits)).ok_or_else(|| cpu.unimplemented("a result at the border of underflow"))
}
fn cvtss2sd(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_float()?;
    let r = widen(f32::from_bits(cpu.source32(env, op)?));
    cpu.raise_status(r.raised)?;
    let high = (cpu.xmm(op.dst) >> 64) as u64;
    cpu.set_xmm(op.dst, from_qwords(r.value.to_bits(), high));
    Ok(())
}
fn cvtsd2ss(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_float()?;
    let bits = cpu.source64(env, op)?;
    let r = narrow_or_stop(cpu, bits)?;
    cpu.raise_status(r.raised)?;
    let kept = cpu.xmm(op.dst) & !0xFFFF_FFFF;
    cpu.set_xmm(op.dst, kept | u128::from(r.value.to_bits()));
    Ok(())
}
fn cvtps2pd(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_float()?;
    let source = cpu.source64(env, op)?;
    let low = widen(f32::from_bits(source as u32));
    let high = widen(f32::from_bits((source >> 32) as u32));
    cpu.raise_status(low.raised | high.raised)?;
    cpu.set_xmm(op.dst, from_qwords(low.value.to_bits(), high.value.to_bits()));
    Ok(())
}
fn cvtpd2ps(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_float()?;
    let [low, high] = qwords(cpu.source128(env, op)?);
    let low = narrow_or_stop(cpu, low)?;
    let high = narrow_or_stop(cpu, high)?;
    cpu.raise_status(low.raised | high.raised)?;
    cpu.set_xmm(op.dst, from_dwords([low.value.to_bits(), high.value.to_bits(), 0, 0]));
    Ok(())
}
fn cvtdq2ps(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_float()?;
    let source = dwords_of(cpu.source128(env, op)?);
    let exact = source.iter().all(|d| (*d as i32 as f32) as i64 == i64::from(*d as i32));
    cpu.raise_status(inexact_if(!exact))?;
    cpu.set_xmm(op.dst, from_dwords(source.map(|d| (d as i32 as f32).to_bits())));
    Ok(())
}
fn cvtdq2pd(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_sse()?;
    let source = cpu.source64(env, op)?;
    let low = f64::from(source as i32).to_bits();
    let high = f64::from((source >> 32) as i32).to_bits();
    cpu.set_xmm(op.dst, from_qwords(low, high));
    Ok(())
}
fn ps_to_dq(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_float()?;
    let source = dwords_of(cpu.source128(env, op)?);
    let converted = source.map(|d| to_integer(f64::from(f32::from_bits(d)), 32, rounding(op)));
    cpu.raise_status(converted.iter().fold(0, |all, c| all | c.1))?;
    cpu.set_xmm(op.dst, from_dwords(converted.map(|c| c.0 as u32)));
    Ok(())
}
fn pd_to_dq(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_float()?;
    let source = qwords(cpu.source128(env, op)?);
    let converted = source.map(|q| to_integer(f64::from_bits(q), 32, rounding(op)));
    cpu.raise_status(converted.iter().fold(0, |all, c| all | c.1))?;
    let [low, high] = converted.map(|c| c.0 as u32);
    cpu.set_xmm(op.dst, from_dwords([low, high, 0, 0]));
    Ok(())
}

pub(super) fn decode(i: &Instruction, long: bool) -> Option<Decoded> {
    use Mnemonic as M;
    let mmx = |n: u32| i.op_kind(n) == OpKind::Register && i.op_register(n).is_mm();
    if (0..i.op_count()).any(mmx) || super::string::string_operands(i).is_some() {
        return None;
    }
    let arithmetic: Option<(Handler, u16)> = match i.mnemonic() {
        M::Addss => Some((scalar32, 0)),
        M::Subss => Some((scalar32, 1)),
        M::Mulss => Some((scalar32, 2)),
        M::Divss => Some((scalar32, 3)),
        M::Minss => Some((scalar32, 4)),
        M::Maxss => Some((scalar32, 5)),
        M::Sqrtss => Some((scalar32, 6)),
        M::Addsd => Some((scalar64, 0)),
        M::Subsd => Some((scalar64, 1)),
        M::Mulsd => Some((scalar64, 2)),
        M::Divsd => Some((scalar64, 3)),
        M::Minsd => Some((scalar64, 4)),
        M::Maxsd => Some((scalar64, 5)),
        M::Sqrtsd => Some((scalar64, 6)),
        M::Addps => Some((packed32, 0)),
        M::Subps => Some((packed32, 1)),
        M::Mulps => Some((packed32, 2)),
        M::Divps => Some((packed32, 3)),
        M::Minps => Some((packed32, 4)),
        M::Maxps => Some((packed32, 5)),
        M::Sqrtps => Some((packed32, 6)),
        M::Addpd => Some((packed64, 0)),
        M::Subpd => Some((packed64, 1)),
        M::Mulpd => Some((packed64, 2)),
        M::Divpd => Some((packed64, 3)),
        M::Minpd => Some((packed64, 4)),
        M::Maxpd => Some((packed64, 5)),
        M::Sqrtpd => Some((packed64, 6)),
        M::Comiss => Some((comis32, 0)),
        M::Ucomiss => Some((comis32, 1)),
        M::Comisd => Some((comis64, 0)),
        M::Ucomisd => Some((comis64, 1)),
        M::Cmpss => Some((compare_scalar32, 0)),
        M::Cmpsd => Some((compare_scalar64, 0)),
        M::Cmpps => Some((compare_packed32, 0)),
        M::Cmppd => Some((compare_packed64, 0)),
        M::Cvtsi2ss => Some((integer_to_32, 0)),
        M::Cvtsi2sd => Some((integer_to_64, 0)),
        M::Cvtss2si => Some((integer_from_32, 0)),
        M::Cvttss2si => Some((integer_from_32, 1)),
        M::Cvtsd2si => Some((integer_from_64, 0)),
        M::Cvttsd2si => Some((integer_from_64, 1)),
        M::Cvtss2sd => Some((cvtss2sd, 0)),
        M::Cvtsd2ss => Some((cvtsd2ss, 0)),
        M::Cvtps2pd => Some((cvtps2pd, 0)),
        M::Cvtpd2ps => Some((cvtpd2ps, 0)),
        M::Cvtdq2ps => Some((cvtdq2ps, 0)),
        M::Cvtdq2pd => Some((cvtdq2pd, 0)),
        M::Cvtps2dq => Some((ps_to_dq, 0)),
        M::Cvttps2dq => Some((ps_to_dq, 1)),
        M::Cvtpd2dq => Some((pd_to_dq, 0)),
        M::Cvttpd2dq => Some((pd_to_dq, 1)),
        _ => None,
    };
    let (run, aux) = arithmetic?;
    let mut op = operands(i, run, long);
    op.aux = aux;
    let general = match i.mnemonic() {
        M::Cvtsi2ss | M::Cvtsi2sd => Some(1),
        M::Cvtss2si | M::Cvttss2si | M::Cvtsd2si | M::Cvttsd2si => Some(0),
        _ => None,
    };
    if general.is_some_and(|n| width(i, n) == 8) {
        op.prefix |= prefix::SIZE64;
    }
    Some(Decoded::plain(op))
}
