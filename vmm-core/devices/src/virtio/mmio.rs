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
//! - FEATURES_OK stays only with features that were offered and all that are [`features::REQUIRED`].
//! - No memory is touched before DRIVER_OK, after FAILED, or after DEVICE_NEEDS_RESET.
//! - Every interrupt is an edge: it is raised again for everything new, whether or not the last one was
//!   acknowledged, because nobody would look at a level.

use alloc::boxed::Box;
use alloc::vec::Vec;

use tdvisor_base::SharedBit;

use super::queue::{Area, Half, Queue};
use super::{Broken, Served, VirtioDevice, features};
use crate::{AccessSize, DeviceRequest, Line, MmioDevice, SharedMemory};

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

/// Bits of the status register (section 2.1).
pub mod status {
    /// The driver can drive the device.
    pub const DRIVER_OK: u32 = 4;
    /// The features are settled.
    pub const FEATURES_OK: u32 = 8;
    /// The device stopped and waits for a reset: set by the device.
    pub const DEVICE_NEEDS_RESET: u32 = 64;
    /// The driver gave up.
    pub const FAILED: u32 = 128;

    /// Every bit that a driver may add: those above, ACKNOWLEDGE and DRIVER.
    pub(super) const OF_DRIVER: u32 = 1 | 2 | DRIVER_OK | FEATURES_OK | FAILED;
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
}

/// A transport and the device behind it.
pub struct VirtioMmio {
    device: Box<dyn VirtioDevice>,
    queues: Vec<Queue>,
    line: Line,
    shared_bit: SharedBit,
    status: u32,
    interrupt_status: u32,
    device_features_sel: u32,
    driver_features_sel: u32,
    /// Four words, two more than there are features, so that taking one that does not exist is seen.
    driver_features: u128,
    queue_sel: u32,
}

impl VirtioMmio {
    /// `device` behind a transport that raises `line`.
    pub fn new(device: Box<dyn VirtioDevice>, line: Line, shared_bit: SharedBit) -> Self {
        Self {
            queues: device.queue_sizes().iter().map(|max| Queue::new(*max)).collect(),
            device,
            line,
            shared_bit,
            status: 0,
            interrupt_status: 0,
            device_features_sel: 0,
            driver_features_sel: 0,
            driver_features: 0,
            queue_sel: 0,
        }
    }

    fn offered(&self) -> u64 {
        self.device.features() | features::REQUIRED
    }

    fn queue(&self) -> Option<&Queue> {
        self.queues.get(self.queue_sel as usize)
    }

    fn read_register(&self, offset: u64) -> u32 {
        match offset {
            register::MAGIC_VALUE => MAGIC,
            register::VERSION => VERSION,
            register::DEVICE_ID => self.device.id(),
            register::VENDOR_ID => VENDOR,
            register::DEVICE_FEATURES => word_of(self.offered(), self.device_features_sel),
            register::QUEUE_NUM_MAX => self.queue().map_or(0, |queue| queue.max().into()),
            register::QUEUE_READY => self.queue().is_some_and(Queue::is_ready).into(),
            register::INTERRUPT_STATUS => self.interrupt_status,
            register::STATUS => self.status,
            register::SHM_FIRST..=register::SHM_LAST => u32::MAX,
            register::CONFIG_GENERATION => 0,
            _ => 0,
        }
    }

    fn write_register(&mut self, offset: u64, value: u32, memory: &dyn SharedMemory) {
        match offset {
            register::DEVICE_FEATURES_SEL => self.device_features_sel = value,
            register::DRIVER_FEATURES_SEL => self.driver_features_sel = value,
            register::DRIVER_FEATURES => self.write_driver_features(value),
            register::QUEUE_SEL => self.queue_sel = value,
            register::QUEUE_NUM => self.with_queue(|queue| queue.set_size(value)),
            register::QUEUE_READY => self.write_queue_ready(value),
            register::QUEUE_NOTIFY => self.notify(value, memory),
            register::INTERRUPT_ACK => self.interrupt_status &= !value,
            register::STATUS => self.write_status(value),
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
        if let Some(queue) = self.queues.get_mut(self.queue_sel as usize) {
            change(queue);
        }
    }

    fn place(&mut self, area: Area, half: Half, value: u32) {
        self.with_queue(|queue| queue.set_area(area, half, value));
    }

    fn write_queue_ready(&mut self, value: u32) {
        let shared_bit = self.shared_bit;
        let mut enabled = Ok(());
        self.with_queue(|queue| match value & 1 {
            0 => queue.disable(),
            _ => enabled = queue.enable(shared_bit),
        });
        if enabled.is_err() {
            self.stop();
        }
    }

    fn write_driver_features(&mut self, value: u32) {
        if self.status & status::FEATURES_OK != 0 {
            return;
        }
        if let Some(shift) = self.driver_features_sel.checked_mul(32).filter(|shift| *shift < u128::BITS) {
            let kept = self.driver_features & !(u128::from(u32::MAX) << shift);
            self.driver_features = kept | u128::from(value) << shift;
        }
    }

    /// What the driver took, if it may take it.
    fn acceptable_features(&self) -> Option<u64> {
        let taken = u64::try_from(self.driver_features).ok()?;
        let all_offered = taken & !self.offered() == 0;
        let has_required = taken & features::REQUIRED == features::REQUIRED;
        (all_offered && has_required).then_some(taken)
    }

    /// The driver adds bits, or resets.
    fn write_status(&mut self, value: u32) {
        if value == 0 {
            return self.reset();
        }
        let mut added = value & !self.status & status::OF_DRIVER;
        if added & status::FEATURES_OK != 0 {
            match self.acceptable_features() {
                Some(taken) => self.device.accept(taken),
                None => added &= !status::FEATURES_OK,
            }
        }
        if (self.status | added) & status::FEATURES_OK == 0 {
            added &= !status::DRIVER_OK;
        }
        self.status |= added;
    }

    fn reset(&mut self) {
        self.device.accept(0);
        self.queues.iter_mut().for_each(Queue::reset);
        self.status = 0;
        self.interrupt_status = 0;
        self.device_features_sel = 0;
        self.driver_features_sel = 0;
        self.driver_features = 0;
        self.queue_sel = 0;
    }

    const fn is_running(&self) -> bool {
        self.status & (status::DRIVER_OK | status::FAILED | status::DEVICE_NEEDS_RESET) == status::DRIVER_OK
    }

    /// Answers what waits in a queue, and what that made the device ready for.
    fn notify(&mut self, index: u32, memory: &dyn SharedMemory) {
        if !self.is_running() {
            return;
        }
        let of_queue = self.serve(index as usize, memory);
        let all = of_queue.and_then(|announce| Ok(self.serve_ready(memory)? || announce));
        self.conclude(all);
    }

    /// Answers in every queue that the device is ready for.
    fn serve_ready(&mut self, memory: &dyn SharedMemory) -> Result<bool, Broken> {
        let mut announce = false;
        for index in 0..self.queues.len() {
            if self.device.ready().contain(index) {
                announce |= self.serve(index, memory)?;
            }
        }
        Ok(announce)
    }

    /// Answers at most as many requests as the queue has places: what comes later has a notification of its
    /// own. Gives whether the driver wants to hear about it.
    fn serve(&mut self, index: usize, memory: &dyn SharedMemory) -> Result<bool, Broken> {
        let Some(rings) = self.queues.get_mut(index).and_then(Queue::rings) else { return Ok(false) };
        let mut served = false;
        for _ in 0..rings.size() {
            let Some(chain) = rings.pop(memory)? else { break };
            match self.device.serve(index, &chain, memory)? {
                Served::Used(written) => rings.push_used(&chain, written, memory)?,
                Served::Later => {
                    rings.put_back();
                    break;
                }
            }
            served = true;
        }
        Ok(served && rings.wants_interrupt(memory)?)
    }

    fn conclude(&mut self, announce: Result<bool, Broken>) {
        match announce {
            Ok(true) => self.interrupt(interrupt::USED),
            Ok(false) => {}
            Err(_) => self.stop(),
        }
    }

    /// The driver broke the rules: nothing more until a reset.
    fn stop(&mut self) {
        let driven = self.status & status::DRIVER_OK != 0;
        self.status |= status::DEVICE_NEEDS_RESET;
        if driven {
            self.interrupt(interrupt::CONFIG | interrupt::USED);
        }
    }

    fn interrupt(&mut self, cause: u32) {
        self.interrupt_status |= cause;
        self.line.raise();
    }
}

/// One of a number's 32-bit words; zero beyond the last.
const fn word_of(value: u64, index: u32) -> u32 {
    match index {
        0 => value as u32,
        1 => (value >> 32) as u32,
        _ => 0,
    }
}

/// Bytes of a configuration space from `offset`; zeros beyond its end.
fn read_config(config: &[u8], offset: u64, size: AccessSize) -> u64 {
    let mut value = [0; 8];
    let from = usize::try_from(offset).ok().and_then(|offset| config.get(offset..)).unwrap_or_default();
    for (to, from) in value.iter_mut().take(size.bytes() as usize).zip(from) {
        *to = *from;
    }
    u64::from_le_bytes(value)
}

impl MmioDevice for VirtioMmio {
    fn read(&mut self, offset: u64, size: AccessSize) -> u64 {
        match offset.checked_sub(register::CONFIG) {
            Some(offset) => read_config(self.device.config(), offset, size),
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
            self.write_register(offset, value as u32, memory);
        }
        DeviceRequest::None
    }

    fn attend(&mut self, memory: &dyn SharedMemory) {
        if self.is_running() {
            let all = self.serve_ready(memory);
            self.conclude(all);
        }
    }
}

#[cfg(test)]
mod tests;
