//! Dynamic PAMT (release 2.0): the 4 KiB entries exist only where the host gave memory for them.
//!
//! The 512 entries of a 2 MiB range fill a pair of pages that TDH.PHYMEM.PAMT.ADD brings and
//! TDH.PHYMEM.PAMT.REMOVE gives back. The area that TDMR_INFO calls PAMT_4K then holds a bitmap instead, one bit
//! for each 4 KiB page: set, the page holds PAMT entries and may be used for nothing else.
//!
//! # Invariants
//! A pair changes only under the exclusive lock of its range's 2 MiB entry, and goes only when all of its
//! entries are free.

use phys_memory::Arena;
use tdvisor_base::Hpa;
use tdvisor_base::sync::{AtomicU64, Ordering};

/// The pages of one range's entries; zero: none.
#[derive(Debug, Default)]
struct Pair([AtomicU64; 2]);

/// Pairs of all 2 MiB ranges of a TDMR, and its bitmap.
#[derive(Debug)]
pub(crate) struct DynamicPamt {
    base: u64,
    bitmap: u64,
    pairs: Box<[Pair]>,
}

const RANGE_SHIFT: u32 = 21;
const ENTRIES_PER_PAGE: u64 = 256;

impl DynamicPamt {
    /// For a TDMR of this base and size, whose bitmap is at `bitmap`. No range has entries yet.
    pub(super) fn new(base: u64, size: u64, bitmap: u64) -> Self {
        let ranges = usize::try_from(size >> RANGE_SHIFT).unwrap_or(0);
        Self { base, bitmap, pairs: (0..ranges).map(|_| Pair::default()).collect() }
    }

    pub(super) fn fork(&self) -> Self {
        let copy = |pair: &Pair| Pair(pair.0.each_ref().map(|w| AtomicU64::new(w.load(Ordering::Acquire))));
        Self { base: self.base, bitmap: self.bitmap, pairs: self.pairs.iter().map(copy).collect() }
    }

    /// The pages of all ranges, as a snapshot holds them.
    pub(super) fn save(&self) -> Vec<[u64; 2]> {
        let Self { base: _, bitmap: _, pairs } = self;
        pairs.iter().map(|pair| pair.0.each_ref().map(|word| word.load(Ordering::Acquire))).collect()
    }

    /// Takes over what [`Self::save`] gave; `None` where that is of another TDMR.
    pub(super) fn restore(self, saved: &[[u64; 2]]) -> Option<Self> {
        let pairs: Box<[Pair]> = saved.iter().map(|pair| Pair(pair.map(AtomicU64::new))).collect();
        (pairs.len() == self.pairs.len()).then_some(Self { pairs, ..self })
    }

    fn slot(&self, hpa: Hpa) -> Option<&Pair> {
        let index = hpa.get().checked_sub(self.base)? >> RANGE_SHIFT;
        self.pairs.get(usize::try_from(index).ok()?)
    }

    /// The pair of the range that holds `hpa`.
    pub(crate) fn pair(&self, hpa: Hpa) -> Option<[Hpa; 2]> {
        let pair = self.slot(hpa)?.0.each_ref().map(|word| word.load(Ordering::Acquire));
        (pair[0] != 0).then(|| pair.map(Hpa::new))
    }

    /// Gives a range its pair, or takes it away.
    pub(crate) fn set_pair(&self, hpa: Hpa, pair: Option<[Hpa; 2]>) {
        if let Some(slot) = self.slot(hpa) {
            let pages = pair.map_or([0; 2], |pages| pages.map(Hpa::get));
            for (word, page) in slot.0.iter().zip(pages).rev() {
                word.store(page, Ordering::Release);
            }
        }
    }

    /// Where the entry of a page lies.
    pub(super) fn entry_address(&self, hpa: Hpa) -> Option<Hpa> {
        let [low, high] = self.pair(hpa)?;
        let index = hpa.get().checked_sub(self.base)? >> 12 & 511;
        let page = if index < ENTRIES_PER_PAGE { low } else { high };
        Some(page.wrapping_add(index % ENTRIES_PER_PAGE * 16))
    }

    fn bit<'m>(&self, memory: &'m Arena, hpa: Hpa) -> Option<(&'m AtomicU64, u64)> {
        let index = hpa.get().checked_sub(self.base)? >> 12;
        let at = Hpa::new(self.bitmap.checked_add(index / 64 * 8)?);
        let word = memory.table(at.frame()).ok()?.get((at.page_offset() / 8) as usize)?;
        Some((word, 1 << (index % 64)))
    }

    /// Whether a page holds PAMT entries.
    pub(crate) fn holds_entries(&self, memory: &Arena, hpa: Hpa) -> bool {
        self.bit(memory, hpa).is_some_and(|(word, bit)| word.load(Ordering::Acquire) & bit != 0)
    }

    /// Whether a page of the 2 MiB range that begins at `hpa` holds PAMT entries.
    pub(crate) fn range_holds_entries(&self, memory: &Arena, hpa: Hpa) -> bool {
        (0..512u64).any(|index| self.holds_entries(memory, hpa.wrapping_add(index << 12)))
    }

    /// Claims a page for PAMT entries; false if it was claimed before.
    pub(crate) fn claim(&self, memory: &Arena, hpa: Hpa) -> bool {
        self.bit(memory, hpa).is_some_and(|(word, bit)| word.fetch_or(bit, Ordering::AcqRel) & bit == 0)
    }

    /// Lets a page go.
    pub(crate) fn release(&self, memory: &Arena, hpa: Hpa) {
        if let Some((word, bit)) = self.bit(memory, hpa) {
            word.fetch_and(!bit, Ordering::AcqRel);
        }
    }
}

/// Bytes of the bitmap of a TDMR of this size, in whole pages.
pub(crate) const fn bitmap_size(tdmr_size: u64) -> u64 {
    (tdmr_size >> 15).next_multiple_of(4096)
}
