//! ROUNDPS and its kin, and the estimates RCPPS and RSQRTPS.

use iced_x86::Mnemonic;

use super::super::vector::{Form, Shape, by_form, halves};
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

fn round_scalar<E: Element, F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    let source = E::source(cpu, env, op)?;
    let outcome = integral(source, op, &cpu.sse_environment());
    cpu.report(outcome.raised)?;
    let old = cpu.first::<F>(op)[0];
    cpu.finish::<F>(op, [with_low(old, E::from_value(outcome.value)), 0]);
    Ok(())
}

fn round_packed<E: Element, F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    let source = cpu.second::<F>(env, op)?;
    let modes = cpu.sse_environment();
    let mut raised = Raised::default();
    let result = halves::<F>(|half| {
        from_lanes(|n| raised.lane::<E>(integral(E::from_lane(source[half], n), op, &modes)))
    });
    cpu.report(raised.0)?;
    cpu.finish::<F>(op, result);
    Ok(())
}

type Estimate = fn(Value) -> Value;

fn estimate_scalar<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, estimate: Estimate) -> Step {
    cpu.begin::<F>()?;
    let source = u32::source(cpu, env, op)?;
    let old = cpu.first::<F>(op)[0];
    cpu.finish::<F>(op, [with_low(old, u32::from_value(estimate(source.value()))), 0]);
    Ok(())
}

fn estimate_packed<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, estimate: Estimate) -> Step {
    cpu.begin::<F>()?;
    let source = cpu.second::<F>(env, op)?;
    let result = halves::<F>(|half| {
        from_lanes(|n| u32::from_value(estimate(u32::from_lane(source[half], n).value())))
    });
    cpu.finish::<F>(op, result);
    Ok(())
}

fn rcpss<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    estimate_scalar::<F>(cpu, env, op, reciprocal)
}
fn rcpps<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    estimate_packed::<F>(cpu, env, op, reciprocal)
}
fn rsqrtss<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    estimate_scalar::<F>(cpu, env, op, reciprocal_square_root)
}
fn rsqrtps<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    estimate_packed::<F>(cpu, env, op, reciprocal_square_root)
}

pub(super) fn handler(mnemonic: Mnemonic, shape: Shape) -> Option<Handler> {
    use Mnemonic as M;
    Some(match mnemonic {
        M::Roundss | M::Vroundss => by_form!(shape, round_scalar, u32),
        M::Roundsd | M::Vroundsd => by_form!(shape, round_scalar, u64),
        M::Roundps | M::Vroundps => by_form!(shape, round_packed, u32),
        M::Roundpd | M::Vroundpd => by_form!(shape, round_packed, u64),
        M::Rcpss | M::Vrcpss => by_form!(shape, rcpss),
        M::Rcpps | M::Vrcpps => by_form!(shape, rcpps),
        M::Rsqrtss | M::Vrsqrtss => by_form!(shape, rsqrtss),
        M::Rsqrtps | M::Vrsqrtps => by_form!(shape, rsqrtps),
        _ => return None,
    })
}
