//! The virtio-pci transport, modern only: a device as a PCI function (section 4.1 of the specification).
//!
//! # Protocol
//! Vendor-specific capabilities say where in BAR 0 the structures are; with them a driver does what it does with the registers of
//! [`super::mmio`]. A write to a queue's place in the notification structure has the device answer what waits in that
//! queue, and in those for which it is ready.
//!
//! | BAR 0 from | structure |
//! |---|---|
//! | 0x0000 | common configuration |
//! | 0x1000 | interrupt status: one byte, cleared by reading |
//! | 0x2000 | the device's configuration space |
//! | 0x3000 | notification: four bytes for each queue |
//! | 0x4000 | MSI-X table |
//! | 0x5000 | MSI-X pending bits |
//!
//! A driver that cannot reach memory has the PCI configuration access capability. There is no queue reset and no
//! notification data.
//!
//! # Invariants
//! - Fields are accessed in their own size, 64-bit ones also in halves; whatever else is accessed reads zero and takes nothing.
//! - With MSI-X on, each queue and the configuration have the vector that the driver gave them, or none; with MSI-X off
//!   the interrupt status says what happened, and the pin is raised, as an edge: see [`crate::io_apic`].

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use tdvisor_base::SharedBit;

use super::queue::{Area, Half, Queue};
use super::transport::{Driven, Signal};
use super::{Queues, VirtioDevice};
use crate::pci::{ConfigSpace, Identity, Msix, PciFunction, msix};
use crate::{AccessSize, DeviceRequest, Line, SharedMemory, low};

/// Bytes of BAR 0.
const BAR_BYTES: u32 = 0x8000;
const STRUCTURE_BYTES: u32 = 0x1000;

const COMMON: u32 = 0;
const INTERRUPT_STATUS: u32 = 0x1000;
const DEVICE: u32 = 0x2000;
const NOTIFICATION: u32 = 0x3000;
const MSIX_TABLE: u32 = 0x4000;
const MSIX_PENDING: u32 = 0x5000;

/// Bytes of one queue's place in the notification structure.
const NOTIFY_BYTES: u32 = 4;

const VENDOR: u16 = 0x1af4;
/// Device ids are this plus the kind of device (section 4.1.2).
const FIRST_DEVICE_ID: u16 = 0x1040;
/// Marks a device without legacy interface.
const REVISION: u8 = 1;
/// The subsystem's least id for a modern device (section 4.1.2.1).
const SUBSYSTEM: u16 = 0x40;

const VENDOR_CAPABILITY: u8 = 0x09;
/// No vector.
const NO_VECTOR: u16 = 0xffff;

/// Kinds of structures (section 4.1.4).
mod structure {
    pub(super) const COMMON: u8 = 1;
    pub(super) const NOTIFICATION: u8 = 2;
    pub(super) const INTERRUPT_STATUS: u8 = 3;
    pub(super) const DEVICE: u8 = 4;
    pub(super) const CONFIG_ACCESS: u8 = 5;
}

/// Offsets in the common configuration structure (section 4.1.4.3).
mod common {
    pub(super) const DEVICE_FEATURE_SELECT: u32 = 0x00;
    pub(super) const DEVICE_FEATURE: u32 = 0x04;
    pub(super) const DRIVER_FEATURE_SELECT: u32 = 0x08;
    pub(super) const DRIVER_FEATURE: u32 = 0x0c;
    pub(super) const CONFIG_VECTOR: u32 = 0x10;
    pub(super) const NUM_QUEUES: u32 = 0x12;
    pub(super) const STATUS: u32 = 0x14;
    pub(super) const CONFIG_GENERATION: u32 = 0x15;
    pub(super) const QUEUE_SELECT: u32 = 0x16;
    pub(super) const QUEUE_SIZE: u32 = 0x18;
    pub(super) const QUEUE_VECTOR: u32 = 0x1a;
    pub(super) const QUEUE_ENABLE: u32 = 0x1c;
    pub(super) const QUEUE_NOTIFY_OFF: u32 = 0x1e;
    pub(super) const QUEUE_DESC: u32 = 0x20;
    pub(super) const QUEUE_END: u32 = 0x38;
}

/// Bits of the interrupt status.
mod interrupt {
    pub(super) const QUEUE: u8 = 1;
    pub(super) const CONFIG: u8 = 2;
}

/// The PCI configuration access capability: offsets from its start (section 4.1.4.9).
mod config_access {
    pub(super) const BAR: usize = 4;
    pub(super) const OFFSET: usize = 8;
    pub(super) const LENGTH: usize = 12;
    pub(super) const DATA: usize = 16;
    /// Bytes behind id and link: what precedes the data, and the data.
    pub(super) const BODY: usize = DATA + 4 - 2;
}

/// A transport and the device behind it.
pub struct VirtioPci {
    config: ConfigSpace,
    driven: Driven,
    msix: Arc<Msix>,
    line: Line,
    /// Offsets of capabilities: MSI-X, and configuration access.
    msix_at: usize,
    access_at: usize,
    interrupt_status: u8,
    registers: Registers,
}

/// What the driver wrote to the common configuration structure, beyond what [`Driven`] keeps.
#[derive(Default)]
struct Registers {
    device_features_sel: u32,
    driver_features_sel: u32,
    queue_sel: u16,
    config_vector: Option<u16>,
    queue_vectors: Vec<Option<u16>>,
}

impl VirtioPci {
    /// `device` as a PCI function whose pin raises `line`.
    pub fn new(device: Box<dyn VirtioDevice>, line: Line, shared_bit: SharedBit) -> Self {
        let driven = Driven::new(device, shared_bit);
        let id = driven.id();
        let identity = Identity {
            vendor: VENDOR,
            device: FIRST_DEVICE_ID.saturating_add(u16::try_from(id).unwrap_or(u16::MAX)),
            revision: REVISION,
            class: class(id),
            subsystem_vendor: VENDOR,
            subsystem: SUBSYSTEM,
        };
        let queues = u16::try_from(driven.queue_count()).unwrap_or(u16::MAX);
        let msix = Arc::new(Msix::new(queues.saturating_add(1)));
        let mut config = ConfigSpace::new(identity).with_memory_bar(BAR_BYTES).with_interrupt_pin();
        let (body, writable) = msix.capability(MSIX_TABLE, MSIX_PENDING);
        let msix_at = config.add_capability(msix::CAPABILITY, &body, &writable);
        for (kind, offset) in [
            (structure::COMMON, COMMON),
            (structure::INTERRUPT_STATUS, INTERRUPT_STATUS),
            (structure::DEVICE, DEVICE),
        ] {
            let body: [u8; 14] = structure_body(kind, offset);
            config.add_capability(VENDOR_CAPABILITY, &body, &[]);
        }
        let mut body: [u8; 18] = structure_body(structure::NOTIFICATION, NOTIFICATION);
        body[14..].copy_from_slice(&NOTIFY_BYTES.to_le_bytes());
        config.add_capability(VENDOR_CAPABILITY, &body, &[]);
        let access_at = config.add_capability(
            VENDOR_CAPABILITY,
            &structure_body::<{ config_access::BODY }>(structure::CONFIG_ACCESS, 0),
            // The BAR, and from the offset on everything.
            &core::array::from_fn::<u8, { config_access::BODY }, _>(|at| match at + 2 {
                config_access::BAR | config_access::OFFSET.. => 0xff,
                _ => 0,
            }),
        );
        let mut transport = Self {
            config,
            driven,
            msix,
            line,
            msix_at,
            access_at,
            interrupt_status: 0,
            registers: Registers::default(),
        };
        transport.reset();
        transport
    }

    /// The function's vectors, for whoever delivers interrupts.
    #[must_use]
    pub fn msix(&self) -> Arc<Msix> {
        self.msix.clone()
    }

    fn reset(&mut self) {
        self.driven.reset();
        let queues = self.driven.queue_count();
        self.registers = Registers { queue_vectors: vec![None; queues], ..Registers::default() };
        self.interrupt_status = 0;
        self.msix.forget();
        // A driver that writes no size means the largest (section 4.1.5.1.3).
        for index in (0..).take(queues) {
            if let Some(queue) = self.driven.queue_mut(index) {
                queue.set_size(queue.max().into());
            }
        }
    }

    fn signal(&mut self, signal: Signal) {
        match signal {
            Signal::None => {}
            Signal::Used(queues) => self.interrupt(queues, interrupt::QUEUE),
            Signal::Stopped => self.interrupt(Queues::ALL, interrupt::QUEUE | interrupt::CONFIG),
        }
    }

    fn interrupt(&mut self, queues: Queues, cause: u8) {
        if !self.msix.is_enabled() {
            self.interrupt_status |= cause;
            if self.config.pin_is_enabled() {
                self.line.raise();
            }
            return;
        }
        let of_config = self.registers.config_vector.filter(|_| cause & interrupt::CONFIG != 0);
        let of_queues = self.registers.queue_vectors.iter().enumerate();
        let of_queues = of_queues.filter_map(|(index, vector)| vector.filter(|_| queues.contain(index)));
        of_queues.chain(of_config).for_each(|vector| self.msix.raise(vector));
    }

    /// A vector as the driver wrote it; one that does not exist is none, and reads back so.
    fn vector(&self, value: u32) -> Option<u16> {
        u16::try_from(value).ok().filter(|vector| *vector < self.msix.vectors())
    }

    fn queue(&self) -> Option<&Queue> {
        self.driven.queue(self.registers.queue_sel.into())
    }

    fn queue_vector(&mut self) -> Option<&mut Option<u16>> {
        self.registers.queue_vectors.get_mut(usize::from(self.registers.queue_sel))
    }

    fn read_common(&mut self, offset: u32, size: AccessSize) -> u32 {
        let registers = &self.registers;
        match (offset, size) {
            (common::DEVICE_FEATURE_SELECT, AccessSize::Double) => registers.device_features_sel,
            (common::DEVICE_FEATURE, AccessSize::Double) => {
                self.driven.offered_word(registers.device_features_sel)
            }
            (common::DRIVER_FEATURE_SELECT, AccessSize::Double) => registers.driver_features_sel,
            (common::DRIVER_FEATURE, AccessSize::Double) => {
                self.driven.taken_word(registers.driver_features_sel)
            }
            (common::CONFIG_VECTOR, AccessSize::Word) => registers.config_vector.unwrap_or(NO_VECTOR).into(),
            (common::NUM_QUEUES, AccessSize::Word) => {
                u32::try_from(self.driven.queue_count()).unwrap_or(u32::MAX)
            }
            (common::STATUS, AccessSize::Byte) => self.driven.status(),
            (common::CONFIG_GENERATION, AccessSize::Byte) => 0,
            (common::QUEUE_SELECT, AccessSize::Word) => registers.queue_sel.into(),
            (common::QUEUE_SIZE, AccessSize::Word) => self.queue().map_or(0, Queue::size),
            (common::QUEUE_VECTOR, AccessSize::Word) => {
                self.queue_vector().and_then(|vector| *vector).unwrap_or(NO_VECTOR).into()
            }
            (common::QUEUE_ENABLE, AccessSize::Word) => self.queue().is_some_and(Queue::is_ready).into(),
            (common::QUEUE_NOTIFY_OFF, AccessSize::Word) => registers.queue_sel.into(),
            (common::QUEUE_DESC..common::QUEUE_END, AccessSize::Double) => {
                let place = area_at(offset);
                place.and_then(|(area, half)| Some(self.queue()?.area(area, half))).unwrap_or_default()
            }
            _ => 0,
        }
    }

    fn write_common(&mut self, offset: u32, size: AccessSize, value: u32) {
        match (offset, size) {
            (common::DEVICE_FEATURE_SELECT, AccessSize::Double) => self.registers.device_features_sel = value,
            (common::DRIVER_FEATURE_SELECT, AccessSize::Double) => self.registers.driver_features_sel = value,
            (common::DRIVER_FEATURE, AccessSize::Double) => {
                self.driven.take_word(self.registers.driver_features_sel, value);
            }
            (common::CONFIG_VECTOR, AccessSize::Word) => self.registers.config_vector = self.vector(value),
            (common::STATUS, AccessSize::Byte) if value == 0 => self.reset(),
            (common::STATUS, AccessSize::Byte) => self.driven.add_status(value),
            (common::QUEUE_SELECT, AccessSize::Word) => self.registers.queue_sel = low::word(value.into()),
            (common::QUEUE_SIZE, AccessSize::Word) => {
                if let Some(queue) = self.driven.queue_mut(self.registers.queue_sel.into()) {
                    queue.set_size(value);
                }
            }
            (common::QUEUE_VECTOR, AccessSize::Word) => {
                let chosen = self.vector(value);
                if let Some(vector) = self.queue_vector() {
                    *vector = chosen;
                }
            }
            // A driver cannot disable a queue but by a reset (section 4.1.4.3.2).
            (common::QUEUE_ENABLE, AccessSize::Word) if value & 1 == 1 => {
                let signal = self.driven.enable(self.registers.queue_sel.into());
                self.signal(signal);
            }
            (common::QUEUE_DESC..common::QUEUE_END, AccessSize::Double) => {
                if let Some((area, half)) = area_at(offset) {
                    self.driven.place(self.registers.queue_sel.into(), area, half, value);
                }
            }
            _ => {}
        }
    }

    /// Carries an access of the configuration access capability out; gives what was read.
    fn access(&mut self, write: Option<&dyn SharedMemory>) -> Option<[u8; 4]> {
        let at = self.access_at;
        let word = |offset: usize| u32::from_le_bytes(self.config.read(at + offset));
        let size = AccessSize::from_bytes(word(config_access::LENGTH).into())?;
        let offset = word(config_access::OFFSET);
        let [bar, ..] = self.config.read(at + config_access::BAR);
        let inside = u64::from(offset) + size.bytes() <= BAR_BYTES.into();
        if bar != 0 || size == AccessSize::Quad || !inside || !u64::from(offset).is_multiple_of(size.bytes())
        {
            return None;
        }
        match write {
            Some(memory) => {
                let value = u64::from(word(config_access::DATA)) & size.all_ones();
                let _ = self.write_bar(offset.into(), size, value, memory);
                None
            }
            None => Some(low::double(self.read_bar(offset.into(), size)).to_le_bytes()),
        }
    }
}

/// The capability of a structure in BAR 0, behind id and link: length, kind, BAR, id, two bytes of nothing, offset and bytes.
fn structure_body<const N: usize>(kind: u8, offset: u32) -> [u8; N] {
    const { assert!(N + 2 <= 0xff) };
    let mut body = [0; N];
    let [length, ..] = (N + 2).to_le_bytes();
    let fields = [length, kind, 0, 0, 0, 0].into_iter();
    let bytes = if kind == structure::CONFIG_ACCESS { 0 } else { STRUCTURE_BYTES };
    let fields = fields.chain(offset.to_le_bytes()).chain(bytes.to_le_bytes());
    body.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
    body
}

/// The area's half at an aligned offset of the common configuration structure.
const fn area_at(offset: u32) -> Option<(Area, Half)> {
    Some(match offset.wrapping_sub(common::QUEUE_DESC) {
        0x00 => (Area::Descriptors, Half::Low),
        0x04 => (Area::Descriptors, Half::High),
        0x08 => (Area::Driver, Half::Low),
        0x0c => (Area::Driver, Half::High),
        0x10 => (Area::Device, Half::Low),
        0x14 => (Area::Device, Half::High),
        _ => return None,
    })
}

/// Class codes that firmware and people know devices by; other kinds are "other".
const fn class(id: u32) -> [u8; 3] {
    match id {
        1 => [0x02, 0x00, 0x00],
        2 => [0x01, 0x00, 0x00],
        3 => [0x07, 0x80, 0x00],
        19 => [0x02, 0x80, 0x00],
        26 => [0x01, 0x80, 0x00],
        _ => [0x00, 0xff, 0x00],
    }
}

impl PciFunction for VirtioPci {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn read_config(&mut self, at: usize) -> [u8; 4] {
        let data = self.access_at + config_access::DATA;
        if at == data
            && let Some(value) = self.access(None)
        {
            self.config.write(data, &value);
        }
        self.config.read(at)
    }

    fn write_config(&mut self, at: usize, value: &[u8], memory: &dyn SharedMemory) -> DeviceRequest {
        self.config.write(at, value);
        let [_, _, low, high] = self.config.read(self.msix_at);
        self.msix.set_control(u16::from_le_bytes([low, high]));
        if at == self.access_at + config_access::DATA {
            self.access(Some(memory));
        }
        DeviceRequest::None
    }

    fn read_bar(&mut self, offset: u64, size: AccessSize) -> u64 {
        let Ok(offset) = u32::try_from(offset) else { return 0 };
        let within = offset % STRUCTURE_BYTES;
        match offset - within {
            COMMON if size == AccessSize::Quad => {
                let low = self.read_common(within, AccessSize::Double);
                let high = self.read_common(within + 4, AccessSize::Double);
                u64::from(low) | u64::from(high) << 32
            }
            COMMON => self.read_common(within, size).into(),
            INTERRUPT_STATUS if within == 0 => core::mem::take(&mut self.interrupt_status).into(),
            DEVICE => self.driven.read_config(within.into(), size),
            MSIX_TABLE => self.msix.read_table(within.into(), size),
            MSIX_PENDING => self.msix.read_pending(within.into(), size),
            _ => 0,
        }
    }

    fn write_bar(
        &mut self,
        offset: u64,
        size: AccessSize,
        value: u64,
        memory: &dyn SharedMemory,
    ) -> DeviceRequest {
        let Ok(offset) = u32::try_from(offset) else { return DeviceRequest::None };
        let within = offset % STRUCTURE_BYTES;
        match offset - within {
            COMMON if size == AccessSize::Quad => {
                self.write_common(within, AccessSize::Double, low::double(value));
                self.write_common(within + 4, AccessSize::Double, low::double(value >> 32));
            }
            COMMON => self.write_common(within, size, low::double(value)),
            NOTIFICATION if within.is_multiple_of(NOTIFY_BYTES) => {
                let signal = self.driven.notify(within / NOTIFY_BYTES, memory);
                self.signal(signal);
            }
            MSIX_TABLE => self.msix.write_table(within.into(), size, value),
            _ => {}
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
