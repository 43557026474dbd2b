//! Huge pages come back: a range that was cut is mapped with one page again once it is uniform.
//!
//! # Protocol
//! There are two ways back.
//! 1. *An empty table.* A removal that took all pages under a table leaves the table behind; it takes a BLOCK
//!    and a TRACK of its own, which ride on the next removal. When whole huge pages return to private before
//!    there is one, [`GuestMemory::convert`] frees the tables at once ([`GuestMemory::reclaim_tables`]): one
//!    BLOCK each, one TRACK and one kick for all. The next fault maps a huge page.
//! 2. *A full table.* 512 small pages that lie in one folio, are all private and all accepted (or all not yet)
//!    are merged by BLOCK of the table, one TRACK with one kick for a whole batch, and PROMOTE. The contents
//!    stay. [`GuestMemory::collapse`] does it on request; ranges that were cut for a conversion or for the
//!    guest's ACCEPT are remembered, and tried again after later conversions and by
//!    [`GuestMemory::recover_huge`]. A table that is not full costs no SEAMCALL.
//!
//! # The guest's wish
//! A guest that accepts at 4K inside a huge page gets it split, and the range is *inhibited* (invariant 26f):
//! merging it behind the guest's back would make it split again at the next ACCEPT. The inhibit is not for
//! ever: it goes with the table when the range is removed, and it is cleared when the range is uniformly
//! accepted, since then no ACCEPT is left to come. Whether it is, the module says: the first page is read
//! with TDH.MEM.SEPT.RD, and PROMOTE refuses unless all are alike. When it refuses, the inhibit is set again,
//! in the same section.

use alloc::collections::BTreeMap;

use mirror_ept::{Collapsed, Exclusive, GfnRange, MmuError};
use tdvisor_base::sync::Mutex;
use tdvisor_base::{Gfn, Level, Side};
use tdx_module_iface::handles::GpaLevel;
use tdx_module_iface::sept::SeptState;
use tdx_module_iface::tdh;

use super::hooks::SeptCtx;
use super::remove::{FRAMES_AT_ONCE, pieces_of};
use super::{GuestMemory, Seat};
use crate::error::Error;
use crate::platform::Platform;
use crate::retry::{Bound, bounded};

/// Ranges that are remembered at most. One more is forgotten: it stays small until somebody asks for it.
const REMEMBERED: usize = 4096;

/// Ranges that one conversion tries to merge.
const AT_ONCE: usize = 4;

/// How often PROMOTE may refuse a remembered range before it is forgotten.
const PATIENCE: u8 = 8;

/// Huge ranges that were cut and may become whole again, by their first frame, and how often each was refused.
#[derive(Debug, Default)]
pub(super) struct Cut(Mutex<BTreeMap<Gfn, u8>>);

impl Cut {
    /// These ranges.
    pub(super) fn of(ranges: alloc::vec::Vec<(Gfn, u8)>) -> Self {
        Self(Mutex::new(ranges.into_iter().take(REMEMBERED).collect()))
    }

    /// What is remembered.
    pub(super) fn all(&self) -> alloc::vec::Vec<(Gfn, u8)> {
        self.0.lock().iter().map(|(gfn, refusals)| (*gfn, *refusals)).collect()
    }

    /// Remembers the huge range of a frame.
    pub(super) fn note(&self, gfn: Gfn) {
        let mut ranges = self.0.lock();
        if ranges.len() < REMEMBERED {
            ranges.insert(gfn.align_down(Level::L2M), 0);
        }
    }

    /// The next range from `from` on.
    fn next(&self, from: Gfn) -> Option<Gfn> {
        self.0.lock().range(from..).next().map(|(gfn, _)| *gfn)
    }

    fn forget(&self, gfn: Gfn) {
        self.0.lock().remove(&gfn);
    }

    fn refused(&self, gfn: Gfn) {
        let mut ranges = self.0.lock();
        if let Some(refusals) = ranges.get_mut(&gfn) {
            *refusals += 1;
            if *refusals >= PATIENCE {
                ranges.remove(&gfn);
            }
        }
    }
}

impl<'h, P: Platform> GuestMemory<'h, P> {
    /// Merges every huge page inside the range that is whole and uniform again, and says what became of them.
    /// Nothing that the guest can notice changes, whether it succeeds or not.
    ///
    /// # Errors
    /// The TD cannot go on.
    pub fn collapse(&self, seat: &mut Seat<'_, 'h, P>, range: GfnRange) -> Result<Collapsed, Error> {
        let _conversion = self.conversions.lock();
        let mut total = Collapsed::default();
        if !self.core.is_runnable() || self.sending.is_on() {
            return Ok(total);
        }
        for level in [Level::L2M, Level::L1G].into_iter().filter(|level| *level <= self.largest) {
            let at_once = FRAMES_AT_ONCE.max(level.frames());
            for piece in pieces_of(aligned_inside(range, level), at_once) {
                add(&mut total, self.collapse_piece(seat, piece, level)?);
            }
        }
        Ok(total)
    }

    /// Tries all ranges that were cut and are remembered.
    ///
    /// # Errors
    /// The TD cannot go on.
    pub fn recover_huge(&self, seat: &mut Seat<'_, 'h, P>) -> Result<Collapsed, Error> {
        let _conversion = self.conversions.lock();
        self.recover_some(seat, REMEMBERED)
    }

    /// Frees the tables that removals emptied, level by level, so that huge pages can come back. Gives their
    /// number. Tables that cannot be freed now ride on a later removal.
    ///
    /// # Errors
    /// The TD cannot go on.
    pub fn reclaim_tables(&self, seat: &mut Seat<'_, 'h, P>) -> Result<u64, Error> {
        let mut guard = seat.participant.exclusive();
        let ctx = &mut seat.ctx;
        let mut freed = 0;
        // Each round frees at least one table, or is the last.
        while self.mmu.emptied_tables() > 0 {
            match self.mmu.reclaim_tables(ctx, &mut guard) {
                Ok(0) => break,
                Ok(tables) => freed += tables,
                Err(error) if error.is_retryable() => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(freed)
    }

    /// A range became private again. The caller holds the conversion lock.
    pub(super) fn after_return_to_private(
        &self,
        seat: &mut Seat<'_, 'h, P>,
        range: GfnRange,
    ) -> Result<(), Error> {
        if range.is_empty() || !seat.may_exceed(Level::L4K) {
            return Ok(());
        }
        if !aligned_inside(range, Level::L2M).is_empty() && self.core.is_runnable() {
            self.reclaim_tables(seat)?;
        }
        for boundary in [range.start(), Gfn::new(range.end().get() - 1)] {
            self.cut.note(boundary);
        }
        self.recover_some(seat, AT_ONCE).map(drop)
    }

    /// Tries so many remembered ranges. The caller holds the conversion lock.
    fn recover_some(&self, seat: &mut Seat<'_, 'h, P>, most: usize) -> Result<Collapsed, Error> {
        let mut total = Collapsed::default();
        if self.sending.is_on() {
            return Ok(total);
        }
        let mut from = Gfn::new(0);
        for _ in 0..most {
            let Some(gfn) = self.cut.next(from) else { break };
            from = gfn.wrapping_add(1);
            let Some(huge) = GfnRange::at(gfn, Level::L2M.frames()) else { continue };
            let done = self.collapse_piece(seat, huge, Level::L2M)?;
            if done.merged > 0 || !self.is_eligible(gfn, Level::L2M) {
                self.cut.forget(gfn);
            } else if done.refused + done.inhibited > 0 {
                self.cut.refused(gfn);
            }
            add(&mut total, done);
        }
        Ok(total)
    }

    /// Merges in one section. The caller holds the conversion lock, so attributes and folios stay as they are.
    fn collapse_piece(
        &self,
        seat: &mut Seat<'_, 'h, P>,
        piece: GfnRange,
        level: Level,
    ) -> Result<Collapsed, Error> {
        let mut total = Collapsed::default();
        let Seat { participant, ctx, .. } = seat;
        let mut guard = participant.exclusive();
        let mut at = piece.start();
        while let Some(run) = self.eligible_run(GfnRange::new(at, piece.end()), level) {
            at = run.end();
            let done = self.merge(ctx, &mut guard, run, level)?;
            if done.inhibited == 0 {
                add(&mut total, done);
                continue;
            }
            add(&mut total, Collapsed { inhibited: 0, ..done });
            let mut gfn = run.start();
            while gfn < run.end() {
                add(&mut total, self.merge_if_accepted(ctx, &mut guard, gfn, level)?);
                gfn = gfn.wrapping_add(level.frames());
            }
        }
        Ok(total)
    }

    /// Merges an inhibited table if the guest has accepted all of it, and inhibits it again if not.
    fn merge_if_accepted(
        &self,
        ctx: &mut SeptCtx<'h, P>,
        guard: &mut Exclusive<'_>,
        gfn: Gfn,
        level: Level,
    ) -> Result<Collapsed, Error> {
        let Some(huge) = GfnRange::at(gfn, level.frames()) else { return Ok(Collapsed::default()) };
        let first = self.merge(ctx, guard, huge, level)?;
        if first.inhibited == 0 || !self.is_accepted(&mut ctx.lp, gfn, level) {
            return Ok(first);
        }
        if !self.mmu.allow_huge(guard, gfn, level)? {
            return Ok(first);
        }
        let done = self.merge(ctx, guard, huge, level)?;
        if done.merged == 0 {
            self.mmu.inhibit_huge(guard, gfn, level)?;
            return Ok(first);
        }
        Ok(done)
    }

    /// Whether the guest has accepted the first page of a table.
    fn is_accepted(&self, lp: &mut P::Lp<'h>, gfn: Gfn, level: Level) -> bool {
        let Some(below) = level.down() else { return false };
        let (tdr, entry) = (self.core.tdr, GpaLevel::of_gfn(gfn, below));
        bounded(Bound::WITHOUT_VCPUS, || tdh::tdh_mem_sept_rd(lp, tdr, entry))
            .is_ok_and(|info| info.state() == Some(SeptState::Mapped))
    }

    /// Merges a run. A module that is busy, or interrupted too often, has changed nothing: the run stays small.
    fn merge(
        &self,
        ctx: &mut SeptCtx<'h, P>,
        guard: &mut Exclusive<'_>,
        run: GfnRange,
        level: Level,
    ) -> Result<Collapsed, Error> {
        match self.mmu.collapse_range(ctx, guard, run, level) {
            Ok(done) => Ok(done),
            Err(error @ (MmuError::Hook { .. } | MmuError::NoMemory)) if error.is_retryable() => {
                Ok(Collapsed { refused: 1, ..Collapsed::default() })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The first run of neighbouring huge pages in a range that may be merged, as far as the host knows.
    fn eligible_run(&self, range: GfnRange, level: Level) -> Option<GfnRange> {
        let whole = aligned_inside(range, level);
        let mut gfn = whole.start();
        let mut start = None;
        while gfn < whole.end() {
            match (self.is_eligible(gfn, level), start) {
                (true, None) => start = Some(gfn),
                (false, Some(start)) => return Some(GfnRange::new(start, gfn)),
                _ => {}
            }
            gfn = gfn.wrapping_add(level.frames());
        }
        start.map(|start| GfnRange::new(start, gfn))
    }

    /// Whether a huge page here is private throughout and lies in one folio. Small folios that are neighbours
    /// in memory too are joined for that.
    fn is_eligible(&self, gfn: Gfn, level: Level) -> bool {
        self.slots
            .with(gfn, |_, state| {
                let uniform = GfnRange::at(gfn, level.frames())
                    .is_some_and(|huge| state.attributes.uniform(huge) == Some(Side::Private));
                uniform && state.backing.join(gfn, level)
            })
            .unwrap_or(false)
    }
}

/// The whole pages of a level inside a range.
fn aligned_inside(range: GfnRange, level: Level) -> GfnRange {
    let start = range.start().get().checked_next_multiple_of(level.frames()).map_or(range.end(), Gfn::new);
    GfnRange::new(start, range.end().align_down(level))
}

fn add(total: &mut Collapsed, more: Collapsed) {
    total.merged += more.merged;
    total.refused += more.refused;
    total.inhibited += more.inhibited;
}
