//! The DSDT: the board's devices, and the sleep type that powers it off.

use super::aml::{self, Written};
use super::constant::{few, short};
use super::table::{Area, NoRoom};
use super::{Ecam, Machine};
use crate::{address, pm};

pub(super) fn write(area: &mut Area<'_>, machine: &Machine) -> Result<u64, NoRoom> {
    area.table(b"DSDT", 2, |area| {
        aml::name(area, b"_S5_", |area| {
            aml::package(area, 4, |area| {
                [pm::S5_TYPE, pm::S5_TYPE, 0, 0].into_iter().try_for_each(|value| aml::byte(area, value))
            })
        })?;
        aml::scope(area, b"_SB_", |area| {
            pci(area, machine)?;
            if machine.ecam == Ecam::Fixed {
                ecam(area)?;
            }
            serial(area, b"COM1", 1, address::COM1, address::COM1_GSI)?;
            serial(area, b"COM2", 2, address::COM2, address::COM2_GSI)?;
            clock(area)?;
            panic_device(area)?;
            (0..)
                .map_while(address::virtio_mmio_slot)
                .zip(0..)
                .try_for_each(|((base, gsi), index)| virtio(area, index, base, gsi))
        })
    })
}

/// The PCI host bridge: its windows, and where the pins of its devices go.
fn pci(area: &mut Area<'_>, machine: &Machine) -> Written {
    const LAST_BELOW: u16 = address::PCI_CONFIG - 1;
    const FIRST_ABOVE: u16 = address::PCI_CONFIG + address::PCI_CONFIG_PORTS;
    const ECAM: u32 = short(address::ECAM);
    const OLD_ECAM: u32 = short(address::OLD_ECAM);
    const ECAM_BYTES: u32 = short(address::ECAM_BYTES);
    const MEMORY_END: u32 = short(address::PCI_MEMORY_END);
    let base = u32::try_from(address::pci_memory(machine.low_ram)).map_err(|_| NoRoom)?;
    if base >= OLD_ECAM {
        return Err(NoRoom);
    }
    let ports = [aml::port_window(0, LAST_BELOW), aml::port_window(FIRST_ABOVE, u16::MAX)];
    let above = aml::memory_window(ECAM + ECAM_BYTES, MEMORY_END);
    let fixed = [aml::memory_window(base, ECAM), above];
    let of_firmware =
        [aml::memory_window(base, OLD_ECAM), aml::memory_window(OLD_ECAM + ECAM_BYTES, ECAM), above];
    let memory = match machine.ecam {
        Ecam::Fixed => fixed.as_flattened(),
        Ecam::OfFirmware => of_firmware.as_flattened(),
    };
    aml::device(area, b"PCI0", |area| {
        aml::name(area, b"_HID", |area| aml::eisa_id(area, b"PNP0A08"))?;
        aml::name(area, b"_CID", |area| aml::eisa_id(area, b"PNP0A03"))?;
        aml::name(area, b"_UID", aml::zero)?;
        aml::name(area, b"_CCA", |area| aml::byte(area, 1))?;
        aml::resources(
            area,
            &[
                &aml::all_buses(),
                &aml::io_ports(address::PCI_CONFIG, const { few(address::PCI_CONFIG_PORTS) }),
                ports.as_flattened(),
                memory,
            ],
        )?;
        aml::name(area, b"_PRT", routing)
    })
}

/// For each device that may be there: pin INTA, by its global system interrupt.
fn routing(area: &mut Area<'_>) -> Written {
    const ANY_FUNCTION: u32 = 0xffff;
    const DEVICES: u8 = address::LPC_DEVICE - address::FIRST_PCI_DEVICE;
    aml::package(area, DEVICES, |area| {
        (address::FIRST_PCI_DEVICE..address::LPC_DEVICE).try_for_each(|device| {
            aml::package(area, 4, |area| {
                aml::double(area, u32::from(device) << 16 | ANY_FUNCTION)?;
                aml::zero(area)?;
                aml::zero(area)?;
                aml::byte(area, u8::try_from(address::pci_gsi(device)).map_err(|_| NoRoom)?)
            })
        })
    })
}

/// ECAM, claimed as the motherboard's: a kernel uses no ECAM that nobody reserved.
fn ecam(area: &mut Area<'_>) -> Written {
    aml::device(area, b"ECAM", |area| {
        aml::name(area, b"_HID", |area| aml::eisa_id(area, b"PNP0C02"))?;
        aml::resources(area, &[const { &aml::memory32(short(address::ECAM), short(address::ECAM_BYTES)) }])
    })
}

/// A 16550-compatible serial port.
fn serial(area: &mut Area<'_>, name: &[u8; 4], number: u8, ports: u16, gsi: u32) -> Written {
    aml::device(area, name, |area| {
        aml::name(area, b"_HID", |area| aml::eisa_id(area, b"PNP0501"))?;
        aml::name(area, b"_UID", |area| aml::byte(area, number))?;
        aml::resources(
            area,
            &[&aml::io_ports(ports, const { few(address::SERIAL_PORTS) }), &aml::edge_interrupt(gsi)],
        )
    })
}

/// The clock, without an interrupt: it has no alarm.
fn clock(area: &mut Area<'_>) -> Written {
    aml::device(area, b"RTC0", |area| {
        aml::name(area, b"_HID", |area| aml::eisa_id(area, b"PNP0B00"))?;
        aml::resources(area, &[&aml::io_ports(address::CMOS, const { few(address::CMOS_PORTS) })])
    })
}

fn panic_device(area: &mut Area<'_>) -> Written {
    aml::device(area, b"PEVT", |area| {
        aml::name(area, b"_HID", |area| aml::string(area, b"QEMU0001"))?;
        aml::resources(area, &[&aml::io_ports(address::PVPANIC, 1)])
    })
}

fn virtio(area: &mut Area<'_>, index: u8, base: u64, gsi: u32) -> Written {
    let base = u32::try_from(base).map_err(|_| NoRoom)?;
    let [a, b, c, _] = *b"VIO0";
    aml::device(area, &[a, b, c, b'0' + index], |area| {
        aml::name(area, b"_HID", |area| aml::string(area, b"LNRO0005"))?;
        aml::name(area, b"_UID", |area| aml::byte(area, index))?;
        aml::name(area, b"_CCA", |area| aml::byte(area, 1))?;
        aml::resources(
            area,
            &[&aml::memory32(base, const { short(address::VIRTIO_MMIO_BYTES) }), &aml::edge_interrupt(gsi)],
        )
    })
}
