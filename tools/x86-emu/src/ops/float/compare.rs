//! CMPPS and COMISS with their kin.

use iced_x86::Mnemonic;

use super::super::vector::{Form, Shape, by_form, halves};
use super::{Element, Raised, from_lanes, with_low};
use crate::cpu::{Cpu, Env};
use crate::op::{Handler, Op};
use crate::softfloat::{Environment, Exceptions, NanCompare, Relation, compare};
use crate::stop::Step;
use x86_arch::flags;

/// One of the thirty-two predicates (SDM vol. 2, CMPPD, "Comparison Predicate for VEX Encoded Instructions"), of which legacy
/// encodings have the first eight: whether it holds, and what it raises. Bits 1:0 are the relation, bit 2 its opposite; bit 3
/// turns what holds of operands that are unordered, and bit 4 which NaNs are invalid.
fn predicate<E: Element>(a: E, b: E, which: u8, env: &Environment) -> (bool, Exceptions) {
    let signalling = matches!(which & 3, 1 | 2) != (which & 16 != 0);
    let nans = if signalling { NanCompare::Signalling } else { NanCompare::Quiet };
    let (relation, raised) = compare(a.value(), b.value(), nans, env);
    let holds = match which & 3 {
        _ if relation == Relation::Unordered => (which & 3 == 3) != (which & 8 != 0),
        0 => relation == Relation::Equal,
        1 => relation == Relation::Less,
        2 => matches!(relation, Relation::Less | Relation::Equal),
        _ => false,
    };
    (holds != (which & 4 != 0), raised)
}

/// The predicate that the immediate names.
const fn which<F: Form>(op: &Op) -> u8 {
    op.imm as u8 & if F::VEX { 31 } else { 7 }
}

fn ones_if(holds: bool, bits: u32) -> u128 {
    if holds { u128::MAX >> (128 - bits) } else { 0 }
}

fn scalar<E: Element, F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    let b = E::source(cpu, env, op)?;
    let old = cpu.first::<F>(op)[0];
    let (holds, raised) = predicate(E::from_lane(old, 0), b, which::<F>(op), &cpu.sse_environment());
    cpu.report(raised)?;
    cpu.finish::<F>(op, [with_low(old, E::from_lane(ones_if(holds, E::BITS), 0)), 0]);
    Ok(())
}

fn packed<E: Element, F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    let (a, b) = (cpu.first::<F>(op), cpu.second::<F>(env, op)?);
    let modes = cpu.sse_environment();
    let mut all = Raised::default();
    let result = halves::<F>(|half| {
        from_lanes(|n| {
            let (a, b) = (E::from_lane(a[half], n), E::from_lane(b[half], n));
            let (holds, raised) = predicate(a, b, which::<F>(op), &modes);
            all.0 |= raised;
            E::from_lane(ones_if(holds, E::BITS), 0)
        })
    });
    cpu.report(all.0)?;
    cpu.finish::<F>(op, result);
    Ok(())
}

/// COMISS and its kin: `aux` is 1 for the unordered forms.
fn to_flags<E: Element, F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin::<F>()?;
    let b = E::source(cpu, env, op)?;
    let a = E::from_lane(cpu.xmm(op.dst), 0);
    let nans = if op.aux == UNORDERED { NanCompare::Quiet } else { NanCompare::Signalling };
    let (relation, raised) = compare(a.value(), b.value(), nans, &cpu.sse_environment());
    cpu.report(raised)?;
    cpu.state.flags.replace(flags::ARITHMETIC, relation_flags(relation));
    Ok(())
}

/// ZF, PF and CF as COMISS and FCOMI set them.
pub(in crate::ops) const fn relation_flags(relation: Relation) -> u64 {
    match relation {
        Relation::Less => flags::CF,
        Relation::Equal => flags::ZF,
        Relation::Greater => 0,
        Relation::Unordered => flags::ZF | flags::PF | flags::CF,
    }
}

const UNORDERED: u16 = 1;

pub(super) fn handler(mnemonic: Mnemonic, shape: Shape) -> Option<(Handler, u16)> {
    use Mnemonic as M;
    Some(match mnemonic {
        M::Cmpss | M::Vcmpss => (by_form!(shape, scalar, u32), 0),
        M::Cmpsd | M::Vcmpsd => (by_form!(shape, scalar, u64), 0),
        M::Cmpps | M::Vcmpps => (by_form!(shape, packed, u32), 0),
        M::Cmppd | M::Vcmppd => (by_form!(shape, packed, u64), 0),
        M::Comiss | M::Vcomiss => (by_form!(shape, to_flags, u32), 0),
        M::Comisd | M::Vcomisd => (by_form!(shape, to_flags, u64), 0),
        M::Ucomiss | M::Vucomiss => (by_form!(shape, to_flags, u32), UNORDERED),
        M::Ucomisd | M::Vucomisd => (by_form!(shape, to_flags, u64), UNORDERED),
        _ => return None,
    })
}
