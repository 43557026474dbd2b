//! The FADT of a hardware-reduced machine: sleep registers, reset register, and the DSDT's address.

use super::table::{Area, NoRoom};
use crate::board;
use crate::bytes::put;

const LENGTH: usize = 276;
const HEADER: usize = 36;
const REVISION: u8 = 6;
const MINOR_REVISION: u8 = 5;
const FLAG_RESET_REGISTER: u32 = 1 << 10;
const FLAG_HARDWARE_REDUCED: u32 = 1 << 20;
/// IAPC_BOOT_ARCH: no VGA; a clock in CMOS; bits for a keyboard controller and other legacy devices stay clear.
const NO_VGA: u16 = 1 << 2;

/// Offsets in the table (ACPI 6.5, table 5.9).
mod field {
    pub const DSDT: usize = 40;
    pub const BOOT_ARCH: usize = 109;
    pub const FLAGS: usize = 112;
    pub const RESET_REGISTER: usize = 116;
    pub const RESET_VALUE: usize = 128;
    pub const MINOR_REVISION: usize = 131;
    pub const X_DSDT: usize = 140;
    pub const SLEEP_CONTROL: usize = 244;
    pub const SLEEP_STATUS: usize = 256;
}

pub fn write(area: &mut Area<'_>, dsdt: u64) -> Result<u64, NoRoom> {
    let mut body = [0; LENGTH - HEADER];
    let mut set = |offset: usize, value: &[u8]| put(&mut body, offset - HEADER, value).ok_or(NoRoom);
    set(field::DSDT, &u32::try_from(dsdt).map_err(|_| NoRoom)?.to_le_bytes())?;
    set(field::BOOT_ARCH, &NO_VGA.to_le_bytes())?;
    set(field::FLAGS, &(FLAG_RESET_REGISTER | FLAG_HARDWARE_REDUCED).to_le_bytes())?;
    set(field::RESET_REGISTER, &port(board::RESET))?;
    set(field::RESET_VALUE, &[board::RESET_VALUE])?;
    set(field::MINOR_REVISION, &[MINOR_REVISION])?;
    set(field::X_DSDT, &dsdt.to_le_bytes())?;
    set(field::SLEEP_CONTROL, &port(board::SLEEP_CONTROL))?;
    set(field::SLEEP_STATUS, &port(board::SLEEP_STATUS))?;
    area.table(b"FACP", REVISION, |table| table.push(&body))
}

/// A generic address structure: one byte at an I/O port.
fn port(port: u16) -> [u8; 12] {
    let [low, high] = port.to_le_bytes();
    [1, 8, 0, 1, low, high, 0, 0, 0, 0, 0, 0]
}
