//! F16C: half precision in memory, single precision in registers.
//!
//! Half-precision denormals are numbers like others: DAZ and FTZ do not touch them, and they raise no #D (SDM vol. 1,
//! "Half-Precision Floating-Point Conversion").

use iced_x86::Mnemonic;

use super::super::vector::{Form, Shape, by_form, halves};
use super::{Element, Raised, from_lanes};
use crate::cpu::{Cpu, Env};
use crate::op::{Handler, Intent, Op};
use crate::softfloat::{Environment, Exceptions, Format, Rounding, Tiny, Value, convert};
use crate::stop::Step;

/// Bit 2 of the immediate: MXCSR rounds, not bits 1:0.
const BY_MXCSR: u64 = 1 << 2;

fn vcvtph2ps<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    let source = cpu.half_of_second::<F>(env, op)?;
    let modes = cpu.sse_environment();
    let mut raised = Raised::default();
    let result = halves::<F>(|half| {
        from_lanes(|n| {
            let bits = (source >> (16 * (4 * half as u32 + n))) as u16;
            raised.lane::<u32>(convert(Value::from_half(bits).as_normal(), u32::FORMAT, &modes))
        })
    });
    cpu.report(raised.0)?;
    cpu.finish::<F>(op, result);
    Ok(())
}

/// Four numbers of each half of the source, 16 bits each.
fn vcvtps2ph<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    let bytes = if F::WIDE { 16 } else { 8 };
    let linear = if op.writes_memory() { Some(cpu.linear(op, bytes, Intent::Write)?) } else { None };
    if let Some(linear) = linear {
        // A fault of the store comes before what the conversion raises.
        cpu.prepare_store(env, linear, bytes as usize)?;
    }
    let modes = cpu.sse_environment();
    let rounding = if op.imm & BY_MXCSR != 0 { modes.rounding } else { Rounding::from_bits(op.imm as u32) };
    let modes = Environment { rounding, tiny: Tiny::Denormal, ..modes };
    let source = cpu.register::<F>(op.src);
    let mut raised = Exceptions::NONE;
    let [low, high] = halves::<F>(|half| {
        (0..4).fold(0, |all, n| {
            let outcome = convert(u32::from_lane(source[half], n).value(), Format::HALF, &modes);
            raised |= outcome.raised;
            all | u128::from(outcome.value.to_half()) << (16 * n)
        })
    });
    cpu.report(raised)?;
    match linear {
        Some(linear) if F::WIDE => cpu.store(env, linear, low | high << 64),
        Some(linear) => cpu.store(env, linear, low as u64),
        None => {
            cpu.finish::<F>(op, [low | high << 64, 0]);
            Ok(())
        }
    }
}

pub(super) fn handler(mnemonic: Mnemonic, shape: Shape) -> Option<(Handler, u16)> {
    match mnemonic {
        Mnemonic::Vcvtph2ps => Some((by_form!(shape, vcvtph2ps), 0)),
        Mnemonic::Vcvtps2ph => Some((by_form!(shape, vcvtps2ph), 0)),
        _ => None,
    }
}
