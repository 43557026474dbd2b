//! The driver's side of a virtio device, for tests: rings in shared memory and a transport to write to.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use tdvisor_base::SharedBit;

use super::VirtioDevice;
use super::mmio::VirtioMmio;
use crate::test_memory::TestMemory;
use crate::{AccessSize, IoApic, MmioDevice, NoMemory};

pub(crate) const SHARED_BIT: u64 = 1 << 47;

pub(crate) const BASE: u64 = 0x10_0000;
pub(crate) const DESCRIPTORS: u64 = BASE;
pub(crate) const AVAILABLE: u64 = BASE + 0x1000;
pub(crate) const USED: u64 = BASE + 0x2000;
/// Where buffers may be.
pub(crate) const DATA: u64 = BASE + 0x4000;
/// The first byte behind the memory.
pub(crate) const END: u64 = BASE + MEMORY as u64;
const MEMORY: usize = 4 << 20;

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

const GSI: u32 = 5;
/// Queues that a driver drives at most.
const QUEUES: usize = 4;

/// A driver and the transport that it drives.
pub(crate) struct TestDriver {
    pub(crate) memory: TestMemory,
    pub(crate) transport: VirtioMmio,
    places: u16,
    counts: [Counts; QUEUES],
    io_apic: Arc<IoApic>,
}

/// How far a queue has come, in the eyes of its driver.
#[derive(Clone, Copy, Default)]
struct Counts {
    offered: u16,
    seen: u16,
}

/// Where a queue's descriptors are; its rings follow as those of queue 0 do. Other queues are behind all data.
const fn descriptors(queue: usize) -> u64 {
    match queue {
        0 => DESCRIPTORS,
        _ => END - 0x4000 * queue as u64,
    }
}

const fn available(queue: usize) -> u64 {
    descriptors(queue) + (AVAILABLE - DESCRIPTORS)
}

const fn used(queue: usize) -> u64 {
    descriptors(queue) + (USED - DESCRIPTORS)
}

impl TestDriver {
    /// A driver for `device` that will use `places` places of its queues. The device is in reset.
    pub(crate) fn new(device: Box<dyn VirtioDevice>, places: u16) -> Self {
        let mut io_apic = Arc::new(IoApic::new());
        for (offset, value) in [(0, 0x10 + 2 * GSI), (0x10, 0x30)] {
            let _ = io_apic.write(offset, AccessSize::Double, value.into(), &NoMemory);
        }
        let line = io_apic.line(GSI).unwrap();
        let transport = VirtioMmio::new(device, line, SharedBit::topmost(48));
        let memory = TestMemory::new(BASE, MEMORY);
        Self { memory, transport, places, counts: Default::default(), io_apic }
    }

    pub(crate) fn read(&mut self, offset: u64) -> u32 {
        self.transport.read(offset, AccessSize::Double) as u32
    }

    pub(crate) fn write(&mut self, offset: u64, value: u32) {
        let _ = self.transport.write(offset, AccessSize::Double, value.into(), &self.memory);
    }

    /// Reset, features, FEATURES_OK; gives the status.
    pub(crate) fn negotiate(&mut self, features: u64) -> u32 {
        for status in [0, 1, 3] {
            self.write(0x70, status);
        }
        for word in [1, 0] {
            self.write(0x24, word);
            self.write(0x20, (features >> (32 * word)) as u32);
        }
        self.write(0x70, 3 | 8);
        self.read(0x70)
    }

    /// Places and enables queue 0; gives QueueReady.
    pub(crate) fn enable_queue(&mut self, shared_bit: u64) -> u32 {
        self.enable(0, shared_bit)
    }

    fn enable(&mut self, queue: usize, shared_bit: u64) -> u32 {
        self.write(0x30, queue as u32);
        let most = self.read(0x34);
        self.write(0x38, most.min(self.places.into()));
        for (low, area) in [(0x80, descriptors(queue)), (0x90, available(queue)), (0xa0, used(queue))] {
            self.write(low, area as u32);
            self.write(low + 4, ((area | shared_bit) >> 32) as u32);
        }
        self.write(0x44, 1);
        self.counts[queue] = Counts::default();
        self.memory.put(available(queue), &[0; 4]);
        self.memory.put(used(queue), &[0; 4]);
        self.read(0x44)
    }

    /// Everything up to DRIVER_OK, with every feature that is offered and every queue that there is.
    pub(crate) fn start(&mut self) {
        self.start_without(0);
    }

    /// Everything up to DRIVER_OK, with what is offered but these features.
    pub(crate) fn start_without(&mut self, left: u64) {
        let features = self.offered_features() & !left;
        assert_eq!(self.negotiate(features), 3 | 8);
        for queue in (0..QUEUES).rev() {
            self.write(0x30, queue as u32);
            if self.read(0x34) != 0 {
                assert_eq!(self.enable(queue, 0), 1, "queue {queue}");
            }
        }
        self.write(0x70, 3 | 8 | 4);
        assert_eq!(self.read(0x70), 3 | 8 | 4);
    }

    pub(crate) fn offered_features(&mut self) -> u64 {
        let mut features = 0;
        for word in [0, 1] {
            self.write(0x14, word);
            features |= u64::from(self.read(0x10)) << (32 * word);
        }
        features
    }

    /// Interrupts that arrived since the last call.
    pub(crate) fn interrupts(&self) -> usize {
        self.io_apic.take_messages().len()
    }

    pub(crate) fn describe(&self, index: u16, address: u64, bytes: u32, flags: u16, next: u16) {
        self.describe_in(0, index, address, bytes, flags, next);
    }

    pub(crate) fn describe_in(
        &self,
        queue: usize,
        index: u16,
        address: u64,
        bytes: u32,
        flags: u16,
        next: u16,
    ) {
        let at = descriptors(queue) + 16 * u64::from(index);
        self.memory.put(at, &address.to_le_bytes());
        self.memory.put(at + 8, &bytes.to_le_bytes());
        self.memory.put(at + 12, &flags.to_le_bytes());
        self.memory.put(at + 14, &next.to_le_bytes());
    }

    /// Describes a request whose buffers follow one another from [`DATA`]: `readable` bytes, then `writable`
    /// ones. Gives their addresses.
    pub(crate) fn describe_chain(&self, readable: &[&[u8]], writable: &[u32]) -> Vec<u64> {
        self.describe_chain_at(0, 0, DATA, readable, writable)
    }

    /// Describes a request of `queue` that begins with descriptor `head` and whose buffers follow one another from `at`.
    pub(crate) fn describe_chain_at(
        &self,
        queue: usize,
        head: u16,
        mut at: u64,
        readable: &[&[u8]],
        writable: &[u32],
    ) -> Vec<u64> {
        let lengths = readable.iter().map(|data| (data.len() as u32, 0));
        let all: Vec<_> = lengths.chain(writable.iter().map(|bytes| (*bytes, WRITE))).collect();
        let mut places = Vec::new();
        for (index, (bytes, flags)) in (0u16..).zip(&all) {
            let more = if usize::from(index) + 1 < all.len() { NEXT } else { 0 };
            self.describe_in(queue, head + index, at, *bytes, flags | more, head + index + 1);
            if let Some(data) = readable.get(usize::from(index)) {
                self.memory.put(at, data);
            }
            places.push(at);
            at += u64::from(*bytes);
        }
        places
    }

    /// Publishes the request that begins with `head`.
    pub(crate) fn offer(&mut self, head: u16) {
        self.offer_in(0, head);
    }

    pub(crate) fn offer_in(&mut self, queue: usize, head: u16) {
        let counts = &mut self.counts[queue];
        let place = available(queue) + 4 + 2 * u64::from(counts.offered % self.places);
        counts.offered = counts.offered.wrapping_add(1);
        self.memory.put(place, &head.to_le_bytes());
        self.memory.put(available(queue) + 2, &counts.offered.to_le_bytes());
    }

    pub(crate) fn notify(&mut self) {
        self.notify_of(0);
    }

    pub(crate) fn notify_of(&mut self, queue: u32) {
        self.write(0x50, queue);
    }

    /// The host lets the device attend to what it has for its guest.
    pub(crate) fn attend(&mut self) {
        self.transport.attend(&self.memory);
    }

    /// Requests that came back since the last call: head and length.
    pub(crate) fn used(&mut self) -> Vec<(u32, u32)> {
        self.used_of(0)
    }

    pub(crate) fn used_of(&mut self, queue: usize) -> Vec<(u32, u32)> {
        let index = u16::from_le_bytes(self.memory.get(used(queue) + 2));
        let counts = &mut self.counts[queue];
        let mut returned = Vec::new();
        while counts.seen != index {
            let at = used(queue) + 4 + 8 * u64::from(counts.seen % self.places);
            let word = |at| u32::from_le_bytes(self.memory.get(at));
            returned.push((word(at), word(at + 4)));
            counts.seen = counts.seen.wrapping_add(1);
        }
        returned
    }
}
