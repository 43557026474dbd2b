//! Registers of the power-management block, and their values, as far as more than one party knows them.
//!
//! The high byte of PM1_CNT has the layout of the sleep control register of hardware-reduced ACPI, and that of PM1_STS the
//! layout of its sleep status register: what an operating system writes there by the one name is what firmware for Q35 means by
//! the other. Source: ACPI specification 6.5, sections 4.8.3.1.1, 4.8.3.2.1 and 4.8.3.7; Intel ICH9 data sheet, 13.8.

use crate::address::PM;

/// Offset of PM1_STS: two bytes.
pub const PM1_STATUS: u16 = 0;
/// Offset of PM1_EN: two bytes.
pub const PM1_ENABLE: u16 = 2;
/// Offset of PM1_CNT: two bytes.
pub const PM1_CONTROL: u16 = 4;
/// Offset of PM_TMR: four bytes.
pub const TIMER: u16 = 8;

/// Where the LPC bridge's configuration says which ports the block has: four bytes, with [`PMBASE_IO`].
pub const PMBASE: u8 = 0x40;
/// PMBASE: the block is in I/O space.
pub const PMBASE_IO: u32 = 1;
/// Where the LPC bridge's configuration switches the block on.
pub const ACPI_CONTROL: u8 = 0x44;
/// ACPI_CNTL: the block is decoded.
pub const ACPI_ENABLE: u32 = 1 << 7;

/// The sleep control register of hardware-reduced ACPI: the high byte of PM1_CNT.
pub const SLEEP_CONTROL: u16 = PM + PM1_CONTROL + 1;
/// The sleep status register of hardware-reduced ACPI: the high byte of PM1_STS.
pub const SLEEP_STATUS: u16 = PM + PM1_STATUS + 1;

/// The sleep type of "off", as Q35 boards have it.
pub const S5_TYPE: u8 = 0;

/// What resets the machine when it is written to the reset control register: a full reset, now.
pub const RESET_VALUE: u8 = 0x0e;

/// Frequency of PM_TMR, in hertz.
pub const TIMER_HZ: u64 = 3_579_545;
/// Bits that PM_TMR counts in.
pub const TIMER_BITS: u32 = 24;
