//! The host's page allocator: `buddy_system_allocator` behind a lock.

use std::sync::{Mutex, PoisonError};

use buddy_system_allocator::FrameAllocator;
use td_host::host::MemoryRange;
use tdvisor_base::Pfn;

/// Orders of blocks: up to 2^32 frames.
const ORDERS: usize = 33;

/// Free frames of the machine.
pub struct FreeFrames {
    inner: Mutex<Inner>,
}

struct Inner {
    blocks: FrameAllocator<ORDERS>,
    available: u64,
}

impl FreeFrames {
    /// All frames of a range.
    pub fn new(range: MemoryRange) -> Self {
        let mut blocks = FrameAllocator::new();
        let (first, end) = (range.base.frame().get(), range.end() / tdvisor_base::PAGE_SIZE);
        blocks.add_frame(first as usize, end as usize);
        Self { inner: Mutex::new(Inner { blocks, available: end - first }) }
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes contiguous frames, aligned to their number rounded up to a power of two.
    ///
    /// What the rounding adds stays free for others.
    pub fn allocate(&self, frames: u64) -> Option<Pfn> {
        let mut inner = self.inner();
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
        let mut inner = self.inner();
        inner.blocks.dealloc(pfn.get() as usize, frames as usize);
        inner.available += frames;
    }

    /// Frames that are free.
    pub fn available(&self) -> u64 {
        self.inner().available
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tdvisor_base::Hpa;

    #[test]
    fn frames_come_aligned_and_all_of_them_come_back() {
        let frames = FreeFrames::new(MemoryRange { base: Hpa::new(1 << 30), size: 8 << 20 });
        assert_eq!(frames.available(), 2048);
        let large = frames.allocate(512).unwrap();
        assert_eq!(large.get() % 512, 0);
        let odd = frames.allocate(3).unwrap();
        assert_eq!(frames.available(), 2048 - 515);
        frames.free(large, 512);
        for i in 0..3 {
            frames.free(odd.wrapping_add(i), 1);
        }
        assert_eq!(frames.available(), 2048);
        assert!(frames.allocate(2048).is_some(), "free blocks merge again");
        assert!(frames.allocate(1).is_none());
    }
}
