//! Conversions between formats and to and from integers.

use iced_x86::Mnemonic;

use super::super::packed::{dwords_of, from_qwords};
use super::super::vector::{Form, Shape, by_form, halves};
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
fn scalar_from_integer<E: Element, F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    let value = if op.operand_bytes() == 8 {
        cpu.source::<u64>(env, op)? as i64
    } else {
        i64::from(cpu.source::<u32>(env, op)? as i32)
    };
    let outcome = from_integer(value, E::FORMAT, &cpu.sse_environment());
    cpu.report(outcome.raised)?;
    let old = cpu.first::<F>(op)[0];
    cpu.finish::<F>(op, [with_low(old, E::from_value(outcome.value)), 0]);
    Ok(())
}

/// CVTSS2SI, CVTTSS2SI, CVTSD2SI, CVTTSD2SI.
fn scalar_to_integer<E: Element, F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
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
fn scalar_to_other<From: Element, To: Element, F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    let value = From::source(cpu, env, op)?.value();
    let outcome = convert(value, To::FORMAT, &cpu.sse_environment());
    cpu.report(outcome.raised)?;
    let old = cpu.first::<F>(op)[0];
    cpu.finish::<F>(op, [with_low(old, To::from_value(outcome.value)), 0]);
    Ok(())
}

fn cvtps2pd<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    let source = cpu.half_of_second::<F>(env, op)?;
    let modes = cpu.sse_environment();
    let mut raised = Raised::default();
    let result = halves::<F>(|half| {
        from_lanes(|n| {
            let single = u32::from_lane(source, 2 * half as u32 + n);
            raised.lane::<u64>(convert(single.value(), u64::FORMAT, &modes))
        })
    });
    cpu.report(raised.0)?;
    cpu.finish::<F>(op, result);
    Ok(())
}

/// The results take half of the source's bits; above them are zeros.
fn cvtpd2ps<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    let source = cpu.second::<F>(env, op)?;
    let modes = cpu.sse_environment();
    let mut raised = Raised::default();
    let result = narrowed::<F>(|half, n| {
        raised.lane::<u32>(convert(u64::from_lane(source[half], n).value(), u32::FORMAT, &modes))
    });
    cpu.report(raised.0)?;
    cpu.finish::<F>(op, [result, 0]);
    Ok(())
}

/// Sixteen bytes of elements that were made from wider ones, two of each half.
fn narrowed<F: Form>(mut element: impl FnMut(usize, u32) -> u32) -> u128 {
    let [low, high] = halves::<F>(|half| {
        let (low, high) = (element(half, 0), element(half, 1));
        u128::from(low) | u128::from(high) << 32
    });
    low | high << 64
}

fn cvtdq2ps<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    let source = cpu.second::<F>(env, op)?;
    let modes = cpu.sse_environment();
    let mut raised = Raised::default();
    let result = halves::<F>(|half| {
        from_lanes(|n| {
            let integer = i64::from(u32::from_lane(source[half], n) as i32);
            raised.lane::<u32>(from_integer(integer, u32::FORMAT, &modes))
        })
    });
    cpu.report(raised.0)?;
    cpu.finish::<F>(op, result);
    Ok(())
}

/// Every 32-bit integer is a double: nothing is raised.
fn cvtdq2pd<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    let source = cpu.half_of_second::<F>(env, op)?;
    let double = |n: usize| f64::from(dwords_of(source)[n] as i32).to_bits();
    cpu.finish::<F>(op, halves::<F>(|half| from_qwords(double(2 * half), double(2 * half + 1))));
    Ok(())
}

/// CVTPS2DQ, CVTTPS2DQ.
fn singles_to_integers<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    let source = cpu.second::<F>(env, op)?;
    let modes = cpu.sse_environment();
    let mut raised = Raised::default();
    let result =
        halves::<F>(|half| from_lanes(|n| integer(u32::from_lane(source[half], n), op, &modes, &mut raised)));
    cpu.report(raised.0)?;
    cpu.finish::<F>(op, result);
    Ok(())
}

/// CVTPD2DQ, CVTTPD2DQ.
fn doubles_to_integers<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    let source = cpu.second::<F>(env, op)?;
    let modes = cpu.sse_environment();
    let mut raised = Raised::default();
    let result = narrowed::<F>(|half, n| integer(u64::from_lane(source[half], n), op, &modes, &mut raised));
    cpu.report(raised.0)?;
    cpu.finish::<F>(op, [result, 0]);
    Ok(())
}

/// An element of a vector as a 32-bit integer.
fn integer<E: Element>(element: E, op: &Op, modes: &Environment, raised: &mut Raised) -> u32 {
    let lane = to_integer(element.value(), Integer::Bits32, rounding(op, modes), modes);
    raised.0 |= lane.raised;
    lane.value as u32
}

pub(super) fn handler(mnemonic: Mnemonic, shape: Shape) -> Option<(Handler, u16)> {
    use Mnemonic as M;
    Some(match mnemonic {
        M::Cvtsi2ss | M::Vcvtsi2ss => (by_form!(shape, scalar_from_integer, u32), 0),
        M::Cvtsi2sd | M::Vcvtsi2sd => (by_form!(shape, scalar_from_integer, u64), 0),
        M::Cvtss2si | M::Vcvtss2si => (by_form!(shape, scalar_to_integer, u32), 0),
        M::Cvttss2si | M::Vcvttss2si => (by_form!(shape, scalar_to_integer, u32), TRUNCATE),
        M::Cvtsd2si | M::Vcvtsd2si => (by_form!(shape, scalar_to_integer, u64), 0),
        M::Cvttsd2si | M::Vcvttsd2si => (by_form!(shape, scalar_to_integer, u64), TRUNCATE),
        M::Cvtss2sd | M::Vcvtss2sd => (by_form!(shape, scalar_to_other, u32, u64), 0),
        M::Cvtsd2ss | M::Vcvtsd2ss => (by_form!(shape, scalar_to_other, u64, u32), 0),
        M::Cvtps2pd | M::Vcvtps2pd => (by_form!(shape, cvtps2pd), 0),
        M::Cvtpd2ps | M::Vcvtpd2ps => (by_form!(shape, cvtpd2ps), 0),
        M::Cvtdq2ps | M::Vcvtdq2ps => (by_form!(shape, cvtdq2ps), 0),
        M::Cvtdq2pd | M::Vcvtdq2pd => (by_form!(shape, cvtdq2pd), 0),
        M::Cvtps2dq | M::Vcvtps2dq => (by_form!(shape, singles_to_integers), 0),
        M::Cvttps2dq | M::Vcvttps2dq => (by_form!(shape, singles_to_integers), TRUNCATE),
        M::Cvtpd2dq | M::Vcvtpd2dq => (by_form!(shape, doubles_to_integers), 0),
        M::Cvttpd2dq | M::Vcvttpd2dq => (by_form!(shape, doubles_to_integers), TRUNCATE),
        _ => return None,
    })
}
