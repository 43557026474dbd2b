//! CMPPS and COMISS with their kin.

use iced_x86::Mnemonic;

use super::{Element, Raised, from_lanes, with_low};
use crate::cpu::{Cpu, Env};
use crate::op::{Handler, Op};
use crate::softfloat::{Environment, Exceptions, NanCompare, Relation, compare};
use crate::stop::Step;
use x86_arch::flags;

/// One of the eight predicates: whether it holds, and what it raises.
fn predicate<E: Element>(a: E, b: E, which: u8, env: &Environment) -> (bool, Exceptions) {
    let nans = if matches!(which & 3, 1 | 2) { NanCompare::Signalling } else { NanCompare::Quiet };
    let (relation, raised) = compare(a.value(), b.value(), nans, env);
    let holds = match which & 3 {
        0 => relation == Relation::Equal,
        1 => relation == Relation::Less,
        2 => matches!(relation, Relation::Less | Relation::Equal),
        _ => relation == Relation::Unordered,
    };
    (holds != (which & 4 != 0), raised)
}

fn ones_if(holds: bool, bits: u32) -> u128 {
    if holds { u128::MAX >> (128 - bits) } else { 0 }
}

fn scalar<E: Element>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_sse()?;
    let b = E::source(cpu, env, op)?;
    let old = cpu.xmm(op.dst);
    let (holds, raised) = predicate(E::from_lane(old, 0), b, op.imm as u8, &cpu.sse_environment());
    cpu.report(raised)?;
    cpu.set_xmm(op.dst, with_low(old, E::from_lane(ones_if(holds, E::BITS), 0)));
    Ok(())
}

fn packed<E: Element>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_sse()?;
    let (a, b) = (cpu.xmm(op.dst), cpu.source128(env, op)?);
    let modes = cpu.sse_environment();
    let mut all = Raised::default();
    let result = from_lanes(|n| {
        let (holds, raised) = predicate(E::from_lane(a, n), E::from_lane(b, n), op.imm as u8, &modes);
        all.0 |= raised;
        E::from_lane(ones_if(holds, E::BITS), 0)
    });
    cpu.report(all.0)?;
    cpu.set_xmm(op.dst, result);
    Ok(())
}

/// COMISS and its kin: `aux` is 1 for the unordered forms.
fn to_flags<E: Element>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_sse()?;
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

pub(super) fn handler(mnemonic: Mnemonic) -> Option<(Handler, u16)> {
    use Mnemonic as M;
    Some(match mnemonic {
        M::Cmpss => (scalar::<u32>, 0),
        M::Cmpsd => (scalar::<u64>, 0),
        M::Cmpps => (packed::<u32>, 0),
        M::Cmppd => (packed::<u64>, 0),
        M::Comiss => (to_flags::<u32>, 0),
        M::Comisd => (to_flags::<u64>, 0),
        M::Ucomiss => (to_flags::<u32>, UNORDERED),
        M::Ucomisd => (to_flags::<u64>, UNORDERED),
        _ => return None,
    })
}
