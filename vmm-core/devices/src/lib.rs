//! Devices that a guest reaches through port I/O and MMIO.
//!
//! A device is a value behind a lock of its own; the bus only finds it. A new device is one file that
//! implements [`PortDevice`] or [`MmioDevice`], and one `attach` call where the machine is put together.
//! Reads of nothing give all ones, writes to nothing vanish, as on a PC.
//!
//! Everything that reaches a device comes from the guest: no value may panic, and nothing that a device
//! keeps may grow without bound.
//!
//! # Memory and interrupts
//! A device reaches guest memory only during an access or while it [attends](MmioDevice::attend) to what its host has for
//! the guest, and only memory that the guest shares ([`SharedMemory`]). It raises interrupts through a [`Line`] of the
//! machine's I/O APIC or a vector of its own ([`pci::Msix`]), from any thread; the vCPU that made the access delivers them
//! right after it ([`Devices::take_messages`]), and whoever made a device raise an interrupt on its own does the same.

#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

pub mod acpi_pm;
#[cfg(test)]
mod arbitrary;
mod bus;
mod exit_port;
pub mod fw_cfg;
pub mod io_apic;
mod low;
pub mod pci;
mod pvpanic;
pub mod saved;
#[cfg(test)]
pub(crate) mod test_memory;
mod unclaimed;
pub mod virtio;

pub use bus::{AttachError, MmioBus, PortBus};
pub use exit_port::ExitPort;
pub use io_apic::{IoApic, Line, Redirection};
pub use pvpanic::{PANICKED, PvPanic};
pub use saved::{BadState, DeviceStateError, SavedDevice};
pub use unclaimed::Place;

pub use tdvisor_vm::{AccessSize, SharedMemory};

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use tdvisor_vm::Message;

/// What a guest can reach beside its memory.
#[derive(Debug, Default)]
pub struct Devices {
    /// Port I/O.
    pub ports: PortBus,
    /// Devices in (shared) guest-physical space.
    pub mmio: MmioBus,
    /// Where devices raise their lines. A guest reaches its registers only if it is attached to [`Self::mmio`] too.
    pub io_apic: Arc<IoApic>,
    /// What else raises interrupts: the vectors of PCI functions.
    pub messages: Vec<Arc<dyn MessageSource>>,
}

impl Devices {
    /// The place without a device that the guest read most, and how often.
    pub fn most_read_unclaimed(&self) -> Option<(Place, u64)> {
        let both = [self.ports.most_read_unclaimed(), self.mmio.most_read_unclaimed()];
        both.into_iter().flatten().max_by_key(|(_, reads)| *reads)
    }

    /// Takes every interrupt that can be delivered now.
    pub fn take_messages(&self) -> Vec<Message> {
        let mut messages = self.io_apic.take_messages();
        self.messages.iter().for_each(|source| source.take_messages(&mut messages));
        messages
    }
}

/// Something that raises interrupts as messages, and keeps them until somebody delivers them.
pub trait MessageSource: fmt::Debug + Send + Sync {
    /// Moves what can be delivered now to `out`.
    fn take_messages(&self, out: &mut Vec<Message>);
}

/// What a device asks of its machine after an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceRequest {
    /// Nothing.
    None,
    /// End the VM: the guest is done, and says how it went (0 is success).
    PowerOff {
        /// The guest's own exit code.
        code: u8,
    },
    /// End the VM: the guest wants to start anew.
    Reset,
    /// End the VM: the guest's kernel says that it panicked.
    Panicked,
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

    /// What the device keeps between two accesses: see [`saved`]. `None` where it cannot be saved.
    fn save(&self) -> Option<Vec<u64>> {
        None
    }

    /// Takes over what [`Self::save`] gave.
    ///
    /// # Errors
    /// [`BadState`]; the device is as it was.
    fn restore(&mut self, saved: &[u64]) -> Result<(), BadState> {
        let _ = saved;
        Err(BadState)
    }
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

    /// The host has something for the guest, maybe through this device. Whoever calls this delivers the lines that it raises.
    fn attend(&mut self, memory: &dyn SharedMemory) {
        let _ = memory;
    }

    /// What the device keeps between two accesses: see [`saved`]. `None` where it cannot be saved.
    fn save(&self) -> Option<Vec<u64>> {
        None
    }

    /// Takes over what [`Self::save`] gave.
    ///
    /// # Errors
    /// [`BadState`]; the device is as it was.
    fn restore(&mut self, saved: &[u64]) -> Result<(), BadState> {
        let _ = saved;
        Err(BadState)
    }
}

/// Several devices in one range of guest-physical (shared) address space, each with a lock of its own. Offsets count from the
/// start of the range.
pub trait MmioSpace: Send + Sync {
    /// Whether a device answers at an offset.
    fn covers(&self, offset: u64) -> bool;

    /// The guest reads.
    fn read(&self, offset: u64, size: AccessSize) -> u64;

    /// The guest writes.
    fn write(&self, offset: u64, size: AccessSize, value: u64, memory: &dyn SharedMemory) -> DeviceRequest;

    /// The host has something for the guest: see [`MmioDevice::attend`].
    fn attend(&self, memory: &dyn SharedMemory) {
        let _ = memory;
    }

    /// Whether a device on one of the buses saves what the space keeps: see [`saved`].
    fn is_saved_elsewhere(&self) -> bool {
        false
    }
}

/// Memory of a guest that shares none, for the tests of devices that need none.
#[cfg(test)]
pub(crate) struct NoMemory;

#[cfg(test)]
impl SharedMemory for NoMemory {
    fn read(&self, gpa: tdvisor_base::Gpa, _out: &mut [u8]) -> Result<(), tdvisor_vm::NotShared> {
        Err(tdvisor_vm::NotShared::At(gpa))
    }

    fn write(&self, gpa: tdvisor_base::Gpa, _data: &[u8]) -> Result<(), tdvisor_vm::NotShared> {
        Err(tdvisor_vm::NotShared::At(gpa))
    }
}
