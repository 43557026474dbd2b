//! The MADT: one local APIC per vCPU, the I/O APIC, and the mailbox by which an operating system wakes vCPUs.

use super::Machine;
use super::table::{Area, NoRoom};
use crate::board;

/// The revision of ACPI 6.4, which has the wake-up structure.
const REVISION: u8 = 5;
const ENABLED: u32 = 1;

const LOCAL_APIC: u8 = 0;
const IO_APIC: u8 = 1;
const LOCAL_X2APIC: u8 = 9;
const MULTIPROCESSOR_WAKEUP: u8 = 0x10;

/// Ids from here on need the x2APIC form.
const FIRST_WIDE_ID: u32 = 255;

pub fn write(area: &mut Area<'_>, machine: &Machine) -> Result<u64, NoRoom> {
    area.table(b"APIC", REVISION, |table| {
        table.push(&board::LOCAL_APIC.to_le_bytes())?;
        // No legacy interrupt controllers.
        table.push(&0u32.to_le_bytes())?;
        (0..machine.vcpus).try_for_each(|index| local_apic(table, index))?;
        table.push(&[IO_APIC, 12, 0, 0])?;
        table.push(&board::IO_APIC.to_le_bytes())?;
        table.push(&0u32.to_le_bytes())?;
        table.push(&[MULTIPROCESSOR_WAKEUP, 16, 0, 0, 0, 0, 0, 0])?;
        table.push(&machine.mailbox.to_le_bytes())
    })
}

fn local_apic(table: &mut Area<'_>, index: u32) -> Result<(), NoRoom> {
    match u8::try_from(index) {
        Ok(id) if index < FIRST_WIDE_ID => {
            table.push(&[LOCAL_APIC, 8, id, id])?;
            table.push(&ENABLED.to_le_bytes())
        }
        _ => {
            table.push(&[LOCAL_X2APIC, 16, 0, 0])?;
            table.push(&index.to_le_bytes())?;
            table.push(&ENABLED.to_le_bytes())?;
            table.push(&index.to_le_bytes())
        }
    }
}
