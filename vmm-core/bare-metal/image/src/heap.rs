//! The heap: `buddy_system_allocator` behind a lock, in memory of a size that was decided at the beginning.
//!
//! **Why this is sound.** The allocator keeps the contract of [`GlobalAlloc`] for memory that it was given, and a lock lets one
//! processor at a time use it. Interrupt handlers do not allocate, so nobody waits for itself. The memory that [`init`] gets
//! is promised to it by its caller.
#![expect(unsafe_code, reason = "an allocator; the proof is above")]

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{NonNull, null_mut};

use buddy_system_allocator::Heap;
use td_host::host::MemoryRange;
use tdvisor_base::sync::Mutex;

/// Orders of blocks: up to 4 GiB.
const ORDERS: usize = 33;

struct Locked(Mutex<Heap<ORDERS>>);

#[global_allocator]
static HEAP: Locked = Locked(Mutex::new(Heap::empty()));

/// Gives the heap its memory.
///
/// # Safety
/// The range is mapped to itself, and nobody else's for ever; it is called once.
pub unsafe fn init(memory: MemoryRange) {
    // SAFETY: the caller's promise.
    unsafe { HEAP.0.lock().init(memory.base.get() as usize, memory.size as usize) };
}

// SAFETY: see the file's first paragraph.
unsafe impl GlobalAlloc for Locked {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0.lock().alloc(layout).map_or(null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        if let Some(at) = NonNull::new(at) {
            // SAFETY: by the contract, `at` comes from `alloc` with this layout.
            unsafe { self.0.lock().dealloc(at, layout) };
        }
    }
}
