//! Two windows beside the identity map: memory that the #PF handler maps on demand, and shared pages.
//!
//! The reset stub builds the identity map; `init` hangs the windows into it. Table entries are atomics, and the
//! guests change them on the first vCPU only.

use core::sync::atomic::{AtomicU64, Ordering};

use x86_64::VirtAddr;
use x86_64::instructions::tlb;

use crate::boot::boot_pdpt;
use crate::hob::Range;
use crate::layout::{PAGE_2M, PAGE_4K};
use crate::td::{DEMAND_CHUNKS, shared_bit};
use crate::{exit, memory};

const ENTRIES: usize = 512;
const PRESENT_WRITABLE: u64 = 0x3;
const LARGE: u64 = 0x80;
const GIB: u64 = 1 << 30;

/// PDPT slots of the windows; the identity map uses 0 to 3.
const DEMAND_SLOT: usize = 256;
const SHARED_SLOT: usize = 320;
/// First address of the memory that is mapped on demand.
pub const DEMAND_BASE: u64 = DEMAND_SLOT as u64 * GIB;
const SHARED_BASE: u64 = SHARED_SLOT as u64 * GIB;

/// A page table of any level.
#[repr(C, align(4096))]
pub(crate) struct Table([AtomicU64; ENTRIES]);

impl Table {
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; ENTRIES])
    }

    /// The GPA: statics are identity mapped.
    fn gpa(&self) -> u64 {
        self as *const Self as u64
    }

    fn set(&self, index: usize, entry: u64) {
        self.0[index].store(entry, Ordering::Release);
    }
}

static DEMAND_PD: Table = Table::new();
static SHARED_PD: Table = Table::new();
static SHARED_PT: Table = Table::new();
static DEMAND_FRAMES: [AtomicU64; DEMAND_CHUNKS] = [const { AtomicU64::new(0) }; DEMAND_CHUNKS];
static DEMAND_FAULTS: AtomicU64 = AtomicU64::new(0);

/// Adds the windows to the identity map.
pub(crate) fn init() {
    boot_pdpt.set(DEMAND_SLOT, DEMAND_PD.gpa() | PRESENT_WRITABLE);
    boot_pdpt.set(SHARED_SLOT, SHARED_PD.gpa() | PRESENT_WRITABLE);
    SHARED_PD.set(0, SHARED_PT.gpa() | PRESENT_WRITABLE);
}

/// Gives the #PF handler unaccepted 2M chunks to place at [`DEMAND_BASE`], in this order.
pub fn offer_demand(chunks: &[Range; DEMAND_CHUNKS]) {
    for (frame, chunk) in DEMAND_FRAMES.iter().zip(chunks) {
        frame.store(chunk.start, Ordering::Release);
    }
}

/// Pages that the #PF handler has mapped.
pub fn demand_faults() -> u64 {
    DEMAND_FAULTS.load(Ordering::Acquire)
}

/// Maps the demand page under `address`, accepting it first; false if the fault is not for this handler.
pub(crate) fn handle_page_fault(address: u64, error: u64) -> bool {
    const NOT_PRESENT_MASK: u64 = 1;
    let Some(offset) = address.checked_sub(DEMAND_BASE) else { return false };
    let index = (offset / PAGE_2M) as usize;
    let Some(frame) = DEMAND_FRAMES.get(index) else { return false };
    let gpa = frame.load(Ordering::Acquire);
    if error & NOT_PRESENT_MASK != 0 || gpa == 0 {
        return false;
    }
    if let Err(refused) = memory::accept(Range { start: gpa, end: gpa + PAGE_2M }) {
        exit::die(format_args!("#PF: GPA {:#x} not accepted: {:?}", refused.gpa, refused.error));
    }
    DEMAND_PD.set(index, gpa | PRESENT_WRITABLE | LARGE);
    DEMAND_FAULTS.fetch_add(1, Ordering::AcqRel);
    true
}

/// Maps the shared alias of `gpa..gpa + length` and returns its address: one 2M page if the range is one, else 4K
/// pages. The window shows one range of each kind at a time. `None` if the range is longer than the window.
pub(crate) fn map_shared(gpa: u64, length: u64) -> Option<*mut u8> {
    if length == PAGE_2M && gpa.is_multiple_of(PAGE_2M) {
        SHARED_PD.set(1, gpa | shared_bit() | PRESENT_WRITABLE | LARGE);
        return Some((SHARED_BASE + PAGE_2M) as *mut u8);
    }
    let pages = length.div_ceil(PAGE_4K) as usize;
    if pages > ENTRIES {
        return None;
    }
    for (index, page) in (0..pages).zip((gpa..).step_by(PAGE_4K as usize)) {
        SHARED_PT.set(index, page | shared_bit() | PRESENT_WRITABLE);
    }
    Some(SHARED_BASE as *mut u8)
}

/// Takes a mapping of [`map_shared`] away again.
pub(crate) fn unmap_shared(alias: *mut u8, length: u64) {
    let alias = alias as u64;
    if alias != SHARED_BASE {
        SHARED_PD.set(1, 0);
        tlb::flush(VirtAddr::new(alias));
        return;
    }
    for (index, address) in (0..ENTRIES).zip((alias..alias + length).step_by(PAGE_4K as usize)) {
        SHARED_PT.set(index, 0);
        tlb::flush(VirtAddr::new(address));
    }
}
