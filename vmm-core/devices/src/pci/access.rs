//! The ways to the bus: two ports, ECAM, and memory.
//!
//! | port | register of mechanism 1 |
//! |---|---|
//! | 0xCF8 | address: bit 31 enables, bus 23:16, device 15:11, function 10:8, register 7:2; four bytes at once |
//! | 0xCF9 | reset control of the LPC bridge: one byte |
//! | 0xCFC | data: one, two or four bytes of the register |
//!
//! In ECAM a function has 4 KiB at bus × 1 MiB + device × 32 KiB + function × 4 KiB, from where the host bridge's PCIEXBAR
//! says.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use super::PciBus;
use super::config;
use crate::saved::{narrow, numbers};
use crate::{AccessSize, BadState, DeviceRequest, MmioSpace, PortDevice, SharedMemory, low};

const ADDRESS: u16 = 0;
const RESET: u16 = 1;
const DATA: u16 = 4;
const ENABLE: u32 = 1 << 31;

/// Reset control: the processors are reset when this bit is set.
const RESET_NOW: u64 = 1 << 2;
/// Reset control: bits that read back.
const RESET_KEPT: u64 = 0b1010;

/// The two ports, and the reset control register between them.
#[derive(Debug)]
pub struct ConfigPorts {
    bus: Arc<PciBus>,
    address: u32,
    reset: u64,
}

impl ConfigPorts {
    /// The ports of a bus.
    #[must_use]
    pub const fn new(bus: Arc<PciBus>) -> Self {
        Self { bus, address: 0, reset: 0 }
    }

    /// The device that the address names, and the offset in its configuration space.
    fn selected(&self, offset: u16) -> Option<(u8, usize)> {
        let byte = usize::from(offset.checked_sub(DATA)?);
        let (bus, function) = (self.address >> 16 & 0xff, self.address >> 8 & 7);
        let is_here = self.address & ENABLE != 0 && bus == 0 && function == 0;
        is_here.then_some(((self.address >> 11 & 0x1f) as u8, (self.address & 0xfc) as usize + byte))
    }
}

/// Whether an access stays in the data register.
const fn fits(offset: u16, size: AccessSize) -> bool {
    offset as u64 % 4 + size.bytes() <= 4
}

impl PortDevice for ConfigPorts {
    fn read(&mut self, offset: u16, size: AccessSize) -> u64 {
        match (offset, size) {
            (ADDRESS, AccessSize::Double) => self.address.into(),
            (RESET, AccessSize::Byte) => self.reset,
            (DATA.., _) if fits(offset, size) => match self.selected(offset) {
                Some((device, at)) => self.bus.read_config(device, at, size),
                None => size.all_ones(),
            },
            _ => size.all_ones(),
        }
    }

    fn write(
        &mut self,
        offset: u16,
        size: AccessSize,
        value: u64,
        memory: &dyn SharedMemory,
    ) -> DeviceRequest {
        match (offset, size) {
            (ADDRESS, AccessSize::Double) => self.address = low::double(value),
            (RESET, AccessSize::Byte) if value & RESET_NOW != 0 => return DeviceRequest::Reset,
            (RESET, AccessSize::Byte) => self.reset = value & RESET_KEPT,
            (DATA.., _) if fits(offset, size) => {
                if let Some((device, at)) = self.selected(offset) {
                    return self.bus.write_config(device, at, size, value, memory);
                }
            }
            _ => {}
        }
        DeviceRequest::None
    }

    /// With what the functions of the bus keep, which has several ways to it and is saved once.
    fn save(&self) -> Option<Vec<u64>> {
        let Self { bus, address, reset } = self;
        let mut state = vec![(*address).into(), *reset];
        state.extend(bus.save()?);
        Some(state)
    }

    fn restore(&mut self, saved: &[u64]) -> Result<(), BadState> {
        let (own, functions) = saved.split_at_checked(2).ok_or(BadState)?;
        let [address, reset] = numbers(own)?;
        let address = narrow(address)?;
        if reset & !RESET_KEPT != 0 {
            return Err(BadState);
        }
        self.bus.restore(functions)?;
        (self.address, self.reset) = (address, reset);
        Ok(())
    }
}

/// The memory in which a bus has ECAM, and functions their BARs. ECAM comes first.
#[derive(Clone, Debug)]
pub struct PciMemory {
    bus: Arc<PciBus>,
    base: u64,
}

impl PciMemory {
    /// The memory of a bus, attached at `base`.
    #[must_use]
    pub const fn new(bus: Arc<PciBus>, base: u64) -> Self {
        Self { bus, base }
    }
}

/// The device of an aligned access to ECAM, and the offset in its 4 KiB.
fn in_ecam(offset: u64, size: AccessSize) -> Option<(u8, usize)> {
    let (bus, function) = (offset >> 20, offset >> 12 & 7);
    let possible = bus == 0 && function == 0 && offset.is_multiple_of(size.bytes());
    (possible && size != AccessSize::Quad).then_some(((offset >> 15 & 0x1f) as u8, (offset & 0xfff) as usize))
}

impl MmioSpace for PciMemory {
    fn covers(&self, offset: u64) -> bool {
        let gpa = self.base.saturating_add(offset);
        self.bus.ecam_offset(gpa).is_some() || self.bus.claims(gpa)
    }

    fn read(&self, offset: u64, size: AccessSize) -> u64 {
        let gpa = self.base.saturating_add(offset);
        let Some(offset) = self.bus.ecam_offset(gpa) else { return self.bus.read_memory(gpa, size) };
        match in_ecam(offset, size) {
            Some((device, at)) => self.bus.read_config(device, at, size),
            None => size.all_ones(),
        }
    }

    fn write(&self, offset: u64, size: AccessSize, value: u64, memory: &dyn SharedMemory) -> DeviceRequest {
        let gpa = self.base.saturating_add(offset);
        let Some(offset) = self.bus.ecam_offset(gpa) else {
            return self.bus.write_memory(gpa, size, value, memory);
        };
        match in_ecam(offset, size) {
            Some((device, at)) if at < config::BYTES => {
                self.bus.write_config(device, at, size, value, memory)
            }
            _ => DeviceRequest::None,
        }
    }

    fn attend(&self, memory: &dyn SharedMemory) {
        self.bus.attend(memory);
    }

    /// By the ports of the bus.
    fn is_saved_elsewhere(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use alloc::boxed::Box;

    use super::*;
    use crate::NoMemory;
    use crate::pci::chipset::HostBridge;
    use crate::pci::{ConfigSpace, Identity, PciFunction};

    const ECAM: u64 = 0xe000_0000;
    const BASE: u64 = 0x8000_0000;

    /// A function with a BAR of 16 bytes that reads as its offset plus the last byte written.
    struct Probe(ConfigSpace, u64);

    impl PciFunction for Probe {
        fn config(&self) -> &ConfigSpace {
            &self.0
        }

        fn write_config(&mut self, at: usize, value: &[u8], _: &dyn SharedMemory) -> DeviceRequest {
            self.0.write(at, value);
            DeviceRequest::None
        }

        fn read_bar(&mut self, offset: u64, _: AccessSize) -> u64 {
            offset + self.1
        }

        fn write_bar(&mut self, _: u64, _: AccessSize, value: u64, _: &dyn SharedMemory) -> DeviceRequest {
            self.1 = value;
            DeviceRequest::None
        }
    }

    fn bus() -> Arc<PciBus> {
        let mut bus = PciBus::new();
        bus.attach(0, Box::new(HostBridge::new(ECAM as u32))).unwrap();
        for device in [3, 1] {
            let identity = Identity {
                vendor: 0x8086,
                device: device.into(),
                revision: 0,
                class: [6, 0, 0],
                subsystem_vendor: 0,
                subsystem: 0,
            };
            let function = Probe(ConfigSpace::new(identity).with_memory_bar(16), 0);
            bus.attach(device, Box::new(function)).unwrap();
        }
        Arc::new(bus)
    }

    /// ECAM's offset in the memory of [`bus`].
    const IN_MEMORY: u64 = ECAM - BASE;

    fn select(ports: &mut ConfigPorts, address: u64) {
        let _ = ports.write(ADDRESS, AccessSize::Double, address, &NoMemory);
    }

    #[test]
    fn both_ways_to_the_configuration_space_see_the_same() {
        let bus = bus();
        let (mut ports, memory) = (ConfigPorts::new(bus.clone()), PciMemory::new(bus, BASE));
        select(&mut ports, 0x8000_1810);
        let _ = ports.write(DATA + 1, AccessSize::Word, 0x8012, &NoMemory);
        assert_eq!(ports.read(DATA, AccessSize::Double), 0x0080_1200);
        assert_eq!(memory.read(IN_MEMORY | 3 << 15 | 0x10, AccessSize::Double), 0x0080_1200);
        let _ = memory.write(IN_MEMORY | 3 << 15 | 0x13, AccessSize::Byte, 0x81, &NoMemory);
        assert_eq!(ports.read(DATA + 3, AccessSize::Byte), 0x81);
        assert_eq!(memory.read(IN_MEMORY | 3 << 15 | 0x100, AccessSize::Double), 0, "no extended capability");
    }

    #[test]
    fn what_is_not_there_reads_as_ones() {
        let bus = bus();
        let (mut ports, memory) = (ConfigPorts::new(bus.clone()), PciMemory::new(bus, BASE));
        for address in [0x8000_1000_u64, 0x8000_1900, 0x8001_1800, 0x0000_1800] {
            select(&mut ports, address);
            assert_eq!(ports.read(DATA, AccessSize::Double), 0xffff_ffff, "{address:#x}");
        }
        select(&mut ports, 0x8000_1800);
        assert_eq!(ports.read(DATA, AccessSize::Double), 0x0003_8086);
        assert_eq!(ports.read(DATA + 3, AccessSize::Word), 0xffff, "leaves the register");
        for offset in [2 << 15, 3 << 15 | 1 << 12, 1 << 20 | 3 << 15] {
            assert_eq!(memory.read(IN_MEMORY | offset, AccessSize::Word), 0xffff, "{offset:#x}");
        }
        assert_eq!(memory.read(IN_MEMORY | 3 << 15 | 2, AccessSize::Double), 0xffff_ffff, "not aligned");
    }

    #[test]
    fn ecam_is_where_firmware_puts_it() {
        let bus = bus();
        let (mut ports, memory) = (ConfigPorts::new(bus.clone()), PciMemory::new(bus, BASE));
        select(&mut ports, 0x8000_0060);
        let _ = ports.write(DATA, AccessSize::Double, 0xb000_0001, &NoMemory);
        assert_eq!(memory.read(0x3000_0000, AccessSize::Double), 0x29c0_8086);
        assert_eq!(memory.read(IN_MEMORY, AccessSize::Double), 0xffff_ffff);
        assert!(memory.covers(0x3fff_ffff) && !memory.covers(IN_MEMORY));
        let _ = memory.write(0x3000_0060, AccessSize::Double, 0, &NoMemory);
        assert!(!memory.covers(0x3000_0000));
    }

    #[test]
    fn a_bar_answers_where_it_was_put_and_the_lower_device_wins() {
        let bus = bus();
        let memory = PciMemory::new(bus.clone(), BASE);
        let put = |device: u8, base: u64| {
            let _ = bus.write_config(device, 0x10, AccessSize::Double, base, &NoMemory);
            let _ = bus.write_config(device, 4, AccessSize::Word, 2, &NoMemory);
        };
        assert!(!memory.covers(0x100));
        put(3, 0x8000_0100);
        assert!(memory.covers(0x100) && !memory.covers(0x110));
        let _ = memory.write(0x100, AccessSize::Double, 7, &NoMemory);
        assert_eq!(memory.read(0x104, AccessSize::Byte), 11);
        assert_eq!(memory.read(0x10e, AccessSize::Double), 0xffff_ffff, "leaves the BAR");
        put(1, 0x8000_0100);
        assert_eq!(memory.read(0x104, AccessSize::Byte), 4, "device 1");
        let _ = bus.write_config(1, 4, AccessSize::Word, 0, &NoMemory);
        assert_eq!(memory.read(0x104, AccessSize::Byte), 11);
    }

    #[test]
    fn the_reset_control_register_is_between_the_ports() {
        let mut ports = ConfigPorts::new(bus());
        assert_eq!(ports.write(RESET, AccessSize::Byte, 2, &NoMemory), DeviceRequest::None);
        assert_eq!(ports.read(RESET, AccessSize::Byte), 2);
        assert_eq!(ports.write(RESET, AccessSize::Byte, 6, &NoMemory), DeviceRequest::Reset);
        assert_eq!(ports.write(ADDRESS, AccessSize::Double, 0x600, &NoMemory), DeviceRequest::None);
    }
}
