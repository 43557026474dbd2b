//! What instructions do, one file per family. Each family has a `decode` that knows its mnemonics and
//! nothing else; [`decode`] asks them in turn.

pub(crate) mod arith;
mod bit_fields;
pub(crate) mod bits;
pub(crate) mod control;
mod control_registers;
mod descriptors;
mod direct_store;
mod enter;
pub(crate) mod extended_state;
pub(crate) mod far;
pub(crate) mod float;
mod gates;
pub(crate) mod io;
mod lane_moves;
mod legacy;
mod mmx;
pub(crate) mod moves;
pub(crate) mod muldiv;
mod near16;
pub(crate) mod packed;
pub(crate) mod shift;
pub(crate) mod sse;
pub(crate) mod stack;
pub(crate) mod string;
pub(crate) mod system;
pub(crate) mod text;
pub(crate) mod vmx;
mod x87;

use iced_x86::Instruction;

use crate::decode::Decoded;
pub(crate) use moves::nothing;

/// Finds the operation for a valid instruction; `None` if it is not implemented.
pub(crate) fn decode(i: &Instruction, long: bool) -> Option<Decoded> {
    arith::decode(i, long)
        .or_else(|| moves::decode(i, long))
        .or_else(|| control::decode(i, long))
        .or_else(|| stack::decode(i, long))
        .or_else(|| shift::decode(i, long))
        .or_else(|| bits::decode(i, long))
        .or_else(|| muldiv::decode(i, long))
        .or_else(|| string::decode(i, long))
        .or_else(|| sse::decode(i, long))
        .or_else(|| lane_moves::decode(i, long))
        .or_else(|| float::decode(i, long))
        .or_else(|| text::decode(i, long))
        .or_else(|| system::decode(i, long))
        .or_else(|| far::decode(i, long))
        .or_else(|| io::decode(i, long))
        .or_else(|| extended_state::decode(i, long))
        .or_else(|| x87::decode(i, long))
        .or_else(|| mmx::decode(i, long))
        .or_else(|| direct_store::decode(i, long))
        .or_else(|| bit_fields::decode(i, long))
        .or_else(|| legacy::decode(i, long))
        .or_else(|| vmx::decode(i, long))
}

/// Picks the instance of a generic handler for an operand size in bytes.
macro_rules! by_width {
    ($size:expr, $handler:ident $(, $extra:ty)*) => {
        match $size {
            1 => Some($handler::<u8 $(, $extra)*> as $crate::op::Handler),
            2 => Some($handler::<u16 $(, $extra)*> as $crate::op::Handler),
            4 => Some($handler::<u32 $(, $extra)*> as $crate::op::Handler),
            8 => Some($handler::<u64 $(, $extra)*> as $crate::op::Handler),
            _ => None,
        }
    };
}
pub(crate) use by_width;
