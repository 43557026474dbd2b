//! Storage: 2 MiB of memory and the state words of its 512 pages.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};

use super::access;
use tdvisor_base::addr::{Hpa, PAGE_SIZE};
use tdvisor_base::sync::Arc;

pub(super) const CHUNK_BYTES: u64 = 2 << 20;
pub(super) const PAGES_PER_CHUNK: usize = 512;

/// All-zero bytes are a valid chunk: zero memory under the default key, generation zero.
///
/// Aligned for the widest access, 16 bytes, and no more: a larger alignment would make the allocator write two
/// megabytes of zeros for every chunk instead of taking fresh pages from the operating system.
#[repr(C, align(16))]
pub(super) struct Chunk {
    data: UnsafeCell<[u8; CHUNK_BYTES as usize]>,
    words: [AtomicU64; PAGES_PER_CHUNK],
}

// SAFETY: `data` is only reached through `data_ptr` by the single instructions in `access` and as atomic
// words, both of which allow races; `words` is atomic.
unsafe impl Sync for Chunk {}
// SAFETY: a chunk owns plain bytes and has no thread affinity.
unsafe impl Send for Chunk {}

impl Chunk {
    /// A zero chunk, or a copy of a frozen one.
    pub(super) fn new_copy_of(old: Option<&Self>) -> Arc<Self> {
        let chunk = new_zeroed();
        if let Some(old) = old {
            for page in 0..PAGES_PER_CHUNK {
                let offset = page * PAGE_SIZE as usize;
                let from = old.data.get().cast::<u8>().wrapping_add(offset);
                // SAFETY: one page of a live chunk that is frozen: nobody writes it any more.
                let bytes = unsafe { core::slice::from_raw_parts(from, PAGE_SIZE as usize) };
                // A page of zeros stays untouched in the copy, and costs no memory there.
                if bytes.iter().any(|byte| *byte != 0) {
                    let to = chunk.data.get().cast::<u8>().wrapping_add(offset);
                    // SAFETY: one page of each of two distinct chunks; the new one is not published yet.
                    unsafe { access::copy(from, to, PAGE_SIZE as usize) };
                }
            }
            for (to, from) in chunk.words.iter().zip(&old.words) {
                to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
        chunk
    }

    /// The state word of the page of `hpa`, which must belong to this chunk.
    #[inline(always)]
    pub(super) fn word(&self, hpa: Hpa) -> &AtomicU64 {
        &self.words[(hpa.get() / PAGE_SIZE) as usize % PAGES_PER_CHUNK]
    }

    /// Where `hpa` is stored; the rest of its page follows.
    #[inline(always)]
    pub(super) fn data_ptr(&self, hpa: Hpa) -> *mut u8 {
        // The offset is below CHUNK_BYTES, so the pointer stays inside `data`.
        self.data.get().cast::<u8>().wrapping_add((hpa.get() % CHUNK_BYTES) as usize)
    }
}

/// A chunk of zero pages, which the operating system provides lazily.
#[cfg(not(shuttle))]
fn new_zeroed() -> Arc<Chunk> {
    // SAFETY: all-zero bytes are a valid `Chunk`: bytes and atomics.
    unsafe { Arc::<Chunk>::new_zeroed().assume_init() }
}

/// shuttle's `Arc` cannot be made in place; models are small, so the copy through a `Box` is affordable.
#[cfg(shuttle)]
fn new_zeroed() -> Arc<Chunk> {
    // SAFETY: as above.
    let boxed: alloc::boxed::Box<Chunk> = unsafe { alloc::boxed::Box::new_zeroed().assume_init() };
    Arc::from(boxed)
}
