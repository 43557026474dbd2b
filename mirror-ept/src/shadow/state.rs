//! What is known of shadow pages: which there are, what they map, and what is tracked.
//!
//! # Protocol
//! One lock, the shadow pages' own, is over all of it. Every leaf is in the reverse map from before it can be
//! used until after it is gone; every page knows the entries that point at it.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use tdvisor_base::{Gfn, Level, Pfn};

use super::{Role, ShadowError};
use crate::mmu::index;
use crate::range::{GfnRange, Position};
use crate::table::ENTRIES;

/// Where an entry is: page and index.
pub(super) type Place = (u32, u16);

/// How many entries a page has, as the second half of a [`Place`].
#[expect(clippy::cast_possible_truncation, reason = "a table has 512 entries, a model's fewer")]
pub(super) const ALL_ENTRIES: u16 = ENTRIES as u16;

/// The second half of the [`Place`] of what maps a frame at a level.
pub(super) fn entry_index(gfn: Gfn, level: Level) -> u16 {
    u16::try_from(index(gfn, level)).unwrap_or(ALL_ENTRIES)
}

#[derive(Debug)]
pub(super) struct ShadowPage {
    pub(super) gfn: Gfn,
    pub(super) role: Role,
    pub(super) table: Pfn,
    pub(super) generation: u64,
    /// Entries that point at this page.
    pub(super) parents: Vec<Place>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) pages: Vec<Option<ShadowPage>>,
    pub(super) free: Vec<u32>,
    /// Pages in the order in which they were made.
    pub(super) active: VecDeque<u32>,
    /// Leaves by the first guest frame that they map.
    pub(super) leaves: BTreeMap<Gfn, Vec<(Place, Level)>>,
    /// Which guest frame each leaf maps first.
    pub(super) origins: BTreeMap<Place, Gfn>,
    /// Which page is in which table.
    pub(super) tables: BTreeMap<Pfn, u32>,
    /// How many pages shadow each tracked guest table.
    pub(super) tracked: BTreeMap<Gfn, u32>,
    pub(super) generation: u64,
}

impl State {
    pub(super) fn page(&self, id: u32) -> Option<&ShadowPage> {
        self.pages.get(id as usize)?.as_ref()
    }

    pub(super) fn page_mut(&mut self, id: u32) -> Option<&mut ShadowPage> {
        self.pages.get_mut(id as usize)?.as_mut()
    }

    pub(super) fn add_leaf(&mut self, place: Place, gfn: Gfn, level: Level) {
        self.leaves.entry(gfn).or_default().push((place, level));
        self.origins.insert(place, gfn);
    }

    pub(super) fn remove_leaf(&mut self, place: Place) {
        if let Some(gfn) = self.origins.remove(&place)
            && let Some(places) = self.leaves.get_mut(&gfn)
        {
            places.retain(|(other, _)| *other != place);
            if places.is_empty() {
                self.leaves.remove(&gfn);
            }
        }
    }

    /// A place for one more page.
    pub(super) fn new_id(&mut self) -> Result<u32, ShadowError> {
        self.active.try_reserve(1).map_err(|_| ShadowError::NoMemory)?;
        if let Some(id) = self.free.pop() {
            return Ok(id);
        }
        let id = u32::try_from(self.pages.len()).map_err(|_| ShadowError::NoMemory)?;
        self.pages.try_reserve(1).map_err(|_| ShadowError::NoMemory)?;
        self.free.try_reserve(self.pages.len() + 1).map_err(|_| ShadowError::NoMemory)?;
        self.pages.push(None);
        Ok(id)
    }

    pub(super) fn is_valid(&self, id: u32) -> bool {
        self.page(id).is_some_and(|page| page.generation == self.generation)
    }

    /// The leaves that map a frame of a range: where they are, their first frame, their level.
    pub(super) fn leaves_in(&self, range: GfnRange) -> Vec<(Place, Gfn, Level)> {
        // A leaf that begins up to a gigabyte before the range may reach into it.
        let from = Gfn::new(range.start().get().saturating_sub(Level::L1G.frames() - 1));
        let near = self.leaves.range(from..range.end());
        near.flat_map(|(gfn, places)| places.iter().map(move |(place, level)| (*place, *gfn, *level)))
            .filter(|(_, gfn, level)| Position::of(*gfn, *level).range().overlaps(range))
            .collect()
    }

    /// Whether a table of the guest lies in a range.
    pub(super) fn tracks_any(&self, range: GfnRange) -> bool {
        self.tracked.range(range.start()..range.end()).next().is_some()
    }
}
