//! What devices keep between two accesses, for a snapshot.
//!
//! # Protocol
//! A device gives its state as numbers ([`PortDevice::save`], [`MmioDevice::save`]) and takes them back. A bus gives the state
//! of all its devices with their first addresses; it takes them back only where every device is there again, and each
//! knows its own. A device that does not say what it keeps cannot be saved, and neither can its machine.
//!
//! What waits on the host's side (input that nobody has read yet) is not the device's state.
//!
//! [`PortDevice::save`]: crate::PortDevice::save
//! [`MmioDevice::save`]: crate::MmioDevice::save

use alloc::vec::Vec;
use core::fmt;

/// The state of one device of a bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedDevice {
    /// The device's first port, or its first address.
    pub at: u64,
    /// What the device keeps; the device itself knows what the numbers are.
    pub state: Vec<u64>,
}

/// Numbers that are not the state of this device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadState;

/// Devices cannot be saved, or do not take their state back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceStateError {
    /// The device at this address cannot be saved.
    NotSaved {
        /// The device's first port, or its first address.
        at: u64,
    },
    /// What was saved for this address is not the state of the device that is there, or none is there.
    NotThisDevice {
        /// The first port, or the first address.
        at: u64,
    },
    /// There are other devices than were saved.
    OtherDevices,
}

impl fmt::Display for DeviceStateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSaved { at } => write!(f, "the state of the device at {at:#x} cannot be saved"),
            Self::NotThisDevice { at } => {
                write!(f, "the saved state for {at:#x} is not of the device that is there")
            }
            Self::OtherDevices => f.write_str("the machine has other devices than the saved one"),
        }
    }
}

impl core::error::Error for DeviceStateError {}

/// The numbers of a device whose state is so many of them.
///
/// # Errors
/// [`BadState`] where there are more or fewer.
pub fn numbers<const N: usize>(saved: &[u64]) -> Result<[u64; N], BadState> {
    saved.try_into().map_err(|_| BadState)
}

/// A number of a device's state that has fewer bits.
///
/// # Errors
/// [`BadState`] where it does not fit.
pub fn narrow<T: TryFrom<u64>>(number: u64) -> Result<T, BadState> {
    T::try_from(number).map_err(|_| BadState)
}

/// A device without state takes back nothing.
///
/// # Errors
/// [`BadState`] where there is something.
pub fn nothing(saved: &[u64]) -> Result<(), BadState> {
    numbers::<0>(saved).map(|_| ())
}
