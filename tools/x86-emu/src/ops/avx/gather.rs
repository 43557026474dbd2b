//! Gathers: elements from addresses that a register of indices gives.
//!
//! `third` is the mask and `src` the indices. An element that was loaded is in the destination and has its mask cleared, so that
//! an instruction that faults goes on where it was (SDM vol. 2, VGATHERDPS).

use iced_x86::{Instruction, Mnemonic};

use super::super::vector::{Form, Shape, by_form};
use super::masked::{count, element, is_chosen, set_element};
use crate::cpu::{Cpu, Env};
use crate::memory::FromBytes;
use crate::op::{Handler, Intent, Op};
use crate::stop::Step;

/// An index, extended by its sign.
trait Index: FromBytes {
    fn extended(self) -> u64;
}
impl Index for u32 {
    fn extended(self) -> u64 {
        i64::from(self as i32) as u64
    }
}
impl Index for u64 {
    fn extended(self) -> u64 {
        self
    }
}

fn gather<W: FromBytes, I: Index, F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_avx()?;
    // The wider of elements and indices fill their register.
    let elements = count::<W, F>().min(count::<I, F>());
    let indices = cpu.vector(op.src);
    let base = cpu.sum(op);
    for n in 0..elements {
        let mask = cpu.vector(op.third);
        if !is_chosen::<W>(mask, n) {
            continue;
        }
        let index = element::<I>(indices, n).extended();
        let offset = base.wrapping_add(index << (op.scale & 3)) & op.address_mask();
        let linear = cpu.linear_in(op, offset, size_of::<W>() as u64, Intent::Read)?;
        let value = cpu.load::<W>(env, linear)?;
        let (mut done, mut left) = (cpu.vector(op.dst), mask);
        set_element::<W>(&mut done, n, value);
        set_element::<W>(&mut left, n, W::from_low_bytes(0));
        cpu.set_vector(op.dst, done);
        cpu.set_vector(op.third, left);
    }
    let gathered = cpu.vector(op.dst);
    let mut result = [0, 0];
    for n in 0..elements {
        set_element::<W>(&mut result, n, element::<W>(gathered, n));
    }
    cpu.set_vector(op.dst, result);
    cpu.set_vector(op.third, [0, 0]);
    Ok(())
}

pub(super) fn handler(i: &Instruction, shape: Shape) -> Option<(Handler, u16)> {
    use Mnemonic as M;
    let run = match i.mnemonic() {
        M::Vgatherdps | M::Vpgatherdd => by_form!(shape, gather, u32, u32),
        M::Vgatherqps | M::Vpgatherqd => by_form!(shape, gather, u32, u64),
        M::Vgatherdpd | M::Vpgatherdq => by_form!(shape, gather, u64, u32),
        M::Vgatherqpd | M::Vpgatherqq => by_form!(shape, gather, u64, u64),
        _ => return None,
    };
    Some((run, 0))
}
