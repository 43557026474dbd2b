//! The host's own reads and writes of guest memory that is shared.
//!
//! Private memory is out of reach: it would give a pattern and break the page for the guest. So each page's
//! attribute is checked, and conversions are kept away for as long as the copy takes. What the host writes is
//! logged like what the guest writes.

use tdvisor_base::{Gpa, PAGE_SIZE, Side, to_usize};
use tdvisor_vm::{NotShared, SharedMemory};

use super::GuestMemory;
use crate::error::Error;
use crate::platform::Platform;

impl<P: Platform> SharedMemory for GuestMemory<'_, P> {
    fn read(&self, gpa: Gpa, out: &mut [u8]) -> Result<(), NotShared> {
        self.read_shared(gpa, out)
    }

    fn write(&self, gpa: Gpa, data: &[u8]) -> Result<(), NotShared> {
        self.write_shared(gpa, data)
    }
}

impl<P: Platform> GuestMemory<'_, P> {
    /// Reads shared guest memory. `gpa` has no SHARED bit.
    ///
    /// # Errors
    /// [`NotShared`]; what precedes the bad page was read.
    pub fn read_shared(&self, gpa: Gpa, out: &mut [u8]) -> Result<(), NotShared> {
        self.for_each_page(gpa, out.len(), |hpa, offset, length| {
            let piece = out.get_mut(offset..offset + length).unwrap_or_default();
            self.core.host.platform.read(hpa, piece).map_err(Error::from)
        })
    }

    /// Writes shared guest memory. `gpa` has no SHARED bit.
    ///
    /// # Errors
    /// [`NotShared`]; what precedes the bad page was written.
    pub fn write_shared(&self, gpa: Gpa, data: &[u8]) -> Result<(), NotShared> {
        self.for_each_page(gpa, data.len(), |hpa, offset, length| {
            let piece = data.get(offset..offset + length).unwrap_or_default();
            self.core.host.platform.write(hpa, piece)?;
            // Only now: a harvest that took the bit before the write would miss the write.
            let gfn = gpa.wrapping_add(offset as u64).frame();
            if let Some(log) = self.log_of(gfn) {
                log.mark(gfn);
            }
            Ok(())
        })
    }

    fn for_each_page(
        &self,
        gpa: Gpa,
        length: usize,
        mut access: impl FnMut(tdvisor_base::Hpa, usize, usize) -> Result<(), Error>,
    ) -> Result<(), NotShared> {
        let _no_conversion = self.conversions.lock();
        let mut done = 0;
        while done < length {
            let at = gpa.wrapping_add(done as u64);
            let room = to_usize(PAGE_SIZE - at.page_offset());
            let piece = room.min(length - done);
            let gfn = at.frame();
            let platform = &self.core.host.platform;
            let backed = self.slots.with(gfn, |_, state| {
                let shared = state.attributes.get(gfn) == Some(Side::Shared);
                if shared { state.backing.resolve(platform, gfn) } else { None }
            });
            let pfn = backed.flatten().ok_or(NotShared::At(at))?.pfn;
            let hpa = pfn.base().wrapping_add(at.page_offset());
            access(hpa, done, piece).map_err(|_| NotShared::At(at))?;
            done += piece;
        }
        Ok(())
    }
}
