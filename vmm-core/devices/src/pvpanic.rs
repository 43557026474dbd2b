//! `pvpanic`: how a guest's kernel says that it panicked.
//!
//! # Protocol
//! One port of one byte. Reading gives the events that the machine takes; writing reports some of them. This machine takes
//! one: bit 0, the kernel panicked and nobody in the guest will handle it. The TD ends there. Bits of
//! other events vanish.
//!
//! Source: QEMU's interface specification `docs/specs/pvpanic`.

use alloc::vec::Vec;

use super::{AccessSize, BadState, DeviceRequest, PortDevice, SharedMemory, saved};

/// The kernel panicked.
pub const PANICKED: u8 = 1 << 0;

/// The device.
#[derive(Clone, Copy, Debug, Default)]
pub struct PvPanic;

impl PortDevice for PvPanic {
    fn read(&mut self, _offset: u16, _size: AccessSize) -> u64 {
        PANICKED.into()
    }

    fn write(
        &mut self,
        _offset: u16,
        _size: AccessSize,
        value: u64,
        _memory: &dyn SharedMemory,
    ) -> DeviceRequest {
        if crate::low::byte(value) & PANICKED == 0 { DeviceRequest::None } else { DeviceRequest::Panicked }
    }

    fn save(&self) -> Option<Vec<u64>> {
        Some(Vec::new())
    }

    fn restore(&mut self, saved: &[u64]) -> Result<(), BadState> {
        saved::nothing(saved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NoMemory;

    #[test]
    fn the_event_that_is_offered_is_the_event_that_counts() {
        let offered = PvPanic.read(0, AccessSize::Byte);
        assert_eq!(offered, 1);
        assert_eq!(PvPanic.write(0, AccessSize::Byte, offered, &NoMemory), DeviceRequest::Panicked);
        assert_eq!(PvPanic.write(0, AccessSize::Byte, 0xff, &NoMemory), DeviceRequest::Panicked);
        assert_eq!(PvPanic.write(0, AccessSize::Byte, 0xfe, &NoMemory), DeviceRequest::None);
    }
}
