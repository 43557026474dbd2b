//! Conversions between packed numbers and integers in MMX registers.

use iced_x86::Mnemonic;

use super::{Element, Raised, with_low};
use crate::cpu::{Cpu, Env};
use crate::op::{Handler, Op};
use crate::ops::packed::from_qwords;
use crate::softfloat::{Integer, Rounding, from_integer, to_integer};
use crate::stop::Step;

fn halves(value: u64) -> [i64; 2] {
    [i64::from(value as i32), i64::from((value >> 32) as i32)]
}

fn cvtpi2ps(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_sse()?;
    cpu.check_mmx()?;
    let source = cpu.mm_source(env, op)?;
    let modes = cpu.sse_environment();
    let mut raised = Raised::default();
    let [low, high] =
        halves(source).map(|integer| raised.lane::<u32>(from_integer(integer, u32::FORMAT, &modes)));
    cpu.report(raised.0)?;
    let old = cpu.xmm(op.dst);
    cpu.set_xmm(op.dst, with_low(old, u64::from(low) | u64::from(high) << 32));
    cpu.enter_mmx();
    Ok(())
}

/// Every integer is a double. With a memory operand this is no MMX instruction.
fn cvtpi2pd(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_sse()?;
    if !op.has_memory() {
        cpu.check_mmx()?;
    }
    let source = cpu.mm_source(env, op)?;
    let [low, high] = halves(source).map(|integer| (integer as f64).to_bits());
    cpu.set_xmm(op.dst, from_qwords(low, high));
    if !op.has_memory() {
        cpu.enter_mmx();
    }
    Ok(())
}

/// `aux` of the truncating forms.
const TRUNCATE: u16 = 1;

fn to_integers<E: Element>(cpu: &mut Cpu, op: &Op, source: u128) -> Step {
    let modes = cpu.sse_environment();
    let rounding = if op.aux == TRUNCATE { Rounding::Truncate } else { modes.rounding };
    let mut raised = Raised::default();
    let [low, high] = [0, 1].map(|n| {
        let lane = to_integer(E::from_lane(source, n).value(), Integer::Bits32, rounding, &modes);
        raised.0 |= lane.raised;
        u64::from(lane.value as u32)
    });
    cpu.report(raised.0)?;
    cpu.set_mm(op.dst, low | high << 32);
    Ok(())
}
fn from_singles(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_sse()?;
    cpu.check_mmx()?;
    let source = cpu.source64(env, op)?;
    to_integers::<u32>(cpu, op, source.into())
}
fn from_doubles(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_sse()?;
    cpu.check_mmx()?;
    let source = cpu.source128(env, op)?;
    to_integers::<u64>(cpu, op, source)
}

/// The handler of a mnemonic, and its `aux`.
pub(super) fn handler(mnemonic: Mnemonic) -> Option<(Handler, u16)> {
    use Mnemonic as M;
    Some(match mnemonic {
        M::Cvtpi2ps => (cvtpi2ps, 0),
        M::Cvtpi2pd => (cvtpi2pd, 0),
        M::Cvtps2pi => (from_singles, 0),
        M::Cvttps2pi => (from_singles, TRUNCATE),
        M::Cvtpd2pi => (from_doubles, 0),
        M::Cvttpd2pi => (from_doubles, TRUNCATE),
        _ => return None,
    })
}
