//! Mistakes that only time would show on hardware: translations that outlive a mapping, cache lines that outlive
//! a key.
//!
//! # Protocol
//! - A private translation matters while a vCPU of its TD runs on the processor that holds it: once it has left,
//!   its next entry drops the translation if an epoch has passed. A shared translation matters always.
//! - A page that leaves a TD keeps dirty cache lines of the TD's key until the host writes them back
//!   (TDH.PHYMEM.PAGE.WBINVD, or TDH.PHYMEM.CACHE.WB for the whole key). Whoever gives the page another key
//!   before that loses to the write-back sooner or later.

use std::collections::BTreeMap;

use tdvisor_base::sync::{AtomicU64, Mutex, Ordering};
use tdvisor_base::{Gpa, Hpa, KeyId, Level, PAGE_SIZE, Pfn};

use super::tlb::Entry;
use super::{HostViolation, Machine, StaleTranslation};

/// Pages with dirty lines of a key that is no longer theirs, by page, split by 1 GiB block.
const SHARDS: usize = 16;

#[derive(Default)]
struct Shard {
    pages: Mutex<BTreeMap<u64, KeyId>>,
    count: AtomicU64,
}

/// The dirty lines that the host still has to write back.
#[derive(Default)]
pub(super) struct DirtyLines {
    shards: [Shard; SHARDS],
}

impl DirtyLines {
    fn shard(&self, pfn: u64) -> Option<&Shard> {
        self.shards.get((pfn >> 18) as usize % SHARDS)
    }

    fn change<R>(&self, pfn: u64, act: impl FnOnce(&mut BTreeMap<u64, KeyId>) -> R) -> Option<R> {
        let shard = self.shard(pfn)?;
        let mut pages = shard.pages.lock();
        let result = act(&mut pages);
        shard.count.store(pages.len() as u64, Ordering::Release);
        Some(result)
    }

    fn take(&self, pfn: u64) -> Option<KeyId> {
        if self.shard(pfn)?.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.change(pfn, |pages| pages.remove(&pfn))?
    }

    /// Every dirty line, by page and key.
    pub(super) fn all(&self) -> Vec<(u64, KeyId)> {
        let of_shard = |shard: &Shard| -> Vec<(u64, KeyId)> {
            shard.pages.lock().iter().map(|(pfn, key)| (*pfn, *key)).collect()
        };
        self.shards.iter().flat_map(of_shard).collect()
    }

    /// Takes over what [`Self::all`] gave.
    pub(super) fn restore(&self, pages: impl Iterator<Item = (u64, KeyId)>) {
        for (pfn, key) in pages {
            let _ = self.change(pfn, |pages| pages.insert(pfn, key));
        }
    }

    fn forget_key(&self, key: KeyId) {
        for shard in &self.shards {
            let mut pages = shard.pages.lock();
            pages.retain(|_, old| *old != key);
            shard.count.store(pages.len() as u64, Ordering::Release);
        }
    }
}

impl Machine {
    fn report_private(&self, lp: usize, gpa: Gpa, entry: &Entry) {
        self.report(HostViolation::StalePrivateTranslation(StaleTranslation {
            lp,
            gpa,
            hpa: entry.hpa,
            level: entry.level,
        }));
    }

    /// A page has left TD `tdr`: reports every processor that still reaches it.
    pub(crate) fn check_stale_pages(&self, tdr: Hpa, hpa: Hpa, level: Level) {
        for (lp, processor) in self.processors().iter().enumerate() {
            if processor.tlb.is_empty() || !processor.runs(tdr) {
                continue;
            }
            for (gpa, entry) in processor.tlb.reaching(hpa, level.bytes(), |entry| !entry.shared) {
                self.report_private(lp, gpa, &entry);
            }
        }
    }

    /// The mappings of a range of TD `tdr` have changed shape: reports every processor that still uses the old.
    pub(crate) fn check_stale_range(&self, tdr: Hpa, gpa: Gpa, level: Level) {
        for (lp, processor) in self.processors().iter().enumerate() {
            if processor.tlb.is_empty() || !processor.runs(tdr) {
                continue;
            }
            for (at, entry) in processor.tlb.of_range(tdr, gpa, level.bytes()) {
                if !entry.shared {
                    self.report_private(lp, at, &entry);
                }
            }
        }
    }

    /// The host is about to give a page to somebody else: reports every processor that still maps it through a
    /// shared EPT.
    pub fn note_host_page_freed(&self, page: Pfn, level: Level) {
        for (lp, processor) in self.processors().iter().enumerate() {
            for (gpa, entry) in processor.tlb.reaching(page.base(), level.bytes(), |entry| entry.shared) {
                self.report(HostViolation::StaleSharedTranslation(StaleTranslation {
                    lp,
                    gpa,
                    hpa: entry.hpa,
                    level: entry.level,
                }));
            }
        }
    }

    /// A page is no longer a TD's; what of it the TD wrote may still be in caches.
    pub(crate) fn note_page_left(&self, hpa: Hpa, level: Level) {
        let first = hpa.frame().get();
        for pfn in first..first.saturating_add(level.frames()) {
            if let Ok(key) = self.memory().page_key(Pfn::new(pfn))
                && self.config().private_hkids.contains(&key.get())
            {
                let _ = self.dirty.change(pfn, |pages| pages.insert(pfn, key));
            }
        }
    }

    /// A page is taken for `key`: reports dirty lines of another key.
    pub(crate) fn note_key_change(&self, hpa: Hpa, key: KeyId) {
        if let Some(old) = self.dirty.take(hpa.frame().get())
            && old != key
        {
            self.report(HostViolation::DirtyLinesOfOldKey { page: hpa.align_down(PAGE_SIZE), old, new: key });
        }
    }

    /// The lines of a page were written back.
    pub(crate) fn note_page_written_back(&self, hpa: Hpa) {
        let _ = self.dirty.take(hpa.frame().get());
    }

    /// The lines of a key were written back on every package.
    pub(crate) fn note_key_written_back(&self, key: KeyId) {
        self.dirty.forget_key(key);
    }

    /// INVEPT by the host on a processor: drops the translations through shared EPTs.
    pub fn invept(&self, lp: usize) {
        if let Some(processor) = self.processors().get(lp) {
            processor.tlb.flush_shared();
        }
    }

    /// WBINVD by the host on a processor: everything its package holds is written back.
    pub fn wbinvd(&self, lp: usize) {
        if lp < self.num_lps() && self.config().num_packages() <= 1 {
            for key in self.config().private_hkids.clone() {
                self.dirty.forget_key(KeyId::new(key));
            }
        }
    }

    /// Drops all guest translations of all processors, as if every guest had invalidated its own. Recordings
    /// from a processor without a TLB need it after TDH.MEM.RANGE.BLOCK.
    pub fn flush_guest_translations(&self) {
        for processor in self.processors() {
            processor.tlb.flush_all();
        }
    }
}
