//! The transport as its driver sees it: over its BAR, with a disk behind it.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use tdvisor_base::SharedBit;
use tdvisor_vm::{Destination, Message};

use super::*;
use crate::test_memory::TestMemory;
use crate::virtio::chain::Chain;
use crate::virtio::{Broken, Served};
use crate::{IoApic, MessageSource, MmioDevice, NoMemory};

const BASE: u64 = 0x10_0000;
const DESCRIPTORS: u64 = BASE;
const AVAILABLE: u64 = BASE + 0x1000;
const USED: u64 = BASE + 0x2000;
const DATA: u64 = BASE + 0x3000;
const GSI: u32 = 16;

/// Writes one byte to each request.
struct Marker;

impl VirtioDevice for Marker {
    fn id(&self) -> u32 {
        2
    }

    fn features(&self) -> u64 {
        1 << 5
    }

    fn queue_sizes(&self) -> &[u16] {
        &[8, 16]
    }

    fn config(&self) -> &[u8] {
        &[1, 2, 3, 4, 5]
    }

    fn accept(&mut self, _: u64) {}

    fn serve(&mut self, queue: usize, chain: &Chain, memory: &dyn SharedMemory) -> Result<Served, Broken> {
        chain.writer(memory).write(&[queue as u8 + 1])?;
        Ok(Served::Used(1))
    }
}

struct Driver {
    function: VirtioPci,
    memory: TestMemory,
    io_apic: Arc<IoApic>,
    offered: u16,
}

impl Driver {
    fn new() -> Self {
        let mut io_apic = Arc::new(IoApic::new());
        for (offset, value) in [(0, 0x10 + 2 * GSI), (0x10, 0x30)] {
            let _ = io_apic.write(offset, AccessSize::Double, value.into(), &NoMemory);
        }
        let line = io_apic.line(GSI).unwrap();
        let function = VirtioPci::new(Box::new(Marker), line, SharedBit::topmost(48));
        Self { function, memory: TestMemory::new(BASE, 0x1_0000), io_apic, offered: 0 }
    }

    fn write(&mut self, offset: u32, size: AccessSize, value: u64) {
        let _ = self.function.write_bar(offset.into(), size, value, &self.memory);
    }

    fn read(&mut self, offset: u32, size: AccessSize) -> u64 {
        self.function.read_bar(offset.into(), size)
    }

    fn config(&mut self, at: usize) -> u32 {
        u32::from_le_bytes(self.function.read_config(at))
    }

    fn write_config(&mut self, at: usize, value: &[u8]) {
        let _ = self.function.write_config(at, value, &self.memory);
    }

    /// Turns MSI-X on, with vector n to vCPU n as 0x40 + n.
    fn use_msix(&mut self) {
        for vector in 0..3u32 {
            let entry = MSIX_TABLE + 16 * vector;
            self.write(entry, AccessSize::Quad, u64::from(0xfee0_0000 | vector << 12));
            self.write(entry + 8, AccessSize::Quad, u64::from(0x40 + vector));
        }
        let at = self.function.msix_at;
        self.write_config(at + 2, &0x8000u16.to_le_bytes());
        self.write(common::CONFIG_VECTOR, AccessSize::Word, 2);
        self.write(common::QUEUE_SELECT, AccessSize::Word, 0);
        self.write(common::QUEUE_VECTOR, AccessSize::Word, 1);
    }

    /// Up to DRIVER_OK, with queue 0 enabled in its largest size.
    fn start(&mut self) {
        for status in [0, 1, 3] {
            self.write(common::STATUS, AccessSize::Byte, status);
        }
        for word in [0, 1] {
            self.write(common::DEVICE_FEATURE_SELECT, AccessSize::Double, word);
            self.write(common::DRIVER_FEATURE_SELECT, AccessSize::Double, word);
            let offered = self.read(common::DEVICE_FEATURE, AccessSize::Double);
            self.write(common::DRIVER_FEATURE, AccessSize::Double, offered);
        }
        self.write(common::STATUS, AccessSize::Byte, 0xb);
        assert_eq!(self.read(common::STATUS, AccessSize::Byte), 0xb);
        for (offset, area) in [(0x20, DESCRIPTORS), (0x28, AVAILABLE), (0x30, USED)] {
            self.write(offset, AccessSize::Quad, area);
            assert_eq!(self.read(offset, AccessSize::Quad), area);
        }
        self.write(common::QUEUE_ENABLE, AccessSize::Word, 1);
        assert_eq!(self.read(common::QUEUE_ENABLE, AccessSize::Word), 1);
        self.write(common::STATUS, AccessSize::Byte, 0xf);
    }

    fn offer(&mut self, address: u64) {
        self.memory.put(DESCRIPTORS, &address.to_le_bytes());
        self.memory.put(DESCRIPTORS + 8, &[1, 0, 0, 0, 2, 0, 0, 0]);
        self.memory.put(AVAILABLE + 4 + 2 * u64::from(self.offered % 8), &[0, 0]);
        self.offered += 1;
        self.memory.put(AVAILABLE + 2, &self.offered.to_le_bytes());
    }

    fn notify(&mut self) {
        self.write(NOTIFICATION, AccessSize::Word, 0);
    }

    fn messages(&self) -> Vec<Message> {
        let mut out = self.io_apic.take_messages();
        self.function.msix.take_messages(&mut out);
        out
    }
}

fn to(vcpu: u32, vector: u8) -> Message {
    Message { destination: Destination::Physical(vcpu), mode: 0, vector }
}

#[test]
fn the_function_says_what_it_is_and_where_its_structures_are() {
    let mut driver = Driver::new();
    assert_eq!(driver.config(0), 0x1042_1af4);
    assert_eq!(driver.config(8), 0x0100_0001, "a modern disk");
    let (mut at, mut found) = (driver.config(0x34) as usize & 0xff, Vec::new());
    while at != 0 {
        let head = driver.config(at);
        match head & 0xff {
            0x09 => {
                let (bar, offset) = (driver.config(at + 4) & 0xff, driver.config(at + 8));
                found.push((head >> 24, bar, offset));
            }
            0x11 => {
                assert_eq!(head >> 16, 2, "three vectors");
                assert_eq!((driver.config(at + 4), driver.config(at + 8)), (0x4000, 0x5000));
            }
            other => panic!("capability {other:#x}"),
        }
        at = (head >> 8 & 0xff) as usize;
    }
    assert_eq!(found, [(1, 0, 0), (3, 0, 0x1000), (4, 0, 0x2000), (2, 0, 0x3000), (5, 0, 0)]);
}

#[test]
fn a_request_is_answered_and_its_queue_says_so_by_its_own_vector() {
    let mut driver = Driver::new();
    driver.start();
    driver.use_msix();
    driver.offer(DATA);
    driver.notify();
    assert_eq!((driver.memory.get(DATA), driver.memory.get(USED + 2)), ([1u8], [1u8, 0]));
    assert_eq!(driver.messages(), [to(1, 0x41)]);
    assert_eq!(driver.read(INTERRUPT_STATUS, AccessSize::Byte), 0, "MSI-X needs none");
}

#[test]
fn without_msix_the_pin_is_raised_and_the_status_says_why_once() {
    let mut driver = Driver::new();
    driver.start();
    driver.offer(DATA);
    driver.notify();
    assert_eq!(driver.messages().len(), 1);
    assert_eq!([(); 2].map(|()| driver.read(INTERRUPT_STATUS, AccessSize::Byte)), [1, 0]);
    driver.write_config(4, &(1u16 << 10).to_le_bytes());
    driver.offer(DATA);
    driver.notify();
    assert_eq!(driver.messages(), [], "the pin is disabled");
}

#[test]
fn a_driver_that_breaks_the_rules_hears_it_by_the_configuration_vector() {
    let mut driver = Driver::new();
    driver.start();
    driver.use_msix();
    driver.offer(BASE - 1);
    driver.notify();
    assert_eq!(driver.read(common::STATUS, AccessSize::Byte), 0x4f, "DEVICE_NEEDS_RESET");
    assert_eq!(driver.messages(), [to(1, 0x41), to(2, 0x42)]);
    driver.memory.take_moved();
    driver.notify();
    assert_eq!(driver.memory.take_moved(), 0, "it touches no memory any more");
    driver.start();
    driver.offered = 0;
    driver.offer(DATA);
    driver.notify();
    assert_eq!(driver.memory.get(DATA), [1u8], "a reset makes it good");
    assert_eq!(driver.messages(), [], "and took the vectors away");
}

#[test]
fn queues_begin_in_their_largest_size_and_vectors_that_do_not_exist_are_none() {
    let mut driver = Driver::new();
    for (queue, size) in [(0, 8), (1, 16), (2, 0)] {
        driver.write(common::QUEUE_SELECT, AccessSize::Word, queue);
        assert_eq!(driver.read(common::QUEUE_SIZE, AccessSize::Word), size);
        assert_eq!(driver.read(common::QUEUE_NOTIFY_OFF, AccessSize::Word), queue);
    }
    driver.write(common::CONFIG_VECTOR, AccessSize::Word, 2);
    assert_eq!(driver.read(common::CONFIG_VECTOR, AccessSize::Word), 2);
    driver.write(common::CONFIG_VECTOR, AccessSize::Word, 3);
    assert_eq!(driver.read(common::CONFIG_VECTOR, AccessSize::Word), 0xffff);
    assert_eq!(driver.read(common::NUM_QUEUES, AccessSize::Word), 2);
}

#[test]
fn fields_are_accessed_in_their_own_size() {
    let mut driver = Driver::new();
    driver.write(common::DRIVER_FEATURE_SELECT, AccessSize::Word, 1);
    assert_eq!(driver.read(common::DRIVER_FEATURE_SELECT, AccessSize::Double), 0);
    assert_eq!(driver.read(common::NUM_QUEUES, AccessSize::Byte), 0);
    assert_eq!(driver.read(DEVICE, AccessSize::Double), 0x0403_0201);
    assert_eq!(driver.read(DEVICE + 4, AccessSize::Double), 5);
    assert_eq!(driver.read(0x6000, AccessSize::Double), 0);
}

#[test]
fn memory_can_be_reached_through_configuration_space() {
    let mut driver = Driver::new();
    let at = driver.function.access_at;
    let aim = |driver: &mut Driver, offset: u32, length: u32| {
        driver.write_config(at + config_access::OFFSET, &offset.to_le_bytes());
        driver.write_config(at + config_access::LENGTH, &length.to_le_bytes());
    };
    aim(&mut driver, common::STATUS, 1);
    driver.write_config(at + config_access::DATA, &[3, 0, 0, 0]);
    assert_eq!(driver.read(common::STATUS, AccessSize::Byte), 3);
    assert_eq!(driver.config(at + config_access::DATA) & 0xff, 3);
    for (offset, length) in [(0x8000, 4), (0x7fff, 2), (1, 4), (0, 3), (0, 8), (u32::MAX, 1)] {
        aim(&mut driver, offset, length);
        driver.write_config(at + config_access::DATA, &[0; 4]);
        let _ = driver.config(at + config_access::DATA);
    }
    assert_eq!(driver.read(common::STATUS, AccessSize::Byte), 3, "what is outside is nowhere");
}
