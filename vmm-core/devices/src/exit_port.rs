//! The exit port: how a guest powers its TD off and says whether it succeeded.
//!
//! A byte written to port 0x501 ends the TD; its value is the guest's exit code, 0 for success. The number
//! is the one that QEMU users know from `isa-debug-exit`; the value is passed on as it is.

use alloc::vec::Vec;

use super::{AccessSize, BadState, DeviceRequest, PortDevice, SharedMemory, saved};

/// The device.
#[derive(Debug, Default)]
pub struct ExitPort;

impl PortDevice for ExitPort {
    fn read(&mut self, _offset: u16, size: AccessSize) -> u64 {
        size.all_ones()
    }

    fn write(
        &mut self,
        _offset: u16,
        _size: AccessSize,
        value: u64,
        _memory: &dyn SharedMemory,
    ) -> DeviceRequest {
        DeviceRequest::PowerOff { code: crate::low::byte(value) }
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
    fn the_byte_written_is_the_exit_code() {
        let request = ExitPort.write(0, AccessSize::Byte, 0x107, &NoMemory);
        assert_eq!(request, DeviceRequest::PowerOff { code: 7 });
    }
}
