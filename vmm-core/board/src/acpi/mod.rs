//! The ACPI tables of the board: XSDT, FADT, DSDT, MADT, and where they have something to say MCFG and CCEL.
//!
//! ACPI 6.5, with the fixed hardware that Q35 has: PM1 events and control, the power-management timer, the reset register.
//! Addresses are those of [`crate::address`]; what differs from board to board is in [`Machine`].
//!
//! Firmware that writes the tables itself gives the place where they stay. A host that hands them to its firmware writes them at
//! address zero, and turns the [`Fixup`]s into commands for it.

mod aml;
mod constant;
mod dsdt;
mod facs;
mod fadt;
mod madt;
mod table;

pub use madt::WakeUp;
pub use table::{Area, CHECKSUM_OFFSET, Fixup, NoRoom, checksum};

use crate::address;

/// What the tables describe beyond the fixed board.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// vCPUs; their x2APIC ids are 0 and up.
    pub vcpus: u32,
    /// The first address behind RAM below 4 GiB.
    pub low_ram: u64,
    /// Who says where ECAM is.
    pub ecam: Ecam,
    /// How an operating system wakes vCPUs, where these tables say so.
    pub wake_up: Option<WakeUp>,
    /// The event log, where these tables lead to it.
    pub event_log: Option<EventLog>,
}

/// Who says where ECAM is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ecam {
    /// ECAM is at [`address::ECAM`], and the tables say so.
    Fixed,
    /// Firmware puts it where it likes, after these tables were written: they do not mention it, and leave both places
    /// free that firmware uses. PCI is then configured by its ports.
    OfFirmware,
}

/// The area of a confidential-computing event log.
#[derive(Clone, Copy, Debug)]
pub struct EventLog {
    /// The GPA of the log's area.
    pub base: u64,
    /// The size of the log's area, bytes.
    pub bytes: u64,
}

/// Bytes of the root pointer.
pub const RSDP_BYTES: usize = 36;
/// Offset of the XSDT's address in the root pointer.
pub const RSDP_XSDT: usize = 24;
/// Offset of the checksum of the root pointer's first part.
pub const RSDP_CHECKSUM: usize = 8;
/// Bytes of the root pointer that the first checksum covers.
pub const RSDP_FIRST_PART: usize = 20;
/// Offset of the checksum of the whole root pointer.
pub const RSDP_EXTENDED_CHECKSUM: usize = 32;

/// Writes the tables into `area` and gives the address of the XSDT.
///
/// # Errors
/// [`NoRoom`].
pub fn write(area: &mut Area<'_>, machine: &Machine) -> Result<u64, NoRoom> {
    let dsdt = dsdt::write(area, machine)?;
    let facs = facs::write(area)?;
    let fadt = fadt::write(area, facs, dsdt)?;
    let madt = madt::write(area, machine)?;
    let mcfg = match machine.ecam {
        Ecam::Fixed => Some(mcfg(area)?),
        Ecam::OfFirmware => None,
    };
    let ccel = machine.event_log.map(|log| ccel(area, log)).transpose()?;
    area.table(b"XSDT", 1, |table| {
        [Some(fadt), Some(madt), mcfg, ccel]
            .into_iter()
            .flatten()
            .try_for_each(|address| table.push_address(address))
    })
}

/// The root pointer to an XSDT: its first twenty bytes have a checksum of their own, and then there is one for all of it.
#[must_use]
pub fn rsdp(xsdt: u64) -> [u8; RSDP_BYTES] {
    let mut bytes = [0; RSDP_BYTES];
    bytes[..8].copy_from_slice(b"RSD PTR ");
    bytes[9..15].copy_from_slice(&table::OEM_ID);
    bytes[15] = 2;
    bytes[20..24].copy_from_slice(&const { constant::short(RSDP_BYTES as u64) }.to_le_bytes());
    bytes[RSDP_XSDT..RSDP_EXTENDED_CHECKSUM].copy_from_slice(&xsdt.to_le_bytes());
    bytes[RSDP_CHECKSUM] = checksum(&bytes[..RSDP_FIRST_PART]);
    bytes[RSDP_EXTENDED_CHECKSUM] = checksum(&bytes);
    bytes
}

/// PCI Express memory-mapped configuration space: segment 0, buses 0 to 255 (PCI Firmware Specification 3.3, 4.1.2).
fn mcfg(area: &mut Area<'_>) -> Result<u64, NoRoom> {
    area.table(b"MCFG", 1, |table| {
        table.push(&[0; 8])?;
        table.push(&address::ECAM.to_le_bytes())?;
        table.push(&[0, 0, 0, u8::MAX, 0, 0, 0, 0])
    })
}

/// CC Event Log table: kind of TEE (2 is TDX), then length and place of the area.
fn ccel(area: &mut Area<'_>, log: EventLog) -> Result<u64, NoRoom> {
    const TDX: u8 = 2;
    area.table(b"CCEL", 1, |table| {
        table.push(&[TDX, 0, 0, 0])?;
        table.push(&log.bytes.to_le_bytes())?;
        table.push(&log.base.to_le_bytes())
    })
}
