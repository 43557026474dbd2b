//! Taking mappings away, and pages with them: what conversions, holes and the removal of slots share.
//!
//! # Protocol
//! With the conversion lock held, so that no two of them meet:
//! 0. Pages of the range that are on their way to another machine are called back ([`super::sending`]).
//! 1. Reserve tables for the private leaves that a boundary cuts.
//! 2. Under the exclusive guard open an invalidation window: faults that resolved a page before it look again.
//! 3. Remove the mappings. A boundary inside a huge private page splits it first, so that exactly the range
//!    goes (invariant 40).
//! 4. Withdraw pages that left the TD and could not be cleaned (invariant 15), then let the caller change the
//!    host's side, up to where the removal got: this is its point of no return.
//! 5. Close the window.
//!
//! *Punching a hole* ([`GuestMemory::punch_hole`]) removes both sides and gives the pages back. A folio that
//! the hole cuts is cut after the mappings went, so that no mapping is ever larger than its folio. Attributes
//! stay; the next fault brings a fresh page, which a private guest has to accept again.
//!
//! Pages are freed when no processor has a translation to them. For private pages that is so after REMOVE. A
//! flush of the shared tree only *asks* the vCPUs that are outside the guest to flush before they enter it; so
//! pages that were mapped shared wait until no vCPU has that request pending any more, and are freed by
//! whoever takes pages away next, at the latest with the TD.

use alloc::vec::Vec;

use mirror_ept::{Filter, GfnRange, MmuError, Reserve, Zapped};
use tdvisor_base::{Gfn, Level};

use super::backing::Folio;
use super::{GuestMemory, Seat, SeptError};
use crate::error::Error;
use crate::platform::Platform;
use crate::vcpu::presence::{Presence, Requests};

/// Frames that one exclusive section takes away at most: vCPUs that fault wait no longer than this takes.
pub const FRAMES_AT_ONCE: u64 = 16 * Level::L2M.frames();

/// How far an operation on a range went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Reached {
    /// All of the range.
    All,
    /// Everything before this frame: call again from there.
    Upto(Gfn),
}

impl Reached {
    /// `reached` of a range that ends at `end`.
    pub(super) fn of(reached: Gfn, end: Gfn) -> Self {
        if reached >= end { Self::All } else { Self::Upto(reached) }
    }
}

/// A range in pieces of at most [`FRAMES_AT_ONCE`] frames.
pub(super) fn pieces(range: GfnRange) -> impl Iterator<Item = GfnRange> {
    pieces_of(range, FRAMES_AT_ONCE)
}

/// A range in pieces of at most so many frames.
pub(super) fn pieces_of(range: GfnRange, frames: u64) -> impl Iterator<Item = GfnRange> {
    let mut at = range.start();
    core::iter::from_fn(move || {
        let piece = GfnRange::new(at, range.end().min(at.wrapping_add(frames)));
        at = piece.end();
        (!piece.is_empty()).then_some(piece)
    })
}

impl<'h, P: Platform> GuestMemory<'h, P> {
    /// Gives the pages of a range back to the host; at most [`FRAMES_AT_ONCE`] frames of it at once. Frames
    /// outside every slot have none.
    ///
    /// # Errors
    /// The TD cannot go on.
    pub fn punch_hole(&self, seat: &mut Seat<'_, 'h, P>, range: GfnRange) -> Result<Reached, Error> {
        let Some(piece) = pieces(range).next() else { return Ok(Reached::All) };
        let _conversion = self.conversions.lock();
        Ok(Reached::of(self.discard(seat, piece)?, range.end()))
    }

    /// Removes the mappings of a piece and frees its pages. Gives the first frame that still has its page.
    ///
    /// The caller holds the conversion lock.
    pub(super) fn discard(&self, seat: &mut Seat<'_, 'h, P>, piece: GfnRange) -> Result<Gfn, Error> {
        let reached = self.take_away(seat, piece, Filter::Both, |done| {
            let mut freed = self.take_folios(done);
            self.leaving.lock().append(&mut freed);
        })?;
        self.free_flushed();
        Ok(reached)
    }

    /// Frees the pages that left, unless a vCPU still has to flush.
    fn free_flushed(&self) {
        let mut leaving = self.leaving.lock();
        let stale = |vcpu: &Presence| vcpu.ever_entered() && vcpu.requests().contains(Requests::FLUSH_DIRECT);
        if !leaving.is_empty() && !self.core.presences().iter().any(stale) {
            for folio in leaving.drain(..) {
                self.core.host.platform.free_page(folio.pfn, folio.level);
            }
        }
    }

    /// Frees the pages that left, at the end of the TD, and gives their number of frames.
    pub(super) fn free_leaving(&self) -> u64 {
        let mut frames = 0;
        for folio in self.leaving.lock().drain(..) {
            self.core.host.platform.free_page(folio.pfn, folio.level);
            frames += folio.level.frames();
        }
        frames
    }

    /// Takes the folios of a range out of their slots, whatever phase these are in.
    fn take_folios(&self, range: GfnRange) -> Vec<Folio> {
        let mut freed = Vec::new();
        self.slots.for_all(|state| {
            state.backing.split_at(range.start());
            state.backing.split_at(range.end());
            freed.append(&mut state.backing.take(range));
        });
        freed
    }

    /// Removes the mappings of a piece on one side of the SHARED bit or both, and has `commit` change the host's side of what was
    /// removed. Gives the first frame that was not.
    ///
    /// The caller holds the conversion lock.
    pub(super) fn take_away(
        &self,
        seat: &mut Seat<'_, 'h, P>,
        piece: GfnRange,
        sides: Filter,
        commit: impl FnOnce(GfnRange),
    ) -> Result<Gfn, Error> {
        // Also where nothing private goes: the other machine was told whose each page is.
        self.stay_with(seat, piece)?;
        if sides != Filter::Shared && seat.may_exceed(Level::L4K) {
            seat.reserve(Reserve::PRIVATE)?;
        }
        let Seat { participant, cache, ctx, .. } = seat;
        let mut guard = participant.exclusive();
        let window = self.mmu.notifier().begin(&mut guard, piece);
        let mut reached = Ok(piece.end());
        if sides != Filter::Shared {
            reached = removed(piece, self.mmu.zap_range(ctx, &mut guard, cache, piece, Filter::Private));
        }
        if let (Ok(end), true) = (&reached, sides != Filter::Private) {
            let done = GfnRange::new(piece.start(), *end);
            reached = removed(done, self.mmu.zap_range(ctx, &mut guard, cache, done, Filter::Shared));
        }
        self.withdraw_unclean(&mut ctx.unclean);
        if let Ok(end) = &reached {
            commit(GfnRange::new(piece.start(), *end));
        }
        self.mmu.notifier().end(&mut guard, window);
        reached
    }
}

/// The first frame of a range that a removal did not come to. What may succeed later is progress, not an error.
fn removed(range: GfnRange, zapped: Result<Zapped<SeptError>, MmuError<SeptError>>) -> Result<Gfn, Error> {
    match zapped {
        Ok(Zapped::Complete(_)) => Ok(range.end()),
        Ok(Zapped::Partial { at, why, .. }) if why.is_retryable() => Ok(at.gfn().max(range.start())),
        Ok(Zapped::Partial { at, step, why, .. }) => Err(MmuError::Hook { at, step, why }.into()),
        Err(error) if error.is_retryable() => Ok(range.start()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pieces_of_a_range_follow_each_other_and_none_is_too_long() {
        let range = GfnRange::new(Gfn::new(5), Gfn::new(5 + 2 * FRAMES_AT_ONCE + 3));
        let all: Vec<GfnRange> = pieces(range).collect();
        assert_eq!(all.len(), 3);
        assert_eq!((all[0].start(), all[2].end()), (range.start(), range.end()));
        assert!(all.windows(2).all(|pair| pair[0].end() == pair[1].start()));
        assert!(all.iter().all(|piece| piece.frames() <= FRAMES_AT_ONCE));
        assert_eq!(pieces(GfnRange::new(Gfn::new(5), Gfn::new(5))).count(), 0);
    }
}
