//! Permutations within 16 bytes and across a register, and halves put in and taken out.

use iced_x86::{Instruction, Mnemonic, OpKind};

use super::super::packed::{dwords_of, from_dwords, from_qwords, pick_dwords, shufpd};
use super::super::vector::{Form, Shape, Vector, by_form, halves};
use crate::cpu::{Cpu, Env};
use crate::op::{Handler, Op};
use crate::stop::Step;

/// VPERMILPS by an immediate.
fn vpermilps<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_avx()?;
    let b = cpu.second::<F>(env, op)?;
    cpu.finish::<F>(op, halves::<F>(|half| pick_dwords(b[half], b[half], op.imm as u8)));
    Ok(())
}
/// VPERMILPS by the low bits of the second source's elements.
fn vpermilps_variable<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_avx()?;
    let (a, control) = (cpu.first::<F>(op), cpu.second::<F>(env, op)?);
    let result = halves::<F>(|half| {
        let from = dwords_of(a[half]);
        from_dwords(dwords_of(control[half]).map(|pick| from[pick as usize & 3]))
    });
    cpu.finish::<F>(op, result);
    Ok(())
}
/// VPERMILPD by an immediate, of which each element has a bit.
fn vpermilpd<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_avx()?;
    let b = cpu.second::<F>(env, op)?;
    cpu.finish::<F>(op, halves::<F>(|half| shufpd(b[half], b[half], op.imm as u8 >> (2 * half))));
    Ok(())
}
/// VPERMILPD by bit 1 of the second source's elements.
fn vpermilpd_variable<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_avx()?;
    let (a, control) = (cpu.first::<F>(op), cpu.second::<F>(env, op)?);
    let result = halves::<F>(|half| {
        let order = control[half] >> 1 & 1 | control[half] >> 64 & 2;
        shufpd(a[half], a[half], order as u8)
    });
    cpu.finish::<F>(op, result);
    Ok(())
}

fn eight_dwords([low, high]: Vector) -> [u32; 8] {
    let (low, high) = (dwords_of(low), dwords_of(high));
    std::array::from_fn(|n| if n < 4 { low[n] } else { high[n - 4] })
}

/// VPERMD and VPERMPS: the first source says which dword of the second goes where.
fn permute_dwords<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_avx()?;
    let order = cpu.first::<F>(op);
    let from = eight_dwords(cpu.second::<F>(env, op)?);
    let result = order.map(|half| from_dwords(dwords_of(half).map(|pick| from[pick as usize & 7])));
    cpu.finish::<F>(op, result);
    Ok(())
}

/// VPERMQ and VPERMPD: two bits of the immediate for each quadword.
fn permute_qwords<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_avx()?;
    let [low, high] = cpu.second::<F>(env, op)?;
    let from = [low as u64, (low >> 64) as u64, high as u64, (high >> 64) as u64];
    let pick = |n: usize| from[(op.imm >> (2 * n)) as usize & 3];
    cpu.finish::<F>(op, halves::<F>(|half| from_qwords(pick(2 * half), pick(2 * half + 1))));
    Ok(())
}

/// VPERM2F128 and VPERM2I128: each half is one of the four of the sources, or zero.
fn permute_halves<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_avx()?;
    let ([a, b], [c, d]) = (cpu.first::<F>(op), cpu.second::<F>(env, op)?);
    let from = [a, b, c, d];
    let pick = |control: u64| if control & 8 != 0 { 0 } else { from[control as usize & 3] };
    cpu.finish::<F>(op, [pick(op.imm), pick(op.imm >> 4)]);
    Ok(())
}

/// VINSERTF128 and VINSERTI128.
fn insert_half<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_avx()?;
    let half = cpu.low_of_second(env, op)?;
    let [low, high] = cpu.first::<F>(op);
    cpu.finish::<F>(op, if op.imm & 1 == 0 { [half, high] } else { [low, half] });
    Ok(())
}

/// VEXTRACTF128 and VEXTRACTI128: bits above the half are cleared.
fn extract_half<F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_avx()?;
    let half = cpu.vector(op.src)[op.imm as usize & 1];
    if op.writes_memory() {
        return cpu.store_operand(env, op, half);
    }
    cpu.finish::<F>(op, [half, 0]);
    Ok(())
}

pub(super) fn handler(i: &Instruction, shape: Shape) -> Option<(Handler, u16)> {
    use Mnemonic as M;
    let by_immediate = i.op_count() == 3 && i.op2_kind() == OpKind::Immediate8;
    let run = match i.mnemonic() {
        M::Vpermilps if by_immediate => by_form!(shape, vpermilps),
        M::Vpermilps => by_form!(shape, vpermilps_variable),
        M::Vpermilpd if by_immediate => by_form!(shape, vpermilpd),
        M::Vpermilpd => by_form!(shape, vpermilpd_variable),
        M::Vpermd | M::Vpermps => by_form!(shape, permute_dwords),
        M::Vpermq | M::Vpermpd => by_form!(shape, permute_qwords),
        M::Vperm2f128 | M::Vperm2i128 => by_form!(shape, permute_halves),
        M::Vinsertf128 | M::Vinserti128 => by_form!(shape, insert_half),
        M::Vextractf128 | M::Vextracti128 => by_form!(shape, extract_half),
        _ => return None,
    };
    Some((run, 0))
}
