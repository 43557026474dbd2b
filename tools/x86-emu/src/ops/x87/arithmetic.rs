//! Arithmetic that is rounded as the precision control says, and sign operations.

use iced_x86::{MemorySize, Mnemonic};
use x86_arch::X87State;

use super::stack::{Pops, Stack, Target, complete, status, underflow};
use super::{Double, Int16, Int32, Memory, Single};
use crate::cpu::{Cpu, Env};
use crate::op::{Handler, Op};
use crate::softfloat::{self, Environment, Exceptions, Format, Outcome, Value};
use crate::stop::Step;

type Binary = fn(Value, Value, Format, &Environment) -> Outcome;

/// Destination and source to the result; `aux` selects.
const OPERATIONS: [Binary; 6] = [
    softfloat::add,
    softfloat::mul,
    softfloat::sub,
    |a, b, format, env| softfloat::sub(b, a, format, env),
    softfloat::div,
    |a, b, format, env| softfloat::div(b, a, format, env),
];
const ADD: u16 = 0;
const MUL: u16 = 1;
const SUB: u16 = 2;
const SUB_REVERSED: u16 = 3;
const DIV: u16 = 4;
const DIV_REVERSED: u16 = 5;

fn apply(x87: &mut X87State, target: Target, a: Option<Value>, b: Option<Value>, which: u16) -> Exceptions {
    let (Some(a), Some(b), Some(f)) = (a, b, OPERATIONS.get(which as usize)) else {
        return underflow(x87, target);
    };
    let outcome = f(a, b, x87.rounded_format(), &x87.environment());
    complete(x87, target, outcome)
}

fn with_memory<M: Memory>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin_x87()?;
    let operand = M::load(cpu, env, op)?;
    let x87 = &mut cpu.state.simd.x87;
    let target = Target { register: 0, pops: Pops::Nothing };
    let raised = apply(x87, target, x87.value(0), Some(operand), op.aux);
    cpu.finish_x87(env, op, raised);
    Ok(())
}

fn registers(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, pops: Pops) -> Step {
    cpu.begin_x87()?;
    let x87 = &mut cpu.state.simd.x87;
    let target = Target { register: op.dst, pops };
    let raised = apply(x87, target, x87.value(op.dst), x87.value(op.src), op.aux);
    cpu.finish_x87(env, op, raised);
    Ok(())
}
fn plain(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    registers(cpu, env, op, Pops::Nothing)
}
fn popping(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    registers(cpu, env, op, Pops::Once)
}

fn fsqrt(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin_x87()?;
    let x87 = &mut cpu.state.simd.x87;
    let target = Target { register: 0, pops: Pops::Nothing };
    let raised = match x87.value(0) {
        Some(a) => {
            let outcome = softfloat::sqrt(a, x87.rounded_format(), &x87.environment());
            complete(x87, target, outcome)
        }
        None => underflow(x87, target),
    };
    cpu.finish_x87(env, op, raised);
    Ok(())
}

const SIGN: u128 = 1 << 79;

/// FABS and FCHS change the sign of whatever there is.
fn sign(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, change: fn(u128) -> u128) -> Step {
    cpu.begin_x87()?;
    let x87 = &mut cpu.state.simd.x87;
    let raised = match x87.bits(0) {
        Some(bits) => {
            x87.set_conditions(status::C1, 0);
            x87.fill(0, change(bits));
            Exceptions::NONE
        }
        None => underflow(x87, Target { register: 0, pops: Pops::Nothing }),
    };
    cpu.finish_x87(env, op, raised);
    Ok(())
}
fn fabs(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    sign(cpu, env, op, |bits| bits & !SIGN)
}
fn fchs(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    sign(cpu, env, op, |bits| bits ^ SIGN)
}

pub(super) fn find(mnemonic: Mnemonic, size: Option<MemorySize>) -> Option<(Handler, u16)> {
    use Mnemonic as M;
    let (operation, pops) = match mnemonic {
        M::Fadd | M::Fiadd => (ADD, false),
        M::Fmul | M::Fimul => (MUL, false),
        M::Fsub | M::Fisub => (SUB, false),
        M::Fsubr | M::Fisubr => (SUB_REVERSED, false),
        M::Fdiv | M::Fidiv => (DIV, false),
        M::Fdivr | M::Fidivr => (DIV_REVERSED, false),
        M::Faddp => (ADD, true),
        M::Fmulp => (MUL, true),
        M::Fsubp => (SUB, true),
        M::Fsubrp => (SUB_REVERSED, true),
        M::Fdivp => (DIV, true),
        M::Fdivrp => (DIV_REVERSED, true),
        M::Fsqrt => return Some((fsqrt, 0)),
        M::Fabs => return Some((fabs, 0)),
        M::Fchs => return Some((fchs, 0)),
        _ => return None,
    };
    let run: Handler = match size {
        None if pops => popping,
        None => plain,
        Some(MemorySize::Float32) => with_memory::<Single>,
        Some(MemorySize::Float64) => with_memory::<Double>,
        Some(MemorySize::Int16) => with_memory::<Int16>,
        Some(MemorySize::Int32) => with_memory::<Int32>,
        Some(_) => return None,
    };
    Some((run, operation))
}
