//! The ACPI tables of the board: RSDP, XSDT, FADT, DSDT, MADT and CCEL, written into one area.
//!
//! ACPI 6.5; hardware-reduced, so there is neither a FACS nor fixed hardware beyond the sleep and reset registers.
//! What the tables say of the board is fixed in [`crate::board`].
//!
//! This folder uses `core` only, so that the host-side tests can include it.

mod aml;
mod dsdt;
mod fadt;
mod madt;
mod table;

use table::Area;
pub use table::NoRoom;

/// What the tables describe beyond the fixed board.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// vCPUs; their APIC ids are 0 and up.
    pub vcpus: u32,
    /// GPA of the multiprocessor wake-up mailbox.
    pub mailbox: u64,
    /// GPA of the event log's area.
    pub event_log: u64,
    /// Bytes of the event log's area.
    pub event_log_length: u64,
}

const RSDP_LENGTH: usize = 36;
const RSDP_FIRST_PART: usize = 20;

/// Writes the tables into `area`, which lies at GPA `base`; the RSDP is at its start.
///
/// # Errors
/// [`NoRoom`].
pub fn write(area: &mut [u8], base: u64, machine: &Machine) -> Result<(), NoRoom> {
    let mut area = Area::new(area, base);
    let rsdp = area.reserve(RSDP_LENGTH)?;
    let dsdt = dsdt::write(&mut area)?;
    let fadt = fadt::write(&mut area, dsdt)?;
    let madt = madt::write(&mut area, machine)?;
    let ccel = ccel(&mut area, machine)?;
    let xsdt = area.table(b"XSDT", 1, |table| {
        [fadt, madt, ccel].iter().try_for_each(|address| table.push(&address.to_le_bytes()))
    })?;
    area.put(rsdp, &rsdp_bytes(xsdt))
}

/// The root pointer: its first twenty bytes have a checksum of their own, and then there is one for all of it.
fn rsdp_bytes(xsdt: u64) -> [u8; RSDP_LENGTH] {
    let mut bytes = [0; RSDP_LENGTH];
    bytes[..8].copy_from_slice(b"RSD PTR ");
    bytes[9..15].copy_from_slice(&table::OEM_ID);
    bytes[15] = 2;
    bytes[20..24].copy_from_slice(&(RSDP_LENGTH as u32).to_le_bytes());
    bytes[24..32].copy_from_slice(&xsdt.to_le_bytes());
    bytes[8] = table::checksum(&bytes[..RSDP_FIRST_PART]);
    bytes[32] = table::checksum(&bytes);
    bytes
}

/// CC Event Log table: kind of TEE (2 is TDX), then length and place of the area.
fn ccel(area: &mut Area<'_>, machine: &Machine) -> Result<u64, NoRoom> {
    const TDX: u8 = 2;
    area.table(b"CCEL", 1, |table| {
        table.push(&[TDX, 0, 0, 0])?;
        table.push(&machine.event_log_length.to_le_bytes())?;
        table.push(&machine.event_log.to_le_bytes())
    })
}
