//! The devices around the host's TD: a console, a log that nobody reads, and three ways to say that it is done.
//!
//! | device | ports |
//! |---|---|
//! | console (16550, output only) | from 0x3F8 |
//! | log (`defmt` frames): dropped | from 0x2F8 |
//! | exit port | 0x501 |
//! | pvpanic | 0x505 |
//! | ACPI power management, without its timer | from 0x600 |
//! | an empty PCI bus, and reset control | 0xCF8 to 0xCFF |
//!
//! They are where every TD's board has them ([`tdvisor_board::address`]).

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use tdvisor_board::address;
use tdvisor_devices::acpi_pm::AcpiPm;
use tdvisor_devices::pci::{ConfigPorts, PciBus};
use tdvisor_devices::{
    AccessSize, AttachError, DeviceRequest, Devices, ExitPort, PortDevice, PvPanic, SharedMemory,
};

use crate::console;

/// A line that is longer is written in pieces.
const LINE: usize = 512;

/// A serial port that only sends, line by line.
#[derive(Default)]
struct Output {
    line: Vec<u8>,
    access_to_divisor: bool,
}

/// Registers of a 16550, as offsets.
mod register {
    pub const DATA: u16 = 0;
    pub const LINE: u16 = 3;
    pub const STATUS: u16 = 5;
}

/// The transmitter is empty and takes a byte.
const READY: u64 = 0b11 << 5;
/// In the line register: the data register is the divisor's low half.
const DIVISOR_ACCESS: u64 = 1 << 7;

impl PortDevice for Output {
    fn read(&mut self, offset: u16, _size: AccessSize) -> u64 {
        if offset == register::STATUS { READY } else { 0 }
    }

    fn write(
        &mut self,
        offset: u16,
        _size: AccessSize,
        value: u64,
        _memory: &dyn SharedMemory,
    ) -> DeviceRequest {
        match offset {
            register::LINE => self.access_to_divisor = value & DIVISOR_ACCESS != 0,
            register::DATA if !self.access_to_divisor => {
                self.line.push(value as u8);
                if value as u8 == b'\n' || self.line.len() >= LINE {
                    console::write(&self.line);
                    self.line.clear();
                }
            }
            _ => {}
        }
        DeviceRequest::None
    }
}

/// A serial port that takes everything, and says nothing.
struct Silent;

impl PortDevice for Silent {
    fn read(&mut self, offset: u16, _size: AccessSize) -> u64 {
        if offset == register::STATUS { READY } else { 0 }
    }

    fn write(&mut self, _: u16, _: AccessSize, _: u64, _: &dyn SharedMemory) -> DeviceRequest {
        DeviceRequest::None
    }
}

/// The board.
///
/// # Errors
/// Two devices at one place: a fault of this program.
pub fn board() -> Result<Devices, AttachError> {
    let mut devices = Devices::default();
    let ports = &mut devices.ports;
    ports.attach(address::COM1, address::SERIAL_PORTS, Box::new(Output::default()))?;
    ports.attach(address::COM2, address::SERIAL_PORTS, Box::new(Silent))?;
    ports.attach(address::EXIT, 1, Box::new(ExitPort))?;
    ports.attach(address::PVPANIC, 1, Box::new(PvPanic))?;
    ports.attach(address::PM, address::PM_PORTS, Box::new(AcpiPm::without_timer()))?;
    let pci = Box::new(ConfigPorts::new(Arc::new(PciBus::new())));
    ports.attach(address::PCI_CONFIG, address::PCI_CONFIG_PORTS, pci)?;
    Ok(devices)
}
