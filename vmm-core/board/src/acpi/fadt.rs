//! The FADT of a hardware-reduced machine: sleep registers, reset register, and the DSDT's address.

use super::table::{Area, NoRoom};
use crate::{address, pm};

const REVISION: u8 = 6;
const MINOR_REVISION: u8 = 5;
const FLAG_RESET_REGISTER: u32 = 1 << 10;
const FLAG_HARDWARE_REDUCED: u32 = 1 << 20;
/// IAPC_BOOT_ARCH: no VGA; a clock in CMOS; bits for a keyboard controller and other legacy devices stay clear.
const NO_VGA: u16 = 1 << 2;

/// Offsets in the table (ACPI 6.5, table 5.9), ascending.
mod field {
    pub(super) const DSDT: usize = 40;
    pub(super) const BOOT_ARCH: usize = 109;
    pub(super) const FLAGS: usize = 112;
    pub(super) const RESET_REGISTER: usize = 116;
    pub(super) const RESET_VALUE: usize = 128;
    pub(super) const MINOR_REVISION: usize = 131;
    pub(super) const X_DSDT: usize = 140;
    pub(super) const SLEEP_CONTROL: usize = 244;
    pub(super) const SLEEP_STATUS: usize = 256;
    /// Bytes of the table.
    pub(super) const END: usize = 276;
}

/// Bytes of the header, which is written already when the fields are.
const HEADER: usize = 36;

pub(super) fn write(area: &mut Area<'_>, dsdt: u64) -> Result<u64, NoRoom> {
    area.table(b"FACP", REVISION, |table| {
        let start = table.used() - HEADER;
        let flags = FLAG_RESET_REGISTER | FLAG_HARDWARE_REDUCED;
        table.pad(start, field::DSDT)?;
        table.push_short_address(dsdt)?;
        for (offset, value) in [
            (field::BOOT_ARCH, &NO_VGA.to_le_bytes()[..]),
            (field::FLAGS, &flags.to_le_bytes()),
            (field::RESET_REGISTER, &port(address::RESET_CONTROL)),
            (field::RESET_VALUE, &[pm::RESET_VALUE]),
            (field::MINOR_REVISION, &[MINOR_REVISION]),
        ] {
            table.pad(start, offset)?;
            table.push(value)?;
        }
        table.pad(start, field::X_DSDT)?;
        table.push_address(dsdt)?;
        table.pad(start, field::SLEEP_CONTROL)?;
        table.push(&port(pm::SLEEP_CONTROL))?;
        table.pad(start, field::SLEEP_STATUS)?;
        table.push(&port(pm::SLEEP_STATUS))?;
        table.pad(start, field::END)
    })
}

/// A generic address structure: one byte at an I/O port.
const fn port(port: u16) -> [u8; 12] {
    let [low, high] = port.to_le_bytes();
    [1, 8, 0, 1, low, high, 0, 0, 0, 0, 0, 0]
}
