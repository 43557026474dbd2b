//! Functions on the top of the stack, rounded to 64 bits whatever the precision control says.

use iced_x86::Mnemonic;
use x86_arch::X87State;

use super::stack::{Fault, Pops, Stack, Target, complete, fault, status, stops, underflow};
use super::to_register;
use crate::cpu::{Cpu, Env};
use crate::op::{Handler, Op};
use crate::softfloat::{
    self, Environment, Exceptions, Outcome, Quotient, Reduction, Value, arctangent, exp2_minus_one, log2,
    log2_plus_one, remainder, round_to_integral,
};
use crate::stop::Step;
use status::{C0, C1, C2, C3, CONDITIONS};

const TOP: Target = Target { register: 0, pops: Pops::Nothing };
/// ST(1), and then popped to the top.
const NEXT: Target = Target { register: 1, pops: Pops::Once };

fn unary(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, f: fn(Value, &Environment) -> Outcome) -> Step {
    cpu.begin_x87()?;
    let x87 = &mut cpu.state.simd.x87;
    let raised = match x87.value(0) {
        Some(a) => complete(x87, TOP, f(a, &x87.environment())),
        None => underflow(x87, TOP),
    };
    cpu.finish_x87(env, op, raised);
    Ok(())
}
fn f2xm1(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    unary(cpu, env, op, exp2_minus_one)
}
fn frndint(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    unary(cpu, env, op, |a, env| round_to_integral(a, env.rounding, env))
}

/// A function of ST(1) and ST(0), in this order.
fn binary(
    cpu: &mut Cpu,
    env: &mut Env<'_>,
    op: &Op,
    target: Target,
    f: fn(Value, Value, &Environment) -> Outcome,
) -> Step {
    cpu.begin_x87()?;
    let x87 = &mut cpu.state.simd.x87;
    let raised = match (x87.value(1), x87.value(0)) {
        (Some(y), Some(x)) => complete(x87, target, f(y, x, &x87.environment())),
        _ => underflow(x87, target),
    };
    cpu.finish_x87(env, op, raised);
    Ok(())
}
fn fyl2x(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    binary(cpu, env, op, NEXT, log2)
}
fn fyl2xp1(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    binary(cpu, env, op, NEXT, log2_plus_one)
}
fn fpatan(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    binary(cpu, env, op, NEXT, arctangent)
}
fn fscale(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    binary(cpu, env, op, TOP, |by, a, env| softfloat::scale(a, by, env))
}

/// FPREM and FPREM1: the quotient's low bits go to C0, C3 and C1; C2 says that there is more to do. Without a quotient
/// C0 and C3 stay.
fn reduce(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, how: Quotient) -> Step {
    cpu.begin_x87()?;
    let x87 = &mut cpu.state.simd.x87;
    x87.set_conditions(C2, 0);
    let raised = match (x87.value(0), x87.value(1)) {
        (Some(a), Some(b)) => {
            let result = remainder(a, b, how, &x87.environment());
            let raised = complete(x87, TOP, result.outcome);
            match result.quotient {
                _ if stops(x87, raised) => {}
                Reduction::None => {}
                Reduction::Partial => x87.set_conditions(CONDITIONS, C2),
                Reduction::Complete(quotient) => {
                    let code = |bit: u8, code: u16| if quotient & bit != 0 { code } else { 0 };
                    x87.set_conditions(CONDITIONS, code(4, C0) | code(2, C3) | code(1, C1));
                }
            }
            raised
        }
        _ => underflow(x87, TOP),
    };
    cpu.finish_x87(env, op, raised);
    Ok(())
}
fn fprem(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    reduce(cpu, env, op, Quotient::Truncated)
}
fn fprem1(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    reduce(cpu, env, op, Quotient::Nearest)
}

/// FSIN and FCOS; C2 says that the operand is out of range.
fn angle(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, f: fn(Value, &Environment) -> Option<Outcome>) -> Step {
    cpu.begin_x87()?;
    let x87 = &mut cpu.state.simd.x87;
    x87.set_conditions(C2, 0);
    let raised = match x87.value(0).map(|a| f(a, &x87.environment())) {
        Some(Some(outcome)) => complete(x87, TOP, outcome),
        Some(None) => {
            x87.set_conditions(C1 | C2, C2);
            Exceptions::NONE
        }
        None => underflow(x87, TOP),
    };
    cpu.finish_x87(env, op, raised);
    Ok(())
}
fn fsin(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    angle(cpu, env, op, softfloat::sine)
}
fn fcos(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    angle(cpu, env, op, softfloat::cosine)
}

/// Replaces ST(0) by one result and pushes another.
fn replace_and_push(x87: &mut X87State, replaced: Outcome, pushed: Outcome) -> Exceptions {
    let raised = replaced.raised | pushed.raised;
    let up = replaced.rounded_up || pushed.rounded_up;
    x87.set_conditions(C1, if up { C1 } else { 0 });
    if !stops(x87, raised) {
        x87.fill_value(0, replaced.value);
        x87.push(to_register(pushed.value.to_extended()));
    }
    raised
}

/// Both results of an instruction that pushes where ST(0) is empty, or the stack is full.
fn cannot_push(x87: &mut X87State, which: Fault) -> Exceptions {
    let raised = fault(x87, which);
    if !stops(x87, raised) {
        x87.fill_value(0, Value::INDEFINITE);
        x87.push(to_register(Value::INDEFINITE.to_extended()));
    }
    raised
}

fn two_results(
    cpu: &mut Cpu,
    env: &mut Env<'_>,
    op: &Op,
    f: fn(Value, &Environment) -> Option<(Outcome, Outcome)>,
) -> Step {
    cpu.begin_x87()?;
    let x87 = &mut cpu.state.simd.x87;
    let raised = match x87.value(0) {
        None => cannot_push(x87, Fault::Underflow),
        Some(_) if !x87.is_empty(7) => cannot_push(x87, Fault::Overflow),
        Some(a) => match f(a, &x87.environment()) {
            Some((replaced, pushed)) => replace_and_push(x87, replaced, pushed),
            None => {
                x87.set_conditions(C1 | C2, C2);
                cpu.finish_x87(env, op, Exceptions::NONE);
                return Ok(());
            }
        },
    };
    // FXTRACT leaves C2 alone.
    if op.aux == OF_ANGLE {
        cpu.state.simd.x87.set_conditions(C2, 0);
    }
    cpu.finish_x87(env, op, raised);
    Ok(())
}
/// `aux` of the instructions that tell by C2 whether their operand is in range.
const OF_ANGLE: u16 = 1;

fn fptan(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    two_results(cpu, env, op, |a, env| {
        let tangent = softfloat::tangent(a, env)?;
        // A NaN is pushed as well; a number is the tangent over one.
        let over = if tangent.value.is_nan() { tangent.value } else { Value::ONE };
        Some((tangent, Outcome { value: over, ..tangent }))
    })
}
fn fsincos(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    two_results(cpu, env, op, |a, env| Some((softfloat::sine(a, env)?, softfloat::cosine(a, env)?)))
}
fn fxtract(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    two_results(cpu, env, op, |a, env| Some(softfloat::extract(a, env)))
}

pub(super) fn find(mnemonic: Mnemonic) -> Option<(Handler, u16)> {
    use Mnemonic as M;
    let (run, aux): (Handler, u16) = match mnemonic {
        M::F2xm1 => (f2xm1, 0),
        M::Frndint => (frndint, 0),
        M::Fyl2x => (fyl2x, 0),
        M::Fyl2xp1 => (fyl2xp1, 0),
        M::Fpatan => (fpatan, 0),
        M::Fscale => (fscale, 0),
        M::Fprem => (fprem, 0),
        M::Fprem1 => (fprem1, 0),
        M::Fsin => (fsin, 0),
        M::Fcos => (fcos, 0),
        M::Fptan => (fptan, OF_ANGLE),
        M::Fsincos => (fsincos, OF_ANGLE),
        M::Fxtract => (fxtract, 0),
        _ => return None,
    };
    Some((run, aux))
}
