//! A heap, for guests that ask for one (feature `heap`): memory that the guest accepts and gives it.
//!
//! Until then, and when it is full, a request fails, which ends the guest.

use buddy_system_allocator::LockedHeap;

use crate::hob::Range;
use crate::memory::{self, AcceptError};

/// Powers of two for which there are blocks: the largest is 1 GiB.
const ORDERS: usize = 31;

#[global_allocator]
static HEAP: LockedHeap<ORDERS> = LockedHeap::new();

/// Accepts a range and makes it part of the heap. The guest uses it for nothing else.
///
/// # Errors
/// As [`memory::accept`].
pub fn add(range: Range) -> Result<(), AcceptError> {
    memory::accept(range)?;
    // SAFETY: acceptance succeeds once for a page, so nothing lies in this range and it was not added before; it is
    // identity mapped, and belongs to the heap for good.
    unsafe { HEAP.lock().add_to_heap(range.start as usize, range.end as usize) };
    Ok(())
}

/// Bytes that are not taken.
pub fn free() -> usize {
    let heap = HEAP.lock();
    heap.stats_total_bytes() - heap.stats_alloc_actual()
}

/// The toolchain's `alloc` was compiled to unwind, so it names this; panics end the guest, and nothing ever unwinds.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    crate::exit::die(format_args!("something unwound"))
}
