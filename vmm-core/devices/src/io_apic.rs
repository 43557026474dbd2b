//! The I/O APIC: from a device's line to an interrupt message.
//!
//! # Protocol
//! A device raises a [`Line`], which latches its pin. Whoever delivers takes the latched pins that are not
//! masked and gets their messages; a masked pin stays latched until the guest unmasks it, so that an edge
//! which comes before the driver is ready is not lost.
//!
//! Every pin is edge-triggered: the host of a TD never sees an EOI (the module virtualises it), so a level could
//! not be lowered in time. A guest that programs a pin as level-triggered gets edges.
//!
//! Registers: Intel 82093AA data sheet, section 3; version 0x11 has no EOI register. An entry keeps bits 55:48 as well,
//! which are reserved there, and with interrupt remapping hold a format and part of an index (VT-d specification,
//! "I/OxAPIC Programming"): whoever delivers says what an entry means.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use tdvisor_base::sync::{AtomicU32, Mutex, Ordering};
use tdvisor_vm::{Destination, Message};

use super::saved::narrow;
use super::{AccessSize, BadState, DeviceRequest, MmioDevice, SharedMemory, low};

/// Pins, and with a GSI base of zero, global system interrupts.
pub const PINS: usize = 24;

const SELECT: u64 = 0x00;
const WINDOW: u64 = 0x10;

const REGISTER_ID: u32 = 0x00;
const REGISTER_VERSION: u32 = 0x01;
const REGISTER_ARBITRATION: u32 = 0x02;
const FIRST_REDIRECTION: u32 = 0x10;

/// Version 0x11, and the number of the last pin in bits 23:16.
const VERSION: u32 = 0x11 | LAST_PIN << 16;
const LAST_PIN: u32 = 23;
const _: () = assert!(LAST_PIN as usize + 1 == PINS);
const MASKED: u64 = 1 << 16;
const LOGICAL: u64 = 1 << 11;
/// Delivery status and remote IRR: read-only.
const READ_ONLY: u64 = 1 << 12 | 1 << 14;
/// Every field that an entry has; the rest is reserved.
const ENTRY_FIELDS: u64 = 0xffff_0000_0001_ffff;

/// The I/O APIC of a machine.
#[derive(Debug)]
pub struct IoApic {
    latched: AtomicU32,
    registers: Mutex<Registers>,
}

#[derive(Debug)]
struct Registers {
    select: u32,
    id: u32,
    redirection: [u64; PINS],
}

/// A device's connection to one pin.
#[derive(Clone, Debug)]
pub struct Line {
    io_apic: Arc<IoApic>,
    pin: u32,
}

impl Line {
    /// Raises an edge. Somebody has to deliver it: see the module's protocol.
    pub fn raise(&self) {
        self.io_apic.latched.fetch_or(1 << self.pin, Ordering::SeqCst);
    }
}

impl Default for IoApic {
    fn default() -> Self {
        Self::new()
    }
}

impl IoApic {
    /// All pins masked.
    pub fn new() -> Self {
        let registers = Registers { select: 0, id: 0, redirection: [MASKED; PINS] };
        Self { latched: AtomicU32::new(0), registers: Mutex::new(registers) }
    }

    /// The line of a global system interrupt; `None` where there is no such pin.
    pub fn line(self: &Arc<Self>, gsi: u32) -> Option<Line> {
        ((gsi as usize) < PINS).then(|| Line { io_apic: self.clone(), pin: gsi })
    }

    /// Takes the entries of every latched pin that is not masked.
    pub fn take_entries(&self) -> Vec<Redirection> {
        if self.latched.load(Ordering::SeqCst) == 0 {
            return Vec::new();
        }
        let registers = self.registers.lock();
        let mut taken = Vec::new();
        for (pin, entry) in (0u32..).zip(&registers.redirection) {
            if entry & MASKED == 0 && self.latched.fetch_and(!(1 << pin), Ordering::SeqCst) & 1 << pin != 0 {
                taken.push(Redirection(*entry));
            }
        }
        taken
    }

    /// Takes the messages of every latched pin that is not masked, where nobody remaps them.
    pub fn take_messages(&self) -> Vec<Message> {
        self.take_entries().into_iter().map(Redirection::message).collect()
    }
}

/// What software wrote for a pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redirection(u64);

impl Redirection {
    /// The message, where nobody remaps it: vector 7:0, delivery mode 10:8, destination mode 11, destination 63:56.
    pub const fn message(self) -> Message {
        let id = (self.0 >> 56) as u32;
        let destination = if self.0 & LOGICAL == 0 {
            Destination::physical_8bit(id)
        } else {
            Destination::logical_8bit(id)
        };
        Message { destination, mode: (self.0 >> 8 & 7) as u8, vector: low::byte(self.0) }
    }

    /// The entry of the interrupt-remapping table that it names, if it is in that format (bit 48): index 14:0 in bits
    /// 63:49, index 15 in bit 11.
    pub const fn remapping_index(self) -> Option<u16> {
        if self.0 >> 48 & 1 == 0 {
            return None;
        }
        Some(low::word(self.0 >> 49) | low::word(self.0 >> 11 & 1) << 15)
    }
}

impl Registers {
    fn read(&self) -> u32 {
        match self.select {
            REGISTER_ID | REGISTER_ARBITRATION => self.id,
            REGISTER_VERSION => VERSION,
            register => {
                let Some(entry) = self.entry(register) else { return 0 };
                let value = self.redirection.get(entry).copied().unwrap_or_default();
                low::double(if register & 1 == 0 { value } else { value >> 32 })
            }
        }
    }

    fn write(&mut self, value: u32) {
        if self.select == REGISTER_ID {
            self.id = value & 0x0f00_0000;
            return;
        }
        let high = self.select & 1 == 1;
        let Some(entry) = self.entry(self.select).and_then(|entry| self.redirection.get_mut(entry)) else {
            return;
        };
        let merged = if high {
            *entry & 0xffff_ffff | u64::from(value) << 32
        } else {
            *entry & !0xffff_ffff | u64::from(value)
        };
        *entry = merged & ENTRY_FIELDS & !READ_ONLY;
    }

    /// The pin whose entry a register is half of.
    fn entry(&self, register: u32) -> Option<usize> {
        let entry = register.checked_sub(FIRST_REDIRECTION)? as usize / 2;
        (entry < PINS).then_some(entry)
    }
}

impl MmioDevice for Arc<IoApic> {
    fn read(&mut self, offset: u64, _size: AccessSize) -> u64 {
        let registers = self.registers.lock();
        match offset {
            SELECT => registers.select.into(),
            WINDOW => registers.read().into(),
            _ => 0,
        }
    }

    fn write(
        &mut self,
        offset: u64,
        _size: AccessSize,
        value: u64,
        _memory: &dyn SharedMemory,
    ) -> DeviceRequest {
        let mut registers = self.registers.lock();
        match offset {
            SELECT => registers.select = low::byte(value).into(),
            WINDOW => registers.write(low::double(value)),
            _ => {}
        }
        DeviceRequest::None
    }

    fn save(&self) -> Option<Vec<u64>> {
        let IoApic { latched, registers } = &**self;
        let Registers { select, id, redirection } = &*registers.lock();
        let mut saved = vec![latched.load(Ordering::SeqCst).into(), (*select).into(), (*id).into()];
        saved.extend(redirection);
        Some(saved)
    }

    fn restore(&mut self, saved: &[u64]) -> Result<(), BadState> {
        let [latched, select, id, redirection @ ..] = saved else { return Err(BadState) };
        let redirection = redirection.try_into().map_err(|_| BadState)?;
        let (select, id) = (narrow(*select)?, narrow(*id)?);
        self.latched.store(narrow(*latched)?, Ordering::SeqCst);
        *self.registers.lock() = Registers { select, id, redirection };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NoMemory;

    fn set(io_apic: &mut Arc<IoApic>, register: u32, value: u32) {
        let _ = io_apic.write(SELECT, AccessSize::Double, register.into(), &NoMemory);
        let _ = io_apic.write(WINDOW, AccessSize::Double, value.into(), &NoMemory);
    }

    fn get(io_apic: &mut Arc<IoApic>, register: u32) -> u32 {
        let _ = io_apic.write(SELECT, AccessSize::Double, register.into(), &NoMemory);
        io_apic.read(WINDOW, AccessSize::Double) as u32
    }

    #[test]
    fn an_edge_on_a_masked_pin_is_delivered_once_when_it_is_unmasked() {
        let mut io_apic = Arc::new(IoApic::new());
        let line = io_apic.line(4).unwrap();
        line.raise();
        line.raise();
        assert!(io_apic.take_messages().is_empty());
        set(&mut io_apic, 0x10 + 9, 2 << 24);
        set(&mut io_apic, 0x10 + 8, 0x31);
        let messages = io_apic.take_messages();
        let expected = Message { destination: Destination::physical_8bit(2), mode: 0, vector: 0x31 };
        assert_eq!(messages, [expected]);
        assert!(io_apic.take_messages().is_empty());
    }

    #[test]
    fn an_entry_in_remappable_format_names_its_index() {
        assert_eq!(Redirection(0x0200_0000_0000_0031).remapping_index(), None);
        assert_eq!(Redirection(0x0005 << 49 | 1 << 48).remapping_index(), Some(5));
        assert_eq!(Redirection(0x7fff << 49 | 1 << 48 | 1 << 11).remapping_index(), Some(0xffff));
    }

    #[test]
    fn registers_read_back_without_reserved_and_status_bits() {
        let mut io_apic = Arc::new(IoApic::new());
        assert_eq!(get(&mut io_apic, 1), 0x0017_0011);
        set(&mut io_apic, 0x3e, u32::MAX);
        set(&mut io_apic, 0x3f, u32::MAX);
        assert_eq!(get(&mut io_apic, 0x3e), 0x0001_afff);
        assert_eq!(get(&mut io_apic, 0x3f), 0xffff_0000);
        set(&mut io_apic, 0x40, u32::MAX);
        assert_eq!(get(&mut io_apic, 0x40), 0, "there is no pin 24");
        assert!(io_apic.line(24).is_none());
    }
}
