//! A guest: its memory, and a driver that knows how devices are driven.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tdvisor_base::{Gpa, PAGE_SIZE, SharedBit};
use tdvisor_devices::virtio::VirtioDevice;
use tdvisor_devices::virtio::mmio::VirtioMmio;
use tdvisor_devices::{AccessSize, DeviceRequest, IoApic, MmioDevice, SharedMemory};
use tdvisor_test_data::chance::Chance;
use tdvisor_vm::NotShared;

/// DEVICE_NEEDS_RESET and FAILED.
pub const STOPPED: u32 = 64 | 128;

const BASE: u64 = 0x10_0000;
const BYTES: usize = 1 << 20;
const QUEUES: u32 = 4;
const PLACES: u32 = 128;
/// Where buffers are.
pub const DATA: u64 = BASE + 0x2_0000;
/// Descriptor flags.
pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;

/// A number at which something may go wrong, or any.
pub fn number(chance: &mut Chance) -> u64 {
    let near = chance.pick(&[
        0,
        1,
        512,
        4096,
        1 << 16,
        1 << 31,
        1 << 32,
        1 << 47,
        1 << 63,
        BASE,
        BASE + BYTES as u64,
    ]);
    match chance.below(4) {
        0 => chance.next(),
        1 => chance.next() >> chance.below(64),
        2 => near.wrapping_sub(chance.below(17)),
        _ => near.wrapping_add(chance.below(17)),
    }
}

/// What a guest shares: one range, and nothing else.
pub struct Memory {
    bytes: Mutex<Vec<u8>>,
    moved: Mutex<u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Memory {
    /// Bytes that were moved since the last call.
    pub fn take_moved(&self) -> u64 {
        std::mem::take(&mut lock(&self.moved))
    }

    pub fn put(&self, at: u64, data: &[u8]) {
        self.write(Gpa::new(at), data).expect("a guest writes its own memory");
    }

    /// Eight bytes of anything, in the rings and tables most of the time.
    pub fn scribble(&self, chance: &mut Chance) {
        let at = if chance.one_in(4) {
            chance.below(BYTES as u64 - 8)
        } else {
            chance.below(QUEUES.into()) * 0x4000 + chance.below(0x2800)
        };
        let value = if chance.one_in(3) { chance.next() } else { number(chance) };
        self.put(BASE + at, &value.to_le_bytes());
    }

    /// Page by page, as a guest's memory is reached: what another processor writes comes in between.
    fn pages(
        &self,
        gpa: Gpa,
        length: usize,
        mut access: impl FnMut(&mut [u8], usize),
    ) -> Result<(), NotShared> {
        let mut done = 0;
        while done < length {
            let at = gpa.wrapping_add(done as u64);
            let piece = ((PAGE_SIZE - at.page_offset()) as usize).min(length - done);
            let start = at.get().checked_sub(BASE).ok_or(NotShared::At(at))? as usize;
            let end = start.checked_add(piece).ok_or(NotShared::At(at))?;
            access(lock(&self.bytes).get_mut(start..end).ok_or(NotShared::At(at))?, done);
            *lock(&self.moved) += piece as u64;
            done += piece;
        }
        Ok(())
    }
}

impl SharedMemory for Memory {
    fn read(&self, gpa: Gpa, out: &mut [u8]) -> Result<(), NotShared> {
        self.pages(gpa, out.len(), |page, at| out[at..at + page.len()].copy_from_slice(page))
    }

    fn write(&self, gpa: Gpa, data: &[u8]) -> Result<(), NotShared> {
        self.pages(gpa, data.len(), |page, at| page.copy_from_slice(&data[at..at + page.len()]))
    }
}

/// A buffer of a request.
pub enum Piece<'d> {
    /// The device reads this.
    Read(&'d [u8]),
    /// The device has room for so many bytes.
    Room(u32),
}

/// The guest.
pub struct Guest {
    pub memory: Arc<Memory>,
    transport: VirtioMmio,
    offered: [u16; QUEUES as usize],
    seen: [u16; QUEUES as usize],
    answered: u64,
}

const fn area(queue: u32) -> u64 {
    BASE + 0x4000 * queue as u64
}

impl Guest {
    pub fn new(device: Box<dyn VirtioDevice>) -> Self {
        let line = Arc::new(IoApic::new()).line(5).expect("there is such a pin");
        let transport = VirtioMmio::new(device, line, SharedBit::topmost(48));
        let memory = Memory { bytes: Mutex::new(vec![0; BYTES]), moved: Mutex::default() };
        Self { memory: Arc::new(memory), transport, offered: [0; 4], seen: [0; 4], answered: 0 }
    }

    fn write(&mut self, offset: u64, value: u32) {
        let request = self.transport.write(offset, AccessSize::Double, value.into(), &*self.memory);
        assert_eq!(request, DeviceRequest::None, "no virtio device ends a VM");
    }

    fn read(&mut self, offset: u64) -> u32 {
        self.transport.read(offset, AccessSize::Double) as u32
    }

    pub fn status(&mut self) -> u32 {
        self.read(0x70)
    }

    /// Resets the device, takes everything that it offers, and enables all queues.
    pub fn start(&mut self) {
        self.count();
        for status in [0, 1, 3] {
            self.write(0x70, status);
        }
        for word in [0, 1] {
            self.write(0x14, word);
            let offered = self.read(0x10);
            self.write(0x24, word);
            self.write(0x20, offered);
        }
        self.write(0x70, 3 | 8);
        for queue in 0..QUEUES {
            self.write(0x30, queue);
            let most = self.read(0x34);
            if most == 0 {
                continue;
            }
            self.write(0x38, most.min(PLACES));
            for (register, at) in [(0x80, 0), (0x90, 0x1000), (0xa0, 0x2000)] {
                let at = area(queue) + at;
                self.write(register, at as u32);
                self.write(register + 4, (at >> 32) as u32);
            }
            self.memory.put(area(queue) + 0x1000, &[0; 4]);
            self.memory.put(area(queue) + 0x2000, &[0; 4]);
            self.write(0x44, 1);
        }
        self.write(0x70, 3 | 8 | 4);
        assert_eq!(self.status(), 15, "a device can always be started");
        (self.offered, self.seen) = ([0; 4], [0; 4]);
    }

    /// Counts what came back.
    fn count(&mut self) {
        for queue in 0..QUEUES {
            let mut index = [0; 2];
            let at = Gpa::new(area(queue) + 0x2000 + 2);
            self.memory.read(at, &mut index).expect("a guest reads its own memory");
            let index = u16::from_le_bytes(index);
            // An index that somebody scribbled over counts for nothing.
            let new = index.wrapping_sub(self.seen[queue as usize]);
            self.answered += if u32::from(new) <= PLACES { u64::from(new) } else { 0 };
            self.seen[queue as usize] = index;
        }
    }

    /// Requests that came back.
    pub fn answered(&mut self) -> u64 {
        self.count();
        self.answered
    }

    fn describe(&mut self, queue: u32, index: u16, address: u64, bytes: u32, flags: u16, next: u16) {
        let value =
            u128::from(address) | u128::from(bytes) << 64 | u128::from(flags) << 96 | u128::from(next) << 112;
        self.memory.put(area(queue) + 16 * u64::from(index % 128), &value.to_le_bytes());
    }

    fn offer(&mut self, queue: u32, head: u16) {
        self.count();
        self.write(0x30, queue);
        let places = self.read(0x34).clamp(1, PLACES) as u16;
        let offered = &mut self.offered[queue as usize];
        let place = area(queue) + 0x1000 + 4 + 2 * u64::from(*offered % places);
        *offered = offered.wrapping_add(1);
        let index = *offered;
        self.memory.put(place, &head.to_le_bytes());
        self.memory.put(area(queue) + 0x1000 + 2, &index.to_le_bytes());
    }

    /// Describes a request from a descriptor on, offers it and says so.
    pub fn request(&mut self, queue: u32, head: u16, pieces: &[Piece<'_>]) {
        let mut at = DATA + 0x4000 * u64::from(head % 32);
        for (index, piece) in (head..).zip(pieces) {
            let next = if usize::from(index - head) + 1 < pieces.len() { NEXT } else { 0 };
            let bytes = match piece {
                Piece::Read(data) => {
                    self.memory.put(at, data);
                    self.describe(queue, index, at, data.len() as u32, next, index + 1);
                    data.len() as u64
                }
                Piece::Room(bytes) => {
                    self.describe(queue, index, at, *bytes, next | WRITE, index + 1);
                    u64::from(*bytes)
                }
            };
            at += bytes;
        }
        self.offer(queue, head);
        self.notify(queue);
    }

    pub fn notify(&mut self, queue: u32) {
        self.write(0x50, queue);
    }

    /// The host lets the device attend.
    pub fn attend(&mut self) {
        self.transport.attend(&*self.memory);
    }

    pub fn scribble(&mut self, chance: &mut Chance) {
        self.memory.scribble(chance);
    }

    pub fn write_any_register(&mut self, chance: &mut Chance) {
        let known = [0x14, 0x20, 0x24, 0x30, 0x38, 0x44, 0x50, 0x64, 0x70, 0x80, 0x84, 0x90, 0xa0];
        let offset = if chance.one_in(3) { chance.below(0x1000) } else { chance.pick(&known) };
        let sizes =
            [AccessSize::Byte, AccessSize::Word, AccessSize::Double, AccessSize::Double, AccessSize::Quad];
        let size = chance.pick(&sizes);
        let _ = self.transport.read(offset, size);
        let _ = self.transport.write(offset, size, number(chance) & size.all_ones(), &*self.memory);
    }

    /// A descriptor of anything: loops, private buffers, lengths without end.
    pub fn describe_anything(&mut self, chance: &mut Chance) {
        let address = if chance.one_in(3) { number(chance) } else { DATA + chance.below(0x8_0000) };
        let flags = if chance.one_in(3) { chance.next() } else { chance.below(4) } as u16;
        let next = if chance.one_in(3) { chance.next() } else { chance.below(128) } as u16;
        let (queue, index, bytes) = (chance.below(4) as u32, chance.below(128) as u16, number(chance) as u32);
        self.describe(queue, index, address, bytes, flags, next);
    }

    pub fn offer_anything(&mut self, chance: &mut Chance) {
        let head = if chance.one_in(30) { chance.next() as u16 } else { chance.below(128) as u16 };
        self.offer(chance.below(4) as u32, head);
    }
}
