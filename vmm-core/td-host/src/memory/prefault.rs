//! Mapping private memory before the guest touches it: while the TD is built, and ahead of its use.
//!
//! # Protocol
//! *Populating* gives a TD that is being built a page with contents: TDH.MEM.PAGE.ADD copies a source page. Only
//! the loader does it, and the module refuses it once the TD is finalised (invariant 36).
//!
//! *Prefaulting* maps what the guest is about to accept, so that it does not leave the TD for each page; it is
//! refused before the TD is finalised, when every page would have to be measured. Pages are mapped one by one
//! under the shared guard, beside running vCPUs, as large as they would be by a fault. It goes on over
//! shared frames and stops where there is no memory, or when its caller is wanted elsewhere; the answer says
//! where to go on.

use mirror_ept::GfnRange;
use tdvisor_base::{Gfn, Hpa, Level, Side};

use super::{GuestMemory, Resolution, Seat};
use crate::error::Error;
use crate::platform::Platform;

/// How far prefaulting went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Prefaulted {
    /// Every private frame of the range is mapped, by so many pages.
    All {
        /// Pages that cover the range, also those that were mapped before.
        pages: u64,
    },
    /// The work stopped before the end of the range.
    Upto {
        /// The first frame that was not looked at.
        next: Gfn,
        /// Why: [`Resolution::Interrupted`] or [`Resolution::NoMemoryThere`].
        why: Resolution,
    },
}

impl<'h, P: Platform> GuestMemory<'h, P> {
    /// Adds a 4 KiB page with the contents of the page at `source` to a TD that is being built.
    ///
    /// # Errors
    /// [`Error::NoSlot`] where it has no memory; otherwise the TD cannot be built.
    pub(crate) fn populate(&self, seat: &mut Seat<'_, 'h, P>, gfn: Gfn, source: Hpa) -> Result<(), Error> {
        seat.ctx.source = Some(source);
        let resolution = self.private_fault(seat, gfn, Level::L4K, || false);
        seat.ctx.source = None;
        match resolution? {
            Resolution::Mapped(_) => Ok(()),
            _ => Err(Error::NoSlot(gfn)),
        }
    }

    /// Maps the private frames of a range, with pages of up to `largest`.
    ///
    /// # Errors
    /// [`Error::Caller`] before the TD is finalised. Other errors mean that the TD cannot go on.
    pub fn prefault(
        &self,
        seat: &mut Seat<'_, 'h, P>,
        range: GfnRange,
        largest: Level,
        mut wanted_elsewhere: impl FnMut() -> bool,
    ) -> Result<Prefaulted, Error> {
        if !self.core.is_runnable() {
            return Err(Error::Caller("memory can be mapped ahead only after the TD is finalised"));
        }
        let mut next = range.start();
        let mut pages = 0;
        while next < range.end() {
            match self.private_fault(seat, next, largest, &mut wanted_elsewhere)? {
                Resolution::Mapped(level) => {
                    next = next.align_down(level).wrapping_add(level.frames());
                    pages += 1;
                }
                Resolution::WrongSide(Side::Shared) => next = next.wrapping_add(1),
                why => return Ok(Prefaulted::Upto { next, why }),
            }
        }
        Ok(Prefaulted::All { pages })
    }
}
