//! The map of memory.

use crate::memory_map::{Entry, MAX_ENTRIES, MapError, MemoryMap, Use};
use crate::mib;

fn uses(map: &MemoryMap) -> Vec<(u64, u64, Use)> {
    map.entries().iter().map(|Entry { range, usage }| (range.start >> 20, range.end >> 20, *usage)).collect()
}

#[test]
fn memory_is_kept_in_order_whatever_order_it_is_added_in_and_neighbours_are_joined() {
    let mut map = MemoryMap::new();
    for range in [mib(4, 5), mib(0, 1), mib(5, 6), mib(2, 3)] {
        map.add(range).unwrap();
    }
    assert_eq!(uses(&map), [(0, 1, Use::Free), (2, 3, Use::Free), (4, 6, Use::Free)]);
}

#[test]
fn memory_that_is_added_twice_is_refused_and_changes_nothing() {
    let mut map = MemoryMap::new();
    map.add(mib(4, 8)).unwrap();
    for range in [mib(4, 8), mib(3, 5), mib(7, 9), mib(5, 6), mib(0, 10)] {
        assert_eq!(map.add(range), Err(MapError::Twice(range)));
    }
    assert_eq!(uses(&map), [(4, 8, Use::Free)]);
}

#[test]
fn marking_changes_uses_and_makes_no_memory() {
    let mut map = MemoryMap::new();
    map.add(mib(0, 4)).unwrap();
    map.add(mib(6, 8)).unwrap();
    map.mark(mib(3, 7), Use::Reserved).unwrap();
    assert_eq!(
        uses(&map),
        [(0, 3, Use::Free), (3, 4, Use::Reserved), (6, 7, Use::Reserved), (7, 8, Use::Free)]
    );
    map.mark(mib(3, 7), Use::Free).unwrap();
    assert_eq!(uses(&map), [(0, 4, Use::Free), (6, 8, Use::Free)]);
}

#[test]
fn marks_are_whole_pages() {
    let mut map = MemoryMap::new();
    map.add(mib(0, 1)).unwrap();
    map.mark(crate::hob::Range { start: 0x1FFF, end: 0x2001 }, Use::Loaded).unwrap();
    let marked = map.entries()[1];
    assert_eq!((marked.range.start, marked.range.end, marked.usage), (0x1000, 0x3000, Use::Loaded));
}

#[test]
fn places_are_found_in_free_memory_only() {
    let mut map = MemoryMap::new();
    map.add(mib(0, 16)).unwrap();
    map.add(mib(32, 64)).unwrap();
    map.mark(mib(0, 3), Use::Loaded).unwrap();
    map.mark(mib(60, 64), Use::AcpiNvs).unwrap();
    assert_eq!(map.lowest(1 << 20, 2 << 20, 0), Some(4 << 20), "aligned");
    assert_eq!(map.lowest(1 << 20, 2 << 20, 5 << 20), Some(6 << 20), "not below the start");
    assert_eq!(map.lowest(14 << 20, 2 << 20, 0), Some(32 << 20), "not across a hole");
    assert_eq!(map.lowest(29 << 20, 2 << 20, 0), None);
    assert_eq!(map.highest(1 << 20, u64::MAX), Some(59 << 20));
    assert_eq!(map.highest(1 << 20, 40 << 20), Some(39 << 20), "below a limit");
    assert_eq!(map.highest(1 << 20, 30 << 20), Some(15 << 20));
    assert_eq!(map.highest(1, 40 << 20), Some((40 << 20) - 4096), "whole pages");
    assert_eq!(map.highest(29 << 20, u64::MAX), None);
    assert_eq!(map.largest_free(u64::MAX), 28 << 20);
    assert!(map.is_free(mib(4, 16)) && !map.is_free(mib(2, 4)) && !map.is_free(mib(15, 33)));
    for extreme in [u64::MAX, u64::MAX - 1, 1 << 63] {
        assert_eq!(map.lowest(extreme, 1 << 63, 0), None);
        assert_eq!(map.lowest(1, 1 << 63, extreme), None);
        assert_eq!(map.highest(extreme, u64::MAX), None);
    }
}

#[test]
fn a_map_that_is_full_says_so_and_stays_as_it_was() {
    let mut map = MemoryMap::new();
    for index in 0..MAX_ENTRIES as u64 {
        map.add(mib(2 * index, 2 * index + 1)).unwrap();
    }
    let before = uses(&map);
    assert_eq!(map.add(mib(1001, 1002)), Err(MapError::Full));
    let split = crate::hob::Range { start: 0x1000, end: 0x2000 };
    assert_eq!(map.mark(split, Use::Reserved), Err(MapError::Full));
    assert_eq!(uses(&map), before);
}
