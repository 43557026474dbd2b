//! Integer SIMD: pure functions of operands, found by mnemonic.

mod aes;
mod binary;
mod lanes;
mod sha;
mod with_immediate;

pub(crate) use binary::BINARY;
pub(super) use lanes::{dwords_of, from_dwords, from_qwords};
pub(super) use sha::sha256_rounds;
pub(crate) use with_immediate::{MMX_WITH_IMMEDIATE, MmxWithImmediate, WITH_IMMEDIATE};
pub(super) use with_immediate::{pick_dwords, shufpd};

/// A function of the destination and the source operand.
pub(crate) type Packed = fn(u128, u128) -> u128;
