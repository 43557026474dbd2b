//! FCOM, FUCOM, FCOMI and their kin, FTST, FXAM.

use iced_x86::{MemorySize, Mnemonic};
use x86_arch::{X87State, flags};

use super::stack::{Fault, Pops, Stack, fault, pop, status, stops};
use super::{Double, Int16, Int32, Memory, Single};
use crate::cpu::{Cpu, Env};
use crate::op::{Handler, Op};
use crate::ops::float::relation_flags;
use crate::softfloat::{Class, Exceptions, NanCompare, Relation, Value, compare};
use crate::stop::Step;
use status::{C0, C1, C2, C3, CONDITIONS};

const fn conditions(relation: Relation) -> u16 {
    match relation {
        Relation::Greater => 0,
        Relation::Less => C0,
        Relation::Equal => C3,
        Relation::Unordered => C0 | C2 | C3,
    }
}

/// Compares; `None` for the relation if an exception that is not masked leaves everything as it was.
fn related(
    x87: &mut X87State,
    a: Option<Value>,
    b: Option<Value>,
    nans: NanCompare,
) -> (Option<Relation>, Exceptions) {
    x87.set_conditions(C1, 0);
    let (relation, raised) = match (a, b) {
        (Some(a), Some(b)) => compare(a, b, nans, &x87.environment()),
        _ => (Relation::Unordered, fault(x87, Fault::Underflow)),
    };
    ((!stops(x87, raised)).then_some(relation), raised)
}

/// Compares into the condition codes.
fn into_codes(
    x87: &mut X87State,
    a: Option<Value>,
    b: Option<Value>,
    nans: NanCompare,
    pops: Pops,
) -> Exceptions {
    let (relation, raised) = related(x87, a, b, nans);
    if let Some(relation) = relation {
        x87.set_conditions(CONDITIONS, conditions(relation));
        pop(x87, pops);
    }
    raised
}

/// Bits of `aux`.
const QUIET: u16 = 1;
const POPS_ONCE: u16 = 1 << 1;
const POPS_TWICE: u16 = 1 << 2;

fn nans(op: &Op) -> NanCompare {
    if op.aux & QUIET != 0 { NanCompare::Quiet } else { NanCompare::Signalling }
}

fn pops(op: &Op) -> Pops {
    match op.aux & (POPS_ONCE | POPS_TWICE) {
        POPS_ONCE => Pops::Once,
        POPS_TWICE => Pops::Twice,
        _ => Pops::Nothing,
    }
}

fn with_memory<M: Memory>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin_x87()?;
    let operand = M::load(cpu, env, op)?;
    let x87 = &mut cpu.state.simd.x87;
    let raised = into_codes(x87, x87.value(0), Some(operand), nans(op), pops(op));
    cpu.finish_x87(env, op, raised);
    Ok(())
}

fn with_register(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin_x87()?;
    let x87 = &mut cpu.state.simd.x87;
    // FCOMPP and FUCOMPP name no register.
    let other = if op.aux & POPS_TWICE != 0 { 1 } else { op.src };
    let raised = into_codes(x87, x87.value(0), x87.value(other), nans(op), pops(op));
    cpu.finish_x87(env, op, raised);
    Ok(())
}

/// FCOMI and its kin: into ZF, PF and CF.
fn into_flags(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin_x87()?;
    let x87 = &mut cpu.state.simd.x87;
    let (relation, raised) = related(x87, x87.value(0), x87.value(op.src), nans(op));
    if let Some(relation) = relation {
        pop(x87, pops(op));
        cpu.state.flags.replace(flags::ARITHMETIC, relation_flags(relation));
    }
    cpu.finish_x87(env, op, raised);
    Ok(())
}

fn ftst(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin_x87()?;
    let x87 = &mut cpu.state.simd.x87;
    let zero = Some(Value::zero(false));
    let raised = into_codes(x87, x87.value(0), zero, NanCompare::Signalling, Pops::Nothing);
    cpu.finish_x87(env, op, raised);
    Ok(())
}

fn fxam(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    const SIGN: u128 = 1 << 79;
    cpu.begin_x87()?;
    let x87 = &mut cpu.state.simd.x87;
    let class = match x87.value(0).map(|value| value.class) {
        None => C3 | C0,
        Some(Class::Unsupported) => 0,
        Some(Class::QuietNan | Class::SignallingNan) => C0,
        Some(Class::Normal) => C2,
        Some(Class::Infinity) => C2 | C0,
        Some(Class::Zero) => C3,
        Some(Class::Denormal) => C3 | C2,
    };
    // The sign of an empty register counts too.
    let sign = if x87.st(0) & SIGN != 0 { C1 } else { 0 };
    x87.set_conditions(CONDITIONS, class | sign);
    cpu.finish_x87(env, op, Exceptions::NONE);
    Ok(())
}

pub(super) fn find(mnemonic: Mnemonic, size: Option<MemorySize>) -> Option<(Handler, u16)> {
    use Mnemonic as M;
    let aux = match mnemonic {
        M::Fcom | M::Ficom => 0,
        M::Fcomp | M::Ficomp => POPS_ONCE,
        M::Fcompp => POPS_TWICE,
        M::Fucom => QUIET,
        M::Fucomp => QUIET | POPS_ONCE,
        M::Fucompp => QUIET | POPS_TWICE,
        M::Fcomi => return Some((into_flags, 0)),
        M::Fcomip => return Some((into_flags, POPS_ONCE)),
        M::Fucomi => return Some((into_flags, QUIET)),
        M::Fucomip => return Some((into_flags, QUIET | POPS_ONCE)),
        M::Ftst => return Some((ftst, 0)),
        M::Fxam => return Some((fxam, 0)),
        _ => return None,
    };
    let run: Handler = match size {
        None => with_register,
        Some(MemorySize::Float32) => with_memory::<Single>,
        Some(MemorySize::Float64) => with_memory::<Double>,
        Some(MemorySize::Int16) => with_memory::<Int16>,
        Some(MemorySize::Int32) => with_memory::<Int32>,
        Some(_) => return None,
    };
    Some((run, aux))
}
