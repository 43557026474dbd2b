//! The devices around the host's TD: a console, a log that nobody reads, and three ways to say that it is done.
//!
//! | device | ports |
//! |---|---|
//! | console (16550, output only) | from 0x3F8 |
//! | log (`defmt` frames): dropped | from 0x2F8 |
//! | exit port | 0x501 |
//! | pvpanic | 0x505 |
//! | ACPI sleep control and status, reset | 0x600 to 0x602 |

use alloc::boxed::Box;
use alloc::vec::Vec;

use tdvisor_devices::{
    ACPI_POWER_BASE, ACPI_POWER_PORTS, AccessSize, AcpiPower, AttachError, DeviceRequest, Devices, EXIT_PORT,
    ExitPort, PVPANIC_PORT, PortDevice, PvPanic, SharedMemory,
};

use crate::console;

const COM1: u16 = 0x3F8;
const COM2: u16 = 0x2F8;
const SERIAL_PORTS: u16 = 8;

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
    ports.attach(COM1, SERIAL_PORTS, Box::new(Output::default()))?;
    ports.attach(COM2, SERIAL_PORTS, Box::new(Silent))?;
    ports.attach(EXIT_PORT, 1, Box::new(ExitPort))?;
    ports.attach(PVPANIC_PORT, 1, Box::new(PvPanic))?;
    ports.attach(ACPI_POWER_BASE, ACPI_POWER_PORTS, Box::new(AcpiPower))?;
    Ok(devices)
}
