//! The devices around an emulated TD.
//!
//! | device | where | interrupt |
//! |---|---|---|
//! | console (16550) | ports from 0x3F8 | GSI 4 |
//! | log (16550, `defmt` frames) | ports from 0x2F8 | GSI 3 |
//! | exit port | port 0x501 | |
//! | I/O APIC | 0xFEC00000 | |

use std::io::Write;

use tdvisor_base::Gpa;
use vmm_core::devices::io_apic::{IO_APIC_BASE, IO_APIC_SIZE};
use vmm_core::devices::{AttachError, EXIT_PORT, ExitPort};
use vmm_core::td::Devices;

use super::serial::{COM1, COM1_GSI, COM2, COM2_GSI, SERIAL_PORTS, SerialInput, SerialPort};

/// The devices, and the way in to the console.
pub struct Board {
    /// For the TD.
    pub devices: Devices,
    /// What is typed.
    pub input: SerialInput,
}

impl Board {
    /// A board whose console and log go to these writers.
    ///
    /// # Errors
    /// Two devices at one place.
    pub fn new(
        console: impl Write + Send + 'static,
        log: impl Write + Send + 'static,
    ) -> Result<Self, AttachError> {
        let mut devices = Devices::default();
        let line = |gsi| devices.io_apic.line(gsi).ok_or(AttachError::BadRange);
        let input = SerialInput::new(line(COM1_GSI)?);
        let com1 = Box::new(SerialPort::new(console, input.clone()));
        let com2 = Box::new(SerialPort::new(log, SerialInput::new(line(COM2_GSI)?)));
        devices.ports.attach(COM1, SERIAL_PORTS, com1)?;
        devices.ports.attach(COM2, SERIAL_PORTS, com2)?;
        devices.ports.attach(EXIT_PORT, 1, Box::new(ExitPort))?;
        let io_apic = Box::new(devices.io_apic.clone());
        devices.mmio.attach(Gpa::new(IO_APIC_BASE), IO_APIC_SIZE, io_apic)?;
        Ok(Self { devices, input })
    }
}
