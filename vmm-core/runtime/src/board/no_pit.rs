//! Where a PC has its interval timer (8254), this board has none.
//!
//! An absent device reads as ones on a PC, and ones are what Linux waits for when it measures its clock against this
//! timer: it would read them 100 000 times, an exit each, before it believes CPUID instead. Zeros say at once that
//! nothing counts here.

use tdvisor_devices::{AccessSize, BadState, DeviceRequest, PortDevice, SharedMemory, saved};

/// A timer that does not count.
#[derive(Debug)]
pub struct NoPit;

impl PortDevice for NoPit {
    fn read(&mut self, _offset: u16, _size: AccessSize) -> u64 {
        0
    }

    fn write(
        &mut self,
        _offset: u16,
        _size: AccessSize,
        _value: u64,
        _memory: &dyn SharedMemory,
    ) -> DeviceRequest {
        DeviceRequest::None
    }

    fn save(&self) -> Option<Vec<u64>> {
        Some(Vec::new())
    }

    fn restore(&mut self, saved: &[u64]) -> Result<(), BadState> {
        saved::nothing(saved)
    }
}
