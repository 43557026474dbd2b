//! The MADT: one local APIC per vCPU, the I/O APIC, the system control interrupt, and how an operating system wakes vCPUs.

use super::Machine;
use super::table::{Area, NoRoom};
use crate::address;

/// The revision of ACPI 6.4, which has the wake-up structure.
const REVISION: u8 = 5;
const ENABLED: u32 = 1;

const LOCAL_APIC: u8 = 0;
const IO_APIC: u8 = 1;
const INTERRUPT_OVERRIDE: u8 = 2;
const LOCAL_X2APIC: u8 = 9;
const MULTIPROCESSOR_WAKEUP: u8 = 0x10;
/// Version 1 of the wake-up structure has a reset vector.
const WAKEUP_VERSION: u8 = 1;

/// Polarity and trigger mode of an interrupt: active high, level.
const HIGH_LEVEL: u16 = 0b1101;

/// Ids from here on need the x2APIC form.
const FIRST_WIDE_ID: u32 = 255;

/// The multiprocessor wake-up structure (ACPI 6.5, 5.2.12.19; version 1 by ECR 2023, "MP wakeup").
#[derive(Clone, Copy, Debug)]
pub struct WakeUp {
    /// GPA of the mailbox.
    pub mailbox: u64,
    /// GPA at which a vCPU that an operating system has no use for goes back to the firmware, and waits for the mailbox again.
    pub reset_vector: u64,
}

pub(super) fn write(area: &mut Area<'_>, machine: &Machine) -> Result<u64, NoRoom> {
    area.table(b"APIC", REVISION, |table| {
        table.push(&const { super::constant::short(address::LOCAL_APIC) }.to_le_bytes())?;
        // No legacy interrupt controllers.
        table.push(&0u32.to_le_bytes())?;
        (0..machine.vcpus).try_for_each(|index| local_apic(table, index))?;
        table.push(&[IO_APIC, 12, 0, 0])?;
        table.push(&const { super::constant::short(address::IO_APIC) }.to_le_bytes())?;
        table.push(&0u32.to_le_bytes())?;
        system_control_interrupt(table)?;
        machine.wake_up.map_or(Ok(()), |wake_up| {
            table.push(&[MULTIPROCESSOR_WAKEUP, 24, WAKEUP_VERSION, 0, 0, 0, 0, 0])?;
            table.push(&wake_up.mailbox.to_le_bytes())?;
            table.push(&wake_up.reset_vector.to_le_bytes())
        })
    })
}

/// Says that ACPI's own interrupt, 9 of the ISA bus, is level-triggered, which interrupts of that bus are not.
fn system_control_interrupt(table: &mut Area<'_>) -> Result<(), NoRoom> {
    const ISA: u8 = 0;
    const SOURCE: u8 = address::SCI_GSI.to_le_bytes()[0];
    table.push(&[INTERRUPT_OVERRIDE, 10, ISA, SOURCE])?;
    table.push(&address::SCI_GSI.to_le_bytes())?;
    table.push(&HIGH_LEVEL.to_le_bytes())
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
