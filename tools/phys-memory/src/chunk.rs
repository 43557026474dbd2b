//! Storage: 2 MiB of memory and the state words of its 512 pages.

use core::cell::UnsafeCell;
use core::ops::Deref;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU64, Ordering};

use alloc::alloc::{Layout, handle_alloc_error};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use tdvisor_base::addr::{Hpa, PAGE_SIZE};
use tdvisor_base::sync::Arc;

use super::access;
use super::page::PageWord;

pub(super) const CHUNK_BYTES: u64 = 2 << 20;
pub(super) const PAGES_PER_CHUNK: usize = 512;

/// All-zero bytes are a valid chunk: zero memory that nobody wrote, under the default key, generation zero. Aligned as
/// page tables are, so that a page of it is one of the operating system's.
#[repr(C, align(4096))]
pub(super) struct Chunk {
    data: UnsafeCell<[u8; CHUNK_BYTES as usize]>,
    words: [AtomicU64; PAGES_PER_CHUNK],
}

const _: () = assert!(align_of::<Chunk>() as u64 == PAGE_SIZE);

// SAFETY: `data` is only reached through `data_ptr` by the single instructions in `access` and as atomic
// words, both of which allow races; `words` is atomic.
unsafe impl Sync for Chunk {}
// SAFETY: a chunk owns plain bytes and has no thread affinity.
unsafe impl Send for Chunk {}

/// A chunk in a mapping of its own. An allocator would hand out memory that was used before, and would have to write zeros
/// to all of it.
pub(super) struct Mapped(NonNull<Chunk>);

// SAFETY: it owns its chunk, as a box does.
unsafe impl Send for Mapped {}
// SAFETY: a shared reference to it gives shared references to the chunk only.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// A chunk of zero pages, which the operating system provides when they are touched.
    fn new() -> Self {
        let layout = Layout::new::<Chunk>();
        // SAFETY: a new mapping where the system likes replaces nothing.
        let mapping = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                layout.size(),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        };
        // A mapping begins at a page and is zeros: a chunk.
        match mapping.ok().and_then(|start| NonNull::new(start.cast::<Chunk>())) {
            Some(chunk) => Self(chunk),
            None => handle_alloc_error(layout),
        }
    }

    /// A zero chunk, or a copy of a frozen one. A page of zeros stays untouched in the copy, and costs no memory there.
    pub(super) fn new_copy_of(old: Option<&Chunk>) -> Arc<Self> {
        let chunk = Self::new();
        if let Some(old) = old {
            for (page, (to, from)) in chunk.words.iter().zip(&old.words).enumerate() {
                to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
                if PageWord::is_written(from) {
                    chunk.copy_page(page, old);
                }
            }
        }
        Arc::new(chunk)
    }

    /// Where the chunk is, for a slot that does not keep it alive.
    pub(super) const fn as_ptr(&self) -> *mut Chunk {
        self.0.as_ptr()
    }
}

impl Deref for Mapped {
    type Target = Chunk;

    fn deref(&self) -> &Chunk {
        // SAFETY: the mapping holds a valid chunk until `self` is dropped, and nobody has a `&mut` to it.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: this mapping is `self`'s alone, and nothing borrows from it any more.
        let gone = unsafe { munmap(self.0.as_ptr().cast(), size_of::<Chunk>()) };
        debug_assert!(gone.is_ok(), "a mapping of this process can be taken back");
    }
}

impl Chunk {
    /// Copies one page of a frozen chunk into this one, which is not published yet.
    fn copy_page(&self, page: usize, old: &Self) {
        let offset = page * PAGE_SIZE as usize;
        let from = old.data.get().cast::<u8>().wrapping_add(offset);
        // SAFETY: one page of a live chunk that is frozen: nobody writes it any more.
        let bytes = unsafe { core::slice::from_raw_parts(from, PAGE_SIZE as usize) };
        if bytes.iter().any(|byte| *byte != 0) {
            let to = self.data.get().cast::<u8>().wrapping_add(offset);
            // SAFETY: one page of each of two distinct chunks; nobody else has the new one.
            unsafe { access::copy(from, to, PAGE_SIZE as usize) };
        }
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
