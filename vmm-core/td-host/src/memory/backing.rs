//! The pages behind a slot: folios, allocated at first use, one per frame whatever its attribute.
//!
//! A guest frame keeps its host page when it is converted between private and shared (in-place
//! conversion), so there is never a second copy to pay for and never a moment where a frame has two
//! pages. A folio is a naturally aligned run of pages from one allocation; a mapping is never larger than
//! its folio. Punching a hole into part of a folio first cuts the folio into 4 KiB pages; pieces that are
//! neighbours can be joined again. A page comes cleared: whatever it held before is nobody's in this TD.
//!
//! # Quarantine
//! A page that could not be removed from the TD (invariant 15) is in nobody's hands: it is taken out of the
//! backing with [`Backing::quarantine`], counted, and neither used nor freed again while this host runs.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use mirror_ept::GfnRange;
use tdvisor_base::{Gfn, Level, Pfn};

use crate::platform::Platform;

/// A naturally aligned run of pages from one allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Folio {
    /// The folio's first page.
    pub pfn: Pfn,
    /// The folio's size.
    pub level: Level,
}

/// Where a guest frame is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backed {
    /// The page of the frame itself.
    pub pfn: Pfn,
    /// The size of the folio that holds it: no mapping of the frame may be larger.
    pub folio_level: Level,
}

/// The pages of one slot.
#[derive(Debug)]
pub struct Backing {
    frames: GfnRange,
    /// First guest frame of each folio.
    folios: BTreeMap<Gfn, Folio>,
    largest: Level,
    quarantined: Vec<Folio>,
}

impl Backing {
    /// An empty store for these frames, with folios of at most `largest` (4K, 2M or 1G).
    pub fn new(frames: GfnRange, largest: Level) -> Self {
        Self { frames, folios: BTreeMap::new(), largest: largest.min(Level::L1G), quarantined: Vec::new() }
    }

    /// The page of a frame, if it has one.
    pub fn lookup(&self, gfn: Gfn) -> Option<Backed> {
        let (start, folio) = self.folios.range(..=gfn).next_back()?;
        let offset = gfn.get() - start.get();
        (offset < folio.level.frames())
            .then(|| Backed { pfn: folio.pfn.wrapping_add(offset), folio_level: folio.level })
    }

    /// The page of a frame, allocated now if it has none: the largest folio that fits the slot, its
    /// neighbours and what the allocator has left.
    ///
    /// `None` where the frame is outside the slot or memory is exhausted.
    pub fn resolve(&mut self, platform: &impl Platform, gfn: Gfn) -> Option<Backed> {
        if let Some(backed) = self.lookup(gfn) {
            return Some(backed);
        }
        if !self.frames.contains(gfn) {
            return None;
        }
        for level in [Level::L1G, Level::L2M, Level::L4K] {
            let start = gfn.align_down(level);
            if level > self.largest || !self.is_vacant(start, level) {
                continue;
            }
            if let Some(pfn) = platform.allocate_page(level) {
                if (0..level.frames()).any(|frame| platform.clear_page(pfn.wrapping_add(frame)).is_err()) {
                    platform.free_page(pfn, level);
                    return None;
                }
                self.folios.insert(start, Folio { pfn, level });
                return self.lookup(gfn);
            }
        }
        None
    }

    fn is_vacant(&self, start: Gfn, level: Level) -> bool {
        let Some(span) = GfnRange::at(start, level.frames()) else { return false };
        self.frames.covers(span)
            && self.lookup(start).is_none()
            && self.folios.range(span.start()..span.end()).next().is_none()
    }

    /// Cuts the folios that `at` falls into the middle of, so that none crosses it.
    pub fn split_at(&mut self, at: Gfn) {
        while let Some((start, folio)) = self.folios.range(..at).next_back().map(|(s, f)| (*s, *f)) {
            let (true, Some(smaller)) = (at.get() - start.get() < folio.level.frames(), folio.level.down())
            else {
                return;
            };
            self.folios.remove(&start);
            for i in 0..512 {
                let step = i * smaller.frames();
                self.folios.insert(
                    start.wrapping_add(step),
                    Folio { pfn: folio.pfn.wrapping_add(step), level: smaller },
                );
            }
        }
    }

    /// Whether the page of `level` at `start` lies in one folio, joining smaller ones that follow each other in
    /// memory if that makes one.
    pub fn join(&mut self, start: Gfn, level: Level) -> bool {
        let Some(first) = self.lookup(start) else { return false };
        if first.folio_level >= level {
            return true;
        }
        let (Some(below), Some(span)) = (level.down(), GfnRange::at(start, level.frames())) else {
            return false;
        };
        let step = below.frames();
        let neighbours = start.is_aligned(level)
            && first.pfn.is_aligned(level)
            && (0..512).all(|i| {
                self.join(start.wrapping_add(i * step), below)
                    && self.lookup(start.wrapping_add(i * step)).map(|backed| backed.pfn)
                        == Some(first.pfn.wrapping_add(i * step))
            });
        if neighbours {
            let pieces: Vec<Gfn> = self.folios.range(span.start()..span.end()).map(|(gfn, _)| *gfn).collect();
            for gfn in pieces {
                self.folios.remove(&gfn);
            }
            self.folios.insert(start, Folio { pfn: first.pfn, level });
        }
        neighbours
    }

    /// Takes the folios that lie wholly in `range` out of the store, for the caller to free.
    pub fn take(&mut self, range: GfnRange) -> Vec<Folio> {
        let starts: Vec<Gfn> = self
            .folios
            .range(range.start()..range.end())
            .filter(|(start, folio)| {
                GfnRange::at(**start, folio.level.frames()).is_some_and(|span| range.covers(span))
            })
            .map(|(start, _)| *start)
            .collect();
        starts.into_iter().filter_map(|start| self.folios.remove(&start)).collect()
    }

    /// Withdraws the page of a frame for ever. The rest of its folio stays usable.
    pub fn quarantine(&mut self, gfn: Gfn) {
        self.split_at(gfn);
        self.split_at(gfn.wrapping_add(1));
        if let Some(folio) = self.folios.remove(&gfn) {
            self.quarantined.push(folio);
        }
    }

    /// Pages withdrawn for ever.
    pub fn quarantined(&self) -> &[Folio] {
        &self.quarantined
    }

    /// Frees every folio that is left, and gives their number of frames. The caller has proved that no TD
    /// maps them.
    pub fn release(&mut self, platform: &impl Platform) -> u64 {
        let mut frames = 0;
        for (_, folio) in core::mem::take(&mut self.folios) {
            platform.free_page(folio.pfn, folio.level);
            frames += folio.level.frames();
        }
        frames
    }

    /// Takes over pages of a store of the same frames that was saved. Whether they fit.
    pub(crate) fn refill(&mut self, folios: Vec<(Gfn, Folio)>, quarantined: Vec<Folio>) -> bool {
        let mut free_from = self.frames.start();
        let fits = folios.iter().all(|(start, folio)| {
            let span = GfnRange::at(*start, folio.level.frames());
            let fits = span.is_some_and(|span| self.frames.covers(span) && free_from <= span.start());
            free_from = span.map_or(free_from, GfnRange::end);
            fits
        });
        self.folios = folios.into_iter().collect();
        self.quarantined = quarantined;
        fits
    }

    /// Folios and their first frames, ascending.
    pub fn folios(&self) -> impl Iterator<Item = (Gfn, Folio)> + '_ {
        self.folios.iter().map(|(start, folio)| (*start, *folio))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gfn(frame: u64) -> Gfn {
        Gfn::new(frame)
    }

    /// Two huge folios, far apart in memory.
    fn backing() -> Backing {
        let mut backing = Backing::new(GfnRange::new(gfn(0), gfn(1024)), Level::L2M);
        backing.folios.insert(gfn(0), Folio { pfn: Pfn::new(4096), level: Level::L2M });
        backing.folios.insert(gfn(512), Folio { pfn: Pfn::new(8192), level: Level::L2M });
        backing
    }

    #[test]
    fn a_folio_that_was_cut_keeps_its_pages_and_is_joined_again() {
        let mut backing = backing();
        backing.split_at(gfn(7));
        let cut = backing.lookup(gfn(9));
        assert_eq!(cut, Some(Backed { pfn: Pfn::new(4105), folio_level: Level::L4K }));
        assert_eq!(backing.folios().count(), 513);
        assert!(backing.join(gfn(0), Level::L2M));
        let joined = backing.lookup(gfn(9));
        assert_eq!(joined, Some(Backed { pfn: Pfn::new(4105), folio_level: Level::L2M }));
        assert_eq!(backing.folios().count(), 2);
    }

    #[test]
    fn a_folio_that_lost_a_page_or_has_a_strange_one_is_not_joined() {
        let mut backing = backing();
        assert_eq!(backing.take(GfnRange::new(gfn(0), gfn(5))), [], "a folio goes whole or not at all");
        backing.split_at(gfn(5));
        assert_eq!(backing.take(GfnRange::new(gfn(3), gfn(5))).len(), 2);
        assert!(!backing.join(gfn(0), Level::L2M));
        for (frame, pfn) in [(3, 4099), (4, 77)] {
            backing.folios.insert(gfn(frame), Folio { pfn: Pfn::new(pfn), level: Level::L4K });
        }
        assert!(!backing.join(gfn(0), Level::L2M), "one of its pages lies elsewhere");
        assert!(backing.join(gfn(512), Level::L2M), "whole as it is");
    }

    #[test]
    fn a_withdrawn_page_is_in_nobodys_hands_and_the_rest_of_its_folio_is() {
        let mut backing = backing();
        backing.quarantine(gfn(600));
        assert_eq!(backing.lookup(gfn(600)), None);
        assert_eq!(backing.lookup(gfn(601)).map(|backed| backed.pfn), Some(Pfn::new(8192 + 89)));
        assert_eq!(backing.quarantined(), [Folio { pfn: Pfn::new(8192 + 88), level: Level::L4K }]);
        assert!(!backing.join(gfn(512), Level::L2M));
    }
}
