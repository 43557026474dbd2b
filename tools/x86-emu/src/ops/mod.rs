//! What instructions do, one file per family. Each family has a `decode` that knows its mnemonics and
//! nothing else; [`FAMILIES`] lists them.

pub(crate) mod arith;
mod avx;
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
pub(crate) mod inner_stack;
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
mod task_switch;
pub(crate) mod text;
mod vector;
pub(crate) mod vmx;
mod x87;

use iced_x86::Instruction;

use crate::decode::Decoded;
pub(crate) use moves::nothing;
pub(crate) use vector::has_avx_on;

/// A family of instructions: its name, and what gives the operation of an instruction of the family, in 64-bit code or not;
/// `None` for every other instruction.
pub(crate) type Family = (&'static str, fn(&Instruction, bool) -> Option<Decoded>);

/// Names the families, each by its module.
macro_rules! families {
    ($( $name:ident ),* $(,)?) => {
        &[ $( (stringify!($name), $name::decode) ),* ]
    };
}

/// All of them, those first whose instructions are met most often. No instruction is of two, so that their order means
/// nothing.
pub(crate) const FAMILIES: &[Family] = families![
    arith,
    moves,
    control,
    stack,
    shift,
    bits,
    muldiv,
    string,
    sse,
    lane_moves,
    avx,
    float,
    text,
    system,
    far,
    io,
    extended_state,
    x87,
    mmx,
    direct_store,
    bit_fields,
    legacy,
    vmx,
];

/// Finds the operation for a valid instruction; `None` if it is not implemented.
pub(crate) fn decode(i: &Instruction, long: bool) -> Option<Decoded> {
    FAMILIES.iter().find_map(|(_, decode)| decode(i, long))
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
