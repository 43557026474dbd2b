//! One element, or 16 bytes, in all places of a register.

use iced_x86::{Instruction, Mnemonic};

use super::super::vector::{Form, Shape, by_form, halves};
use crate::cpu::{Cpu, Env};
use crate::memory::FromBytes;
use crate::op::{Handler, Op};
use crate::stop::Step;

/// VBROADCASTSS, VPBROADCASTB and their kin.
fn broadcast<W: FromBytes, F: Form>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_avx()?;
    let element = cpu.element::<W>(env, op)?.to_low_bytes();
    let bits = 8 * size_of::<W>() as u32;
    let half = (0..128 / bits).fold(0, |all, n| all | element << (bits * n));
    cpu.finish::<F>(op, halves::<F>(|_| half));
    Ok(())
}

pub(super) fn handler(i: &Instruction, shape: Shape) -> Option<(Handler, u16)> {
    use Mnemonic as M;
    let run = match i.mnemonic() {
        M::Vpbroadcastb => by_form!(shape, broadcast, u8),
        M::Vpbroadcastw => by_form!(shape, broadcast, u16),
        M::Vpbroadcastd | M::Vbroadcastss => by_form!(shape, broadcast, u32),
        M::Vpbroadcastq | M::Vbroadcastsd => by_form!(shape, broadcast, u64),
        M::Vbroadcastf128 | M::Vbroadcasti128 => by_form!(shape, broadcast, u128),
        _ => return None,
    };
    Some((run, 0))
}
