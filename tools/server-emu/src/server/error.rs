//! Why there is no server.

use std::fmt;

use tdvisor_devices::AttachError;

use super::config::{MAX_MEMORY, MAX_PACKAGES, MAX_PROCESSORS, MIN_MEMORY};
use crate::acpi::TooLarge;
use crate::loader::LoadError;

/// Why there is no server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerError {
    /// A size that a server cannot have.
    Memory(u64),
    /// Processors or packages that a server cannot have.
    Processors {
        /// Processors.
        processors: u32,
        /// Packages.
        packages: u32,
    },
    /// Two devices at one place.
    Attach(AttachError),
    /// More ACPI tables than fit.
    Acpi(TooLarge),
    /// Files that cannot be booted.
    Load(LoadError),
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(bytes) => write!(
                f,
                "a server cannot have {bytes} bytes of memory: whole MiB from {} MiB to {} GiB",
                MIN_MEMORY >> 20,
                MAX_MEMORY >> 30
            ),
            Self::Processors { processors, packages } => write!(
                f,
                "a server cannot have {processors} processors in {packages} packages: 1 to {MAX_PROCESSORS} processors, 1 to {MAX_PACKAGES} packages"
            ),
            Self::Attach(error) => error.fmt(f),
            Self::Acpi(error) => error.fmt(f),
            Self::Load(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for ServerError {}

impl From<AttachError> for ServerError {
    fn from(error: AttachError) -> Self {
        Self::Attach(error)
    }
}

impl From<TooLarge> for ServerError {
    fn from(error: TooLarge) -> Self {
        Self::Acpi(error)
    }
}

impl From<LoadError> for ServerError {
    fn from(error: LoadError) -> Self {
        Self::Load(error)
    }
}
