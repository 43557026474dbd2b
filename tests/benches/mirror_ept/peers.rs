//! What people use instead: `x86_64`'s mapper, twice, in one mutex; and `page-table-generic`, which splits.
//!
//! # Why the unsafe code here is sound
//! Both peers ask for promises about memory. All their tables come from [`Frames`], an array that is allocated
//! once, never moves, and is used by one mapper only, whose "physical" addresses are the array's own
//! addresses. The pages that they map are never accessed.

#![expect(unsafe_code, reason = "the peers' interfaces are unsafe; the proof is in the module docs")]

use std::cell::UnsafeCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use page_table_generic as ptg;
use x86_64::structures::paging::mapper::MapToError;
use x86_64::structures::paging::{
    FrameAllocator, Mapper, OffsetPageTable, Page, PageTable, PageTableFlags, PhysFrame, Size4KiB,
};
use x86_64::{PhysAddr, VirtAddr};

#[repr(align(4096))]
struct Frame(UnsafeCell<[u64; 512]>);

/// Table memory, handed out in order and taken back all at once.
#[derive(Clone)]
pub struct Frames(Arc<Inner>);

struct Inner {
    frames: Vec<Frame>,
    next: AtomicUsize,
}

// SAFETY: the frames are only reached through the one mapper that owns this allocator.
unsafe impl Send for Inner {}
// SAFETY: as above; handing them out is atomic.
unsafe impl Sync for Inner {}

impl Frames {
    pub fn new(frames: usize) -> Self {
        let frames = (0..frames).map(|_| Frame(UnsafeCell::new([0; 512]))).collect();
        Self(Arc::new(Inner { frames, next: AtomicUsize::new(0) }))
    }

    fn take(&self) -> Option<u64> {
        let next = self.0.next.load(Ordering::Relaxed);
        self.0.next.store(next + 1, Ordering::Relaxed);
        self.0.frames.get(next).map(|frame| frame.0.get() as u64)
    }
}

// SAFETY: every frame is handed out once between two resets, and is 4 KiB of its own.
unsafe impl FrameAllocator<Size4KiB> for Frames {
    fn allocate_frame(&mut self) -> Option<PhysFrame<Size4KiB>> {
        self.take().and_then(|address| PhysFrame::from_start_address(PhysAddr::new(address)).ok())
    }
}

/// One table of the `x86_64` crate.
pub struct X86 {
    frames: Frames,
    root: *mut PageTable,
}

// SAFETY: the root is in `frames`, which the table owns; nobody else uses it.
unsafe impl Send for X86 {}

impl X86 {
    pub fn new(frames: usize) -> Self {
        let frames = Frames::new(frames);
        let root = frames.take().expect("a root") as *mut PageTable;
        Self { frames, root }
    }

    /// Empties the table.
    pub fn reset(&mut self) {
        // SAFETY: the root is a frame of ours and nobody else refers to it.
        unsafe { (*self.root).zero() };
        self.frames.0.next.store(1, Ordering::Relaxed);
    }

    #[inline(always)]
    fn mapper(&mut self) -> OffsetPageTable<'_> {
        // SAFETY: physical addresses are addresses of this process, so the offset is zero.
        unsafe { OffsetPageTable::new(&mut *self.root, VirtAddr::new(0)) }
    }

    /// Maps pages in a row.
    #[inline(never)]
    pub fn run(&mut self, pages: u64) {
        (0..pages).for_each(|page| self.map_4k(page));
    }

    #[inline(always)]
    fn map_4k(&mut self, page: u64) {
        let mut frames = self.frames.clone_light();
        let flags = PageTableFlags::PRESENT | PageTableFlags::WRITABLE;
        let at = Page::<Size4KiB>::containing_address(VirtAddr::new(page << 12));
        let frame = PhysFrame::<Size4KiB>::containing_address(PhysAddr::new(page << 12));
        // SAFETY: nothing is ever accessed through this mapping.
        match unsafe { self.mapper().map_to(at, frame, flags, &mut frames) } {
            Ok(flush) => flush.ignore(),
            Err(MapToError::PageAlreadyMapped(_)) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// A borrow of the allocator that costs no reference count.
struct Light(*const Inner);

impl Frames {
    #[inline(always)]
    fn clone_light(&self) -> Light {
        Light(Arc::as_ptr(&self.0))
    }
}

// SAFETY: as for `Frames`; the pointer lives as long as the table whose method made it.
unsafe impl FrameAllocator<Size4KiB> for Light {
    fn allocate_frame(&mut self) -> Option<PhysFrame<Size4KiB>> {
        // SAFETY: see above.
        let inner = unsafe { &*self.0 };
        let next = inner.next.load(Ordering::Relaxed);
        inner.next.store(next + 1, Ordering::Relaxed);
        let address = inner.frames.get(next)?.0.get() as u64;
        PhysFrame::from_start_address(PhysAddr::new(address)).ok()
    }
}

/// What a user would write for a mirror and its external table: two tables in one mutex.
pub struct TwoInMutex(pub parking_lot::Mutex<(X86, X86)>);

impl TwoInMutex {
    pub fn new(frames: usize) -> Self {
        Self(parking_lot::Mutex::new((X86::new(frames), X86::new(frames))))
    }

    /// Faults on each page, in a function of its own so that all of it is inlined into one loop.
    #[inline(never)]
    pub fn run(&self, pages: &[u64], delay: u64) {
        pages.iter().for_each(|page| self.fault(*page, delay));
    }

    #[inline(always)]
    fn fault(&self, page: u64, delay: u64) {
        let mut both = self.0.lock();
        both.0.map_4k(page);
        if delay > 0 {
            super::ours::spin(delay);
        }
        both.1.map_4k(page);
    }

    pub fn reset(&self) {
        let mut both = self.0.lock();
        both.0.reset();
        both.1.reset();
    }
}

impl ptg::FrameAllocator for Frames {
    fn alloc_frame(&self) -> Option<ptg::PhysAddr> {
        self.take().map(|address| ptg::PhysAddr::from_usize(address as usize))
    }

    fn dealloc_frame(&self, _: ptg::PhysAddr) {}

    fn phys_to_virt(&self, paddr: ptg::PhysAddr) -> *mut u8 {
        paddr.as_usize() as *mut u8
    }
}

/// An EPT entry.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct EptEntry(u64);

const RWX: u64 = 7;
const HUGE: u64 = 1 << 7;
const ADDRESS: u64 = ((1 << 52) - 1) & !0xfff;

impl ptg::PageTableEntry for EptEntry {
    type PteConfig = u64;

    fn new_page(paddr: ptg::PhysAddr, config: u64, is_huge: bool) -> Self {
        Self(paddr.as_usize() as u64 & ADDRESS | config | if is_huge { HUGE } else { 0 })
    }

    fn new_table(paddr: ptg::PhysAddr) -> Self {
        Self(paddr.as_usize() as u64 & ADDRESS | RWX)
    }

    fn paddr(&self, _: bool) -> ptg::PhysAddr {
        ptg::PhysAddr::from_usize((self.0 & ADDRESS) as usize)
    }

    fn config(&self, _: bool) -> u64 {
        self.0 & !(ADDRESS | HUGE)
    }

    fn present(&self) -> bool {
        self.0 & RWX != 0
    }

    fn huge(&self, _: bool) -> bool {
        self.0 & HUGE != 0
    }

    fn unused(&self) -> bool {
        self.0 == 0
    }

    fn clear(&mut self) {
        self.0 = 0;
    }
}

#[derive(Clone, Copy)]
pub struct Ept;

impl ptg::TableMeta for Ept {
    type P = EptEntry;
    const PAGE_SIZE: usize = 4096;
    const LEVEL_BITS: &[usize] = &[9, 9, 9, 9];
    const MAX_BLOCK_LEVEL: usize = 3;

    fn flush(_: Option<ptg::VirtAddr>) {}
}

/// A table of `page-table-generic` with `leaves` 2M leaves.
pub struct Generic(ptg::PageTable<Ept, Frames>);

impl Generic {
    pub fn with_2m_leaves(leaves: u64) -> Self {
        let mut table = ptg::PageTable::new(Frames::new(leaves as usize + 600)).expect("a root");
        for leaf in 0..leaves {
            let address = (leaf as usize) << 21;
            let result = table.map(&ptg::MapConfig {
                vaddr: ptg::VirtAddr::from_usize(address),
                paddr: ptg::PhysAddr::from_usize(address),
                size: 2 << 20,
                pte: RWX | 6 << 3,
                allow_huge: true,
                flush: false,
            });
            result.expect("a 2M leaf");
        }
        Self(table)
    }

    pub fn split(&mut self, leaf: u64) {
        self.0.split_huge_page(ptg::VirtAddr::from_usize((leaf as usize) << 21)).expect("a split");
    }
}
