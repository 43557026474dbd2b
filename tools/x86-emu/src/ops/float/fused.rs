//! FMA: products and sums that are rounded once.

use iced_x86::Mnemonic;

use super::super::vector::{Form, Shape, by_form, halves};
use super::{Element, Host, Raised, from_lanes, with_low};
use crate::cpu::{Cpu, Env};
use crate::op::{Handler, Op};
use crate::softfloat::{Environment, Outcome, Value, fused_multiply_add};
use crate::stop::Step;

/// Bits 1:0 of `aux`: which operands are multiplied, and which is added, by the digits of the mnemonic.
const ORDER: u16 = 3;
const ORDER_132: u16 = 0;
const ORDER_213: u16 = 1;
const ORDER_231: u16 = 2;
/// Further bits of `aux`: the product is negated; what is added is subtracted in even elements, in odd ones.
const NEGATED: u16 = 1 << 2;
const SUBTRACT_EVEN: u16 = 1 << 3;
const SUBTRACT_ODD: u16 = 1 << 4;
const SUBTRACT: u16 = SUBTRACT_EVEN | SUBTRACT_ODD;

/// Two factors and what is added, of the instruction's operands in their order.
fn in_order<T>(aux: u16, [first, second, third]: [T; 3]) -> [T; 3] {
    match aux & ORDER {
        ORDER_132 => [first, third, second],
        ORDER_213 => [second, first, third],
        _ => [second, third, first],
    }
}

/// What an element subtracts.
const fn subtracts(aux: u16, element: u32) -> bool {
    aux & (if element.is_multiple_of(2) { SUBTRACT_EVEN } else { SUBTRACT_ODD }) != 0
}

/// A NaN keeps its sign.
fn negated_if(negate: bool, value: Value) -> Value {
    if negate && !value.is_nan() { value.negated() } else { value }
}

fn soft<E: Element>(operands: [E; 3], aux: u16, element: u32, modes: &Environment) -> Outcome {
    let [a, b, c] = in_order(aux, operands).map(Element::value);
    let a = negated_if(aux & NEGATED != 0, a);
    let c = negated_if(subtracts(aux, element), c);
    fused_multiply_add(a, b, c, E::FORMAT, modes)
}

fn quick<E: Element>(operands: [E; 3], aux: u16, element: u32) -> Option<E> {
    let [a, b, c] = in_order(aux, operands).map(Element::to_host);
    if !(a.is_plain() && b.is_plain() && c.is_plain()) {
        return None;
    }
    let a = if aux & NEGATED != 0 { -a } else { a };
    let c = if subtracts(aux, element) { -c } else { c };
    let result = a.fused(b, c);
    result.is_settled().then(|| E::from_host(result))
}

fn scalar<E: Element, F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    let third = E::source(cpu, env, op)?;
    let old = cpu.xmm(op.dst);
    let operands = [E::from_lane(old, 0), E::from_lane(cpu.first::<F>(op)[0], 0), third];
    let result = match cpu.may_use_host().then(|| quick(operands, op.aux, 0)).flatten() {
        Some(result) => result,
        None => {
            let outcome = soft(operands, op.aux, 0, &cpu.sse_environment());
            cpu.report(outcome.raised)?;
            E::from_value(outcome.value)
        }
    };
    cpu.finish::<F>(op, [with_low(old, result), 0]);
    Ok(())
}

fn packed<E: Element, F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    let third = cpu.second::<F>(env, op)?;
    let (first, second) = (cpu.register::<F>(op.dst), cpu.first::<F>(op));
    let (quick_ok, modes) = (cpu.may_use_host(), cpu.sse_environment());
    let mut raised = Raised::default();
    let result = halves::<F>(|half| {
        from_lanes(|n| {
            let operands = [first[half], second[half], third[half]].map(|of| E::from_lane(of, n));
            let host = if quick_ok { quick(operands, op.aux, n) } else { None };
            host.unwrap_or_else(|| raised.lane(soft(operands, op.aux, n, &modes)))
        })
    });
    cpu.report(raised.0)?;
    cpu.finish::<F>(op, result);
    Ok(())
}

/// The orders of a kind of scalar or packed instruction, each with its mnemonic.
macro_rules! orders {
    ($mnemonic:expr, $shape:expr; $($handler:ident $element:ident, $signs:expr => $m132:ident $m213:ident $m231:ident;)*) => {
        match $mnemonic {
            $(
                Mnemonic::$m132 => Some((by_form!($shape, $handler, $element), $signs | ORDER_132)),
                Mnemonic::$m213 => Some((by_form!($shape, $handler, $element), $signs | ORDER_213)),
                Mnemonic::$m231 => Some((by_form!($shape, $handler, $element), $signs | ORDER_231)),
            )*
            _ => None,
        }
    };
}

pub(super) fn handler(mnemonic: Mnemonic, shape: Shape) -> Option<(Handler, u16)> {
    orders! { mnemonic, shape;
        packed u32, 0 => Vfmadd132ps Vfmadd213ps Vfmadd231ps;
        packed u64, 0 => Vfmadd132pd Vfmadd213pd Vfmadd231pd;
        scalar u32, 0 => Vfmadd132ss Vfmadd213ss Vfmadd231ss;
        scalar u64, 0 => Vfmadd132sd Vfmadd213sd Vfmadd231sd;
        packed u32, SUBTRACT => Vfmsub132ps Vfmsub213ps Vfmsub231ps;
        packed u64, SUBTRACT => Vfmsub132pd Vfmsub213pd Vfmsub231pd;
        scalar u32, SUBTRACT => Vfmsub132ss Vfmsub213ss Vfmsub231ss;
        scalar u64, SUBTRACT => Vfmsub132sd Vfmsub213sd Vfmsub231sd;
        packed u32, NEGATED => Vfnmadd132ps Vfnmadd213ps Vfnmadd231ps;
        packed u64, NEGATED => Vfnmadd132pd Vfnmadd213pd Vfnmadd231pd;
        scalar u32, NEGATED => Vfnmadd132ss Vfnmadd213ss Vfnmadd231ss;
        scalar u64, NEGATED => Vfnmadd132sd Vfnmadd213sd Vfnmadd231sd;
        packed u32, NEGATED | SUBTRACT => Vfnmsub132ps Vfnmsub213ps Vfnmsub231ps;
        packed u64, NEGATED | SUBTRACT => Vfnmsub132pd Vfnmsub213pd Vfnmsub231pd;
        scalar u32, NEGATED | SUBTRACT => Vfnmsub132ss Vfnmsub213ss Vfnmsub231ss;
        scalar u64, NEGATED | SUBTRACT => Vfnmsub132sd Vfnmsub213sd Vfnmsub231sd;
        packed u32, SUBTRACT_EVEN => Vfmaddsub132ps Vfmaddsub213ps Vfmaddsub231ps;
        packed u64, SUBTRACT_EVEN => Vfmaddsub132pd Vfmaddsub213pd Vfmaddsub231pd;
        packed u32, SUBTRACT_ODD => Vfmsubadd132ps Vfmsubadd213ps Vfmsubadd231ps;
        packed u64, SUBTRACT_ODD => Vfmsubadd132pd Vfmsubadd213pd Vfmsubadd231pd;
    }
}
