//! Where guests ended in a triple fault.

use core::fmt;

use x86_emu::Shutdown;

/// A guest that shut its processor down: its vCPU does not run any more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GuestShutdown {
    /// The processor.
    pub lp: usize,
    /// The exceptions, RIP, CR2 and the instruction: the guest's private contents, which a host may see of a TD in debug mode
    /// only.
    pub what: Shutdown,
}

impl fmt::Display for GuestShutdown {
    /// Without anything of the guest's contents.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "emulated processor {}: the guest shut it down by a triple fault", self.lp)
    }
}
