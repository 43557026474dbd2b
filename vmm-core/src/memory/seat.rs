//! A seat: what a thread needs to change a TD's memory.
//!
//! It is a participant of the MMU's lock, an LP to issue SEAMCALLs on, and tables reserved ahead of time.
//! The LP token stays where the hooks find it for as long as the seat lives; the run loop borrows it from
//! there too, so that one thread never needs two.

use base::Level;
use mirror_ept::{Participant, Reserve, TableCache};

use super::GuestMemory;
use super::tables::SeptPage;
use crate::error::Error;
use crate::platform::{Lp, LpId, Platform};

/// One thread's seat at a TD's memory.
pub struct Seat<'t, 'h, P: Platform> {
    memory: &'t GuestMemory<'h, P>,
    pub(super) participant: Participant,
    pub(super) cache: TableCache<SeptPage>,
    lp: LpId,
}

impl<P: Platform> core::fmt::Debug for Seat<'_, '_, P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Seat").field("lp", &self.lp).finish_non_exhaustive()
    }
}

impl<'h, P: Platform> GuestMemory<'h, P> {
    /// Takes a seat with an LP of the machine.
    ///
    /// # Errors
    /// [`Error::NoLp`] where the LP does not exist or all seats are taken.
    pub fn take_seat(&self, lp: LpId) -> Result<Seat<'_, 'h, P>, Error> {
        let token = self.core.host.platform.take_lp(lp).ok_or(Error::NoLp(lp))?;
        let id = token.id();
        let participant = self.mmu.participant().ok_or(Error::NoLp(lp))?;
        *self.core.seat(participant.index()).ok_or(Error::NoLp(lp))? = Some(token);
        Ok(Seat { memory: self, participant, cache: TableCache::new(), lp: id })
    }
}

impl<'t, 'h, P: Platform> Seat<'t, 'h, P> {
    /// The memory that the seat is at.
    pub fn memory(&self) -> &'t GuestMemory<'h, P> {
        self.memory
    }

    /// The LP of the seat.
    pub fn lp(&self) -> LpId {
        self.lp
    }

    /// Borrows the LP.
    ///
    /// # Errors
    /// [`Error::NoLp`]: cannot happen while the seat lives.
    pub fn with_lp<T>(&self, work: impl FnOnce(&mut P::Lp<'h>) -> T) -> Result<T, Error> {
        let mut place = self.memory.core.seat(self.participant.index()).ok_or(Error::NoLp(self.lp))?;
        Ok(work(place.as_mut().ok_or(Error::NoLp(self.lp))?))
    }

    /// Reserves tables, before any guard is taken.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub(super) fn reserve(&mut self, reserve: Reserve) -> Result<(), Error> {
        self.memory.mmu.top_up(&mut self.cache, reserve).map_err(|_| Error::NoMemory)
    }

    /// Whether a page larger than `level` may exist in this TD's memory at all.
    pub(super) fn may_exceed(&self, level: Level) -> bool {
        self.memory.largest > level
    }
}

impl<P: Platform> Drop for Seat<'_, '_, P> {
    fn drop(&mut self) {
        self.memory.mmu.release(&mut self.cache);
        if let Some(mut place) = self.memory.core.seat(self.participant.index()) {
            *place = None;
        }
    }
}
