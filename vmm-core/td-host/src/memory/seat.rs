//! A seat: what a thread needs to change a TD's memory.
//!
//! It is a participant of the MMU's lock, tables reserved ahead of time, and what the hooks need: an LP to issue
//! SEAMCALLs on, before all. The seat owns the LP's token and lends it, to the hooks by way of the MMU and to the
//! run loop, so that one thread never needs two.

use alloc::vec::Vec;

use mirror_ept::{Participant, Reserve, TableCache};
use tdvisor_base::Level;

use super::GuestMemory;
use super::hooks::SeptCtx;
use super::tables::SeptPage;
use crate::error::Error;
use crate::platform::{Lp, LpId, Platform};

/// One thread's seat at a TD's memory.
pub struct Seat<'t, 'h, P: Platform> {
    memory: &'t GuestMemory<'h, P>,
    pub(super) participant: Participant,
    pub(super) cache: TableCache<SeptPage>,
    pub(super) ctx: SeptCtx<'h, P>,
}

impl<P: Platform> core::fmt::Debug for Seat<'_, '_, P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Seat").field("lp", &self.ctx.lp.id()).finish_non_exhaustive()
    }
}

impl<'h, P: Platform> GuestMemory<'h, P> {
    /// Takes a seat with an LP of the machine.
    ///
    /// # Errors
    /// [`Error::NoLp`] where the LP does not exist or all seats are taken.
    pub fn take_seat(&self, lp: LpId) -> Result<Seat<'_, 'h, P>, Error> {
        let token = self.core.host.platform.take_lp(lp).ok_or(Error::NoLp(lp))?;
        let participant = self.mmu.participant().ok_or(Error::NoLp(lp))?;
        let ctx = SeptCtx { lp: token, source: None, unclean: Vec::new() };
        Ok(Seat { memory: self, participant, cache: TableCache::new(), ctx })
    }
}

impl<'t, 'h, P: Platform> Seat<'t, 'h, P> {
    /// The memory that the seat is at.
    pub fn memory(&self) -> &'t GuestMemory<'h, P> {
        self.memory
    }

    /// The LP of the seat, to issue SEAMCALLs on.
    pub fn lp(&mut self) -> &mut P::Lp<'h> {
        &mut self.ctx.lp
    }

    /// Whether the machine has stopped for good.
    pub(crate) fn is_frozen(&self) -> bool {
        self.ctx.lp.is_frozen()
    }

    /// Exchanges what is reserved.
    pub(crate) fn exchange_cache(&mut self, cache: TableCache<SeptPage>) -> TableCache<SeptPage> {
        core::mem::replace(&mut self.cache, cache)
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
    }
}
