//! Guest memory as its host may touch it.

use tdvisor_base::Gpa;

/// The guest named memory that the host cannot use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotShared {
    /// No memory there, or it is private.
    At(Gpa),
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
