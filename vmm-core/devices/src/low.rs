//! The low part of a value: what a register of that size takes of what is written to it.

/// Bits 7:0.
pub(crate) const fn byte(value: u64) -> u8 {
    (value & 0xff) as u8
}

/// Bits 15:0.
pub(crate) const fn word(value: u64) -> u16 {
    (value & 0xffff) as u16
}

/// Bits 31:0.
pub(crate) const fn double(value: u64) -> u32 {
    (value & 0xffff_ffff) as u32
}
