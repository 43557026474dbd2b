//! `TDH.PHYMEM.*`: physical pages and caches.

use core::fmt;

use tdvisor_base::{Hpa, Level};

use super::issue;
use crate::handles::KeyedHpa;
use crate::leaf::TdhLeaf;
use crate::outcome::SeamError;
use crate::regs::{Gprs, SeamCall};
use crate::status::StatusCode;
use crate::tdmr::PageType;

/// What the PAMT says about a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageMetadata {
    /// What the page is used for.
    pub page_type: PageType,
    /// The TDR of the owner; stale for a free page.
    pub owner: Hpa,
    /// The size that the PAMT records; `None` for a number that names none.
    pub size: Option<Level>,
}

impl PageMetadata {
    fn from_gprs(gprs: &Gprs) -> Self {
        Self {
            page_type: PageType((gprs.rcx & 0xff) as u8),
            owner: Hpa::new(gprs.rdx),
            size: u8::try_from(gprs.r8).ok().and_then(Level::from_index),
        }
    }
}

impl fmt::Display for PageMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page type {}, owner {}", self.page_type, self.owner)?;
        match self.size {
            Some(size) => write!(f, ", size {size}"),
            None => Ok(()),
        }
    }
}

/// Takes back a page of a TD in teardown; its TDR last of all.
///
/// # Errors
/// `LIFECYCLE_STATE_INCORRECT` before teardown and `TD_ASSOCIATED_PAGES_EXIST` for a TDR with pages left, both
/// with the page's metadata; `PAGE_METADATA_INCORRECT` for a free page.
pub fn tdh_phymem_page_reclaim<S: SeamCall + ?Sized>(
    lp: &mut S,
    page: Hpa,
) -> Result<PageMetadata, SeamError<PageMetadata>> {
    let leaf = TdhLeaf::PHYMEM_PAGE_RECLAIM;
    let gprs = Gprs { rcx: page.get(), ..Gprs::ZERO };
    let gprs = issue(lp, leaf, leaf.word(), gprs)?.check(|status, gprs| {
        matches!(status.code(), StatusCode::LIFECYCLE_STATE_INCORRECT | StatusCode::TD_ASSOCIATED_PAGES_EXIST)
            .then(|| PageMetadata::from_gprs(gprs))
    })?;
    Ok(PageMetadata::from_gprs(&gprs))
}

/// What the PAMT says about a page, with the epoch of its last blocking (private and Secure-EPT pages).
///
/// # Errors
/// `OPERAND_ADDR_RANGE_ERROR` outside the TDMRs.
pub fn tdh_phymem_page_rdmd<S: SeamCall + ?Sized>(
    lp: &mut S,
    page: Hpa,
) -> Result<(PageMetadata, u64), SeamError> {
    let leaf = TdhLeaf::PHYMEM_PAGE_RDMD;
    let gprs = Gprs { rcx: page.get(), ..Gprs::ZERO };
    let gprs = issue(lp, leaf, leaf.word(), gprs)?.plain()?;
    Ok((PageMetadata::from_gprs(&gprs), gprs.r9))
}

/// Where writing back the caches begins.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CacheWb {
    /// A new cycle.
    Start,
    /// Where the interrupted one stopped.
    Resume,
}

/// How writing back the caches ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CacheWbOutcome {
    /// Everything of this package is written back.
    Done,
    /// No key id waits for it.
    NothingToDo,
    /// Interrupted: call again with [`CacheWb::Resume`].
    Interrupted,
}

/// Writes back the caches of this LP's package for the key ids that are flushed.
///
/// # Errors
/// `WBCACHE_RESUME_ERROR` for a resumption without an interrupted cycle.
pub fn tdh_phymem_cache_wb<S: SeamCall + ?Sized>(
    lp: &mut S,
    from: CacheWb,
) -> Result<CacheWbOutcome, SeamError> {
    let leaf = TdhLeaf::PHYMEM_CACHE_WB;
    let rcx = match from {
        CacheWb::Start => 0,
        CacheWb::Resume => 1,
    };
    let answer = issue(lp, leaf, leaf.word(), Gprs { rcx, ..Gprs::ZERO })?;
    match answer.status.code() {
        StatusCode::NO_HKID_READY_TO_WBCACHE => Ok(CacheWbOutcome::NothingToDo),
        StatusCode::INTERRUPTED_RESUMABLE => Ok(CacheWbOutcome::Interrupted),
        _ => answer.plain().map(|_| CacheWbOutcome::Done),
    }
}

/// Writes back and invalidates the cache lines of a free page that carry this key id.
///
/// # Errors
/// `PAGE_METADATA_INCORRECT` for a page in use.
pub fn tdh_phymem_page_wbinvd<S: SeamCall + ?Sized>(lp: &mut S, page: KeyedHpa) -> Result<(), SeamError> {
    let leaf = TdhLeaf::PHYMEM_PAGE_WBINVD;
    let gprs = Gprs { rcx: page.get(), ..Gprs::ZERO };
    issue(lp, leaf, leaf.word(), gprs)?.plain().map(drop)
}

/// RCX of the dynamic-PAMT leaves: the address and level of a 2 MiB range.
fn pamt_range(range: Hpa) -> u64 {
    range.align_down(Level::L2M.bytes()).get() | u64::from(Level::L2M.index())
}

/// Gives a 2 MiB range the two pages that hold its 4 KiB PAMT entries (release 2.0).
///
/// # Errors
/// `HPA_RANGE_NOT_FREE` where it has them, or is in use as a huge page; `PAGE_METADATA_INCORRECT` for a page that
/// is in use.
pub fn tdh_phymem_pamt_add<S: SeamCall + ?Sized>(
    lp: &mut S,
    range: Hpa,
    pair: [Hpa; 2],
) -> Result<(), SeamError> {
    let leaf = TdhLeaf::PHYMEM_PAMT_ADD;
    let [first, second] = pair.map(Hpa::get);
    let gprs = Gprs { rcx: pamt_range(range), rdx: first, r8: second, ..Gprs::ZERO };
    issue(lp, leaf, leaf.word(), gprs)?.plain().map(drop)
}

/// Takes the pages of a 2 MiB range's 4 KiB PAMT entries back (release 2.0).
///
/// # Errors
/// `PAMT_PAGE_NOT_EMPTY` while a page of the range is in use at 4 KiB; `NO_PAMT_PAGE_PAIR` where there are none.
pub fn tdh_phymem_pamt_remove<S: SeamCall + ?Sized>(lp: &mut S, range: Hpa) -> Result<[Hpa; 2], SeamError> {
    let leaf = TdhLeaf::PHYMEM_PAMT_REMOVE;
    let gprs = Gprs { rcx: pamt_range(range), ..Gprs::ZERO };
    let gprs = issue(lp, leaf, leaf.word(), gprs)?.plain()?;
    Ok([gprs.rdx, gprs.r8].map(Hpa::new))
}
