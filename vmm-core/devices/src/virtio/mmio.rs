//! The virtio-mmio transport, version 2: a device behind a page of registers (section 4.2 of the specification).
//!
//! # Protocol
//! The driver resets the device by writing zero to the status register, then adds ACKNOWLEDGE and DRIVER, takes
//! features, adds FEATURES_OK and looks whether it stayed, places and enables the queues, and adds DRIVER_OK.
//! From then on a write to QueueNotify has the device answer what waits in that queue, and in those for which it is ready.
//!
//! | offset | register | | offset | register | |
//! |---|---|---|---|---|---|
//! | 0x000 | MagicValue `virt` | R | 0x050 | QueueNotify | W |
//! | 0x004 | Version 2 | R | 0x060 | InterruptStatus: 1 used, 2 configuration | R |
//! | 0x008 | DeviceID, 0 for none | R | 0x064 | InterruptACK | W |
//! | 0x00c | VendorID | R | 0x070 | Status | RW |
//! | 0x010, 0x014 | DeviceFeatures, Sel | R, W | 0x080, 0x084 | QueueDesc | W |
//! | 0x020, 0x024 | DriverFeatures, Sel | W | 0x090, 0x094 | QueueDriver | W |
//! | 0x030 | QueueSel | W | 0x0a0, 0x0a4 | QueueDevice | W |
//! | 0x034, 0x038 | QueueNumMax, QueueNum | R, W | 0x0fc | ConfigGeneration | R |
//! | 0x044 | QueueReady | RW | 0x100 | configuration space | R |
//!
//! Registers are accessed as four aligned bytes, the configuration space in any size; whatever else is accessed reads
//! zero and takes nothing. There are no shared-memory regions (SHMLen is all ones) and no queue reset.
//!
//! # Invariants
//! - Every interrupt is an edge: it is raised again for everything new, whether or not the last one was
//!   acknowledged, because nobody would look at a level.

use alloc::boxed::Box;
use alloc::vec::Vec;

use tdvisor_base::SharedBit;

use super::VirtioDevice;
use super::queue::{Area, Half, Queue};
use super::transport::{Driven, Signal};
use crate::saved::nothing;
use crate::{AccessSize, BadState, DeviceRequest, Line, MmioDevice, SharedMemory, low};

/// Bytes of a device's window.
pub const VIRTIO_MMIO_SIZE: u64 = 0x1000;

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const VERSION: u32 = 2;
const VENDOR: u32 = u32::from_le_bytes(*b"tdvi");
/// No device behind the transport.
const NO_DEVICE: u32 = 0;

/// Register offsets (table 4.1 of the specification).
mod register {
    pub(super) const MAGIC_VALUE: u64 = 0x000;
    pub(super) const VERSION: u64 = 0x004;
    pub(super) const DEVICE_ID: u64 = 0x008;
    pub(super) const VENDOR_ID: u64 = 0x00c;
    pub(super) const DEVICE_FEATURES: u64 = 0x010;
    pub(super) const DEVICE_FEATURES_SEL: u64 = 0x014;
    pub(super) const DRIVER_FEATURES: u64 = 0x020;
    pub(super) const DRIVER_FEATURES_SEL: u64 = 0x024;
    pub(super) const QUEUE_SEL: u64 = 0x030;
    pub(super) const QUEUE_NUM_MAX: u64 = 0x034;
    pub(super) const QUEUE_NUM: u64 = 0x038;
    pub(super) const QUEUE_READY: u64 = 0x044;
    pub(super) const QUEUE_NOTIFY: u64 = 0x050;
    pub(super) const INTERRUPT_STATUS: u64 = 0x060;
    pub(super) const INTERRUPT_ACK: u64 = 0x064;
    pub(super) const STATUS: u64 = 0x070;
    pub(super) const QUEUE_DESC_LOW: u64 = 0x080;
    pub(super) const QUEUE_DESC_HIGH: u64 = 0x084;
    pub(super) const QUEUE_DRIVER_LOW: u64 = 0x090;
    pub(super) const QUEUE_DRIVER_HIGH: u64 = 0x094;
    pub(super) const QUEUE_DEVICE_LOW: u64 = 0x0a0;
    pub(super) const QUEUE_DEVICE_HIGH: u64 = 0x0a4;
    pub(super) const SHM_FIRST: u64 = 0x0b0;
    pub(super) const SHM_LAST: u64 = 0x0bc;
    pub(super) const CONFIG_GENERATION: u64 = 0x0fc;
    pub(super) const CONFIG: u64 = 0x100;
}

/// Bits of the interrupt status register.
pub mod interrupt {
    /// The device returned requests.
    pub const USED: u32 = 1;
    /// The device's configuration, or its status, changed.
    pub const CONFIG: u32 = 2;
}

/// A transport with nothing behind it: a slot that firmware describes and a driver leaves alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct EmptySlot;

impl MmioDevice for EmptySlot {
    fn read(&mut self, offset: u64, size: AccessSize) -> u64 {
        match (offset, size) {
            (register::MAGIC_VALUE, AccessSize::Double) => MAGIC.into(),
            (register::VERSION, AccessSize::Double) => VERSION.into(),
            (register::DEVICE_ID, AccessSize::Double) => NO_DEVICE.into(),
            _ => 0,
        }
    }

    fn write(&mut self, _: u64, _: AccessSize, _: u64, _: &dyn SharedMemory) -> DeviceRequest {
        DeviceRequest::None
    }

    fn save(&self) -> Option<Vec<u64>> {
        Some(Vec::new())
    }

    fn restore(&mut self, saved: &[u64]) -> Result<(), BadState> {
        nothing(saved)
    }
}

/// A transport and the device behind it.
pub struct VirtioMmio {
    driven: Driven,
    line: Line,
    interrupt_status: u32,
    device_features_sel: u32,
    driver_features_sel: u32,
    queue_sel: u32,
}

impl VirtioMmio {
    /// `device` behind a transport that raises `line`.
    pub fn new(device: Box<dyn VirtioDevice>, line: Line, shared_bit: SharedBit) -> Self {
        Self {
            driven: Driven::new(device, shared_bit),
            line,
            interrupt_status: 0,
            device_features_sel: 0,
            driver_features_sel: 0,
            queue_sel: 0,
        }
    }

    fn queue(&self) -> Option<&Queue> {
        self.driven.queue(self.queue_sel)
    }

    fn read_register(&self, offset: u64) -> u32 {
        match offset {
            register::MAGIC_VALUE => MAGIC,
            register::VERSION => VERSION,
            register::DEVICE_ID => self.driven.id(),
            register::VENDOR_ID => VENDOR,
            register::DEVICE_FEATURES => self.driven.offered_word(self.device_features_sel),
            register::QUEUE_NUM_MAX => self.queue().map_or(0, |queue| queue.max().into()),
            register::QUEUE_READY => self.queue().is_some_and(Queue::is_ready).into(),
            register::INTERRUPT_STATUS => self.interrupt_status,
            register::STATUS => self.driven.status(),
            register::SHM_FIRST..=register::SHM_LAST => u32::MAX,
            register::CONFIG_GENERATION => 0,
            _ => 0,
        }
    }

    fn write_register(&mut self, offset: u64, value: u32, memory: &dyn SharedMemory) {
        match offset {
            register::DEVICE_FEATURES_SEL => self.device_features_sel = value,
            register::DRIVER_FEATURES_SEL => self.driver_features_sel = value,
            register::DRIVER_FEATURES => self.driven.take_word(self.driver_features_sel, value),
            register::QUEUE_SEL => self.queue_sel = value,
            register::QUEUE_NUM => self.with_queue(|queue| queue.set_size(value)),
            register::QUEUE_READY if value & 1 == 0 => self.with_queue(Queue::disable),
            register::QUEUE_READY => {
                let signal = self.driven.enable(self.queue_sel);
                self.signal(signal);
            }
            register::QUEUE_NOTIFY => {
                let signal = self.driven.notify(value, memory);
                self.signal(signal);
            }
            register::INTERRUPT_ACK => self.interrupt_status &= !value,
            register::STATUS if value == 0 => self.reset(),
            register::STATUS => self.driven.add_status(value),
            register::QUEUE_DESC_LOW => self.place(Area::Descriptors, Half::Low, value),
            register::QUEUE_DESC_HIGH => self.place(Area::Descriptors, Half::High, value),
            register::QUEUE_DRIVER_LOW => self.place(Area::Driver, Half::Low, value),
            register::QUEUE_DRIVER_HIGH => self.place(Area::Driver, Half::High, value),
            register::QUEUE_DEVICE_LOW => self.place(Area::Device, Half::Low, value),
            register::QUEUE_DEVICE_HIGH => self.place(Area::Device, Half::High, value),
            _ => {}
        }
    }

    fn with_queue(&mut self, change: impl FnOnce(&mut Queue)) {
        if let Some(queue) = self.driven.queue_mut(self.queue_sel) {
            change(queue);
        }
    }

    fn place(&mut self, area: Area, half: Half, value: u32) {
        self.driven.place(self.queue_sel, area, half, value);
    }

    fn reset(&mut self) {
        self.driven.reset();
        self.interrupt_status = 0;
        self.device_features_sel = 0;
        self.driver_features_sel = 0;
        self.queue_sel = 0;
    }

    fn signal(&mut self, signal: Signal) {
        self.interrupt_status |= match signal {
            Signal::None => return,
            Signal::Used(_) => interrupt::USED,
            Signal::Stopped => interrupt::CONFIG | interrupt::USED,
        };
        self.line.raise();
    }
}

impl MmioDevice for VirtioMmio {
    fn read(&mut self, offset: u64, size: AccessSize) -> u64 {
        match offset.checked_sub(register::CONFIG) {
            Some(offset) => self.driven.read_config(offset, size),
            None if size == AccessSize::Double => self.read_register(offset).into(),
            None => 0,
        }
    }

    fn write(
        &mut self,
        offset: u64,
        size: AccessSize,
        value: u64,
        memory: &dyn SharedMemory,
    ) -> DeviceRequest {
        if size == AccessSize::Double {
            self.write_register(offset, low::double(value), memory);
        }
        DeviceRequest::None
    }

    fn attend(&mut self, memory: &dyn SharedMemory) {
        let signal = self.driven.attend(memory);
        self.signal(signal);
    }
}

#[cfg(test)]
mod tests;
