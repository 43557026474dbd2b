//! The FACS: what firmware and an operating system tell each other over a sleep. There is no sleep here to wake from, so that
//! it only says its own length and version; a machine that is not hardware-reduced has to have one.

use super::table::{Area, NoRoom};

/// Bytes of the structure, and its alignment (ACPI 6.5, section 5.2.10).
const BYTES: u8 = 64;
const VERSION: u8 = 2;

mod field {
    pub(super) const LENGTH: usize = 4;
    pub(super) const VERSION: usize = 32;
}

/// Writes the structure, which unlike tables has no checksum, and gives its GPA.
pub(super) fn write(area: &mut Area<'_>) -> Result<u64, NoRoom> {
    let mut bytes = [0; BYTES as usize];
    bytes[..field::LENGTH].copy_from_slice(b"FACS");
    bytes[field::LENGTH] = BYTES;
    bytes[field::VERSION] = VERSION;
    let at = area.align(BYTES.into())?;
    area.push(&bytes)?;
    Ok(at)
}
