//! The end of a TD: every page and the key id come back, or are accounted for.
//!
//! # Protocol (invariant 19)
//! 1. TDH.VP.FLUSH of every vCPU on the LP that it is associated with.
//! 2. TDH.MNG.VPFLUSHDONE.
//! 3. TDH.PHYMEM.CACHE.WB on one LP of each package, resumed while interrupted.
//! 4. TDH.MNG.KEY.FREEID: from here on the TD's memory is only memory.
//! 5. TDH.PHYMEM.PAGE.RECLAIM of every page, the TDR last; each is cleared and freed.
//!
//! The key goes first: no page needs BLOCK, TRACK or REMOVE any more. This works for a TD that the module
//! calls fatal, too. A page that the module does not give back is quarantined; a key id whose release failed is
//! retired, and then all pages of the TD are quarantined, because the module still owns them.

use tdvisor_base::{Level, Pfn};
use tdx_module_iface::handles::{KeyedHpa, Tdr};
use tdx_module_iface::outcome::SeamError;
use tdx_module_iface::tdh::{self, CacheWb, CacheWbOutcome};
use tdx_module_iface::{StatusCode, TdhLeaf};

use super::control::Control;
use crate::error::Error;
use crate::host::{Host, on_lp, one_lp_per_package};
use crate::platform::{LpId, Platform};
use crate::retry::{Bound, bounded};

/// Resumptions of one TDH.PHYMEM.CACHE.WB at most.
const CACHE_WB_RESUMPTIONS: u32 = 10_000;

/// What a teardown could not give back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TeardownReport {
    /// Frames that went to quarantine.
    pub quarantined_frames: u64,
    /// Frames that came back.
    pub freed_frames: u64,
    /// The first failure.
    pub first_failure: Option<Error>,
}

impl TeardownReport {
    /// Whether everything came back.
    pub fn is_clean(&self) -> bool {
        self.quarantined_frames == 0 && self.first_failure.is_none()
    }

    fn note(&mut self, error: &Error) {
        if self.first_failure.is_none() {
            self.first_failure = Some(error.clone());
        }
    }
}

/// Steps 1 to 4. Whether the key is free and pages may be reclaimed.
pub(crate) fn release_key<P: Platform>(
    host: &Host<P>,
    tdr: Tdr,
    vcpus: impl Iterator<Item = (LpId, tdx_module_iface::handles::Tdvpr)>,
    report: &mut TeardownReport,
) -> bool {
    let result = flush_vcpus(host, vcpus).and_then(|()| release(host, tdr));
    if let Err(error) = &result {
        report.note(error);
    }
    result.is_ok()
}

fn flush_vcpus<P: Platform>(
    host: &Host<P>,
    vcpus: impl Iterator<Item = (LpId, tdx_module_iface::handles::Tdvpr)>,
) -> Result<(), Error> {
    for (lp, tdvpr) in vcpus {
        on_lp(&host.platform, lp, |lp| {
            match bounded(Bound::MANAGEMENT, || tdh::tdh_vp_flush(lp, tdvpr)) {
                // Never initialised, or flushed before: it is nowhere, which is what was wanted.
                Err(error)
                    if matches!(
                        error.code(),
                        Some(StatusCode::VCPU_NOT_ASSOCIATED | StatusCode::TDCX_NUM_INCORRECT)
                    ) =>
                {
                    Ok(())
                }
                other => Ok(other?),
            }
        })?;
    }
    Ok(())
}

fn release<P: Platform>(host: &Host<P>, tdr: Tdr) -> Result<(), Error> {
    on_lp(&host.platform, LpId(0), |lp| {
        Ok(bounded(Bound::MANAGEMENT, || tdh::tdh_mng_vpflushdone(lp, tdr))?)
    })?;
    for lp in one_lp_per_package(&host.platform) {
        on_lp(&host.platform, lp, write_back_caches::<P>)?;
    }
    on_lp(&host.platform, LpId(0), |lp| Ok(bounded(Bound::MANAGEMENT, || tdh::tdh_mng_key_freeid(lp, tdr))?))
}

fn write_back_caches<P: Platform>(lp: &mut P::Lp<'_>) -> Result<(), Error> {
    let mut from = CacheWb::Start;
    for _ in 0..CACHE_WB_RESUMPTIONS {
        match bounded(Bound::MANAGEMENT, || tdh::tdh_phymem_cache_wb(lp, from))? {
            CacheWbOutcome::Done | CacheWbOutcome::NothingToDo => return Ok(()),
            CacheWbOutcome::Interrupted => {
                crate::platform::Lp::acknowledge_events(lp);
                from = CacheWb::Resume;
            }
        }
    }
    Err(Error::Contradiction {
        leaf: TdhLeaf::PHYMEM_CACHE_WB,
        what: "interrupted more often than its bound",
        at: tdvisor_base::Gpa::new(0),
    })
}

/// Step 5 for one page: reclaims, clears and frees it, or quarantines it.
pub(crate) fn reclaim<P: Platform>(host: &Host<P>, pfn: Pfn, level: Level, report: &mut TeardownReport) {
    if reclaim_page(host, pfn, level, report) {
        host.platform.free_page(pfn, level);
        report.freed_frames += level.frames();
    } else {
        host.quarantine(pfn, level);
    }
}

/// Reclaims and clears a page without freeing it: for pages that belong to a folio. `false` says that the
/// page may not be used any more; its owner quarantines it.
pub(crate) fn reclaim_page<P: Platform>(
    host: &Host<P>,
    pfn: Pfn,
    level: Level,
    report: &mut TeardownReport,
) -> bool {
    let result = on_lp(&host.platform, LpId(0), |lp| {
        bounded(Bound::MANAGEMENT, || tdh::tdh_phymem_page_reclaim(lp, pfn.base()))
            .map_err(SeamError::without_details)?;
        if level == Level::L4K {
            host.release_pamt(lp, pfn.base());
        }
        Ok(())
    })
    .and_then(|()| clear(host, pfn, level));
    if let Err(error) = &result {
        report.note(error);
        report.quarantined_frames += level.frames();
    }
    result.is_ok()
}

fn clear<P: Platform>(host: &Host<P>, pfn: Pfn, level: Level) -> Result<(), Error> {
    for frame in 0..level.frames() {
        host.platform.clear_page(pfn.wrapping_add(frame))?;
    }
    Ok(())
}

/// The last pages: TDCS, then the TDR, whose cache lines are under the module's key. Then the key id.
pub(crate) fn release_control<P: Platform>(host: &Host<P>, control: Control, report: &mut TeardownReport) {
    let Control { tdr_page, tdcx, hkid, .. } = control;
    for page in tdcx {
        reclaim(host, page, Level::L4K, report);
    }
    let result = on_lp(&host.platform, LpId(0), |lp| {
        bounded(Bound::MANAGEMENT, || tdh::tdh_phymem_page_reclaim(lp, tdr_page.base()))
            .map_err(SeamError::without_details)?;
        let shift = host.platform.key_id_shift();
        let keyed = KeyedHpa::new(tdr_page.base(), host.module_key(), shift)
            .ok_or(Error::NotMemory(tdr_page.base()))?;
        bounded(Bound::MANAGEMENT, || tdh::tdh_phymem_page_wbinvd(lp, keyed))?;
        host.release_pamt(lp, tdr_page.base());
        Ok(())
    });
    match result {
        Ok(()) => {
            host.take_back(tdr_page);
            report.freed_frames += 1;
        }
        Err(error) => {
            report.note(&error);
            report.quarantined_frames += 1;
            host.quarantine(tdr_page, Level::L4K);
        }
    }
    host.hkids.give_back(hkid);
}

/// The key could not be released: the module still owns every page.
pub(crate) fn abandon_control<P: Platform>(host: &Host<P>, control: Control, report: &mut TeardownReport) {
    let Control { tdr_page, tdcx, hkid, .. } = control;
    report.quarantined_frames += 1 + tdcx.len() as u64;
    for page in tdcx {
        host.quarantine(page, Level::L4K);
    }
    host.quarantine(tdr_page, Level::L4K);
    host.hkids.retire(hkid);
}

/// Tears down a TD that has control pages and nothing else.
pub(crate) fn control_only<P: Platform>(host: &Host<P>, control: Control) {
    let mut report = TeardownReport::default();
    if release_key(host, control.tdr, core::iter::empty(), &mut report) {
        release_control(host, control, &mut report);
    } else {
        abandon_control(host, control, &mut report);
    }
}
