//! Devices that a TD reaches through port I/O and MMIO hypercalls.
//!
//! A device is a value behind a lock of its own; the bus only finds it. A new device is one file that
//! implements [`PortDevice`] or [`MmioDevice`], and one `attach` call where the machine is put together.
//! Reads of nothing give all ones, writes to nothing vanish, as on a PC.
//!
//! Everything that reaches a device comes from the guest: no value may panic, and nothing that a device
//! keeps may grow without bound.

mod bus;
mod exit_port;

pub use bus::{AttachError, MmioBus, PortBus};
pub use exit_port::{EXIT_PORT, ExitPort};

/// Bytes of one access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessSize {
    /// One byte.
    Byte,
    /// Two bytes.
    Word,
    /// Four bytes.
    Double,
    /// Eight bytes: MMIO only.
    Quad,
}

impl AccessSize {
    /// The size of this many bytes.
    pub const fn from_bytes(bytes: u64) -> Option<Self> {
        match bytes {
            1 => Some(Self::Byte),
            2 => Some(Self::Word),
            4 => Some(Self::Double),
            8 => Some(Self::Quad),
            _ => None,
        }
    }

    /// Bytes.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Byte => 1,
            Self::Word => 2,
            Self::Double => 4,
            Self::Quad => 8,
        }
    }

    /// A value with all bits of this size set: what reading nothing gives.
    pub const fn all_ones(self) -> u64 {
        u64::MAX >> (64 - 8 * self.bytes())
    }
}

/// What a device asks of its machine after an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceRequest {
    /// Nothing.
    None,
    /// End the TD: the guest is done, and says how it went (0 is success).
    PowerOff {
        /// The guest's own exit code.
        code: u8,
    },
}

/// A device in port I/O space. Offsets count from the first port it was attached at.
pub trait PortDevice: Send {
    /// The guest reads.
    fn read(&mut self, offset: u16, size: AccessSize) -> u64;
    /// The guest writes.
    fn write(&mut self, offset: u16, size: AccessSize, value: u64) -> DeviceRequest;
}

/// A device in guest-physical (shared) address space. Offsets count from the start of its range.
pub trait MmioDevice: Send {
    /// The guest reads.
    fn read(&mut self, offset: u64, size: AccessSize) -> u64;
    /// The guest writes.
    fn write(&mut self, offset: u64, size: AccessSize, value: u64) -> DeviceRequest;
}
