//! Converting memory between private and shared, in place.
//!
//! # Protocol
//! 1. Take the conversion lock.
//! 2. Remove the range's mappings on the side that it leaves ([`super::remove`]). A failure here leaves
//!    attributes and mappings as they were, except for what a partial removal had already removed.
//! 3. Point of no return, inside the removal's window: set the attribute of what was removed. Pages keep their
//!    place; a page that left the TD was cleared by the hook that removed it, and a page that nobody used yet
//!    was cleared when it was allocated, so nobody's data becomes visible.
//! 4. Back to private: what earlier conversions had to cut may be huge again ([`super::collapse`]).
//!
//! The guest is told how far the conversion went and calls again from there.

use mirror_ept::{Filter, GfnRange};
use tdvisor_base::sync::Ordering;
use tdvisor_base::{Gfn, Side};

use super::remove::{Reached, pieces};
use super::{GuestMemory, Seat};
use crate::error::Error;
use crate::platform::Platform;

/// How far a conversion went.
pub type Converted = Reached;

impl<'h, P: Platform> GuestMemory<'h, P> {
    /// Gives the first part of a range an attribute, at most [`super::FRAMES_AT_ONCE`] frames.
    ///
    /// # Errors
    /// [`Error::NoSlot`] where a frame of the range has no memory: nothing was converted. Other errors mean
    /// that the TD cannot go on.
    pub fn convert(&self, seat: &mut Seat<'_, 'h, P>, range: GfnRange, to: Side) -> Result<Converted, Error> {
        self.check_covered(range)?;
        let Some(piece) = pieces(range).next() else { return Ok(Reached::All) };
        let leaves = match to {
            Side::Private => Filter::Shared,
            Side::Shared => Filter::Private,
        };
        let _conversion = self.conversions.lock();
        if self.is_already(piece, to) {
            return Ok(Reached::of(piece.end(), range.end()));
        }
        let reached = self.take_away(seat, piece, leaves, |done| self.set_attribute(done, to))?;
        if to == Side::Private {
            self.after_return_to_private(seat, GfnRange::new(piece.start(), reached))?;
        }
        Ok(Reached::of(reached, range.end()))
    }

    /// Every frame of the range has memory behind it.
    fn check_covered(&self, range: GfnRange) -> Result<(), Error> {
        let mut at = range.start();
        while at < range.end() {
            at = self.slots.with(at, |frames, _| frames.end()).ok_or(Error::NoSlot(at))?;
        }
        Ok(())
    }

    fn is_already(&self, range: GfnRange, attribute: Side) -> bool {
        let mut already = true;
        self.slots.for_each(range, |part, state| {
            already &= state.attributes.uniform(part) == Some(attribute);
        });
        already
    }

    fn set_attribute(&self, range: GfnRange, attribute: Side) {
        self.slots.for_each(range, |part, state| state.attributes.set(part, attribute));
        self.frames_converted.fetch_add(range.frames(), Ordering::Relaxed);
    }

    /// The attribute of a frame; `None` outside every slot.
    pub fn attribute(&self, gfn: Gfn) -> Option<Side> {
        self.slots.with(gfn, |_, state| state.attributes.get(gfn)).flatten()
    }
}
