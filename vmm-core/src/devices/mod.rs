//! Devices that a TD reaches through port I/O and MMIO hypercalls.
//!
//! A device is a value behind a lock of its own; the bus only finds it. A new device is one file that
//! implements [`PortDevice`] or [`MmioDevice`], and one `attach` call where the machine is put together.
//! Reads of nothing give all ones, writes to nothing vanish, as on a PC.
//!
//! Everything that reaches a device comes from the guest: no value may panic, and nothing that a device
//! keeps may grow without bound.
//!
//! # Memory and interrupts
//! A device reaches guest memory only during an access, and only memory that the guest shares
//! ([`SharedMemory`]). It raises interrupts through a [`Line`] of the machine's I/O APIC, from any thread; the
//! vCPU that made the access delivers them right after it, and [`crate::td::Td::deliver_lines`] does so for a
//! device that raised its line on its own.

mod acpi_power;
#[cfg(test)]
mod arbitrary;
mod bus;
mod exit_port;
pub mod fw_cfg;
pub mod io_apic;
mod pvpanic;
#[cfg(test)]
pub(crate) mod test_memory;
pub mod virtio;

pub use acpi_power::{ACPI_POWER_BASE, ACPI_POWER_PORTS, AcpiPower, RESET_VALUE, S5_TYPE};
pub use bus::{AttachError, MmioBus, PortBus};
pub use exit_port::{EXIT_PORT, ExitPort};
pub use io_apic::{IoApic, Line};
pub use pvpanic::{PANICKED, PVPANIC_PORT, PvPanic};

use base::Gpa;

use crate::memory::NotShared;

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
    /// End the TD: the guest wants to start anew.
    Reset,
    /// End the TD: the guest's kernel says that it panicked.
    Panicked,
}

/// Guest memory as a device sees it: what the guest shares, at addresses without the SHARED bit.
pub trait SharedMemory {
    /// Reads.
    ///
    /// # Errors
    /// [`NotShared`]; what precedes the bad page was read.
    fn read(&self, gpa: Gpa, out: &mut [u8]) -> Result<(), NotShared>;

    /// Writes.
    ///
    /// # Errors
    /// [`NotShared`]; what precedes the bad page was written.
    fn write(&self, gpa: Gpa, data: &[u8]) -> Result<(), NotShared>;
}

/// A device in port I/O space. Offsets count from the first port it was attached at.
pub trait PortDevice: Send {
    /// The guest reads.
    fn read(&mut self, offset: u16, size: AccessSize) -> u64;
    /// The guest writes.
    fn write(
        &mut self,
        offset: u16,
        size: AccessSize,
        value: u64,
        memory: &dyn SharedMemory,
    ) -> DeviceRequest;
}

/// A device in guest-physical (shared) address space. Offsets count from the start of its range.
pub trait MmioDevice: Send {
    /// The guest reads.
    fn read(&mut self, offset: u64, size: AccessSize) -> u64;
    /// The guest writes.
    fn write(
        &mut self,
        offset: u64,
        size: AccessSize,
        value: u64,
        memory: &dyn SharedMemory,
    ) -> DeviceRequest;
}

/// Memory of a guest that shares none, for the tests of devices that need none.
#[cfg(test)]
pub(crate) struct NoMemory;

#[cfg(test)]
impl SharedMemory for NoMemory {
    fn read(&self, gpa: Gpa, _out: &mut [u8]) -> Result<(), NotShared> {
        Err(NotShared::At(gpa))
    }

    fn write(&self, gpa: Gpa, _data: &[u8]) -> Result<(), NotShared> {
        Err(NotShared::At(gpa))
    }
}
