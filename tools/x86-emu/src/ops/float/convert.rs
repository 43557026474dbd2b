//! Conversions between formats and to and from integers.

use iced_x86::Mnemonic;

use super::super::packed::{from_dwords, from_qwords};
use super::{Element, Raised, from_lanes, with_low};
use crate::cpu::{Cpu, Env};
use crate::op::{Handler, Op};
use crate::softfloat::{Environment, Integer, Rounding, convert, from_integer, to_integer};
use crate::stop::Step;

/// `aux` of the truncating forms.
const TRUNCATE: u16 = 1;

fn rounding(op: &Op, modes: &Environment) -> Rounding {
    if op.aux == TRUNCATE { Rounding::Truncate } else { modes.rounding }
}

/// CVTSI2SS, CVTSI2SD.
fn scalar_from_integer<E: Element>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_sse()?;
    let value = if op.operand_bytes() == 8 {
        cpu.source::<u64>(env, op)? as i64
    } else {
        i64::from(cpu.source::<u32>(env, op)? as i32)
    };
    let outcome = from_integer(value, E::FORMAT, &cpu.sse_environment());
    cpu.report(outcome.raised)?;
    let old = cpu.xmm(op.dst);
    cpu.set_xmm(op.dst, with_low(old, E::from_value(outcome.value)));
    Ok(())
}

/// CVTSS2SI, CVTTSS2SI, CVTSD2SI, CVTTSD2SI.
fn scalar_to_integer<E: Element>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_sse()?;
    let value = E::source(cpu, env, op)?.value();
    let modes = cpu.sse_environment();
    let wide = op.operand_bytes() == 8;
    let size = if wide { Integer::Bits64 } else { Integer::Bits32 };
    let result = to_integer(value, size, rounding(op, &modes), &modes);
    cpu.report(result.raised)?;
    cpu.state.regs.set_slot(op.dst, if wide { result.value as u64 } else { u64::from(result.value as u32) });
    Ok(())
}

/// CVTSS2SD, CVTSD2SS.
fn scalar_to_other<From: Element, To: Element>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_sse()?;
    let value = From::source(cpu, env, op)?.value();
    let outcome = convert(value, To::FORMAT, &cpu.sse_environment());
    cpu.report(outcome.raised)?;
    let old = cpu.xmm(op.dst);
    cpu.set_xmm(op.dst, with_low(old, To::from_value(outcome.value)));
    Ok(())
}

fn cvtps2pd(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_sse()?;
    let source = u128::from(cpu.source64(env, op)?);
    let modes = cpu.sse_environment();
    let mut raised = Raised::default();
    let result =
        from_lanes(|n| raised.lane::<u64>(convert(u32::from_lane(source, n).value(), u64::FORMAT, &modes)));
    cpu.report(raised.0)?;
    cpu.set_xmm(op.dst, result);
    Ok(())
}

fn cvtpd2ps(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_sse()?;
    let source = cpu.source128(env, op)?;
    let modes = cpu.sse_environment();
    let mut raised = Raised::default();
    let mut lane = |n| raised.lane::<u32>(convert(u64::from_lane(source, n).value(), u32::FORMAT, &modes));
    let (low, high) = (lane(0), lane(1));
    cpu.report(raised.0)?;
    cpu.set_xmm(op.dst, from_dwords([low, high, 0, 0]));
    Ok(())
}

fn cvtdq2ps(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_sse()?;
    let source = cpu.source128(env, op)?;
    let modes = cpu.sse_environment();
    let mut raised = Raised::default();
    let result = from_lanes(|n| {
        let integer = i64::from(u32::from_lane(source, n) as i32);
        raised.lane::<u32>(from_integer(integer, u32::FORMAT, &modes))
    });
    cpu.report(raised.0)?;
    cpu.set_xmm(op.dst, result);
    Ok(())
}

/// Every 32-bit integer is a double: nothing is raised.
fn cvtdq2pd(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_sse()?;
    let source = cpu.source64(env, op)?;
    let low = f64::from(source as i32).to_bits();
    let high = f64::from((source >> 32) as i32).to_bits();
    cpu.set_xmm(op.dst, from_qwords(low, high));
    Ok(())
}

/// CVTPS2DQ, CVTTPS2DQ, CVTPD2DQ, CVTTPD2DQ.
fn packed_to_integers<E: Element>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_sse()?;
    let source = cpu.source128(env, op)?;
    let modes = cpu.sse_environment();
    let mut raised = Raised::default();
    let mut result = [0u32; 4];
    for (n, slot) in (0..128 / E::BITS).zip(&mut result) {
        let lane = to_integer(E::from_lane(source, n).value(), Integer::Bits32, rounding(op, &modes), &modes);
        raised.0 |= lane.raised;
        *slot = lane.value as u32;
    }
    cpu.report(raised.0)?;
    cpu.set_xmm(op.dst, from_dwords(result));
    Ok(())
}

pub(super) fn handler(mnemonic: Mnemonic) -> Option<(Handler, u16)> {
    use Mnemonic as M;
    Some(match mnemonic {
        M::Cvtsi2ss => (scalar_from_integer::<u32>, 0),
        M::Cvtsi2sd => (scalar_from_integer::<u64>, 0),
        M::Cvtss2si => (scalar_to_integer::<u32>, 0),
        M::Cvttss2si => (scalar_to_integer::<u32>, TRUNCATE),
        M::Cvtsd2si => (scalar_to_integer::<u64>, 0),
        M::Cvttsd2si => (scalar_to_integer::<u64>, TRUNCATE),
        M::Cvtss2sd => (scalar_to_other::<u32, u64>, 0),
        M::Cvtsd2ss => (scalar_to_other::<u64, u32>, 0),
        M::Cvtps2pd => (cvtps2pd, 0),
        M::Cvtpd2ps => (cvtpd2ps, 0),
        M::Cvtdq2ps => (cvtdq2ps, 0),
        M::Cvtdq2pd => (cvtdq2pd, 0),
        M::Cvtps2dq => (packed_to_integers::<u32>, 0),
        M::Cvttps2dq => (packed_to_integers::<u32>, TRUNCATE),
        M::Cvtpd2dq => (packed_to_integers::<u64>, 0),
        M::Cvttpd2dq => (packed_to_integers::<u64>, TRUNCATE),
        _ => return None,
    })
}
