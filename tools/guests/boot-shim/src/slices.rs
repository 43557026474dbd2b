//! Memory to be accepted, cut into numbered blocks, so that vCPUs can take turns by one counter.
//!
//! A block is what a range has in one 2 MiB frame: usually all of it, less at the range's ends. What was accepted
//! before is left out.
//!
//! This file uses `core` only, so that the host-side tests can include it.

use crate::hob::Range;

const FRAME: u64 = 0x20_0000;

/// Ranges, without `done`.
#[derive(Clone, Copy, Debug)]
pub struct Slices<'a> {
    ranges: &'a [Range],
    done: Range,
}

impl<'a> Slices<'a> {
    /// Blocks of `ranges` but not of `done`, which is whole 2 MiB frames.
    pub const fn new(ranges: &'a [Range], done: Range) -> Self {
        Self { ranges, done }
    }

    /// The block with this number; `None` behind the last one, an empty range where the block is done.
    pub fn block(&self, number: u64) -> Option<Range> {
        let mut number = number;
        for range in self.ranges {
            let count = frames(range);
            if number >= count {
                number -= count;
                continue;
            }
            let frame = (range.start / FRAME + number) * FRAME;
            let start = frame.max(range.start);
            let end = (frame + FRAME).min(range.end);
            let done = self.done.start <= frame && frame < self.done.end;
            return Some(Range { start, end: if done { start } else { end } });
        }
        None
    }

    /// Whether `ranges` contain all of `wanted` in one piece.
    pub fn contain(&self, wanted: Range) -> bool {
        self.ranges.iter().any(|range| range.start <= wanted.start && wanted.end <= range.end)
    }
}

/// 2 MiB frames that a range touches.
fn frames(range: &Range) -> u64 {
    if range.start >= range.end { 0 } else { (range.end - 1) / FRAME - range.start / FRAME + 1 }
}
