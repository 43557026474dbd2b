//! Which guest memory is private: an interval map over one slot.
//!
//! Invariant 40c: the intervals cover the whole slot, are disjoint, and equal neighbours are merged. A new
//! slot is private throughout. The map says what *should* be mapped where; what is mapped follows it
//! through conversions, which change the map at their point of no return and not before.

use alloc::collections::BTreeMap;

use mirror_ept::GfnRange;
use tdvisor_base::{Gfn, Level, Side};

/// The attributes of one slot.
#[derive(Clone, Debug)]
pub struct AttributeMap {
    whole: GfnRange,
    /// Start of each interval and its attribute; an interval ends where the next one starts.
    starts: BTreeMap<Gfn, Side>,
}

impl AttributeMap {
    /// All of `whole` with one attribute.
    pub fn new(whole: GfnRange, attribute: Side) -> Self {
        Self { whole, starts: BTreeMap::from([(whole.start(), attribute)]) }
    }

    /// The attribute of a frame; `None` outside the slot.
    pub fn get(&self, gfn: Gfn) -> Option<Side> {
        if !self.whole.contains(gfn) {
            return None;
        }
        self.starts.range(..=gfn).next_back().map(|(_, attribute)| *attribute)
    }

    /// The one attribute of a range; `None` where it is mixed, empty or outside the slot.
    pub fn uniform(&self, range: GfnRange) -> Option<Side> {
        if range.is_empty() || !self.whole.covers(range) {
            return None;
        }
        let first = self.get(range.start())?;
        let next = self.starts.range(range.start().wrapping_add(1)..range.end()).next();
        next.is_none().then_some(first)
    }

    /// The largest page at `gfn`, not above `limit`, that is inside the slot and uniform.
    pub fn largest_uniform_page(&self, gfn: Gfn, limit: Level) -> Level {
        let mut best = Level::L4K;
        for level in [Level::L2M, Level::L1G] {
            let start = gfn.align_down(level);
            let uniform =
                GfnRange::at(start, level.frames()).is_some_and(|page| self.uniform(page).is_some());
            if level > limit || !uniform {
                break;
            }
            best = level;
        }
        best
    }

    /// Gives a range an attribute. What lies outside the slot is ignored.
    pub fn set(&mut self, range: GfnRange, attribute: Side) {
        let range = intersection(range, self.whole);
        if range.is_empty() {
            return;
        }
        let after = (range.end() < self.whole.end()).then(|| self.get(range.end())).flatten();
        let inside: alloc::vec::Vec<Gfn> =
            self.starts.range(range.start()..range.end()).map(|(start, _)| *start).collect();
        for start in inside {
            self.starts.remove(&start);
        }
        self.starts.insert(range.start(), attribute);
        if let Some(after) = after {
            self.starts.entry(range.end()).or_insert(after);
            if after == attribute {
                self.starts.remove(&range.end());
            }
        }
        let before = self.starts.range(..range.start()).next_back().map(|(_, a)| *a);
        if before == Some(attribute) {
            self.starts.remove(&range.start());
        }
    }

    /// The intervals in ascending order.
    pub fn intervals(&self) -> impl Iterator<Item = (GfnRange, Side)> + '_ {
        self.starts.iter().map(|(start, attribute)| {
            let end =
                self.starts.range(start.wrapping_add(1)..).next().map_or(self.whole.end(), |(next, _)| *next);
            (GfnRange::new(*start, end), *attribute)
        })
    }
}

fn intersection(a: GfnRange, b: GfnRange) -> GfnRange {
    GfnRange::new(a.start().max(b.start()), a.end().min(b.end()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Side::{Private, Shared};
    use tdvisor_test_data::chance::Chance;

    fn frames(start: u64, end: u64) -> GfnRange {
        GfnRange::new(Gfn::new(start), Gfn::new(end))
    }

    /// Checks the map against a model that has one attribute for each frame.
    fn model_agrees(map: &AttributeMap, model: &[Side]) {
        for (gfn, attribute) in model.iter().enumerate() {
            assert_eq!(map.get(Gfn::new(gfn as u64)), Some(*attribute), "frame {gfn}");
        }
        let intervals: alloc::vec::Vec<_> = map.intervals().collect();
        assert_eq!(intervals.first().map(|i| i.0.start()), Some(map.whole.start()));
        assert_eq!(intervals.last().map(|i| i.0.end()), Some(map.whole.end()));
        for pair in intervals.windows(2) {
            assert_eq!(pair[0].0.end(), pair[1].0.start(), "intervals cover without gaps");
            assert_ne!(pair[0].1, pair[1].1, "equal neighbours are merged");
        }
    }

    #[test]
    fn inv_40c_attribute_map_covers_disjoint_and_merged_after_any_change() {
        const FRAMES: u64 = 64;
        let mut map = AttributeMap::new(frames(0, FRAMES), Private);
        let mut model = [Private; FRAMES as usize];
        let mut chance = Chance::new(1);
        for step in 0..5_000 {
            let start = chance.below(FRAMES);
            let end = start + chance.below(FRAMES - start + 1);
            let attribute = chance.pick(&[Private, Shared]);
            map.set(frames(start, end), attribute);
            model[start as usize..end as usize].fill(attribute);
            model_agrees(&map, &model);
            let uniform = model[start as usize..end as usize].windows(2).all(|w| w[0] == w[1]);
            assert_eq!(map.uniform(frames(start, end)).is_some(), uniform && start < end, "step {step}");
        }
    }

    #[test]
    fn the_largest_uniform_page_stops_at_a_mixed_range_and_at_the_slot() {
        let mut map = AttributeMap::new(frames(0, 3 * 512), Private);
        map.set(frames(600, 601), Shared);
        assert_eq!(map.largest_uniform_page(Gfn::new(5), Level::L1G), Level::L2M);
        assert_eq!(map.largest_uniform_page(Gfn::new(700), Level::L2M), Level::L4K);
        assert_eq!(map.largest_uniform_page(Gfn::new(5), Level::L4K), Level::L4K);
        let short = AttributeMap::new(frames(0, 100), Private);
        assert_eq!(short.largest_uniform_page(Gfn::new(5), Level::L2M), Level::L4K);
    }
}
