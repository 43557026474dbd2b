//! Positions and ranges in guest-physical space.

use core::fmt;

use tdvisor_base::{Gfn, Level};

/// Where an entry stands: the range that one entry of `level` maps. Aligned by construction.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    gfn: Gfn,
    level: Level,
}

impl Position {
    /// The entry of `level` that covers `gfn`.
    pub const fn of(gfn: Gfn, level: Level) -> Self {
        Self { gfn: gfn.align_down(level), level }
    }

    /// The first frame that the entry maps.
    pub const fn gfn(self) -> Gfn {
        self.gfn
    }

    /// The entry's level.
    pub const fn level(self) -> Level {
        self.level
    }

    /// The entry of this one's level that is `entries` entries further on. Wraps at the end of the frame numbers.
    #[must_use]
    pub const fn following(self, entries: u64) -> Self {
        let gfn = self.gfn.wrapping_add(entries.wrapping_mul(self.level.frames()));
        Self { gfn, level: self.level }
    }

    /// The entries of this one's level from this one on, without end.
    #[inline]
    pub fn and_following(self) -> impl Iterator<Item = Self> {
        (0..).map(move |entries| self.following(entries))
    }

    /// The frames that the entry maps.
    pub const fn range(self) -> GfnRange {
        GfnRange { start: self.gfn, end: self.gfn.wrapping_add(self.level.frames()) }
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.gfn, self.level)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A half-open range of guest frames, without the SHARED bit.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct GfnRange {
    start: Gfn,
    end: Gfn,
}

impl GfnRange {
    /// `[start, end)`; empty where `end` is not above `start`.
    pub const fn new(start: Gfn, end: Gfn) -> Self {
        Self { start, end: if end.get() < start.get() { start } else { end } }
    }

    /// `frames` frames from `start`, or `None` where that leaves 64 bits.
    pub const fn at(start: Gfn, frames: u64) -> Option<Self> {
        match start.checked_add(frames) {
            Some(end) => Some(Self { start, end }),
            None => None,
        }
    }

    /// The first frame.
    pub const fn start(self) -> Gfn {
        self.start
    }

    /// The frame after the last.
    pub const fn end(self) -> Gfn {
        self.end
    }

    /// The number of 4 KiB frames.
    pub const fn frames(self) -> u64 {
        self.end.get() - self.start.get()
    }

    /// Whether there is no frame in it.
    pub const fn is_empty(self) -> bool {
        self.start.get() >= self.end.get()
    }

    /// Whether `gfn` is inside.
    pub const fn contains(self, gfn: Gfn) -> bool {
        self.start.get() <= gfn.get() && gfn.get() < self.end.get()
    }

    /// Whether all of `other` is inside.
    pub const fn covers(self, other: Self) -> bool {
        self.start.get() <= other.start.get() && other.end.get() <= self.end.get()
    }

    /// Whether the two share a frame.
    pub const fn overlaps(self, other: Self) -> bool {
        self.start.get() < other.end.get() && other.start.get() < self.end.get()
    }

    /// The smallest range that covers both.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        let start = if self.start.get() < other.start.get() { self.start } else { other.start };
        let end = if self.end.get() > other.end.get() { self.end } else { other.end };
        Self { start, end }
    }
}

impl fmt::Debug for GfnRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.start, self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_aligned_and_covers_its_level() {
        let at = Position::of(Gfn::new(0x2ff), Level::L2M);
        assert_eq!(at.gfn(), Gfn::new(0x200));
        assert_eq!(at.range().frames(), 512);
        assert!(at.range().contains(Gfn::new(0x3ff)) && !at.range().contains(Gfn::new(0x400)));
    }

    #[test]
    fn ranges_cover_overlap_and_unite_as_sets_do() {
        let range = |s, e| GfnRange::new(Gfn::new(s), Gfn::new(e));
        assert!(range(0, 10).covers(range(3, 10)) && !range(0, 10).covers(range(3, 11)));
        assert!(range(0, 10).overlaps(range(9, 12)) && !range(0, 10).overlaps(range(10, 12)));
        assert_eq!(range(0, 2).union(range(5, 7)), range(0, 7));
        assert!(range(5, 3).is_empty());
        assert_eq!(GfnRange::at(Gfn::new(u64::MAX), 1), None);
    }
}
