//! A split virtqueue: where a driver puts requests and a device returns them.
//!
//! # Protocol
//! Three areas of shared memory, all little-endian (section 2.7), for a queue of `n` places:
//!
//! | area | contents |
//! |---|---|
//! | descriptors | `n` × address (u64), length (u32), flags (u16), next (u16) |
//! | driver ("available") | flags (u16), index (u16), `n` × head (u16) |
//! | device ("used") | flags (u16), index (u16), `n` × head (u32), length (u32) |
//!
//! Indices count requests modulo 2^16; a request's place is its index modulo `n`. The driver publishes by
//! raising its index, the device by raising its own; each is written after what it publishes. After its
//! index the device looks at the driver's flag "no interrupts"; the driver clears the flag and then looks at
//! the device's index. Neither misses the other.
//!
//! Indirect descriptors and event indices are not offered.
//!
//! # Invariants
//! - A request comes out in the order of its publication, and once unless it is put back; at most `n` are outstanding.
//! - Addresses are checked when the queue is enabled: aligned, and where memory can be. Whether
//!   they are shared memory is seen at each use, because a guest may convert it at any time.

use alloc::vec::Vec;

use tdvisor_base::sync::{Ordering, fence};
use tdvisor_base::{Gpa, SharedBit};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros as _, Immutable, IntoBytes};

use super::Broken;
use super::chain::{Buffer, Chain};
use crate::{SharedMemory, low};

/// Places that any queue has at most.
pub const PLACES_MAX: u16 = 128;

/// A descriptor (section 2.7.5).
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Descriptor {
    address: U64,
    length: U32,
    flags: U16,
    next: U16,
}

/// A place of the ring of used requests (section 2.7.8).
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct UsedElement {
    head: U32,
    length: U32,
}

const DESCRIPTOR_BYTES: u64 = size_of::<Descriptor>() as u64;
/// Flags and index before the places of a ring.
const RING_HEADER: u64 = 4;
const AVAILABLE_BYTES: u64 = size_of::<U16>() as u64;
const USED_BYTES: u64 = size_of::<UsedElement>() as u64;
const _: () = assert!(DESCRIPTOR_BYTES == 16 && AVAILABLE_BYTES == 2 && USED_BYTES == 8);

const FLAG_NEXT: u16 = 1 << 0;
const FLAG_WRITE: u16 = 1 << 1;
const FLAG_INDIRECT: u16 = 1 << 2;

const AVAILABLE_NO_INTERRUPT: u16 = 1 << 0;

/// One of a queue's areas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    /// The descriptor table.
    Descriptors,
    /// The ring of available requests.
    Driver,
    /// The ring of used requests.
    Device,
}

/// Which half of an area's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// Bits 31:0.
    Low,
    /// Bits 63:32.
    High,
}

/// A queue: what the driver wrote to its registers and, once it is enabled, its rings.
#[derive(Debug)]
pub struct Queue {
    max: u16,
    size: u32,
    descriptors: u64,
    driver: u64,
    device: u64,
    rings: Option<Rings>,
}

impl Queue {
    /// A queue with at most `max` places, and never more than [`PLACES_MAX`].
    pub const fn new(max: u16) -> Self {
        let max = if max < PLACES_MAX { max } else { PLACES_MAX };
        Self { max, size: 0, descriptors: 0, driver: 0, device: 0, rings: None }
    }

    /// Places at most.
    pub const fn max(&self) -> u16 {
        self.max
    }

    /// The rings, while the queue is enabled.
    pub const fn rings(&mut self) -> Option<&mut Rings> {
        self.rings.as_mut()
    }

    /// Whether the queue is enabled.
    pub const fn is_ready(&self) -> bool {
        self.rings.is_some()
    }

    /// The number of places that the driver chose; zero after power-on.
    pub const fn size(&self) -> u32 {
        self.size
    }

    /// Half of an area's address, as the driver wrote it.
    pub const fn area(&self, area: Area, half: Half) -> u32 {
        let address = match area {
            Area::Descriptors => self.descriptors,
            Area::Driver => self.driver,
            Area::Device => self.device,
        };
        match half {
            Half::Low => low::double(address),
            Half::High => low::double(address >> 32),
        }
    }

    /// The driver chooses the number of places. Nothing changes while the queue is enabled.
    pub const fn set_size(&mut self, size: u32) {
        if !self.is_ready() {
            self.size = size;
        }
    }

    /// The driver places an area. Nothing changes while the queue is enabled.
    pub const fn set_area(&mut self, area: Area, half: Half, value: u32) {
        if self.is_ready() {
            return;
        }
        let address = match area {
            Area::Descriptors => &mut self.descriptors,
            Area::Driver => &mut self.driver,
            Area::Device => &mut self.device,
        };
        *address = match half {
            Half::Low => *address & !0xffff_ffff | value as u64,
            Half::High => *address & 0xffff_ffff | (value as u64) << 32,
        };
    }

    /// The driver enables the queue: it begins empty.
    ///
    /// # Errors
    /// [`Broken::BadQueue`]; the queue stays disabled.
    pub fn enable(&mut self, shared_bit: SharedBit) -> Result<(), Broken> {
        if self.is_ready() {
            return Ok(());
        }
        let size = u16::try_from(self.size)
            .ok()
            .filter(|size| size.is_power_of_two() && *size <= self.max)
            .ok_or(Broken::BadQueue)?;
        let places = u64::from(size);
        let area = |address: u64, alignment: u64, bytes: u64| {
            let gpa = shared_bit.locate(address, bytes);
            gpa.filter(|gpa| gpa.is_aligned(alignment)).ok_or(Broken::BadQueue)
        };
        self.rings = Some(Rings {
            size,
            descriptors: area(self.descriptors, 16, DESCRIPTOR_BYTES * places)?,
            available: area(self.driver, 2, RING_HEADER + AVAILABLE_BYTES * places)?,
            used: area(self.device, 4, RING_HEADER + USED_BYTES * places)?,
            next_available: 0,
            next_used: 0,
            shared_bit,
        });
        Ok(())
    }

    /// The driver disables the queue.
    pub fn disable(&mut self) {
        self.rings = None;
    }

    /// Puts the queue back into the state after power-on.
    pub fn reset(&mut self) {
        *self = Self::new(self.max);
    }
}

/// The rings of an enabled queue.
#[derive(Debug)]
pub struct Rings {
    size: u16,
    descriptors: Gpa,
    available: Gpa,
    used: Gpa,
    next_available: u16,
    next_used: u16,
    shared_bit: SharedBit,
}

impl Rings {
    /// Places.
    pub const fn size(&self) -> u16 {
        self.size
    }

    /// Takes the next request, if there is one.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn pop(&mut self, memory: &dyn SharedMemory) -> Result<Option<Chain>, Broken> {
        if self.available_now(memory)? == 0 {
            return Ok(None);
        }
        // The head is read after the index that published it.
        fence(Ordering::Acquire);
        let place = u64::from(self.next_available % self.size);
        let head = read_u16(memory, self.available.wrapping_add(RING_HEADER + AVAILABLE_BYTES * place))?;
        let chain = self.follow(head, memory)?;
        self.next_available = self.next_available.wrapping_add(1);
        Ok(Some(chain))
    }

    /// Puts the request back that was taken last and is not returned: it is the next to be taken.
    pub const fn put_back(&mut self) {
        self.next_available = self.next_available.wrapping_sub(1);
    }

    /// How many requests wait.
    fn available_now(&self, memory: &dyn SharedMemory) -> Result<u16, Broken> {
        // Memory may hand out the two bytes of an index one after the other, while the driver writes it. A mixture is
        // 255 requests off, which is further than any queue is long; the second look sees the driver's write whole.
        for _ in 0..2 {
            let index = read_u16(memory, self.available.wrapping_add(2))?;
            let waiting = index.wrapping_sub(self.next_available);
            if waiting <= self.size {
                return Ok(waiting);
            }
        }
        Err(Broken::TooManyAvailable)
    }

    /// Collects the buffers of the request that begins with descriptor `head`.
    fn follow(&self, head: u16, memory: &dyn SharedMemory) -> Result<Chain, Broken> {
        let mut chain = Chain { head, readable: Vec::new(), writable: Vec::new() };
        let mut index = head;
        for _ in 0..self.size {
            if index >= self.size {
                return Err(Broken::BadDescriptor);
            }
            let mut descriptor = Descriptor::new_zeroed();
            let at = self.descriptors.wrapping_add(DESCRIPTOR_BYTES * u64::from(index));
            memory.read(at, descriptor.as_mut_bytes())?;
            let flags = descriptor.flags.get();
            if flags & FLAG_INDIRECT != 0 {
                return Err(Broken::Indirect);
            }
            let buffer = Buffer::new(descriptor.address.get(), descriptor.length.get(), self.shared_bit)
                .ok_or(Broken::BadBuffer)?;
            if flags & FLAG_WRITE != 0 {
                chain.writable.push(buffer);
            } else if chain.writable.is_empty() {
                chain.readable.push(buffer);
            } else {
                return Err(Broken::ReadableAfterWritable);
            }
            if flags & FLAG_NEXT == 0 {
                return Ok(chain);
            }
            index = descriptor.next.get();
        }
        Err(Broken::Loop)
    }

    /// Returns a request with the number of bytes that were written to its buffers.
    ///
    /// # Errors
    /// [`Broken::NotShared`].
    pub fn push_used(
        &mut self,
        chain: &Chain,
        written: u32,
        memory: &dyn SharedMemory,
    ) -> Result<(), Broken> {
        let place = u64::from(self.next_used % self.size);
        let element = UsedElement { head: u32::from(chain.head).into(), length: written.into() };
        memory.write(self.used.wrapping_add(RING_HEADER + USED_BYTES * place), element.as_bytes())?;
        self.next_used = self.next_used.wrapping_add(1);
        // The index publishes the element, and the buffers before it.
        fence(Ordering::Release);
        memory.write(self.used.wrapping_add(2), &self.next_used.to_le_bytes())?;
        Ok(())
    }

    /// Whether the driver wants to hear about what was returned.
    ///
    /// # Errors
    /// [`Broken::NotShared`].
    pub fn wants_interrupt(&self, memory: &dyn SharedMemory) -> Result<bool, Broken> {
        // The device's index is visible before the driver's flag is looked at.
        fence(Ordering::SeqCst);
        Ok(read_u16(memory, self.available)? & AVAILABLE_NO_INTERRUPT == 0)
    }
}

fn read_u16(memory: &dyn SharedMemory, gpa: Gpa) -> Result<u16, Broken> {
    let mut bytes = [0; 2];
    memory.read(gpa, &mut bytes)?;
    Ok(u16::from_le_bytes(bytes))
}
