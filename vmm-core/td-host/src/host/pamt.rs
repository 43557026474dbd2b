//! PAMT accounting for a module whose 4 KiB entries come and go (dynamic PAMT).
//!
//! A PAMT of 4 KiB entries for all memory is 0.4 % of it, used or not. With dynamic PAMT the entries of a 2 MiB
//! range fill a *pair* of pages that the host brings when the range's first page is used at 4 KiB, and takes
//! back when the last one is not any more.
//!
//! # Protocol
//! Each range has a count of its pages that are, or are about to be, the module's at 4 KiB: guest pages,
//! Secure-EPT pages, control pages. A huge page counts nothing.
//! - *Hold* a page before the call that gives it to the module: 0 → 1 issues TDH.PHYMEM.PAMT.ADD. What comes
//!   back is a [`PamtHold`], which is *kept* when the call succeeded and *undone* when it failed (invariant 23);
//!   it is used up by either, so that no count is moved twice.
//! - *Release* a page when the module gave it back and its cache lines were written back: 1 → 0 issues
//!   TDH.PHYMEM.PAMT.REMOVE. The pages that come back are checked against those that went in (invariant 21).
//! - *Split* a huge page with DEMOTE, which is given a pair and makes the range's count 512 (invariant 22).
//!   Merging takes 512 away again.
//!
//! Everything that brings, removes or uses the pair of one range happens under the lock of that range, whatever
//! TD it is for (invariant 24): the module would answer BUSY. The locks are leaves: nothing is taken below them
//! but the page allocator (invariant 25).
//!
//! Pairs come out of 2 MiB chunks of their own, so that a page with entries never lies in the range that they
//! describe, and so that pairs do not keep other ranges from being used whole. The module writes them under its
//! own key; a page that came back keeps that key, and is only ever used for another pair. So no cache line has
//! to be written back, and the chunks stay with the host: as many as were ever needed at once.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use mirror_ept::{BadNumbers, Numbers, Reader};
use tdvisor_base::sync::Mutex;
use tdvisor_base::{Hpa, Level, Pfn, to_usize};
use tdx_module_iface::outcome::SeamError;
use tdx_module_iface::{SeamCall, tdh};

use super::Host;
use super::saved::read_pfn;
use crate::error::Error;
use crate::platform::Platform;
use crate::retry::{Bound, bounded};

/// Small pages of the range that one pair of PAMT pages describes.
const PAGES_OF_RANGE: u32 = 512;
/// Locks that ranges share: neighbouring ranges have different ones.
const LOCKS: usize = 64;

/// The pages of one range's entries.
type Pair = [Pfn; 2];

/// Whether the module's PAMT has all its 4 KiB entries from the start.
#[derive(Debug, Default)]
pub(crate) enum Pamt {
    /// The module has static entries: nothing is counted.
    #[default]
    Static,
    /// Entries come and go.
    Dynamic(Dynamic),
}

/// Counts and pairs of all ranges.
#[derive(Debug)]
pub(crate) struct Dynamic {
    ranges: Box<[Mutex<BTreeMap<Pfn, Range>>]>,
    pool: Mutex<Pool>,
}

/// Where pairs come from.
#[derive(Debug, Default)]
struct Pool {
    free: Vec<Pfn>,
    /// Frames of all chunks.
    frames: u64,
}

/// What is known of a 2 MiB range.
#[derive(Debug, Default)]
struct Range {
    pages: u32,
    /// There while the count is not zero; also after a TDH.PHYMEM.PAMT.REMOVE that failed.
    pair: Option<Pair>,
}

/// A page that is counted for a call that has not been issued yet.
#[derive(Debug)]
#[must_use = "a hold is kept if the module took the page, and undone if not"]
pub(crate) struct PamtHold(Hpa);

impl PamtHold {
    /// The module has the page.
    pub(crate) fn keep(self) {}

    /// The module did not take the page.
    pub(crate) fn undo<P: Platform>(self, host: &Host<P>, lp: &mut (impl SeamCall + ?Sized)) {
        host.release_pamt(lp, self.0);
    }
}

/// Why a page could not be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PamtError {
    /// No memory for a pair.
    NoMemory,
    /// TDH.PHYMEM.PAMT.ADD, or the call that the pair is for.
    Seam(SeamError),
}

impl From<PamtError> for Error {
    fn from(error: PamtError) -> Self {
        match error {
            PamtError::NoMemory => Self::NoMemory,
            PamtError::Seam(error) => Self::Seam(error),
        }
    }
}

/// The first page of the range of a page.
fn range_of(page: Hpa) -> Pfn {
    page.frame().align_down(Level::L2M)
}

impl Dynamic {
    pub(super) fn new() -> Self {
        Self { ranges: (0..LOCKS).map(|_| Mutex::default()).collect(), pool: Mutex::default() }
    }

    /// The ranges that share a lock with this one. The list has [`LOCKS`] entries, so there always is one.
    fn shard(&self, range: Pfn) -> Option<&Mutex<BTreeMap<Pfn, Range>>> {
        self.ranges.get(to_usize(range.get() / Level::L2M.frames()) % LOCKS)
    }

    fn take_pair<P: Platform>(&self, platform: &P) -> Option<Pair> {
        let mut pool = self.pool.lock();
        if pool.free.len() < 2 {
            let chunk = platform.allocate_page(Level::L2M)?;
            pool.free.extend((0..Level::L2M.frames()).rev().map(|i| chunk.wrapping_add(i)));
            pool.frames += Level::L2M.frames();
        }
        Some([pool.free.pop()?, pool.free.pop()?])
    }

    /// Takes pages back that hold no entries.
    fn give_back(&self, pair: Pair) {
        self.pool.lock().free.extend(pair);
    }
}

impl Pamt {
    /// Writes counts and pairs.
    pub(super) fn save(&self, out: &mut Numbers) {
        let Self::Dynamic(Dynamic { ranges, pool }) = self else { return out.put(false) };
        out.put(true);
        let all: Vec<_> = ranges
            .iter()
            .flat_map(|shard| shard.lock().iter().map(|(r, k)| (*r, k.pages, k.pair)).collect::<Vec<_>>())
            .collect();
        out.put_list(all, |out, (range, pages, pair)| {
            out.put(range.get());
            out.put(pages);
            out.put_list(pair.iter().flatten(), |out, page| out.put(page.get()));
        });
        let pool = pool.lock();
        out.put_list(&pool.free, |out, page| out.put(page.get()));
        out.put(pool.frames);
    }

    /// Reads what [`Self::save`] wrote.
    pub(super) fn restore(reader: &mut Reader<'_>) -> Result<Self, BadNumbers> {
        if !reader.flag()? {
            return Ok(Self::Static);
        }
        let dynamic = Dynamic::new();
        reader.list(|reader| {
            let (range, pages) = (read_pfn(reader)?, reader.narrow()?);
            let pair = match reader.list(read_pfn)?[..] {
                [] => None,
                [first, second] => Some([first, second]),
                _ => return Err(BadNumbers),
            };
            let shard = dynamic.shard(range).ok_or(BadNumbers)?;
            match shard.lock().insert(range, Range { pages, pair }) {
                None => Ok(()),
                Some(_) => Err(BadNumbers),
            }
        })?;
        *dynamic.pool.lock() = Pool { free: reader.list(read_pfn)?, frames: reader.number()? };
        Ok(Self::Dynamic(dynamic))
    }
}

impl<P: Platform> Host<P> {
    /// Whether 4 KiB pages have to be counted.
    pub(crate) fn has_dynamic_pamt(&self) -> bool {
        matches!(self.pamt, Pamt::Dynamic(_))
    }

    /// 2 MiB ranges that have a pair, and the pages that are counted for each (invariants 20 and 21).
    pub fn pamt_ranges(&self) -> BTreeMap<Pfn, u32> {
        let Pamt::Dynamic(dynamic) = &self.pamt else { return BTreeMap::new() };
        let mut all = BTreeMap::new();
        for shard in &dynamic.ranges {
            all.extend(shard.lock().iter().map(|(range, known)| (*range, known.pages)));
        }
        all
    }

    /// Frames that the host keeps for pairs, in use or not.
    pub fn pamt_frames(&self) -> u64 {
        match &self.pamt {
            Pamt::Static => 0,
            Pamt::Dynamic(dynamic) => dynamic.pool.lock().frames,
        }
    }

    /// Counts a page that is about to be the module's at 4 KiB.
    ///
    /// # Errors
    /// Nothing is counted then.
    pub(crate) fn hold_pamt(
        &self,
        lp: &mut (impl SeamCall + ?Sized),
        page: Hpa,
    ) -> Result<PamtHold, PamtError> {
        let hold = PamtHold(page);
        let Pamt::Dynamic(dynamic) = &self.pamt else { return Ok(hold) };
        let range = range_of(page);
        let Some(shard) = dynamic.shard(range) else { return Ok(hold) };
        let mut shard = shard.lock();
        if shard.get(&range).is_none_or(|known| known.pair.is_none()) {
            let pair = dynamic.take_pair(&self.platform).ok_or(PamtError::NoMemory)?;
            let pages = pair.map(Pfn::base);
            if let Err(error) =
                bounded(Bound::MANAGEMENT, || tdh::tdh_phymem_pamt_add(lp, range.base(), pages))
            {
                dynamic.give_back(pair);
                return Err(PamtError::Seam(error));
            }
            shard.entry(range).or_default().pair = Some(pair);
        }
        shard.entry(range).or_default().pages += 1;
        Ok(hold)
    }

    /// A page that was the module's at 4 KiB no longer is.
    pub(crate) fn release_pamt(&self, lp: &mut (impl SeamCall + ?Sized), page: Hpa) {
        self.release_pages(lp, range_of(page), 1);
    }

    /// The 512 pages of a range became one.
    pub(crate) fn merged_pamt(&self, lp: &mut (impl SeamCall + ?Sized), large: Hpa) {
        self.release_pages(lp, range_of(large), PAGES_OF_RANGE);
    }

    fn release_pages(&self, lp: &mut (impl SeamCall + ?Sized), range: Pfn, pages: u32) {
        let Pamt::Dynamic(dynamic) = &self.pamt else { return };
        let Some(shard) = dynamic.shard(range) else { return };
        let mut shard = shard.lock();
        let Some(known) = shard.get_mut(&range) else { return };
        known.pages = known.pages.saturating_sub(pages);
        let (0, Some(pair)) = (known.pages, known.pair) else { return };
        // A pair that the module keeps stays with the range, and serves the next page that is used there.
        let Ok(freed) = bounded(Bound::MANAGEMENT, || tdh::tdh_phymem_pamt_remove(lp, range.base())) else {
            return;
        };
        shard.remove(&range);
        if freed == pair.map(Pfn::base) {
            dynamic.give_back(pair);
        } else {
            // Not the pages that went in: nobody knows whose these are.
            pair.iter().for_each(|page| self.quarantine(*page, Level::L4K));
        }
    }

    /// Splits the huge page at `large` with `demote`, which is given the pages for the entries of its pieces.
    ///
    /// # Errors
    /// Nothing is counted then, and the pages are the host's again.
    pub(crate) fn split_pamt<S: SeamCall + ?Sized, T>(
        &self,
        lp: &mut S,
        large: Hpa,
        demote: impl FnOnce(&mut S, Option<[Hpa; 2]>) -> Result<T, SeamError>,
    ) -> Result<T, PamtError> {
        let range = range_of(large);
        let Pamt::Dynamic(dynamic) = &self.pamt else {
            return demote(lp, None).map_err(PamtError::Seam);
        };
        let Some(shard) = dynamic.shard(range) else { return demote(lp, None).map_err(PamtError::Seam) };
        let mut shard = shard.lock();
        let known = shard.entry(range).or_default();
        let fresh = match known.pair {
            Some(_) => None,
            None => Some(dynamic.take_pair(&self.platform).ok_or(PamtError::NoMemory)?),
        };
        let pages = fresh.or(known.pair).map(|pair| pair.map(Pfn::base));
        match demote(lp, pages) {
            Ok(value) => {
                known.pair = known.pair.or(fresh);
                known.pages += PAGES_OF_RANGE;
                Ok(value)
            }
            Err(error) => {
                if let Some(pair) = fresh {
                    dynamic.give_back(pair);
                }
                if known.pair.is_none() {
                    shard.remove(&range);
                }
                Err(PamtError::Seam(error))
            }
        }
    }

    /// A page for the module, cleared and counted. To be given back with [`Self::return_module_page`], or by
    /// reclaiming it.
    ///
    /// # Errors
    /// [`Error::NoMemory`], or the module's.
    pub(crate) fn module_page(&self) -> Result<Pfn, Error> {
        let page = self.give_page()?;
        if !self.has_dynamic_pamt() {
            return Ok(page);
        }
        let held =
            super::on_lp(&self.platform, crate::platform::LpId(0), |lp| Ok(self.hold_pamt(lp, page.base())?));
        match held {
            Ok(hold) => {
                hold.keep();
                Ok(page)
            }
            Err(error) => {
                self.platform.free_page(page, Level::L4K);
                Err(error)
            }
        }
    }

    /// Frees a page from [`Self::module_page`] that the module did not take.
    pub(crate) fn return_module_page(&self, page: Pfn) {
        if self.has_dynamic_pamt() {
            // Without a processor the pair stays, which costs two pages and nothing else.
            let _ = super::on_lp(&self.platform, crate::platform::LpId(0), |lp| {
                self.release_pamt(lp, page.base());
                Ok(())
            });
        }
        self.platform.free_page(page, Level::L4K);
    }
}
