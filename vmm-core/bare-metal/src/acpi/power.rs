//! Switching the machine off: the registers of the FADT, and the values that the DSDT gives for state S5.

use super::{HEADER, Table, Tables};
use crate::physical::Physical;

/// Where a value is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// The sleep control register of hardware-reduced ACPI: one byte.
    SleepControl {
        /// The port of the sleep control register.
        port: u16,
    },
    /// PM1a control: two bytes.
    Pm1aControl {
        /// The port of the PM1a control register.
        port: u16,
    },
}

/// How the machine is switched off: one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PowerOff {
    /// Where to.
    pub register: Register,
    /// What.
    pub value: u16,
}

/// Offsets in the FADT.
mod field {
    pub const DSDT: u64 = 40;
    pub const PM1A_CONTROL: u64 = 64;
    pub const FLAGS: u64 = 112;
    pub const DSDT_64: u64 = 140;
    /// A generic address: space, width, offset, access size, address.
    pub const SLEEP_CONTROL: u64 = 244;
}

/// FADT flag: hardware-reduced ACPI.
const HARDWARE_REDUCED: u32 = 1 << 20;
/// A generic address in I/O port space.
const IO_SPACE: u8 = 1;

impl PowerOff {
    /// What the tables say of it, where the registers are I/O ports.
    pub fn read(tables: &Tables, memory: &impl Physical) -> Option<Self> {
        let fadt = tables.table(b"FACP", memory)?;
        let word = |offset| memory.u32(fadt.place(offset, 4)?);
        let wide = |offset| memory.u64(fadt.place(offset, 8)?);
        let dsdt = wide(field::DSDT_64).filter(|at| *at != 0).or(word(field::DSDT).map(u64::from))?;
        let sleep_type = s5(Table::at(dsdt, memory)?, memory)?;
        if word(field::FLAGS)? & HARDWARE_REDUCED != 0 {
            let register = fadt.place(field::SLEEP_CONTROL, 12)?;
            let port = u16::try_from(memory.u64(register + 4)?).ok().filter(|port| *port != 0)?;
            // Sleep type in bits 4:2, sleep enable is bit 5.
            return (memory.u8(register)? == IO_SPACE).then_some(Self {
                register: Register::SleepControl { port },
                value: u16::from(sleep_type) << 2 | 1 << 5,
            });
        }
        let port = u16::try_from(word(field::PM1A_CONTROL)?).ok().filter(|port| *port != 0)?;
        // Sleep type in bits 12:10, sleep enable is bit 13.
        Some(Self { register: Register::Pm1aControl { port }, value: u16::from(sleep_type) << 10 | 1 << 13 })
    }
}

/// The sleep type of S5: the first element of the package named `_S5_`.
fn s5(dsdt: Table, memory: &impl Physical) -> Option<u8> {
    const NAME: u32 = u32::from_le_bytes(*b"_S5_");
    const PACKAGE: u8 = 0x12;
    const BYTE: u8 = 0x0A;
    let name = (HEADER..dsdt.bytes)
        .filter_map(|offset| dsdt.place(offset, 8))
        .find(|at| memory.u32(*at) == Some(NAME) && memory.u8(at + 4) == Some(PACKAGE))?;
    // The package's length takes as many bytes more as its top two bits say; the number of elements follows.
    let more = u64::from(memory.u8(name + 5)? >> 6);
    let element = name + 7 + more;
    Some(
        match memory.u8(element)? {
            BYTE => memory.u8(element + 1)?,
            // ZeroOp and OneOp are their own values.
            value @ (0 | 1) => value,
            _ => return None,
        } & 7,
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::{firmware, table};
    use super::*;
    use crate::physical::fake::Memory;

    const DSDT: u64 = 0x9000;

    fn machine(flags: u32, aml: &[u8]) -> Memory {
        let mut body = std::vec![0; 256 - HEADER as usize];
        let mut put = |at: u64, bytes: &[u8]| {
            let at = (at - HEADER) as usize;
            body[at..at + bytes.len()].copy_from_slice(bytes);
        };
        put(field::DSDT_64, &DSDT.to_le_bytes());
        put(field::FLAGS, &flags.to_le_bytes());
        put(field::PM1A_CONTROL, &0x604u32.to_le_bytes());
        put(field::SLEEP_CONTROL, &[1, 8, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0]);
        let mut memory = firmware(&[(0x6000, table(b"FACP", &body))]);
        memory.put(DSDT, &table(b"DSDT", aml));
        memory
    }

    fn read(memory: &Memory) -> Option<PowerOff> {
        PowerOff::read(&Tables::find(None, memory)?, memory)
    }

    const S5: &[u8] = b"\x08_S5_\x12\x08\x04\x0a\x05\x0a\x05\x00\x00";

    #[test]
    fn both_kinds_of_registers_are_found() {
        let reduced = PowerOff { register: Register::SleepControl { port: 0x600 }, value: 0x34 };
        assert_eq!(read(&machine(HARDWARE_REDUCED, S5)), Some(reduced));
        let ordinary = PowerOff { register: Register::Pm1aControl { port: 0x604 }, value: 0x3400 };
        assert_eq!(read(&machine(0, S5)), Some(ordinary));
        let zero = b"\x08_S5_\x12\x06\x04\x00\x00\x00\x00";
        assert_eq!(read(&machine(0, zero)).map(|off| off.value), Some(0x2000));
    }

    #[test]
    fn a_machine_that_does_not_say_how_cannot_be_switched_off() {
        assert_eq!(read(&machine(0, b"\x08_S4_\x12\x06\x04\x0a\x05\x00\x00\x00")), None);
        assert_eq!(read(&machine(0, b"\x08_S5_")), None);
    }
}
