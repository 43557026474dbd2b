//! A page allocator for platforms: `buddy_system_allocator` behind a lock.

use alloc::vec::Vec;

use buddy_system_allocator::FrameAllocator;
use mirror_ept::{BadNumbers, Numbers, Reader};
use tdvisor_base::sync::Mutex;
use tdvisor_base::{PAGE_SIZE, Pfn, to_usize};

use crate::host::MemoryRange;

/// Orders of blocks: up to 2^32 frames.
const ORDERS: usize = 33;

/// Free frames of the machine.
pub struct FreeFrames(Mutex<Inner>);

struct Inner {
    blocks: FrameAllocator<ORDERS>,
    available: u64,
}

impl Inner {
    /// Takes the frames from `next` to `until`, in blocks as they are allocated.
    fn take(&mut self, mut next: usize, until: usize) -> Result<(), BadNumbers> {
        if until < next {
            return Err(BadNumbers);
        }
        while next < until {
            let aligned = 1usize << (next.trailing_zeros() as usize).min(ORDERS - 1);
            let count = aligned.min(1 << (until - next).ilog2());
            self.blocks.alloc_at(next, count).ok_or(BadNumbers)?;
            self.available -= count as u64;
            next += count;
        }
        Ok(())
    }
}

impl core::fmt::Debug for FreeFrames {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("FreeFrames").field("available", &self.available()).finish_non_exhaustive()
    }
}

impl FreeFrames {
    /// All frames of these ranges, which do not overlap.
    pub fn new(ranges: &[MemoryRange]) -> Self {
        let mut blocks = FrameAllocator::new();
        let mut available = 0;
        for range in ranges {
            let (first, end) = (range.base.frame().get(), range.end() / PAGE_SIZE);
            blocks.add_frame(to_usize(first), to_usize(end));
            available += end - first;
        }
        Self(Mutex::new(Inner { blocks, available }))
    }

    /// Takes contiguous frames, aligned to their number rounded up to a power of two.
    ///
    /// What the rounding adds stays free for others.
    pub fn allocate(&self, frames: u64) -> Option<Pfn> {
        let mut inner = self.0.lock();
        let count = usize::try_from(frames).ok().filter(|count| *count != 0)?;
        let rounded = count.checked_next_power_of_two()?;
        let first = inner.blocks.alloc(rounded)?;
        for surplus in first + count..first + rounded {
            inner.blocks.dealloc(surplus, 1);
        }
        inner.available -= frames;
        Some(Pfn::new(first as u64))
    }

    /// Gives contiguous, naturally aligned frames back.
    pub fn free(&self, pfn: Pfn, frames: u64) {
        let mut inner = self.0.lock();
        inner.blocks.dealloc(to_usize(pfn.get()), to_usize(frames));
        inner.available += frames;
    }

    /// Writes which frames are free.
    pub fn save(&self, out: &mut Numbers) {
        let mut inner = self.0.lock();
        let mut free = Vec::new();
        for order in (0..ORDERS).rev() {
            while let Some(first) = inner.blocks.alloc(1usize << order) {
                free.push((first, 1usize << order));
            }
        }
        // Free blocks are as large as they can be, so which there are follows from which frames are free.
        free.iter().for_each(|(first, count)| inner.blocks.dealloc(*first, *count));
        drop(inner);
        free.sort_unstable();
        out.put_list(free, |out, (first, count)| {
            out.put_count(first);
            out.put_count(count);
        });
    }

    /// Frames of these ranges of which those are free that [`Self::save`] wrote: what is allocated next is what would have
    /// been.
    ///
    /// # Errors
    /// [`BadNumbers`]: these are no free frames of the ranges.
    pub fn restore(ranges: &[MemoryRange], reader: &mut Reader<'_>) -> Result<Self, BadNumbers> {
        let frames = Self::new(ranges);
        let free = reader.list(|reader| {
            let (first, count): (usize, usize) = (reader.narrow()?, reader.narrow()?);
            Ok((first, first.checked_add(count).ok_or(BadNumbers)?))
        })?;
        let mut free = free.into_iter().peekable();
        let mut inner = frames.0.lock();
        for range in ranges {
            let (mut next, end) = (to_usize(range.base.frame().get()), to_usize(range.end() / PAGE_SIZE));
            while next < end {
                let until = free.peek().map_or(end, |(first, _)| (*first).min(end));
                inner.take(next, until)?;
                next = match free.next_if(|(first, last)| *first == until && *last <= end) {
                    Some((_, last)) => last,
                    None if until == end => end,
                    None => return Err(BadNumbers),
                };
            }
        }
        drop(inner);
        if free.next().is_none() { Ok(frames) } else { Err(BadNumbers) }
    }

    /// Frames that are free.
    pub fn available(&self) -> u64 {
        self.0.lock().available
    }
}

#[cfg(test)]
mod tests {
    use tdvisor_base::Hpa;

    use super::*;

    #[test]
    fn frames_come_from_every_range_and_all_of_them_come_back() {
        let range = |base: u64, size| MemoryRange { base: Hpa::new(base), size };
        let frames = FreeFrames::new(&[range(1 << 20, 1 << 20), range(1 << 30, 4 << 20)]);
        assert_eq!(frames.available(), 256 + 1024);
        let large = frames.allocate(512).unwrap();
        assert_eq!(large.get() % 512, 0);
        let odd = frames.allocate(3).unwrap();
        assert_eq!(frames.available(), 1280 - 515);
        frames.free(large, 512);
        for i in 0..3 {
            frames.free(odd.wrapping_add(i), 1);
        }
        assert_eq!(frames.available(), 1280);
        assert!(frames.allocate(1024).is_some(), "free blocks merge again");
        assert!(frames.allocate(512).is_none());
        assert!(frames.allocate(0).is_none());
    }
}
