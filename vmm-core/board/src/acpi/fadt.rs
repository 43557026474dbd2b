//! The FADT: fixed hardware as Q35 has it, the reset register, and the addresses of FACS and DSDT.
//!
//! The machine is not hardware-reduced: on such a one Linux restarts by EFI alone, and where no firmware left EFI's services, by
//! real mode, which a TD has not. It is in ACPI mode from the start (SMI_CMD is zero), and has no buttons, no general-purpose
//! events and no alarm clock among its fixed hardware. The power-management timer, which is optional, is not mentioned: firmware
//! knows where Q35 has it, but Linux would have it judge the TSC, and it wraps every 4.7 seconds, for which a busy host may well keep a
//! vCPU waiting.

use super::table::{Area, NoRoom};
use crate::{address, pm};

const REVISION: u8 = 6;
const MINOR_REVISION: u8 = 5;

/// Bits of the flags (ACPI 6.5, table 5.10).
mod flag {
    /// WBINVD works, as far as the processor lets it.
    pub(super) const WBINVD: u32 = 1 << 0;
    /// A power button would be a device of the DSDT.
    pub(super) const NO_FIXED_POWER_BUTTON: u32 = 1 << 4;
    /// A sleep button would be a device of the DSDT.
    pub(super) const NO_FIXED_SLEEP_BUTTON: u32 = 1 << 5;
    /// The clock's alarm sets no bit of PM1_STS.
    pub(super) const NO_FIXED_ALARM: u32 = 1 << 6;
    /// There is a reset register.
    pub(super) const RESET_REGISTER: u32 = 1 << 10;
}
const FLAGS: u32 = flag::WBINVD
    | flag::NO_FIXED_POWER_BUTTON
    | flag::NO_FIXED_SLEEP_BUTTON
    | flag::NO_FIXED_ALARM
    | flag::RESET_REGISTER;

/// IAPC_BOOT_ARCH: no VGA; a clock in CMOS; bits for a keyboard controller and other legacy devices stay clear.
const NO_VGA: u16 = 1 << 2;
/// Worst-case latencies above these say that there is no C2 and no C3.
const NO_C2: u16 = 101;
const NO_C3: u16 = 1001;

/// A block of registers at I/O ports.
#[derive(Clone, Copy)]
struct Block {
    first: u16,
    bytes: u8,
    /// Bytes that are read and written at once.
    access: Access,
}

/// Sizes of an access, as generic address structures have them.
#[derive(Clone, Copy)]
enum Access {
    Byte = 1,
    Word = 2,
}

/// PM1_STS and PM1_EN.
const EVENTS: Block = Block { first: address::PM + pm::PM1_STATUS, bytes: 4, access: Access::Word };
/// PM1_CNT.
const CONTROL: Block = Block { first: address::PM + pm::PM1_CONTROL, bytes: 2, access: Access::Word };
const RESET: Block = Block { first: address::RESET_CONTROL, bytes: 1, access: Access::Byte };

/// Offsets in the table (ACPI 6.5, table 5.9), ascending.
mod field {
    pub(super) const FACS: usize = 36;
    pub(super) const SCI: usize = 46;
    pub(super) const PM1A_EVENTS: usize = 56;
    pub(super) const PM1A_CONTROL: usize = 64;
    pub(super) const EVENTS_LENGTH: usize = 88;
    pub(super) const C2_LATENCY: usize = 96;
    pub(super) const BOOT_ARCH: usize = 109;
    pub(super) const FLAGS: usize = 112;
    pub(super) const RESET_REGISTER: usize = 116;
    pub(super) const RESET_VALUE: usize = 128;
    pub(super) const MINOR_REVISION: usize = 131;
    pub(super) const X_DSDT: usize = 140;
    pub(super) const X_PM1A_EVENTS: usize = 148;
    pub(super) const X_PM1A_CONTROL: usize = 172;
    /// Bytes of the table.
    pub(super) const END: usize = 276;
}

/// Bytes of the header, which is written already when the fields are.
const HEADER: usize = 36;

pub(super) fn write(area: &mut Area<'_>, facs: u64, dsdt: u64) -> Result<u64, NoRoom> {
    area.table(b"FACP", REVISION, |table| {
        let start = table.used() - HEADER;
        table.pad(start, field::FACS)?;
        table.push_short_address(facs)?;
        table.push_short_address(dsdt)?;
        for (offset, value) in [
            (field::SCI, &address::SCI_GSI.to_le_bytes()[..2]),
            (field::PM1A_EVENTS, &EVENTS.first.to_le_bytes()),
            (field::PM1A_CONTROL, &CONTROL.first.to_le_bytes()),
            (field::EVENTS_LENGTH, &[EVENTS.bytes, CONTROL.bytes]),
            (field::C2_LATENCY, [NO_C2.to_le_bytes(), NO_C3.to_le_bytes()].as_flattened()),
            (field::BOOT_ARCH, &NO_VGA.to_le_bytes()),
            (field::FLAGS, &FLAGS.to_le_bytes()),
            (field::RESET_REGISTER, &ports(RESET)),
            (field::RESET_VALUE, &[pm::RESET_VALUE]),
            (field::MINOR_REVISION, &[MINOR_REVISION]),
        ] {
            table.pad(start, offset)?;
            table.push(value)?;
        }
        table.pad(start, field::X_DSDT)?;
        table.push_address(dsdt)?;
        for (offset, block) in [(field::X_PM1A_EVENTS, EVENTS), (field::X_PM1A_CONTROL, CONTROL)] {
            table.pad(start, offset)?;
            table.push(&ports(block))?;
        }
        table.pad(start, field::END)
    })
}

/// A generic address structure of such a block.
const fn ports(block: Block) -> [u8; 12] {
    const IO: u8 = 1;
    let [low, high] = block.first.to_le_bytes();
    [IO, block.bytes * 8, 0, block.access as u8, low, high, 0, 0, 0, 0, 0, 0]
}
