//! The DSDT: the board's devices, and the sleep type that powers it off.

use super::aml;
use super::table::{Area, NoRoom};
use crate::board;

/// EisaId("PNP0501"): a 16550-compatible serial port.
const PNP0501: [u8; 4] = [0x41, 0xD0, 0x05, 0x01];

pub fn write(area: &mut Area<'_>) -> Result<u64, NoRoom> {
    area.table(b"DSDT", 2, |area| {
        aml::name_package(area, b"_S5_", &[board::SLEEP_TYPE_OFF, board::SLEEP_TYPE_OFF, 0, 0])?;
        aml::scope(area, b"_SB_", |area| {
            serial(area, b"COM1", 1, board::COM1, board::COM1_GSI)?;
            serial(area, b"COM2", 2, board::COM2, board::COM2_GSI)?;
            panic_device(area)?;
            virtio(area)
        })
    })
}

fn serial(area: &mut Area<'_>, name: &[u8; 4], number: u8, ports: u16, gsi: u32) -> Result<(), NoRoom> {
    aml::device(area, name, |area| {
        aml::name_eisa_id(area, b"_HID", PNP0501)?;
        aml::name_byte(area, b"_UID", number)?;
        aml::name_resources(area, &[&aml::io_ports(ports, board::SERIAL_PORTS), &aml::edge_interrupt(gsi)])
    })
}

fn panic_device(area: &mut Area<'_>) -> Result<(), NoRoom> {
    aml::device(area, b"PEVT", |area| {
        aml::name_string(area, b"_HID", b"QEMU0001")?;
        aml::name_resources(area, &[&aml::io_ports(board::PVPANIC, 1)])
    })
}

fn virtio(area: &mut Area<'_>) -> Result<(), NoRoom> {
    aml::device(area, b"VIO0", |area| {
        aml::name_string(area, b"_HID", b"LNRO0005")?;
        aml::name_byte(area, b"_UID", 0)?;
        aml::name_byte(area, b"_CCA", 1)?;
        aml::name_resources(
            area,
            &[&aml::memory32(board::VIRTIO, board::VIRTIO_LENGTH), &aml::edge_interrupt(board::VIRTIO_GSI)],
        )
    })
}
