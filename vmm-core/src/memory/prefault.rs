//! Mapping private memory before the guest touches it: while the TD is built, and ahead of its use.
//!
//! # Protocol
//! *Populating* gives a TD that is being built a page with contents: TDH.MEM.PAGE.ADD copies a source page. It
//! is refused once the TD is finalised (invariant 36).
//!
//! *Prefaulting* maps what the guest is about to accept, so that it does not leave the TD for each page; it is
//! refused before the TD is finalised, when every page would have to be measured. Pages are mapped one by one
//! under the shared guard, beside running vCPUs, as large as they would be by a fault. It goes on over
//! shared frames and stops where there is no memory, or when its caller is wanted elsewhere; the answer says
//! where to go on.

use base::{Gfn, Level, Pfn};
use mirror_ept::GfnRange;

use super::attributes::Attribute;
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
    /// It stopped.
    Upto {
        /// The first frame that was not looked at.
        next: Gfn,
        /// Why: [`Resolution::Interrupted`] or [`Resolution::NoMemoryThere`].
        why: Resolution,
    },
}

impl<'h, P: Platform> GuestMemory<'h, P> {
    /// Adds a 4 KiB page with the contents of `source` to a TD that is being built.
    ///
    /// # Errors
    /// [`Error::Caller`] once the TD is finalised, [`Error::NoSlot`] where it has no memory; otherwise the TD
    /// cannot be built.
    pub fn populate(&self, seat: &mut Seat<'_, 'h, P>, gfn: Gfn, source: Pfn) -> Result<(), Error> {
        if self.core.is_runnable() {
            return Err(Error::Caller("pages with contents can be added only before the TD is finalised"));
        }
        let add = || self.private_fault(seat, gfn, Level::L4K, || false);
        match self.core.with_add_source(source.base(), add)? {
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
                Resolution::WrongSide(Attribute::Shared) => next = next.wrapping_add(1),
                why => return Ok(Prefaulted::Upto { next, why }),
            }
        }
        Ok(Prefaulted::All { pages })
    }
}
