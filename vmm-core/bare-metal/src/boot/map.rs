//! Usable memory, as ranges.

use heapless::Vec;
use td_host::host::MemoryRange;
use tdvisor_base::{Hpa, PAGE_SIZE};

/// Ranges that are kept at most; what does not fit is not used.
pub const RANGES: usize = 128;

/// Usable memory: whole pages, ascending, nothing twice.
#[derive(Clone, Debug, Default)]
pub struct MemoryMap(Vec<MemoryRange, RANGES>);

impl MemoryMap {
    /// A map of nothing.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The ranges.
    pub fn ranges(&self) -> &[MemoryRange] {
        &self.0
    }

    /// Bytes of all ranges.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|range| range.size).sum()
    }

    /// Whether all of `bytes` bytes at `at` are in one range.
    pub fn holds(&self, at: Hpa, bytes: u64) -> bool {
        let wanted = MemoryRange { base: at, size: bytes };
        at.checked_add(bytes).is_some() && self.0.iter().any(|range| range.contains(&wanted))
    }

    /// Adds memory: the whole pages of `bytes` bytes at `at`.
    pub fn add(&mut self, at: u64, bytes: u64) {
        let end = at.saturating_add(bytes) & !(PAGE_SIZE - 1);
        let Some(start) = at.checked_next_multiple_of(PAGE_SIZE) else { return };
        // What is there already is taken out first, so that nothing is twice.
        self.remove(start, end.saturating_sub(start));
        if end <= start {
            return;
        }
        let index = self.0.partition_point(|range| range.base.get() < start);
        let _ = self.0.insert(index, MemoryRange { base: Hpa::new(start), size: end - start });
        self.join();
    }

    /// Takes memory away: every page that `bytes` bytes at `at` touch.
    pub fn remove(&mut self, at: u64, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let start = at & !(PAGE_SIZE - 1);
        let end = at.saturating_add(bytes).checked_next_multiple_of(PAGE_SIZE).unwrap_or(u64::MAX);
        let mut left = Vec::new();
        for range in &self.0 {
            let (first, last) = (range.base.get(), range.end());
            for (from, to) in [(first, last.min(start)), (first.max(end), last)] {
                if from < to {
                    let _ = left.push(MemoryRange { base: Hpa::new(from), size: to - from });
                }
            }
        }
        self.0 = left;
    }

    /// Takes everything from `limit` on away.
    pub fn truncate(&mut self, limit: u64) {
        self.remove(limit, u64::MAX - limit);
    }

    /// The first `bytes` bytes, aligned to `align` (a power of two), in the largest range that has them.
    pub fn find(&self, bytes: u64, align: u64) -> Option<Hpa> {
        let largest = self.0.iter().max_by_key(|range| range.size)?;
        let at = largest.base.get().checked_next_multiple_of(align)?;
        self.holds(Hpa::new(at), bytes).then_some(Hpa::new(at))
    }

    fn join(&mut self) {
        let mut joined: Vec<MemoryRange, RANGES> = Vec::new();
        for range in &self.0 {
            match joined.last_mut() {
                Some(last) if last.end() == range.base.get() => last.size += range.size,
                _ => {
                    let _ = joined.push(*range);
                }
            }
        }
        self.0 = joined;
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    fn ranges(map: &MemoryMap) -> Vec<(u64, u64)> {
        map.ranges().iter().map(|range| (range.base.get(), range.end())).collect()
    }

    #[test]
    fn ranges_are_whole_pages_in_order_and_nothing_is_twice() {
        let mut map = MemoryMap::new();
        map.add(0x10_0000, 0x10_0000);
        map.add(0x123, 0x3000);
        map.add(0x18_0000, 0x10_0000);
        map.add(0x5000, 0xfff);
        assert_eq!(ranges(&map), [(0x1000, 0x3000), (0x10_0000, 0x28_0000)]);
        assert_eq!(map.bytes(), 0x18_2000);
    }

    #[test]
    fn what_is_taken_away_goes_with_every_page_that_it_touches() {
        let mut map = MemoryMap::new();
        map.add(0, 0x10_000);
        map.remove(0x3001, 1);
        map.remove(0x8000, 0);
        assert_eq!(ranges(&map), [(0, 0x3000), (0x4000, 0x10_000)]);
        map.truncate(0x8000);
        assert_eq!(ranges(&map), [(0, 0x3000), (0x4000, 0x8000)]);
        map.remove(0, u64::MAX);
        assert_eq!(ranges(&map), []);
    }

    #[test]
    fn room_is_found_in_the_largest_range_or_not_at_all() {
        let mut map = MemoryMap::new();
        map.add(0x1000, 0x2000);
        map.add(0x10_1000, 0x40_0000);
        assert_eq!(map.find(0x20_0000, 0x20_0000), Some(Hpa::new(0x20_0000)));
        assert_eq!(map.find(0x40_0000, 0x20_0000), None);
        assert!(map.holds(Hpa::new(0x1000), 0x2000) && !map.holds(Hpa::new(0x1000), 0x2001));
        assert!(!map.holds(Hpa::new(u64::MAX), 2));
    }

    #[test]
    fn more_ranges_than_fit_cost_memory_and_nothing_else() {
        let mut map = MemoryMap::new();
        for index in 0..200u64 {
            map.add(index * 0x2000, 0x1000);
        }
        assert_eq!(map.ranges().len(), RANGES);
        map.remove(0x1000, 0x1000);
        assert!(map.ranges().len() <= RANGES);
    }
}
