//! A TD's memory as numbers, for a snapshot: slots, pages, and both trees.
//!
//! # Protocol
//! The TD is at rest: no vCPU has its thread, and nobody has a seat. What is on its way to another machine, or being removed, or
//! logged, is not saved: [`NotSaved`] says so. The mirror is saved entry by entry, with the pages that it reserves
//! ([`mirror_ept::ops::saved`]); the direct tree lies in the host's memory. Pages are named and not looked into.

use alloc::sync::Arc;
use alloc::vec::Vec;

use mirror_ept::{BadNumbers, Config, GfnRange, Mmu, Numbers, Reader, Restoring, TableCache};
use tdvisor_base::sync::{AtomicU64, Mutex, Ordering};
use tdvisor_base::{Gfn, Level, Side};

use super::backing::Folio;
use super::collapse::Cut;
use super::hooks::SeptHooks;
use super::sending::Sending;
use super::slots::Slots;
use super::tables::{SeptPage, Tables};
use super::{GuestMemory, TdMmu};
use crate::host::saved::{put_level, read_level, read_pfn};
use crate::platform::Platform;
use crate::td::core::TdCore;
use crate::td::saved::NotSaved;

fn put_folio(out: &mut Numbers, folio: &Folio) {
    out.put(folio.pfn.get());
    put_level(out, folio.level);
}

fn read_folio(reader: &mut Reader<'_>) -> Result<Folio, BadNumbers> {
    Ok(Folio { pfn: read_pfn(reader)?, level: read_level(reader)? })
}

fn put_frames(out: &mut Numbers, range: GfnRange) {
    out.put(range.start().get());
    out.put(range.end().get());
}

fn read_frames(reader: &mut Reader<'_>) -> Result<GfnRange, BadNumbers> {
    let (start, end) = (reader.number()?, reader.number()?);
    if start < end { Ok(GfnRange::new(Gfn::new(start), Gfn::new(end))) } else { Err(BadNumbers) }
}

/// Memory that is being read; caches are read in between.
pub(crate) struct RestoringMemory<'h, P: Platform> {
    core: Arc<TdCore<'h, P>>,
    mmu: Restoring<Tables<'h, P>, SeptHooks<'h, P>>,
    slots: Slots,
    largest: Level,
    cut: Cut,
    leaving: Vec<Folio>,
    frames_converted: u64,
}

impl<'h, P: Platform> GuestMemory<'h, P> {
    /// Writes the memory.
    pub(crate) fn save(&self, out: &mut Numbers) -> Result<(), NotSaved> {
        let Self { core: _, mmu, slots, conversions: _, largest, cut, leaving, frames_converted, sending } =
            self;
        if !sending.is_idle() || !slots.all_live() {
            return Err(NotSaved::Moving);
        }
        put_level(out, *largest);
        let mut all: Vec<Numbers> = Vec::new();
        slots.for_live(|frames, state| {
            let mut out = Numbers::new();
            put_frames(&mut out, frames);
            let shared = state.attributes.intervals().filter(|(_, side)| *side == Side::Shared);
            out.put_list(shared, |out, (run, _)| put_frames(out, run));
            out.put_list(state.backing.folios(), |out, (start, folio)| {
                out.put(start.get());
                put_folio(out, &folio);
            });
            out.put_list(state.backing.quarantined(), put_folio);
            all.push(out);
        });
        out.put_list(all, |out, slot| slot.into_vec().into_iter().for_each(|number| out.put(number)));
        out.put_list(cut.all(), |out, (gfn, refusals)| {
            out.put(gfn.get());
            out.put(refusals);
        });
        out.put_list(leaving.lock().iter(), put_folio);
        out.put(frames_converted.load(Ordering::Relaxed));
        let mut participant = mmu.participant().ok_or(NotSaved::NotAtRest)?;
        let mut guard = participant.exclusive();
        mmu.save(&mut guard, out, &mut |out, page: &SeptPage| page.save(out)).map_err(|_| NotSaved::NotAtRest)
    }

    /// Writes what a vCPU has reserved.
    pub(crate) fn save_cache(out: &mut Numbers, cache: &TableCache<SeptPage>) {
        TdMmu::<'h, P>::save_cache(out, cache, |out, page| page.save(out));
    }
}

impl<'h, P: Platform> RestoringMemory<'h, P> {
    /// Reads what [`GuestMemory::save`] wrote. The host's memory is as it was.
    pub(crate) fn read(
        core: Arc<TdCore<'h, P>>,
        config: Config,
        reader: &mut Reader<'_>,
    ) -> Result<Self, BadNumbers> {
        let largest = read_level(reader)?;
        let mut states = reader.list(|reader| {
            let frames = read_frames(reader)?;
            let shared = reader.list(read_frames)?;
            let folios = reader.list(|reader| Ok((Gfn::new(reader.number()?), read_folio(reader)?)))?;
            Ok((frames, shared, folios, reader.list(read_folio)?))
        })?;
        let ranges: Vec<GfnRange> = states.iter().map(|(frames, ..)| *frames).collect();
        let slots = Slots::new(&ranges, config.end, largest).map_err(|_| BadNumbers)?;
        let mut states = states.drain(..);
        let mut fits = true;
        slots.for_live(|frames, state| {
            let Some((of, shared, folios, quarantined)) = states.next() else { return };
            fits &= of == frames;
            shared.into_iter().for_each(|run| state.attributes.set(run, Side::Shared));
            fits &= state.backing.refill(folios, quarantined);
        });
        if !fits {
            return Err(BadNumbers);
        }
        let cut = Cut::of(reader.list(|reader| Ok((Gfn::new(reader.number()?), reader.narrow()?)))?);
        let leaving = reader.list(read_folio)?;
        let frames_converted = reader.number()?;
        let (pages, hooks) = (Tables { core: core.clone() }, SeptHooks { core: core.clone() });
        let mmu = Restoring::read(config, pages, hooks, reader, &mut SeptPage::read)?;
        Ok(Self { core, mmu, slots, largest, cut, leaving, frames_converted })
    }

    /// Reads what a vCPU had reserved.
    pub(crate) fn read_cache(&mut self, reader: &mut Reader<'_>) -> Result<TableCache<SeptPage>, BadNumbers> {
        self.mmu.read_cache(reader, SeptPage::read)
    }

    /// The memory.
    pub(crate) fn finish(self) -> Result<GuestMemory<'h, P>, BadNumbers> {
        let Self { core, mmu, slots, largest, cut, leaving, frames_converted } = self;
        let mmu: Mmu<_, _> = mmu.finish()?;
        Ok(GuestMemory {
            core,
            mmu,
            slots,
            conversions: Mutex::new(()),
            largest,
            cut,
            leaving: Mutex::new(leaving),
            frames_converted: AtomicU64::new(frames_converted),
            sending: Sending::default(),
        })
    }
}
