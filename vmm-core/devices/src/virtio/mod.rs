//! virtio: devices that take requests from rings in shared guest memory.
//!
//! # Who does what
//! A [`VirtioDevice`] says what it is and answers one request at a time. `transport` keeps features, status and queues;
//! [`mmio`] and [`pci`] are the registers and interrupts by which a driver reaches them. [`queue`] finds requests in a ring and returns them; [`chain`] reads
//! and writes the buffers of one request.
//!
//! # What a TD's devices need
//! [`features::VERSION_1`] and [`features::ACCESS_PLATFORM`] are always offered and a driver that takes not both is refused:
//! without the second a guest would hand out addresses of private memory instead of its bounce buffers.
//!
//! # Input
//! A device that has something for its guest says for which queues ([`VirtioDevice::ready`]) and rings a bell that its host
//! gave to whoever feeds it; the host then lets its transports [attend](super::MmioDevice::attend). A request of which
//! nothing came yet ([`Served::Later`]) stays the first of its queue.
//!
//! # Invariants
//! - Requests are answered during the access that announces them, or while the transport attends. Either answers at most as
//!   many requests as each ring has places, and one request has at most as many buffers.
//! - Nothing in the rings is trusted: what breaks the rules ([`Broken`]) stops the device, which says so
//!   (DEVICE_NEEDS_RESET, a configuration interrupt) and touches memory no more until it is reset.
//! - Guest memory is copied, once, and only the copy is looked at.
//!
//! The crate `virtio-queue` is not used: it works on `vm-memory`, whose regions give pointers into guest memory, and the
//! memory here has none to give. It is behind [`super::SharedMemory`], page by page and key by key.
//!
//! Source: Virtual I/O Device (VIRTIO) version 1.2; what is younger names its version.

pub mod blk;
pub mod chain;
pub mod console;
pub mod fs;
pub mod mmio;
pub mod net;
pub mod pci;
pub mod queue;
pub mod rng;
pub mod rtc;
#[cfg(test)]
pub(crate) mod test_driver;
mod transport;
pub mod vsock;

use core::fmt;

use tdvisor_vm::NotShared;

use self::chain::Chain;
use super::SharedMemory;

/// Features that belong to no kind of device (section 6).
pub mod features {
    /// The device follows version 1 of the specification.
    pub const VERSION_1: u64 = 1 << 32;
    /// The device reaches only the memory that the platform lets it reach: here, what the guest shares.
    pub const ACCESS_PLATFORM: u64 = 1 << 33;

    /// What every device of a TD offers, and every driver must take.
    pub const REQUIRED: u64 = VERSION_1 | ACCESS_PLATFORM;
}

/// A device behind a virtio transport.
pub trait VirtioDevice: Send {
    /// The kind of device (section 5).
    fn id(&self) -> u32;

    /// The features of its kind that it offers, without those of [`features`].
    fn features(&self) -> u64;

    /// How long each of its queues may be at most: a power of two.
    fn queue_sizes(&self) -> &[u16];

    /// The device's configuration space, which does not change.
    fn config(&self) -> &[u8];

    /// The driver took these features; none after a reset.
    fn accept(&mut self, features: u64);

    /// Looks at what the host has, and gives the queues that can be served now although their requests were announced long
    /// ago. Devices without input have none.
    fn ready(&mut self) -> Queues {
        Queues::NONE
    }

    /// Answers one request.
    ///
    /// # Errors
    /// [`Broken`]: the request breaks the rules so that it cannot even be refused.
    fn serve(&mut self, queue: usize, chain: &Chain, memory: &dyn SharedMemory) -> Result<Served, Broken>;
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// The request is answered, and this many bytes were written to its buffers, without a gap from the first.
    Used(u32),
    /// There is nothing to answer the request with yet. No later request of its queue is looked at before.
    Later,
}

/// Some of a device's queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queues(u64);

impl Queues {
    /// No queue.
    pub const NONE: Self = Self(0);
    /// Every queue.
    pub const ALL: Self = Self(u64::MAX);

    /// This set, and the queue with this index if the condition holds. There are no queues beyond 63.
    #[must_use]
    pub const fn with_if(self, condition: bool, index: u32) -> Self {
        match 1u64.checked_shl(index) {
            Some(bit) if condition => Self(self.0 | bit),
            _ => self,
        }
    }

    /// This set and `others`.
    #[must_use]
    pub const fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Whether the queue with this index is among them.
    pub const fn contain(self, index: usize) -> bool {
        index < u64::BITS as usize && self.0 >> index & 1 != 0
    }
}

/// How a driver broke the rules. Its device stops until it is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A queue was enabled with a size that is not a power of two or too large, or with areas that are
    /// not aligned or where there cannot be memory.
    BadQueue,
    /// A ring, a table or a buffer is not in shared memory.
    NotShared(NotShared),
    /// The ring of available requests is further ahead than it is long.
    TooManyAvailable,
    /// A descriptor's number is outside the table.
    BadDescriptor,
    /// A request has more descriptors than the table: a loop.
    Loop,
    /// An indirect descriptor: not offered.
    Indirect,
    /// A buffer to read after a buffer to write.
    ReadableAfterWritable,
    /// A buffer is where there cannot be memory: not below the SHARED bit.
    BadBuffer,
    /// The buffers are too small for what every request of the device has.
    TooShort,
    /// The buffers hold more than any request of the device has.
    TooLong,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadQueue => "the queue's size or an address of its areas is not allowed",
            Self::NotShared(NotShared::At(gpa)) => return write!(f, "the memory at {gpa} is not shared"),
            Self::TooManyAvailable => "the available ring is further ahead than it is long",
            Self::BadDescriptor => "a descriptor's number is outside the table",
            Self::Loop => "a descriptor chain is longer than the table",
            Self::Indirect => "an indirect descriptor, which was not offered",
            Self::ReadableAfterWritable => "a readable buffer follows a writable one",
            Self::BadBuffer => "a buffer is not below the SHARED bit",
            Self::TooShort => "the request's buffers are too small",
            Self::TooLong => "the request's buffers are too large",
        })
    }
}

impl core::error::Error for Broken {}

impl From<NotShared> for Broken {
    fn from(place: NotShared) -> Self {
        Self::NotShared(place)
    }
}
