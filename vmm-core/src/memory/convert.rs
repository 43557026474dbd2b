//! Converting memory between private and shared, in place.
//!
//! # Protocol
//! 1. Take the conversion lock; open an invalidation window over the range.
//! 2. Remove the range's mappings on the side that it leaves. Private pages that a boundary of the range cuts
//!    are split first, so that exactly the range goes (invariant 40). A failure here leaves attributes and
//!    mappings as they were, except for what a partial removal had already removed.
//! 3. Point of no return: set the attribute of what was removed. Pages keep their place; a page that left the
//!    TD was cleared by the hook that removed it, so the guest's private data never becomes visible.
//! 4. Close the window: faults that resolved a page before it start again.
//!
//! The guest is told how far the conversion went and calls again from there.

use base::sync::Ordering;
use base::{Gfn, Level};
use mirror_ept::{Filter, GfnRange, Reserve, Zapped};

use super::attributes::Attribute;
use super::{GuestMemory, Seat, mmu_error};
use crate::error::Error;
use crate::platform::Platform;

/// Frames converted under one exclusive section at most: vCPUs that fault wait no longer than this takes.
pub const FRAMES_AT_ONCE: u64 = 16 * Level::L2M.frames();

/// How far a conversion went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Converted {
    /// All of the range.
    All,
    /// Everything before this frame: call again from there.
    Upto(Gfn),
}

impl<'h, P: Platform> GuestMemory<'h, P> {
    /// Gives the first part of a range an attribute, at most [`FRAMES_AT_ONCE`] frames.
    ///
    /// # Errors
    /// [`Error::NoSlot`] where a frame of the range has no memory: nothing was converted. Other errors mean
    /// that the TD cannot go on.
    pub fn convert(
        &self,
        seat: &mut Seat<'_, 'h, P>,
        range: GfnRange,
        to: Attribute,
    ) -> Result<Converted, Error> {
        self.check_covered(range)?;
        let end = range.end().min(range.start().wrapping_add(FRAMES_AT_ONCE));
        let piece = GfnRange::new(range.start(), end);
        let reached = self.convert_piece(seat, piece, to)?;
        Ok(if reached == range.end() { Converted::All } else { Converted::Upto(reached) })
    }

    /// Converts a piece and gives the first frame that was not.
    fn convert_piece(
        &self,
        seat: &mut Seat<'_, 'h, P>,
        piece: GfnRange,
        to: Attribute,
    ) -> Result<Gfn, Error> {
        let leaves = match to {
            Attribute::Private => Filter::Shared,
            Attribute::Shared => Filter::Private,
        };
        if leaves == Filter::Private && seat.may_exceed(Level::L4K) {
            seat.reserve(Reserve::PRIVATE)?;
        }
        let _conversion = self.conversions.lock();
        if self.is_already(piece, to) {
            return Ok(piece.end());
        }
        let mut guard = seat.participant.exclusive();
        let window = self.mmu.notifier().begin(&mut guard, piece);
        let zapped = self.mmu.zap_range(&mut guard, &mut seat.cache, piece, leaves);
        let reached = match zapped {
            Ok(Zapped::Complete(_)) => Ok(piece.end()),
            Ok(Zapped::Partial { at, why, .. }) if why.is_retryable() => Ok(at.gfn().max(piece.start())),
            Ok(Zapped::Partial { at, step, why, .. }) => {
                Err(Error::Mmu(alloc::format!("{step:?} of {at} failed: {why}")))
            }
            Err(error) if error.is_retryable() => Ok(piece.start()),
            Err(error) => Err(mmu_error(error)),
        };
        if let Ok(reached) = &reached {
            self.set_attribute(GfnRange::new(piece.start(), *reached), to);
        }
        self.mmu.notifier().end(&mut guard, window);
        drop(guard);
        self.withdraw_unclean();
        reached
    }

    /// Every frame of the range has memory behind it.
    fn check_covered(&self, range: GfnRange) -> Result<(), Error> {
        let mut at = range.start();
        while at < range.end() {
            at = self.slot(at).ok_or(Error::NoSlot(at))?.frames.end();
        }
        Ok(())
    }

    fn is_already(&self, range: GfnRange, attribute: Attribute) -> bool {
        self.slots.iter().filter(|slot| slot.frames.overlaps(range)).all(|slot| {
            let part =
                GfnRange::new(range.start().max(slot.frames.start()), range.end().min(slot.frames.end()));
            slot.state.lock().attributes.uniform(part) == Some(attribute)
        })
    }

    fn set_attribute(&self, range: GfnRange, attribute: Attribute) {
        for slot in self.slots.iter().filter(|slot| slot.frames.overlaps(range)) {
            slot.state.lock().attributes.set(range, attribute);
        }
        self.frames_converted.fetch_add(range.frames(), Ordering::Relaxed);
    }
}
