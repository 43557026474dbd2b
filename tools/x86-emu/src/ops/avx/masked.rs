//! VMASKMOVPS and its kin: only elements whose mask has its sign set are touched, and only they can fault.

use iced_x86::{Instruction, Mnemonic};

use super::super::vector::{Form, Shape, Vector, by_form};
use crate::cpu::{Cpu, Env};
use crate::memory::FromBytes;
use crate::op::{Handler, Intent, Op};
use crate::stop::{Step, Stop};

/// Elements of a form.
pub(super) const fn count<W, F: Form>() -> u32 {
    let bytes = if F::WIDE { 32 } else { 16 };
    bytes / size_of::<W>() as u32
}

/// An element of a register.
pub(super) fn element<W: FromBytes>(of: Vector, n: u32) -> W {
    let bits = 8 * size_of::<W>() as u32;
    W::from_low_bytes(of[(n * bits / 128) as usize & 1] >> (n * bits % 128))
}

/// Replaces an element of a register.
pub(super) fn set_element<W: FromBytes>(of: &mut Vector, n: u32, value: W) {
    let bits = 8 * size_of::<W>() as u32;
    let shift = n * bits % 128;
    let half = &mut of[(n * bits / 128) as usize & 1];
    *half = *half & !(u128::MAX >> (128 - bits) << shift) | value.to_low_bytes() << shift;
}

/// Whether an element has its sign set.
pub(super) fn is_chosen<W>(mask: Vector, n: u32) -> bool {
    let sign = 8 * size_of::<W>() as u32 * (n + 1) - 1;
    mask[(sign / 128) as usize & 1] >> (sign % 128) & 1 != 0
}

/// The linear address of an element of the memory operand.
fn place<W>(cpu: &mut Cpu, op: &Op, n: u32, intent: Intent) -> Result<u64, Stop> {
    let bytes = size_of::<W>() as u64;
    let offset = cpu.effective(op).wrapping_add(u64::from(n) * bytes) & op.address_mask();
    cpu.linear_in(op, offset, bytes, intent)
}

fn load<W: FromBytes, F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_avx()?;
    let mask = cpu.first::<F>(op);
    let mut result = [0, 0];
    for n in (0..count::<W, F>()).filter(|n| is_chosen::<W>(mask, *n)) {
        let linear = place::<W>(cpu, op, n, Intent::Read)?;
        set_element::<W>(&mut result, n, cpu.load(env, linear)?);
    }
    cpu.finish::<F>(op, result);
    Ok(())
}

/// A fault stores nothing.
fn store<W: FromBytes, F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_avx()?;
    let (mask, value) = (cpu.first::<F>(op), cpu.register::<F>(op.src));
    let chosen = || (0..count::<W, F>()).filter(|n| is_chosen::<W>(mask, *n));
    for n in chosen() {
        let linear = place::<W>(cpu, op, n, Intent::Write)?;
        cpu.prepare_store(env, linear, size_of::<W>())?;
    }
    for n in chosen() {
        let linear = place::<W>(cpu, op, n, Intent::Write)?;
        cpu.store(env, linear, element::<W>(value, n))?;
    }
    Ok(())
}

pub(super) fn handler(i: &Instruction, shape: Shape) -> Option<(Handler, u16)> {
    use Mnemonic as M;
    let stores = i.op0_kind() == iced_x86::OpKind::Memory;
    let run = match i.mnemonic() {
        M::Vmaskmovps | M::Vpmaskmovd if stores => by_form!(shape, store, u32),
        M::Vmaskmovps | M::Vpmaskmovd => by_form!(shape, load, u32),
        M::Vmaskmovpd | M::Vpmaskmovq if stores => by_form!(shape, store, u64),
        M::Vmaskmovpd | M::Vpmaskmovq => by_form!(shape, load, u64),
        _ => return None,
    };
    Some((run, 0))
}
