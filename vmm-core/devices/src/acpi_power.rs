//! Power off and reset as hardware-reduced ACPI has them.
//!
//! | port | register |
//! |---|---|
//! | 0x600 | sleep control: bits 4:2 SLP_TYP, bit 5 SLP_EN |
//! | 0x601 | sleep status: reads zero, the machine has never slept |
//! | 0x602 | reset: writing [`RESET_VALUE`] |
//!
//! The machine has one sleep state, S5, which the guest's tables call type [`S5_TYPE`]; a write that enables another
//! type does nothing, as does any access of more than one byte.
//!
//! Source: ACPI specification 6.5, sections 4.8.3.7 (sleep control and status) and 4.8.3.6 (reset register).

use super::{AccessSize, DeviceRequest, PortDevice, SharedMemory};

/// The first port.
pub const ACPI_POWER_BASE: u16 = 0x600;
/// Ports from the first to the last.
pub const ACPI_POWER_PORTS: u16 = 3;

/// What the guest's `\_S5` package has to say: the sleep type of "off".
pub const S5_TYPE: u8 = 5;
/// What the guest's FADT has to say: the value that resets.
pub const RESET_VALUE: u8 = 1;

const SLEEP_CONTROL: u16 = 0;
const RESET: u16 = 2;

const SLEEP_ENABLE: u8 = 1 << 5;
const SLEEP_TYPE_SHIFT: u32 = 2;
const SLEEP_TYPE_MASK: u8 = 7;

/// The device.
#[derive(Clone, Copy, Debug, Default)]
pub struct AcpiPower;

impl PortDevice for AcpiPower {
    fn read(&mut self, _offset: u16, size: AccessSize) -> u64 {
        if size == AccessSize::Byte { 0 } else { size.all_ones() }
    }

    fn write(
        &mut self,
        offset: u16,
        size: AccessSize,
        value: u64,
        _memory: &dyn SharedMemory,
    ) -> DeviceRequest {
        let value = value as u8;
        match (offset, size) {
            (SLEEP_CONTROL, AccessSize::Byte) if is_power_off(value) => DeviceRequest::PowerOff { code: 0 },
            (RESET, AccessSize::Byte) if value == RESET_VALUE => DeviceRequest::Reset,
            _ => DeviceRequest::None,
        }
    }
}

const fn is_power_off(control: u8) -> bool {
    control & SLEEP_ENABLE != 0 && control >> SLEEP_TYPE_SHIFT & SLEEP_TYPE_MASK == S5_TYPE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NoMemory;

    fn write(offset: u16, value: u64) -> DeviceRequest {
        AcpiPower.write(offset, AccessSize::Byte, value, &NoMemory)
    }

    #[test]
    fn only_enabling_s5_powers_off() {
        let off: alloc::vec::Vec<u64> =
            (0..=0xff).filter(|value| write(0, *value) == DeviceRequest::PowerOff { code: 0 }).collect();
        assert!(off.contains(&0x34));
        assert!(off.iter().all(|value| value & 0x3c == 0x34), "{off:x?}");
        assert_eq!(off.len(), 16, "bits 7:6 and 1:0 mean nothing");
    }

    #[test]
    fn only_the_reset_value_resets() {
        assert_eq!(write(2, 1), DeviceRequest::Reset);
        assert_eq!(write(2, 0), DeviceRequest::None);
        assert_eq!(write(2, 0xff), DeviceRequest::None);
    }

    #[test]
    fn the_status_register_says_that_nothing_slept() {
        assert_eq!(AcpiPower.read(1, AccessSize::Byte), 0);
        assert_eq!(write(1, 0x80), DeviceRequest::None, "clearing the wake status");
    }

    #[test]
    fn accesses_of_another_size_do_nothing() {
        assert_eq!(AcpiPower.write(0, AccessSize::Word, 0x34, &NoMemory), DeviceRequest::None);
        assert_eq!(AcpiPower.read(0, AccessSize::Word), 0xffff);
    }
}
