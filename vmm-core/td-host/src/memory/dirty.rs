//! Which shared frames were written, and which were used: dirty logging and aging of a TD's shared memory.
//!
//! # Protocol
//! A TD's shared EPT has Accessed and Dirty bits off, so both work with permissions.
//!
//! *Logging* one slot ([`mirror_ept::dirty`] has the argument why no write is lost, invariant 46):
//! 1. Under the exclusive guard and a window, the slot gets a log and every shared leaf loses its write
//!    permission; faults that resolved a page without the log look again.
//! 2. The first write to a frame is a fault, which sets its bit. The host's own writes set it too.
//! 3. A harvest takes the bits and the permissions of the frames that it reports.
//! 4. At the end the log goes, under a window, and what logging cut is made huge again, as far as folio and
//!    attributes allow.
//!
//! A frame that turned private meanwhile may still be reported: what it held when it was shared was written.
//!
//! *Eager splitting* before logging saves the guest a fault per huge page; it is best effort and stops where
//! memory does (invariant 45). *Aging* takes no lock at all (invariant 43). The mirror is never aged or
//! logged: nobody sees what a guest does with its private memory.

use alloc::sync::Arc;

use mirror_ept::{Age, DirtyLog, EagerSplit, GfnRange, MmuError, Reserve};
use tdvisor_base::{Gfn, Level, Side};

use super::remove::pieces;
use super::{GuestMemory, Seat};
use crate::error::Error;
use crate::platform::Platform;

/// Tables that eager splitting reserves at a time.
const TABLES_AT_ONCE: usize = 16;

/// What to do with huge shared pages when logging starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HugeShared {
    /// Split them now, so that the guest does not have to fault for that.
    SplitNow,
    /// Leave each to the first write to it.
    SplitOnWrite,
}

const NOT_LOGGED: Error = Error::Caller("no writes are being logged in this memory slot");

impl<'h, P: Platform> GuestMemory<'h, P> {
    /// Starts to log writes to the shared frames of the slot that `gfn` is in. Everything written before counts
    /// as reported.
    ///
    /// # Errors
    /// [`Error::NoSlot`]; [`Error::Caller`] where the slot is being logged; [`Error::NoMemory`]. Nothing
    /// changed then.
    pub fn start_dirty_log(
        &self,
        seat: &mut Seat<'_, 'h, P>,
        gfn: Gfn,
        huge: HugeShared,
    ) -> Result<(), Error> {
        let _conversion = self.conversions.lock();
        let (range, logged) =
            self.slots.with(gfn, |range, state| (range, state.log.is_some())).ok_or(Error::NoSlot(gfn))?;
        if logged {
            return Err(Error::Caller("writes in this memory slot are being logged already"));
        }
        let log = Arc::new(DirtyLog::new(range).map_err(|_| Error::NoMemory)?);
        if huge == HugeShared::SplitNow {
            self.split_shared(seat, range)?;
        }
        let mut guard = seat.participant.exclusive();
        let window = self.mmu.notifier().begin(&mut guard, range);
        let started = self.mmu.start_logging(&mut guard, &log);
        if started.is_ok() {
            self.slots.with(gfn, |_, state| state.log = Some(log));
        }
        self.mmu.notifier().end(&mut guard, window);
        started.map_err(Error::from)
    }

    /// Reports every frame of the slot that was written since the last harvest, in ascending order, and gives
    /// their number. The next write to each is seen again.
    ///
    /// # Errors
    /// [`Error::Caller`] where no log is kept. Other errors mean that the TD cannot go on.
    pub fn harvest_dirty(
        &self,
        seat: &mut Seat<'_, 'h, P>,
        gfn: Gfn,
        report: impl FnMut(Gfn),
    ) -> Result<u64, Error> {
        let log = self.log_of(gfn).ok_or(NOT_LOGGED)?;
        let mut guard = seat.participant.exclusive();
        self.mmu.harvest_dirty(&mut guard, &log, report).map_err(Error::from)
    }

    /// Ends logging, and makes huge what it cut. Writes that were not harvested are forgotten. Gives the number
    /// of tables that became huge pages.
    ///
    /// # Errors
    /// [`Error::Caller`] where no log is kept. Other errors mean that the TD cannot go on.
    pub fn stop_dirty_log(&self, seat: &mut Seat<'_, 'h, P>, gfn: Gfn) -> Result<u64, Error> {
        let _conversion = self.conversions.lock();
        let log = self.log_of(gfn).ok_or(NOT_LOGGED)?;
        let range = log.range();
        {
            let mut guard = seat.participant.exclusive();
            let window = self.mmu.notifier().begin(&mut guard, range);
            self.slots.with(gfn, |_, state| state.log = None);
            self.mmu.notifier().end(&mut guard, window);
        }
        let mut merged = 0;
        let first = range.start().get().next_multiple_of(Level::L2M.frames());
        for piece in pieces(GfnRange::new(Gfn::new(first), range.end())) {
            let mut guard = seat.participant.exclusive();
            let mut at = piece.start();
            while let Some(huge) =
                GfnRange::at(at, Level::L2M.frames()).filter(|huge| huge.end() <= piece.end())
            {
                at = huge.end();
                if !self.may_be_huge_shared(huge) {
                    continue;
                }
                match self.mmu.recover_huge(&mut guard, huge, Level::L2M) {
                    Ok(tables) => merged += tables,
                    // The list of tables that wait for readers could not grow: they stay as they are.
                    Err(MmuError::NoMemory) => return Ok(merged),
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(merged)
    }

    /// Splits the huge shared pages of a range, until that is done or memory is exhausted. Gives their number.
    ///
    /// # Errors
    /// The TD cannot go on.
    pub fn split_shared(&self, seat: &mut Seat<'_, 'h, P>, range: GfnRange) -> Result<u64, Error> {
        let mut split = 0;
        let mut from = range.start();
        loop {
            let left = GfnRange::new(from, range.end());
            let outcome = self.mmu.split_direct_range(&seat.participant.shared(), &mut seat.cache, left);
            match outcome? {
                EagerSplit::Complete(done) => return Ok(split + done),
                EagerSplit::NeedTables { done, next } => {
                    split += done;
                    from = next;
                    if seat.reserve(Reserve::Direct(TABLES_AT_ONCE)).is_err() {
                        return Ok(split);
                    }
                }
            }
        }
    }

    /// Whether a shared page of the range was used since it was last aged; makes all of them old.
    ///
    /// # Errors
    /// [`Error::Mmu`] for a range outside guest memory.
    pub fn age(&self, seat: &mut Seat<'_, 'h, P>, range: GfnRange) -> Result<Age, Error> {
        self.mmu.age_gfn(&seat.participant.rcu(), range).map_err(Error::from)
    }

    /// Whether a shared page of the range was used since it was last aged; changes nothing.
    ///
    /// # Errors
    /// [`Error::Mmu`] for a range outside guest memory.
    pub fn test_age(&self, seat: &mut Seat<'_, 'h, P>, range: GfnRange) -> Result<Age, Error> {
        self.mmu.test_age_gfn(&seat.participant.rcu(), range).map_err(Error::from)
    }

    /// The log of the slot that a frame is in, if one is kept.
    pub(super) fn log_of(&self, gfn: Gfn) -> Option<Arc<DirtyLog>> {
        self.slots.with(gfn, |_, state| state.log.clone()).flatten()
    }

    /// Whether a huge range is shared throughout and lies in one folio.
    fn may_be_huge_shared(&self, huge: GfnRange) -> bool {
        self.largest >= Level::L2M
            && self
                .slots
                .with(huge.start(), |_, state| {
                    state.attributes.uniform(huge) == Some(Side::Shared)
                        && state.backing.join(huge.start(), Level::L2M)
                })
                .unwrap_or(false)
    }
}
