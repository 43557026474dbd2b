//! FLD, FILD, FBLD, constants, FXCH and FCMOV.

use iced_x86::{MemorySize, Mnemonic};
use x86_arch::{X87State, flags};

use super::stack::{Fault, Pops, Stack, Target, fault, push, status, stops, underflow};
use super::{Double, Int16, Int32, Int64, Memory, Single, to_register};
use crate::cpu::{Cpu, Env};
use crate::op::{Handler, Op};
use crate::softfloat::{Constant, Exceptions, Format, Value, convert, from_packed_decimal};
use crate::stop::Step;

/// Pushes a number that may be a signalling NaN or denormal in its own format.
fn push_converted(x87: &mut X87State, value: Value) -> Exceptions {
    let outcome = convert(value, Format::EXTENDED, &x87.environment());
    // A full stack comes before the operand.
    if x87.is_empty(7) && stops(x87, outcome.raised) {
        x87.set_conditions(status::C1, 0);
        return outcome.raised;
    }
    let full = push(x87, to_register(outcome.value.to_extended()));
    if full.is_empty() { outcome.raised } else { full }
}

fn from_memory<M: Memory>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin_x87()?;
    let value = M::load(cpu, env, op)?;
    let raised = push_converted(&mut cpu.state.simd.x87, value);
    cpu.finish_x87(env, op, raised);
    Ok(())
}

fn fld_tbyte(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin_x87()?;
    let bits = cpu.load_tbyte(env, op)?;
    let raised = push(&mut cpu.state.simd.x87, bits);
    cpu.finish_x87(env, op, raised);
    Ok(())
}

fn fbld(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin_x87()?;
    let packed = cpu.load_tbyte(env, op)?;
    let raised = push(&mut cpu.state.simd.x87, to_register(from_packed_decimal(packed).to_extended()));
    cpu.finish_x87(env, op, raised);
    Ok(())
}

fn fld_register(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin_x87()?;
    let x87 = &mut cpu.state.simd.x87;
    let raised = match x87.bits(op.dst) {
        Some(bits) => push(x87, bits),
        None => {
            let raised = fault(x87, Fault::Underflow);
            if !stops(x87, raised) {
                x87.push(to_register(Value::INDEFINITE.to_extended()));
            }
            raised
        }
    };
    cpu.finish_x87(env, op, raised);
    Ok(())
}

/// `aux` is the index.
const CONSTANTS: [(Mnemonic, Constant); 7] = [
    (Mnemonic::Fld1, Constant::One),
    (Mnemonic::Fldl2t, Constant::Log2Of10),
    (Mnemonic::Fldl2e, Constant::Log2OfE),
    (Mnemonic::Fldpi, Constant::Pi),
    (Mnemonic::Fldlg2, Constant::Log10Of2),
    (Mnemonic::Fldln2, Constant::LnOf2),
    (Mnemonic::Fldz, Constant::Zero),
];

fn constant(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin_x87()?;
    let x87 = &mut cpu.state.simd.x87;
    let which = CONSTANTS.get(op.aux as usize).map_or(Constant::Zero, |row| row.1);
    let value = which.load(x87.environment().rounding);
    let raised = push(x87, to_register(value.to_extended()));
    cpu.finish_x87(env, op, raised);
    Ok(())
}

/// An empty register is exchanged as the indefinite value.
fn fxch(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin_x87()?;
    let x87 = &mut cpu.state.simd.x87;
    let (a, b) = (x87.bits(0), x87.bits(op.src));
    let raised = if a.is_none() || b.is_none() { fault(x87, Fault::Underflow) } else { Exceptions::NONE };
    if !stops(x87, raised) {
        x87.set_conditions(status::C1, 0);
        let indefinite = to_register(Value::INDEFINITE.to_extended());
        x87.fill(0, b.unwrap_or(indefinite));
        x87.fill(op.src, a.unwrap_or(indefinite));
    }
    cpu.finish_x87(env, op, raised);
    Ok(())
}

/// The condition of FCMOV: flags of which one is set; the N forms negate it.
const CONDITIONS: [(Mnemonic, u64, bool); 8] = [
    (Mnemonic::Fcmovb, flags::CF, true),
    (Mnemonic::Fcmove, flags::ZF, true),
    (Mnemonic::Fcmovbe, flags::CF | flags::ZF, true),
    (Mnemonic::Fcmovu, flags::PF, true),
    (Mnemonic::Fcmovnb, flags::CF, false),
    (Mnemonic::Fcmovne, flags::ZF, false),
    (Mnemonic::Fcmovnbe, flags::CF | flags::ZF, false),
    (Mnemonic::Fcmovnu, flags::PF, false),
];

fn fcmov(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin_x87()?;
    let holds = CONDITIONS
        .get(op.aux as usize)
        .is_some_and(|(_, of, wanted)| (cpu.state.flags.get() & of != 0) == *wanted);
    let x87 = &mut cpu.state.simd.x87;
    let raised = match (x87.bits(0), x87.bits(op.src)) {
        (Some(_), Some(bits)) => {
            if holds {
                x87.fill(0, bits);
            }
            Exceptions::NONE
        }
        _ => underflow(x87, Target { register: 0, pops: Pops::Nothing }),
    };
    cpu.finish_x87(env, op, raised);
    Ok(())
}

pub(super) fn find(mnemonic: Mnemonic, size: Option<MemorySize>) -> Option<(Handler, u16)> {
    use Mnemonic as M;
    if let Some(n) = CONSTANTS.iter().position(|row| row.0 == mnemonic) {
        return Some((constant, n as u16));
    }
    if let Some(n) = CONDITIONS.iter().position(|row| row.0 == mnemonic) {
        return Some((fcmov, n as u16));
    }
    let run: Handler = match (mnemonic, size) {
        (M::Fld, None) => fld_register,
        (M::Fld, Some(MemorySize::Float32)) => from_memory::<Single>,
        (M::Fld, Some(MemorySize::Float64)) => from_memory::<Double>,
        (M::Fld, Some(MemorySize::Float80)) => fld_tbyte,
        (M::Fild, Some(MemorySize::Int16)) => from_memory::<Int16>,
        (M::Fild, Some(MemorySize::Int32)) => from_memory::<Int32>,
        (M::Fild, Some(MemorySize::Int64)) => from_memory::<Int64>,
        (M::Fbld, _) => fbld,
        (M::Fxch, _) => fxch,
        _ => return None,
    };
    Some((run, 0))
}
