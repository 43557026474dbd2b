//! The host's own reads and writes of guest memory that is shared.
//!
//! Private memory is out of reach: it would give a pattern and break the page for the guest. So each page's
//! attribute is checked, and conversions are kept away for as long as the copy takes.

use base::{Gpa, PAGE_SIZE};

use super::GuestMemory;
use super::attributes::Attribute;
use crate::devices::SharedMemory;
use crate::error::Error;
use crate::platform::Platform;

/// The guest named memory that the host cannot use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotShared {
    /// No memory there, or it is private.
    At(Gpa),
}

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
            self.core.host.platform.write(hpa, piece).map_err(Error::from)
        })
    }

    fn for_each_page(
        &self,
        gpa: Gpa,
        length: usize,
        mut access: impl FnMut(base::Hpa, usize, usize) -> Result<(), Error>,
    ) -> Result<(), NotShared> {
        let _no_conversion = self.conversions.lock();
        let mut done = 0;
        while done < length {
            let at = gpa.wrapping_add(done as u64);
            let room = (PAGE_SIZE - at.page_offset()) as usize;
            let piece = room.min(length - done);
            let gfn = at.frame();
            if self.attribute(gfn) != Some(Attribute::Shared) {
                return Err(NotShared::At(at));
            }
            let backed = self.frame(gfn).map_err(|_| NotShared::At(at))?;
            let hpa = backed.backed.pfn.base().wrapping_add(at.page_offset());
            access(hpa, done, piece).map_err(|_| NotShared::At(at))?;
            done += piece;
        }
        Ok(())
    }
}
