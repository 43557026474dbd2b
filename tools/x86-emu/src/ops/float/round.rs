//! ROUNDPS and its kin, and the estimates RCPPS and RSQRTPS.

use iced_x86::Mnemonic;

use super::{Element, Raised, from_lanes, with_low};
use crate::cpu::{Cpu, Env};
use crate::op::{Handler, Op};
use crate::softfloat::{
    Environment, Exceptions, Outcome, Rounding, Value, reciprocal, reciprocal_square_root, round_to_integral,
};
use crate::stop::Step;

/// Bit 2 of the immediate: MXCSR rounds, not bits 1:0.
const BY_MXCSR: u64 = 1 << 2;
/// Bit 3 of the immediate: an inexact result is not reported.
const QUIETLY: u64 = 1 << 3;

fn integral<E: Element>(value: E, op: &Op, modes: &Environment) -> Outcome {
    let rounding = if op.imm & BY_MXCSR != 0 { modes.rounding } else { Rounding::from_bits(op.imm as u32) };
    // Denormal operands are not reported.
    let modes = Environment { masked: modes.masked | Exceptions::DENORMAL, ..*modes };
    let outcome = round_to_integral(value.value(), rounding, &modes);
    let reported = Exceptions::INVALID | Exceptions::PRECISION.when(op.imm & QUIETLY == 0);
    Outcome { raised: outcome.raised & reported, ..outcome }
}

fn round_scalar<E: Element>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_sse()?;
    let source = E::source(cpu, env, op)?;
    let outcome = integral(source, op, &cpu.sse_environment());
    cpu.report(outcome.raised)?;
    let old = cpu.xmm(op.dst);
    cpu.set_xmm(op.dst, with_low(old, E::from_value(outcome.value)));
    Ok(())
}

fn round_packed<E: Element>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_sse()?;
    let source = cpu.source128(env, op)?;
    let modes = cpu.sse_environment();
    let mut raised = Raised::default();
    let result = from_lanes(|n| raised.lane::<E>(integral(E::from_lane(source, n), op, &modes)));
    cpu.report(raised.0)?;
    cpu.set_xmm(op.dst, result);
    Ok(())
}

type Estimate = fn(Value) -> Value;

fn estimate_scalar(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, estimate: Estimate) -> Step {
    cpu.check_sse()?;
    let source = u32::source(cpu, env, op)?;
    let old = cpu.xmm(op.dst);
    cpu.set_xmm(op.dst, with_low(old, u32::from_value(estimate(source.value()))));
    Ok(())
}

fn estimate_packed(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, estimate: Estimate) -> Step {
    cpu.check_sse()?;
    let source = cpu.source128(env, op)?;
    cpu.set_xmm(op.dst, from_lanes(|n| u32::from_value(estimate(u32::from_lane(source, n).value()))));
    Ok(())
}

fn rcpss(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    estimate_scalar(cpu, env, op, reciprocal)
}
fn rcpps(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    estimate_packed(cpu, env, op, reciprocal)
}
fn rsqrtss(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    estimate_scalar(cpu, env, op, reciprocal_square_root)
}
fn rsqrtps(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    estimate_packed(cpu, env, op, reciprocal_square_root)
}

pub(super) fn handler(mnemonic: Mnemonic) -> Option<Handler> {
    use Mnemonic as M;
    Some(match mnemonic {
        M::Roundss => round_scalar::<u32>,
        M::Roundsd => round_scalar::<u64>,
        M::Roundps => round_packed::<u32>,
        M::Roundpd => round_packed::<u64>,
        M::Rcpss => rcpss,
        M::Rcpps => rcpps,
        M::Rsqrtss => rsqrtss,
        M::Rsqrtps => rsqrtps,
        _ => return None,
    })
}
