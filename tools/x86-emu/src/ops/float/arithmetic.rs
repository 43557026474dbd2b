//! Addition to square root, horizontal and alternating forms, dot products.

use iced_x86::Mnemonic;

use super::super::vector::{Form, Shape, by_form, halves};
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

fn scalar<E: Element, O: Operation, F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    let b = E::source(cpu, env, op)?;
    let old = cpu.first::<F>(op)[0];
    let a = E::from_lane(old, 0);
    let result = match cpu.may_use_host().then(|| quick::<E, O>(a, b)).flatten() {
        Some(result) => result,
        None => {
            let outcome = soft::<E, O>(a, b, &cpu.sse_environment());
            cpu.report(outcome.raised)?;
            E::from_value(outcome.value)
        }
    };
    cpu.finish::<F>(op, [with_low(old, result), 0]);
    Ok(())
}

fn packed<E: Element, O: Operation, F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    let (a, b) = (cpu.first::<F>(op), cpu.second::<F>(env, op)?);
    let (quick_ok, modes) = (cpu.may_use_host(), cpu.sse_environment());
    let mut raised = Raised::default();
    let result = halves::<F>(|half| {
        from_lanes(|n| {
            let (a, b) = (E::from_lane(a[half], n), E::from_lane(b[half], n));
            let host = if quick_ok { quick::<E, O>(a, b) } else { None };
            host.unwrap_or_else(|| raised.lane(soft::<E, O>(a, b, &modes)))
        })
    });
    cpu.report(raised.0)?;
    cpu.finish::<F>(op, result);
    Ok(())
}

/// ADDSUBPS, ADDSUBPD: differences in the even lanes, sums in the odd ones.
fn alternating<E: Element, F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    let (a, b) = (cpu.first::<F>(op), cpu.second::<F>(env, op)?);
    let modes = cpu.sse_environment();
    let mut raised = Raised::default();
    let result = halves::<F>(|half| {
        from_lanes(|n| {
            let (a, b) = (E::from_lane(a[half], n), E::from_lane(b[half], n));
            let outcome =
                if n % 2 == 0 { soft::<E, Sub>(a, b, &modes) } else { soft::<E, Add>(a, b, &modes) };
            raised.lane::<E>(outcome)
        })
    });
    cpu.report(raised.0)?;
    cpu.finish::<F>(op, result);
    Ok(())
}

/// HADDPS and its kin: neighbours of the first source in the low half of each 16 bytes, of the second in the high half.
fn horizontal<E: Element, O: Operation, F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    let (a, b) = (cpu.first::<F>(op), cpu.second::<F>(env, op)?);
    let modes = cpu.sse_environment();
    let mut raised = Raised::default();
    let count = 64 / E::BITS;
    let result = halves::<F>(|half| {
        from_lanes(|n| {
            let (from, pair) = if n < count { (a[half], n) } else { (b[half], n - count) };
            let (low, high) = (E::from_lane(from, 2 * pair), E::from_lane(from, 2 * pair + 1));
            raised.lane::<E>(soft::<E, O>(low, high, &modes))
        })
    });
    cpu.report(raised.0)?;
    cpu.finish::<F>(op, result);
    Ok(())
}

/// DPPS and DPPD: exceptions are reported after the products and after each round of sums.
fn dot_product<E: Element, F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    let (a, b) = (cpu.first::<F>(op), cpu.second::<F>(env, op)?);
    let modes = cpu.sse_environment();
    let chosen = |lane: u32, from: u32| op.imm >> (lane + from) & 1 != 0;
    let zero = || E::from_value(Value::zero(false));
    let mut raised = Raised::default();
    let mut sums = halves::<F>(|half| {
        from_lanes(|n| {
            if !chosen(n, 4) {
                return zero();
            }
            let (a, b) = (E::from_lane(a[half], n), E::from_lane(b[half], n));
            raised.lane::<E>(soft::<E, Mul>(a, b, &modes))
        })
    });
    cpu.report(raised.0)?;
    let mut lanes = 128 / E::BITS;
    while lanes > 1 {
        lanes /= 2;
        let mut raised = Raised::default();
        sums = halves::<F>(|half| {
            from_lanes(|n| {
                if n >= lanes {
                    return zero();
                }
                let (low, high) = (E::from_lane(sums[half], 2 * n), E::from_lane(sums[half], 2 * n + 1));
                raised.lane::<E>(soft::<E, Add>(low, high, &modes))
            })
        });
        cpu.report(raised.0)?;
    }
    let result = halves::<F>(|half| {
        let sum = E::from_lane(sums[half], 0);
        from_lanes(|n| if chosen(n, 0) { sum } else { zero() })
    });
    cpu.finish::<F>(op, result);
    Ok(())
}

pub(super) fn handler(mnemonic: Mnemonic, shape: Shape) -> Option<Handler> {
    use Mnemonic as M;
    Some(match mnemonic {
        M::Addss | M::Vaddss => by_form!(shape, scalar, u32, Add),
        M::Addsd | M::Vaddsd => by_form!(shape, scalar, u64, Add),
        M::Addps | M::Vaddps => by_form!(shape, packed, u32, Add),
        M::Addpd | M::Vaddpd => by_form!(shape, packed, u64, Add),
        M::Subss | M::Vsubss => by_form!(shape, scalar, u32, Sub),
        M::Subsd | M::Vsubsd => by_form!(shape, scalar, u64, Sub),
        M::Subps | M::Vsubps => by_form!(shape, packed, u32, Sub),
        M::Subpd | M::Vsubpd => by_form!(shape, packed, u64, Sub),
        M::Mulss | M::Vmulss => by_form!(shape, scalar, u32, Mul),
        M::Mulsd | M::Vmulsd => by_form!(shape, scalar, u64, Mul),
        M::Mulps | M::Vmulps => by_form!(shape, packed, u32, Mul),
        M::Mulpd | M::Vmulpd => by_form!(shape, packed, u64, Mul),
        M::Divss | M::Vdivss => by_form!(shape, scalar, u32, Div),
        M::Divsd | M::Vdivsd => by_form!(shape, scalar, u64, Div),
        M::Divps | M::Vdivps => by_form!(shape, packed, u32, Div),
        M::Divpd | M::Vdivpd => by_form!(shape, packed, u64, Div),
        M::Minss | M::Vminss => by_form!(shape, scalar, u32, Min),
        M::Minsd | M::Vminsd => by_form!(shape, scalar, u64, Min),
        M::Minps | M::Vminps => by_form!(shape, packed, u32, Min),
        M::Minpd | M::Vminpd => by_form!(shape, packed, u64, Min),
        M::Maxss | M::Vmaxss => by_form!(shape, scalar, u32, Max),
        M::Maxsd | M::Vmaxsd => by_form!(shape, scalar, u64, Max),
        M::Maxps | M::Vmaxps => by_form!(shape, packed, u32, Max),
        M::Maxpd | M::Vmaxpd => by_form!(shape, packed, u64, Max),
        M::Sqrtss | M::Vsqrtss => by_form!(shape, scalar, u32, Sqrt),
        M::Sqrtsd | M::Vsqrtsd => by_form!(shape, scalar, u64, Sqrt),
        M::Sqrtps | M::Vsqrtps => by_form!(shape, packed, u32, Sqrt),
        M::Sqrtpd | M::Vsqrtpd => by_form!(shape, packed, u64, Sqrt),
        M::Addsubps | M::Vaddsubps => by_form!(shape, alternating, u32),
        M::Addsubpd | M::Vaddsubpd => by_form!(shape, alternating, u64),
        M::Haddps | M::Vhaddps => by_form!(shape, horizontal, u32, Add),
        M::Haddpd | M::Vhaddpd => by_form!(shape, horizontal, u64, Add),
        M::Hsubps | M::Vhsubps => by_form!(shape, horizontal, u32, Sub),
        M::Hsubpd | M::Vhsubpd => by_form!(shape, horizontal, u64, Sub),
        M::Dpps | M::Vdpps => by_form!(shape, dot_product, u32),
        M::Dppd | M::Vdppd => by_form!(shape, dot_product, u64),
        _ => return None,
    })
}
