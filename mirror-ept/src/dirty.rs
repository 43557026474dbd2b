//! Dirty logging: which shared frames the guest wrote since somebody last asked.
//!
//! # Protocol
//! One bit per frame. A fault that makes a leaf of a logged frame writable publishes the leaf and then sets
//! the bit, both under [`crate::Shared`]; see [`crate::Mmu::harvest_dirty`] for the other side, which is
//! exclusive. So either the fault comes first, and the harvest takes its bit and its permission; or it comes
//! after, and its bit is in the next harvest. A write without a bit set, or about to be set, is impossible.

use alloc::boxed::Box;
use alloc::vec::Vec;

use tdvisor_base::Gfn;
use tdvisor_base::sync::{AtomicU64, Ordering};

use crate::range::GfnRange;
use crate::table::NoMemory;

/// The log of one range of guest memory.
#[derive(Debug)]
pub struct DirtyLog {
    range: GfnRange,
    words: Box<[AtomicU64]>,
}

impl DirtyLog {
    /// A log with no bit set.
    ///
    /// # Errors
    /// [`NoMemory`].
    pub fn new(range: GfnRange) -> Result<Self, NoMemory> {
        let count = usize::try_from(range.frames().div_ceil(64)).map_err(|_| NoMemory)?;
        let mut words = Vec::new();
        words.try_reserve_exact(count).map_err(|_| NoMemory)?;
        words.extend((0..count).map(|_| AtomicU64::new(0)));
        Ok(Self { range, words: words.into_boxed_slice() })
    }

    /// The frames that are logged.
    pub const fn range(&self) -> GfnRange {
        self.range
    }

    /// Notes a write. Frames outside the range are nobody's business.
    pub fn mark(&self, gfn: Gfn) {
        if self.range.contains(gfn) {
            let bit = gfn.get() - self.range.start().get();
            if let Some(word) = self.words.get((bit / 64) as usize) {
                word.fetch_or(1 << (bit % 64), Ordering::AcqRel);
            }
        }
    }

    /// Whether a frame's bit is set.
    pub fn is_marked(&self, gfn: Gfn) -> bool {
        let bit = gfn.get().wrapping_sub(self.range.start().get());
        self.range.contains(gfn)
            && self
                .words
                .get((bit / 64) as usize)
                .is_some_and(|w| w.load(Ordering::Acquire) >> (bit % 64) & 1 == 1)
    }
}
