//! Instructions that came with AVX and AVX2 and have no legacy form. Those that have one are with it.

mod broadcast;
mod gather;
mod masked;
mod permute;
mod zero;

use iced_x86::Instruction;

use super::vector::{Shape, vector_operands};
use crate::decode::Decoded;

pub(super) fn decode(i: &Instruction, long: bool) -> Option<Decoded> {
    let shape = Shape::of(i).filter(|shape| *shape != Shape::Legacy)?;
    let (run, aux) = broadcast::handler(i, shape)
        .or_else(|| permute::handler(i, shape))
        .or_else(|| masked::handler(i, shape))
        .or_else(|| gather::handler(i, shape))
        .or_else(|| zero::handler(i).map(|run| (run, u16::from(long))))?;
    let mut op = vector_operands(i, run, long);
    op.aux = aux;
    Some(Decoded::plain(op))
}
