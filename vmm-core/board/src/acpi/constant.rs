//! Constants of the board in the widths that tables have them in: for constants only, so that one that does not fit stops
//! the build.

/// An address below 4 GiB, or a number of bytes, in four bytes.
///
/// # Panics
/// It needs more.
pub(super) const fn short(value: u64) -> u32 {
    assert!(value <= 0xffff_ffff);
    (value & 0xffff_ffff) as u32
}

/// A number of ports in one byte.
///
/// # Panics
/// It needs more.
pub(super) const fn few(ports: u16) -> u8 {
    assert!(ports <= 0xff);
    (ports & 0xff) as u8
}
