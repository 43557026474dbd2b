//! `tdx-guest` links `alloc` for its `fmt`, so an allocator must exist; guests without the feature `heap` allocate nothing.

use core::alloc::{GlobalAlloc, Layout};

struct NoHeap;

#[global_allocator]
static NO_HEAP: NoHeap = NoHeap;

// SAFETY: returning null is always allowed and means that the request failed; so nothing is ever given back.
unsafe impl GlobalAlloc for NoHeap {
    unsafe fn alloc(&self, _layout: Layout) -> *mut u8 {
        core::ptr::null_mut()
    }

    unsafe fn dealloc(&self, _pointer: *mut u8, _layout: Layout) {}
}
