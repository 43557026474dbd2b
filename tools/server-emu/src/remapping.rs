//! Interrupt remapping: one VT-d unit that translates the interrupts of devices and no DMA.
//!
//! A processor whose x2APIC mode is locked takes interrupts of devices through this unit, because what devices send has
//! room for eight bits of an APIC id. Linux asks for it where there is an I/O APIC and x2APIC mode at once.
//!
//! # Protocol
//! Software places a table (IRTA), makes the unit take its address (SIRTP), enables queued invalidation (QIE) and
//! remapping (IRE). From then on an entry of the I/O APIC names an entry of the table, which holds vector and destination.
//! The table is read from memory at each interrupt: nothing is cached, so the invalidations in the queue have nothing to
//! do, and the unit answers their wait descriptors at once, when the tail moves.
//!
//! # What is missing
//! DMA remapping (no address widths are offered), posted interrupts, fault events: an interrupt that has no entry is
//! lost, and the report says so.
//!
//! Registers, descriptors and entries: Intel Virtualization Technology for Directed I/O, "Register Descriptions",
//! "Invalidation Queue", "Interrupt Remapping Table Entry".

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tdvisor_base::Gpa;
use tdvisor_base::sync::Mutex;
use tdvisor_devices::saved::{narrow, numbers};
use tdvisor_devices::{AccessSize, BadState, DeviceRequest, MmioDevice, Redirection, SharedMemory};
use tdvisor_vm::interrupt::{Destination, Message};

/// What the I/O APIC's interrupts carry as their source (bus 31:8, device 7:3, function 2:0), and the DMAR table names.
pub const IO_APIC_SOURCE: SourceId = SourceId { bus: 0xf0, device: 0x1f, function: 0 };

/// Where interrupts come from, as PCI numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceId {
    /// Bus.
    pub bus: u8,
    /// Device.
    pub device: u8,
    /// Function.
    pub function: u8,
}

impl SourceId {
    const fn bits(self) -> u16 {
        (self.bus as u16) << 8 | (self.device as u16) << 3 | self.function as u16
    }
}

mod register {
    pub(super) const VERSION: u64 = 0x00;
    pub(super) const CAPABILITY: u64 = 0x08;
    pub(super) const EXTENDED_CAPABILITY: u64 = 0x10;
    pub(super) const COMMAND: u64 = 0x18;
    pub(super) const STATUS: u64 = 0x1c;
    pub(super) const FAULT_STATUS: u64 = 0x34;
    pub(super) const FAULT_CONTROL: u64 = 0x38;
    pub(super) const FAULT_UPPER_ADDRESS: u64 = 0x44;
    pub(super) const QUEUE_HEAD: u64 = 0x80;
    pub(super) const QUEUE_TAIL: u64 = 0x88;
    pub(super) const QUEUE_ADDRESS: u64 = 0x90;
    pub(super) const COMPLETION_STATUS: u64 = 0x9c;
    pub(super) const COMPLETION_CONTROL: u64 = 0xa0;
    pub(super) const TABLE_ADDRESS: u64 = 0xb8;
}

const VERSION: u64 = 0x10;
/// 64K domains' number field at its least, no address width, 48 bits of address, fault register at 0x200.
const CAPABILITY: u64 = 47 << 16 | 0x20 << 24;
/// Coherent, queued invalidation, interrupt remapping, extended interrupt mode, IOTLB registers at 0x100, handle masks.
const EXTENDED_CAPABILITY: u64 = 1 | 1 << 1 | 1 << 3 | 1 << 4 | 0x10 << 8 | 0xf << 20;

/// Bits of the command register that stay, and are the status register's.
const QUEUE_ENABLED: u32 = 1 << 26;
const REMAPPING_ENABLED: u32 = 1 << 25;
const COMPATIBILITY_ALLOWED: u32 = 1 << 23;
const SWITCHES: u32 = QUEUE_ENABLED | REMAPPING_ENABLED | COMPATIBILITY_ALLOWED;
/// Makes the unit take the table's address; as status: it did.
const SET_TABLE: u32 = 1 << 24;

/// Fault status: a descriptor that cannot be carried out.
const QUEUE_ERROR: u32 = 1 << 4;
/// Completion status: a wait descriptor asked for an event.
const WAIT_COMPLETE: u32 = 1;
/// Control registers of events: masked. They are registers and nothing else.
const EVENT_MASKED: u32 = 1 << 31;

const PAGE_BITS: u64 = !0xfff;
const DESCRIPTOR_BYTES: u64 = 16;
/// Context cache, IOTLB and interrupt entry cache: nothing is cached.
const INVALIDATIONS: [u64; 3] = [1, 2, 4];
const WAIT: u64 = 5;
const WAIT_STATUS_WRITE: u64 = 1 << 5;
const WAIT_EVENT: u64 = 1 << 4;

/// Table address register: extended interrupt mode, and the exponent of the number of entries, less one.
const EXTENDED_MODE: u64 = 1 << 11;
const TABLE_SIZE: u64 = 0xf;
const ENTRY_BYTES: u64 = 16;

/// Why an interrupt did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Lost {
    /// The interrupt names no entry, and only interrupts that do may pass.
    NotRemappable,
    /// The interrupt's entry is outside of the table, is not present, is posted, or is for another source.
    NoEntry {
        /// The index of the entry.
        index: u16,
    },
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRemappable => f.write_str("it is not in remappable format"),
            Self::NoEntry { index } => write!(f, "entry {index} of the remapping table does not allow it"),
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Registers {
    status: u32,
    fault_status: u32,
    completion_status: u32,
    /// Control, data, address and upper address of fault events, then of completion events.
    events: [[u32; 4]; 2],
    queue_address: u64,
    head: u64,
    tail: u64,
    table_address: u64,
    /// The address that the unit took.
    table: u64,
}

/// The unit.
#[derive(Debug)]
pub struct Remapping(Mutex<Registers>);

impl Default for Remapping {
    fn default() -> Self {
        let events = [[EVENT_MASKED, 0, 0, 0]; 2];
        Self(Mutex::new(Registers { events, ..Registers::default() }))
    }
}

impl Remapping {
    /// What becomes of an interrupt of the I/O APIC.
    ///
    /// # Errors
    /// [`Lost`] where it does not arrive.
    pub fn translate(&self, from: Redirection, memory: &dyn SharedMemory) -> Result<Message, Lost> {
        let registers = *self.0.lock();
        if registers.status & REMAPPING_ENABLED == 0 {
            return Ok(from.message());
        }
        let Some(index) = from.remapping_index() else {
            // In extended interrupt mode, compatibility format is blocked whatever the command register says.
            let allowed =
                registers.status & COMPATIBILITY_ALLOWED != 0 && registers.table & EXTENDED_MODE == 0;
            return if allowed { Ok(from.message()) } else { Err(Lost::NotRemappable) };
        };
        let lost = Lost::NoEntry { index };
        if u64::from(index) >= 2 << (registers.table & TABLE_SIZE) {
            return Err(lost);
        }
        let mut entry = [0; ENTRY_BYTES as usize];
        let at = (registers.table & PAGE_BITS).wrapping_add(u64::from(index) * ENTRY_BYTES);
        memory.read(Gpa::new(at), &mut entry).map_err(|_| lost)?;
        Entry(u128::from_le_bytes(entry))
            .message(IO_APIC_SOURCE, registers.table & EXTENDED_MODE != 0)
            .ok_or(lost)
    }
}

/// An entry of the table.
struct Entry(u128);

impl Entry {
    const fn field(&self, from: u32, bits: u32) -> u32 {
        (self.0 >> from) as u32 & (u32::MAX >> (32 - bits))
    }

    /// The message, if the entry is there and for this source; `extended` ids have 32 bits.
    fn message(&self, source: SourceId, extended: bool) -> Option<Message> {
        const VERIFY_ALL: u32 = 1;
        const VERIFY_BUS: u32 = 2;
        let (present, posted) = (self.field(0, 1) == 1, self.field(15, 1) == 1);
        if !present || posted {
            return None;
        }
        let wanted = self.field(64, 16) as u16;
        let verified = match self.field(82, 2) {
            0 => true,
            // The qualifier leaves out bits of the function, from the third one downwards.
            VERIFY_ALL => {
                let ignored = [0, 0b100, 0b110, 0b111][self.field(80, 2) as usize];
                (wanted ^ source.bits()) & !ignored == 0
            }
            VERIFY_BUS => {
                let (first, last) = (wanted >> 8, wanted & 0xff);
                (first..=last).contains(&source.bus.into())
            }
            _ => false,
        };
        if !verified {
            return None;
        }
        let id = if extended { self.field(32, 32) } else { self.field(40, 8) };
        let destination = match (self.field(2, 1) == 1, extended) {
            (false, true) if id == u32::MAX => Destination::All,
            (false, true) => Destination::Physical(id),
            (true, true) => Destination::Logical(id),
            (false, false) => Destination::physical_8bit(id),
            (true, false) => Destination::logical_8bit(id),
        };
        Some(Message { destination, mode: self.field(5, 3) as u8, vector: self.field(16, 8) as u8 })
    }
}

impl Registers {
    fn read(&self, offset: u64) -> u64 {
        match offset {
            register::VERSION => VERSION,
            register::CAPABILITY => CAPABILITY,
            register::EXTENDED_CAPABILITY => EXTENDED_CAPABILITY,
            register::STATUS => self.status.into(),
            register::FAULT_STATUS => self.fault_status.into(),
            register::QUEUE_HEAD => self.head,
            register::QUEUE_TAIL => self.tail,
            register::QUEUE_ADDRESS => self.queue_address,
            register::COMPLETION_STATUS => self.completion_status.into(),
            register::TABLE_ADDRESS => self.table_address,
            _ => event_register(offset).map_or(0, |(event, word)| self.events[event][word].into()),
        }
    }

    fn write(&mut self, offset: u64, value: u64, memory: &dyn SharedMemory) {
        match offset {
            register::COMMAND => self.command(value as u32),
            // Written ones clear.
            register::FAULT_STATUS => self.fault_status &= !(value as u32),
            register::COMPLETION_STATUS => self.completion_status &= !(value as u32),
            register::QUEUE_TAIL => self.tail = value & self.queue_mask(),
            register::QUEUE_ADDRESS => {
                self.queue_address = value;
                self.head = 0;
            }
            register::TABLE_ADDRESS => self.table_address = value,
            _ => {
                if let Some((event, word)) = event_register(offset) {
                    self.events[event][word] = value as u32;
                }
            }
        }
        self.work(memory);
    }

    const fn command(&mut self, command: u32) {
        if command & SET_TABLE != 0 {
            self.table = self.table_address;
            self.status |= SET_TABLE;
        }
        self.status = self.status & !SWITCHES | command & SWITCHES;
        if self.status & QUEUE_ENABLED == 0 {
            self.head = 0;
        }
    }

    /// Offsets of descriptors: the queue has 2^(size + 8) of them.
    const fn queue_mask(&self) -> u64 {
        ((DESCRIPTOR_BYTES << 8) << (self.queue_address & 7)) - DESCRIPTOR_BYTES
    }

    /// Carries out what waits in the queue; there are no more descriptors than the queue has room for.
    fn work(&mut self, memory: &dyn SharedMemory) {
        while self.status & QUEUE_ENABLED != 0
            && self.fault_status & QUEUE_ERROR == 0
            && self.head != self.tail
        {
            if self.descriptor(memory).is_none() {
                self.fault_status |= QUEUE_ERROR;
                return;
            }
            self.head = (self.head + DESCRIPTOR_BYTES) & self.queue_mask();
        }
    }

    /// Carries out the descriptor at the head. `None` where it cannot be done.
    fn descriptor(&mut self, memory: &dyn SharedMemory) -> Option<()> {
        let mut bytes = [0; DESCRIPTOR_BYTES as usize];
        let at = (self.queue_address & PAGE_BITS).checked_add(self.head)?;
        memory.read(Gpa::new(at), &mut bytes).ok()?;
        let descriptor = u128::from_le_bytes(bytes);
        let (low, high) = (descriptor as u64, (descriptor >> 64) as u64);
        // Type: bits 3:0, with bits 11:9 above them.
        let kind = low & 0xf | (low >> 9 & 7) << 4;
        if kind != WAIT {
            return INVALIDATIONS.contains(&kind).then_some(());
        }
        if low & WAIT_STATUS_WRITE != 0 {
            let data = (low >> 32) as u32;
            memory.write(Gpa::new(high & !0b11), &data.to_le_bytes()).ok()?;
        }
        if low & WAIT_EVENT != 0 {
            self.completion_status |= WAIT_COMPLETE;
        }
        Some(())
    }
}

/// The registers of an event: which event, which word.
fn event_register(offset: u64) -> Option<(usize, usize)> {
    const FIRST: [u64; 2] = [register::FAULT_CONTROL, register::COMPLETION_CONTROL];
    const BYTES: u64 = register::FAULT_UPPER_ADDRESS + 4 - register::FAULT_CONTROL;
    let event = FIRST.iter().position(|first| (*first..first + BYTES).contains(&offset))?;
    let word = (offset - FIRST.get(event)?) / 4;
    offset.is_multiple_of(4).then_some((event, word as usize))
}

/// Whether the four bytes at this offset are the upper half of a 64-bit register.
const fn is_upper_half(offset: u64) -> bool {
    matches!(
        offset - 4,
        register::CAPABILITY
            | register::EXTENDED_CAPABILITY
            | register::QUEUE_HEAD
            | register::QUEUE_TAIL
            | register::QUEUE_ADDRESS
            | register::TABLE_ADDRESS
    )
}

/// The unit's registers, as a device.
pub struct RemappingRegisters(pub Arc<Remapping>);

impl MmioDevice for RemappingRegisters {
    fn read(&mut self, offset: u64, size: AccessSize) -> u64 {
        let registers = self.0.0.lock();
        match size {
            AccessSize::Quad => registers.read(offset),
            AccessSize::Double if offset >= 4 && is_upper_half(offset) => registers.read(offset - 4) >> 32,
            AccessSize::Double => registers.read(offset) & 0xffff_ffff,
            _ => 0,
        }
    }

    fn write(
        &mut self,
        offset: u64,
        size: AccessSize,
        value: u64,
        memory: &dyn SharedMemory,
    ) -> DeviceRequest {
        let mut registers = self.0.0.lock();
        match size {
            AccessSize::Quad => registers.write(offset, value, memory),
            AccessSize::Double if offset >= 4 && is_upper_half(offset) => {
                let low = registers.read(offset - 4) & 0xffff_ffff;
                registers.write(offset - 4, low | value << 32, memory);
            }
            AccessSize::Double => {
                let high = registers.read(offset) & !0xffff_ffff;
                registers.write(offset, high | value, memory);
            }
            _ => {}
        }
        DeviceRequest::None
    }

    fn save(&self) -> Option<Vec<u64>> {
        let Registers {
            status,
            fault_status,
            completion_status,
            events: [fault, completion],
            queue_address,
            head,
            tail,
            table_address,
            table,
        } = *self.0.0.lock();
        let narrow = [status, fault_status, completion_status].into_iter().chain(fault).chain(completion);
        let wide = [queue_address, head, tail, table_address, table];
        Some(narrow.map(u64::from).chain(wide).collect())
    }

    fn restore(&mut self, saved: &[u64]) -> Result<(), BadState> {
        let [
            status,
            fault_status,
            completion_status,
            f0,
            f1,
            f2,
            f3,
            c0,
            c1,
            c2,
            c3,
            queue_address,
            head,
            tail,
            table_address,
            table,
        ] = numbers(saved)?;
        let event = |[a, b, c, d]: [u64; 4]| Ok([narrow(a)?, narrow(b)?, narrow(c)?, narrow(d)?]);
        let registers = Registers {
            status: narrow(status)?,
            fault_status: narrow(fault_status)?,
            completion_status: narrow(completion_status)?,
            events: [event([f0, f1, f2, f3])?, event([c0, c1, c2, c3])?],
            queue_address,
            head,
            tail,
            table_address,
            table,
        };
        // Offsets in the queue are offsets of descriptors: the unit walks from head to tail.
        if (head | tail) & !registers.queue_mask() != 0 {
            return Err(BadState);
        }
        *self.0.0.lock() = registers;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
