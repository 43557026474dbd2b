//! What every byte of the TD's RAM is used for: where the loader places things, and what the kernel is told (e820).
//!
//! Invariant: the entries are sorted, apart from each other, whole 4K pages, and neighbours of one use are one
//! entry. Only memory that was accepted is ever added; [`MemoryMap::mark`] changes uses and adds nothing.
//!
//! This file uses `core` and `heapless` only, so that the host-side tests can include it.

use heapless::Vec;

use crate::hob::Range;

/// Entries that the map has room for: the ranges of a TD HOB, cut by what the shim marks.
pub const MAX_ENTRIES: usize = 64;
const PAGE: u64 = 4096;

/// What memory is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Nothing yet.
    Free,
    /// Something that the kernel gets and may overwrite when it is done with it.
    Loaded,
    /// Not to be used by the kernel.
    Reserved,
    /// ACPI tables.
    AcpiTables,
    /// What stays in use below the kernel (ACPI "NVS"): mailbox, page tables, event log.
    AcpiNvs,
}

/// A range and its use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where.
    pub range: Range,
    /// For what.
    pub usage: Use,
}

/// Why the map does not take something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// Too many entries.
    Full,
    /// Memory that is in the map already.
    Twice(Range),
}

/// The map.
#[derive(Clone, Debug)]
pub struct MemoryMap {
    entries: Vec<Entry, MAX_ENTRIES>,
}

impl MemoryMap {
    /// A map without memory.
    pub const fn new() -> Self {
        Self { entries: Vec::new() }
    }

    /// All memory, from the lowest up.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Adds free memory.
    ///
    /// # Errors
    /// [`MapError`]; the map is unchanged then.
    pub fn add(&mut self, range: Range) -> Result<(), MapError> {
        if range.start >= range.end {
            return Ok(());
        }
        if self.entries().iter().any(|entry| overlap(entry.range, range).is_some()) {
            return Err(MapError::Twice(range));
        }
        let mut map = Self::new();
        let place = self.entries().partition_point(|entry| entry.range.start < range.start);
        let (below, above) = self.entries().split_at(place);
        below.iter().try_for_each(|entry| map.push(*entry))?;
        map.push(Entry { range, usage: Use::Free })?;
        above.iter().try_for_each(|entry| map.push(*entry))?;
        *self = map;
        Ok(())
    }

    /// Gives what of `range` (widened to whole pages) is memory another use.
    ///
    /// # Errors
    /// [`MapError::Full`]; the map is unchanged then.
    pub fn mark(&mut self, range: Range, usage: Use) -> Result<(), MapError> {
        let range =
            Range { start: range.start & !(PAGE - 1), end: range.end.saturating_add(PAGE - 1) & !(PAGE - 1) };
        let mut map = Self::new();
        for entry in self.entries() {
            let Some(middle) = overlap(entry.range, range) else {
                map.push(*entry)?;
                continue;
            };
            map.push(Entry { range: Range { start: entry.range.start, end: middle.start }, ..*entry })?;
            map.push(Entry { range: middle, usage })?;
            map.push(Entry { range: Range { start: middle.end, end: entry.range.end }, ..*entry })?;
        }
        *self = map;
        Ok(())
    }

    /// The lowest free place for `bytes` bytes at a multiple of `alignment` (a power of two), not below `from`.
    pub fn lowest(&self, bytes: u64, alignment: u64, from: u64) -> Option<u64> {
        self.free().find_map(|free| {
            let start = free.start.max(from).checked_next_multiple_of(alignment)?;
            (start.checked_add(bytes)? <= free.end).then_some(start)
        })
    }

    /// The highest free place for `bytes` bytes, page aligned and wholly below `below`.
    pub fn highest(&self, bytes: u64, below: u64) -> Option<u64> {
        self.free()
            .filter_map(|free| {
                let start = free.end.min(below).checked_sub(bytes)? & !(PAGE - 1);
                (start >= free.start).then_some(start)
            })
            .last()
    }

    /// Whether all of `range` is free memory.
    pub fn is_free(&self, range: Range) -> bool {
        self.free().any(|free| free.start <= range.start && range.end <= free.end)
    }

    /// Bytes of the largest free range below `below`.
    pub fn largest_free(&self, below: u64) -> u64 {
        self.free().map(|free| free.end.min(below).saturating_sub(free.start)).max().unwrap_or(0)
    }

    fn free(&self) -> impl Iterator<Item = Range> {
        self.entries().iter().filter(|entry| entry.usage == Use::Free).map(|entry| entry.range)
    }

    /// Appends, joining neighbours of one use.
    fn push(&mut self, entry: Entry) -> Result<(), MapError> {
        if entry.range.start >= entry.range.end {
            return Ok(());
        }
        if let Some(last) = self.entries.last_mut()
            && last.usage == entry.usage
            && last.range.end == entry.range.start
        {
            last.range.end = entry.range.end;
            return Ok(());
        }
        self.entries.push(entry).map_err(|_| MapError::Full)
    }
}

fn overlap(one: Range, other: Range) -> Option<Range> {
    let both = Range { start: one.start.max(other.start), end: one.end.min(other.end) };
    (both.start < both.end).then_some(both)
}
