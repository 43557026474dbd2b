//! Addition to square root, horizontal and alternating forms, dot products.

use iced_x86::Mnemonic;

use super::{Element, Host, Raised, from_lanes, with_low};
use crate::cpu::{Cpu, Env};
use crate::op::{Handler, Op};
use crate::softfloat::{self, Environment, Format, Outcome, Value};
use crate::stop::Step;

/// An operation of two operands, on the host and in software.
trait Operation: 'static {
    fn host<H: Host>(a: H, b: H) -> H;
    fn soft(a: Value, b: Value, format: Format, env: &Environment) -> Outcome;
}

macro_rules! operation {
    ($name:ident, $host:expr, $soft:expr) => {
        struct $name;
        impl Operation for $name {
            fn host<H: Host>(a: H, b: H) -> H {
                $host(a, b)
            }
            fn soft(a: Value, b: Value, format: Format, env: &Environment) -> Outcome {
                $soft(a, b, format, env)
            }
        }
    };
}
operation!(Add, |a, b| a + b, softfloat::add);
operation!(Sub, |a, b| a - b, softfloat::sub);
operation!(Mul, |a, b| a * b, softfloat::mul);
operation!(Div, |a, b| a / b, softfloat::div);
operation!(Min, |a, b| if a < b { a } else { b }, |a, b, _, env| softfloat::minimum(a, b, env));
operation!(Max, |a, b| if a > b { a } else { b }, |a, b, _, env| softfloat::maximum(a, b, env));
// The operand is the second one.
operation!(Sqrt, |_: H, b: H| b.square_root(), |_, b, format, env| softfloat::sqrt(b, format, env));

#[inline(always)]
fn quick<E: Element, O: Operation>(a: E, b: E) -> Option<E> {
    let (a, b) = (a.to_host(), b.to_host());
    let result = O::host(a, b);
    (a.is_plain() && b.is_plain() && result.is_settled()).then(|| E::from_host(result))
}

fn soft<E: Element, O: Operation>(a: E, b: E, env: &Environment) -> Outcome {
    O::soft(a.value(), b.value(), E::FORMAT, env)
}

fn scalar<E: Element, O: Operation>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_sse()?;
    let b = E::source(cpu, env, op)?;
    let old = cpu.xmm(op.dst);
    let a = E::from_lane(old, 0);
    let result = match cpu.may_use_host().then(|| quick::<E, O>(a, b)).flatten() {
        Some(result) => result,
        None => {
            let outcome = soft::<E, O>(a, b, &cpu.sse_environment());
            cpu.report(outcome.raised)?;
            E::from_value(outcome.value)
        }
    };
    cpu.set_xmm(op.dst, with_low(old, result));
    Ok(())
}

fn packed<E: Element, O: Operation>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_sse()?;
    let (a, b) = (cpu.xmm(op.dst), cpu.source128(env, op)?);
    let (quick_ok, modes) = (cpu.may_use_host(), cpu.sse_environment());
    let mut raised = Raised::default();
    let result = from_lanes(|n| {
        let (a, b) = (E::from_lane(a, n), E::from_lane(b, n));
        let host = if quick_ok { quick::<E, O>(a, b) } else { None };
        host.unwrap_or_else(|| raised.lane(soft::<E, O>(a, b, &modes)))
    });
    cpu.report(raised.0)?;
    cpu.set_xmm(op.dst, result);
    Ok(())
}

/// ADDSUBPS, ADDSUBPD: differences in the even lanes, sums in the odd ones.
fn alternating<E: Element>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_sse()?;
    let (a, b) = (cpu.xmm(op.dst), cpu.source128(env, op)?);
    let modes = cpu.sse_environment();
    let mut raised = Raised::default();
    let result = from_lanes(|n| {
        let (a, b) = (E::from_lane(a, n), E::from_lane(b, n));
        let outcome = if n % 2 == 0 { soft::<E, Sub>(a, b, &modes) } else { soft::<E, Add>(a, b, &modes) };
        raised.lane::<E>(outcome)
    });
    cpu.report(raised.0)?;
    cpu.set_xmm(op.dst, result);
    Ok(())
}

/// HADDPS and its kin: neighbours of the destination in the low half, of the source in the high half.
fn horizontal<E: Element, O: Operation>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_sse()?;
    let (a, b) = (cpu.xmm(op.dst), cpu.source128(env, op)?);
    let modes = cpu.sse_environment();
    let mut raised = Raised::default();
    let half = 64 / E::BITS;
    let result = from_lanes(|n| {
        let (from, pair) = if n < half { (a, n) } else { (b, n - half) };
        let (low, high) = (E::from_lane(from, 2 * pair), E::from_lane(from, 2 * pair + 1));
        raised.lane::<E>(soft::<E, O>(low, high, &modes))
    });
    cpu.report(raised.0)?;
    cpu.set_xmm(op.dst, result);
    Ok(())
}

/// DPPS and DPPD: exceptions are reported after the products and after each round of sums.
fn dot_product<E: Element>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_sse()?;
    let (a, b) = (cpu.xmm(op.dst), cpu.source128(env, op)?);
    let modes = cpu.sse_environment();
    let chosen = |lane: u32, from: u32| op.imm >> (lane + from) & 1 != 0;
    let mut raised = Raised::default();
    let mut sums = from_lanes(|n| {
        if !chosen(n, 4) {
            return E::from_value(Value::zero(false));
        }
        raised.lane::<E>(soft::<E, Mul>(E::from_lane(a, n), E::from_lane(b, n), &modes))
    });
    cpu.report(raised.0)?;
    let mut lanes = 128 / E::BITS;
    while lanes > 1 {
        lanes /= 2;
        let mut raised = Raised::default();
        sums = from_lanes(|n| {
            if n >= lanes {
                return E::from_value(Value::zero(false));
            }
            raised.lane::<E>(soft::<E, Add>(E::from_lane(sums, 2 * n), E::from_lane(sums, 2 * n + 1), &modes))
        });
        cpu.report(raised.0)?;
    }
    let sum = E::from_lane(sums, 0);
    let result = from_lanes(|n| if chosen(n, 0) { sum } else { E::from_value(Value::zero(false)) });
    cpu.set_xmm(op.dst, result);
    Ok(())
}

pub(super) fn handler(mnemonic: Mnemonic) -> Option<Handler> {
    use Mnemonic as M;
    Some(match mnemonic {
        M::Addss => scalar::<u32, Add>,
        M::Addsd => scalar::<u64, Add>,
        M::Addps => packed::<u32, Add>,
        M::Addpd => packed::<u64, Add>,
        M::Subss => scalar::<u32, Sub>,
        M::Subsd => scalar::<u64, Sub>,
        M::Subps => packed::<u32, Sub>,
        M::Subpd => packed::<u64, Sub>,
        M::Mulss => scalar::<u32, Mul>,
        M::Mulsd => scalar::<u64, Mul>,
        M::Mulps => packed::<u32, Mul>,
        M::Mulpd => packed::<u64, Mul>,
        M::Divss => scalar::<u32, Div>,
        M::Divsd => scalar::<u64, Div>,
        M::Divps => packed::<u32, Div>,
        M::Divpd => packed::<u64, Div>,
        M::Minss => scalar::<u32, Min>,
        M::Minsd => scalar::<u64, Min>,
        M::Minps => packed::<u32, Min>,
        M::Minpd => packed::<u64, Min>,
        M::Maxss => scalar::<u32, Max>,
        M::Maxsd => scalar::<u64, Max>,
        M::Maxps => packed::<u32, Max>,
        M::Maxpd => packed::<u64, Max>,
        M::Sqrtss => scalar::<u32, Sqrt>,
        M::Sqrtsd => scalar::<u64, Sqrt>,
        M::Sqrtps => packed::<u32, Sqrt>,
        M::Sqrtpd => packed::<u64, Sqrt>,
        M::Addsubps => alternating::<u32>,
        M::Addsubpd => alternating::<u64>,
        M::Haddps => horizontal::<u32, Add>,
        M::Haddpd => horizontal::<u64, Add>,
        M::Hsubps => horizontal::<u32, Sub>,
        M::Hsubpd => horizontal::<u64, Sub>,
        M::Dpps => dot_product::<u32>,
        M::Dppd => dot_product::<u64>,
        _ => return None,
    })
}
