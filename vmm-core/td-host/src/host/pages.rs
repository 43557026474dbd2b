//! Single pages that the host gives to the module and gets back.
//!
//! A page given to the module is written under a private key. Before it may be used again it has to be
//! cleared with MOVDIR64B under the host's key ([`Platform::clear_page`]): [`Host::take_back`] does that
//! and then frees it. A page that the module did not give back is never freed: [`Host::quarantine`].

use tdvisor_base::{Level, Pfn};

use super::Host;
use crate::error::Error;
use crate::platform::Platform;

impl<P: Platform> Host<P> {
    /// A 4 KiB page for the module, cleared.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub fn give_page(&self) -> Result<Pfn, Error> {
        let pfn = self.platform.allocate_page(Level::L4K).ok_or(Error::NoMemory)?;
        if let Err(error) = self.platform.clear_page(pfn) {
            self.platform.free_page(pfn, Level::L4K);
            return Err(error.into());
        }
        Ok(pfn)
    }

    /// Frees a page that was the module's and no longer is.
    pub fn take_back(&self, pfn: Pfn) {
        match self.platform.clear_page(pfn) {
            Ok(()) => self.platform.free_page(pfn, Level::L4K),
            // Not memory of this machine after all: nothing that could be handed out again.
            Err(_) => self.quarantine(pfn, Level::L4K),
        }
    }

    /// Withdraws a page for ever: the module may still hold it, or a key other than the host's.
    pub fn quarantine(&self, pfn: Pfn, level: Level) {
        self.quarantined.lock().push((pfn, level));
    }

    /// Pages withdrawn for ever, in 4 KiB frames.
    pub fn quarantined_frames(&self) -> u64 {
        self.quarantined.lock().iter().map(|(_, level)| level.frames()).sum()
    }
}
