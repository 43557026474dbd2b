//! Private memory that arrives from another machine.
//!
//! # Protocol
//! The slots and their sides are known before the first page ([`GuestMemory::shape`], [`GuestMemory::take_shape`]).
//! A bundle then is one list ([`GuestMemory::arrive`]):
//! 1. Each page that is new gets memory behind it, and tables above it; with dynamic PAMT it is counted.
//! 2. Under the exclusive guard TDH.IMPORT.MEM takes the list, and the mirror follows ([`mirror_ept::arrive`]).
//! 3. What was counted for pages that the module did not take is undone.
//!
//! Nothing of a bundle is believed: a frame outside the slots, on the shared side or named twice refuses it before the
//! module is asked.

use alloc::vec::Vec;

use mirror_ept::{ArrivingLeaf, GfnRange, MmuError, Reserve, Retry};
use tdvisor_base::{Gfn, Side};
use tdx_module_iface::tdh::Operation;

use super::{GuestMemory, Seat};
use crate::error::Error;
use crate::host::pamt::PamtHold;
use crate::migration::bundle::{MemoryBundle, Oversized, Page, SharedPage, SlotShape};
use crate::migration::failure::{Failure, PeerFault};
use crate::migration::pages::CallPages;
use crate::platform::Platform;
use crate::retry::pause;

/// Attempts at linking the tables above one page.
const ATTEMPTS: u32 = 10_000;

impl<'h, P: Platform> GuestMemory<'h, P> {
    /// The slots, and which of their frames are shared.
    pub(crate) fn shape(&self) -> Result<Vec<SlotShape>, Oversized> {
        let mut slots = Vec::new();
        self.slots.for_live(|frames, state| {
            let shared = state.attributes.intervals().filter(|(_, side)| *side == Side::Shared);
            slots.push(SlotShape::new(frames, shared.map(|(run, _)| run).collect()));
        });
        slots.into_iter().collect()
    }

    /// Makes shared what is shared on the other machine. Nothing is mapped yet.
    pub(crate) fn take_shape(&self, slots: &[SlotShape]) {
        for run in slots.iter().flat_map(SlotShape::shared) {
            self.slots.for_each(*run, |part, state| state.attributes.set(part, Side::Shared));
        }
    }

    /// The next shared frames from `from` on that have a page, with what these hold; at most `limit`.
    pub(crate) fn shared_from(&self, from: Gfn, limit: usize) -> Result<Vec<SharedPage>, Error> {
        let mut frames = Vec::new();
        let all = GfnRange::new(from, self.mmu.config().end);
        self.slots.for_each(all, |part, state| {
            for (start, folio) in state.backing.folios() {
                if frames.len() > limit {
                    return;
                }
                for frame in 0..folio.level.frames() {
                    let gfn = start.wrapping_add(frame);
                    if part.contains(gfn) && state.attributes.get(gfn) == Some(Side::Shared) {
                        frames.push((gfn, folio.pfn.wrapping_add(frame)));
                    }
                }
            }
        });
        frames.sort_unstable();
        let pages = frames.into_iter().take(limit).map(|(gfn, pfn)| {
            let mut contents = Page::zeroed();
            self.core.host.platform.read(pfn.base(), contents.bytes_mut())?;
            Ok(SharedPage { gfn, contents })
        });
        pages.collect()
    }

    /// Fills a shared page.
    pub(crate) fn fill_shared(&self, page: &SharedPage) -> Result<(), Failure> {
        let gfn = page.gfn;
        let platform = &self.core.host.platform;
        let backed = self.slots.with(gfn, |_, state| {
            (state.attributes.get(gfn) == Some(Side::Shared)).then(|| state.backing.resolve(platform, gfn))
        });
        let Some(Some(backed)) = backed else { return Err(PeerFault::NotThere(gfn).into()) };
        let pfn = backed.ok_or(Error::NoMemory)?.pfn;
        Ok(platform.write(pfn.base(), page.contents.bytes()).map_err(Error::from)?)
    }

    /// Takes a bundle of private pages.
    ///
    /// # Errors
    /// The bundle is refused: by [`PeerFault`] nothing of it was taken; by the module what came before may be, and is
    /// mapped.
    pub(crate) fn arrive(
        &self,
        seat: &mut Seat<'_, 'h, P>,
        pages: &CallPages<'h, P>,
        bundle: &MemoryBundle,
    ) -> Result<(), Failure> {
        let mut leaves = Vec::new();
        for entry in bundle.entries() {
            let gfn = entry.entry.gfn();
            let new = match entry.entry.operation() {
                Operation::Nothing => continue,
                Operation::Migrate => Some(self.memory_for(gfn)?),
                Operation::Remigrate => None,
                // No session of ours cancels: memory that goes ends it.
                Operation::Cancel => return Err(PeerFault::OutOfTurn.into()),
            };
            if new.is_some() {
                self.link(seat, gfn)?;
            }
            leaves.push(ArrivingLeaf { gfn, new, taken: false });
        }
        let Seat { participant, ctx, .. } = seat;
        let mut holds: Vec<Option<PamtHold>> = Vec::new();
        for leaf in &leaves {
            match leaf.new.map(|page| self.core.host.hold_pamt(&mut ctx.lp, page.base())).transpose() {
                Ok(hold) => holds.push(hold),
                Err(error) => {
                    undo(holds, self.core.host, &mut ctx.lp);
                    return Err(Error::from(error).into());
                }
            }
        }
        let mut guard = participant.exclusive();
        let called = self.mmu.arrive(&mut guard, &mut leaves, |leaves| {
            pages.import_memory(&self.core, &mut ctx.lp, bundle, leaves)
        });
        drop(guard);
        for (hold, leaf) in holds.into_iter().zip(&leaves) {
            match hold {
                Some(hold) if leaf.taken => hold.keep(),
                Some(hold) => hold.undo(self.core.host, &mut ctx.lp),
                None => {}
            }
        }
        match called {
            Ok(result) => Ok(result?),
            Err(MmuError::NotApplicable(at)) => Err(PeerFault::NotThere(at.gfn()).into()),
            Err(error) => Err(Error::from(error).into()),
        }
    }

    /// The page of a private frame, allocated now if it has none.
    fn memory_for(&self, gfn: Gfn) -> Result<tdvisor_base::Pfn, Failure> {
        let platform = &self.core.host.platform;
        let backed = self.slots.with(gfn, |_, state| {
            (state.attributes.get(gfn) == Some(Side::Private)).then(|| state.backing.resolve(platform, gfn))
        });
        match backed {
            Some(Some(Some(backed))) => Ok(backed.pfn),
            Some(Some(None)) => Err(Error::NoMemory.into()),
            Some(None) | None => Err(PeerFault::NotThere(gfn).into()),
        }
    }

    /// Links the tables above a page.
    fn link(&self, seat: &mut Seat<'_, 'h, P>, gfn: Gfn) -> Result<(), Failure> {
        for attempt in 0..ATTEMPTS {
            seat.reserve(Reserve::PRIVATE)?;
            let Seat { participant, cache, ctx, .. } = &mut *seat;
            let linked = self.mmu.link_down(ctx, &participant.shared(), cache, gfn);
            match linked.map_err(Error::from)? {
                None => return Ok(()),
                Some(Retry::ExternalMemory) => return Err(Error::NoMemory.into()),
                Some(_) => pause(attempt),
            }
        }
        Err(Error::StayedBusy(gfn).into())
    }
}

fn undo<'h, P: Platform + 'h>(holds: Vec<Option<PamtHold>>, host: &crate::host::Host<P>, lp: &mut P::Lp<'h>) {
    for hold in holds.into_iter().flatten() {
        hold.undo(host, lp);
    }
}
