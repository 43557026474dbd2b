//! Acceptance of private memory, written over `tdx-guest`'s `accept_page`, and the pool of pages that follows.
//!
//! A page that is not mapped yet makes TDG.MEM.PAGE.ACCEPT exit to the host, which adds the page at the requested
//! level, and the call runs again. A range of 2 MiB is first tried as one page; when the host has it mapped
//! smaller, the module says PAGE_SIZE_MISMATCH and the 512 pages are accepted one by one.

use core::ops::AddAssign;
use core::sync::atomic::{AtomicU64, Ordering};

use tdx_guest::tdcall::{TdCallError, accept_page};

use crate::hob::Range;
use crate::layout::{PAGE_2M, PAGE_4K, POOL_BASE, POOL_SIZE};

/// S-EPT levels as TDG.MEM.PAGE.ACCEPT encodes them.
const LEVEL_4K: u64 = 0;
const LEVEL_2M: u64 = 1;
/// Attempts at a page on whose entry the host is working.
const BUSY_ATTEMPTS: u32 = 100_000;
/// Pages of the pool that are accepted singly before the pool as a whole.
const SINGLE_PAGES: u64 = 4;

/// Pages accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// 4K pages.
    pub small: u64,
    /// 2M pages.
    pub large: u64,
    /// 4K pages that had been accepted before, met while a 2M range was taken page by page.
    pub already: u64,
}

impl Accepted {
    /// The sum in KiB.
    pub fn kib(&self) -> u64 {
        self.small * (PAGE_4K >> 10) + self.large * (PAGE_2M >> 10)
    }
}

impl AddAssign for Accepted {
    fn add_assign(&mut self, other: Self) {
        self.small += other.small;
        self.large += other.large;
        self.already += other.already;
    }
}

/// A page that could not be accepted.
#[derive(Debug)]
pub struct AcceptError {
    /// The page.
    pub gpa: u64,
    /// What the TDX module said.
    pub error: TdCallError,
}

/// Accepts a range; `start..end` are whole 4K pages that the guest does not use yet.
///
/// # Errors
/// The first page that the TDX module refuses. A page accepted before is an error, for a host that offers the
/// same memory twice is up to something.
pub fn accept(range: Range) -> Result<Accepted, AcceptError> {
    accept_range(range, Fresh::All)
}

#[derive(Clone, Copy)]
enum Fresh {
    All,
    Some,
}

fn accept_range(range: Range, fresh: Fresh) -> Result<Accepted, AcceptError> {
    let mut accepted = Accepted::default();
    let mut gpa = range.start;
    while gpa < range.end {
        if gpa.is_multiple_of(PAGE_2M) && range.end - gpa >= PAGE_2M {
            match accept_one(gpa, LEVEL_2M) {
                Ok(()) => accepted.large += 1,
                Err(AcceptError { error: TdCallError::TdxPageSizeMismatch, .. }) => {
                    accepted += accept_small(Range { start: gpa, end: gpa + PAGE_2M }, fresh)?;
                }
                Err(error) => return Err(error),
            }
            gpa += PAGE_2M;
        } else {
            accepted += accept_small(Range { start: gpa, end: gpa + PAGE_4K }, fresh)?;
            gpa += PAGE_4K;
        }
    }
    Ok(accepted)
}

fn accept_small(range: Range, fresh: Fresh) -> Result<Accepted, AcceptError> {
    let mut accepted = Accepted::default();
    for gpa in (range.start..range.end).step_by(PAGE_4K as usize) {
        match (accept_one(gpa, LEVEL_4K), fresh) {
            (Ok(()), _) => accepted.small += 1,
            (Err(AcceptError { error: TdCallError::TdxPageAlreadyAccepted, .. }), Fresh::Some) => {
                accepted.already += 1
            }
            (Err(error), _) => return Err(error),
        }
    }
    Ok(accepted)
}

fn accept_one(gpa: u64, level: u64) -> Result<(), AcceptError> {
    for _ in 0..BUSY_ATTEMPTS {
        // SAFETY: acceptance zeroes the page, and the module does that only to pages that were pending, which
        // nothing of the guest's can live in.
        match unsafe { accept_page(level, gpa) } {
            Ok(()) => return Ok(()),
            Err(TdCallError::TdxOperandBusy) => core::hint::spin_loop(),
            Err(error) => return Err(AcceptError { gpa, error }),
        }
    }
    Err(AcceptError { gpa, error: TdCallError::TdxOperandBusy })
}

static POOL_NEXT: AtomicU64 = AtomicU64::new(u64::MAX);

/// Accepts the pool: a few 4K pages in a fresh 2M range, then the range, which therefore is mapped in 4K pages.
///
/// # Errors
/// As [`accept`]; the pool then stays empty.
pub fn open_pool() -> Result<Accepted, AcceptError> {
    let mut accepted = accept(Range { start: POOL_BASE, end: POOL_BASE + SINGLE_PAGES * PAGE_4K })?;
    accepted += accept_range(Range { start: POOL_BASE, end: POOL_BASE + POOL_SIZE }, Fresh::Some)?;
    POOL_NEXT.store(POOL_BASE, Ordering::Release);
    Ok(accepted)
}

/// Takes `pages` zeroed 4K pages out of the pool, for good. Their address is also their GPA.
pub fn take_pages(pages: u64) -> Option<&'static mut [u8]> {
    let length = pages.checked_mul(PAGE_4K)?;
    let fits = |next: u64| next.checked_add(length).filter(|end| *end <= POOL_BASE + POOL_SIZE);
    let start = POOL_NEXT.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).ok()?;
    // SAFETY: the pool is accepted and identity mapped, and the cursor gives each byte out once.
    Some(unsafe { core::slice::from_raw_parts_mut(start as *mut u8, length as usize) })
}
