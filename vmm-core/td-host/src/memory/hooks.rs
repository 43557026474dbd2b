//! mirror-ept's hooks as SEAMCALLs.
//!
//! | hook | leaf | beside |
//! |---|---|---|
//! | `link_external_spt` | TDH.MEM.SEPT.ADD | |
//! | `set_external_spte` | TDH.MEM.PAGE.ADD before the TD is finalised, TDH.MEM.PAGE.AUG after | |
//! | `block` | TDH.MEM.RANGE.BLOCK | |
//! | `track` | TDH.MEM.TRACK | one kick of all vCPUs, once the TD is finalised |
//! | `remove_external_spte` | TDH.MEM.PAGE.REMOVE | TDH.PHYMEM.PAGE.WBINVD and a clear per 4 KiB |
//! | `split_external_spt` | TDH.MEM.PAGE.DEMOTE | |
//! | `promote_external_spt` | TDH.MEM.PAGE.PROMOTE | WBINVD of the freed table |
//! | `free_external_spt` | TDH.MEM.SEPT.REMOVE | WBINVD of the freed table |
//! | `unblock` | TDH.MEM.RANGE.UNBLOCK | |
//! | `release_writes` | TDH.EXPORT.UNBLOCKW | |
//!
//! Where a TD has L2 VMs, the leaves that make and take tables also name those of the VMs: [`super::partitioned`].
//!
//! What holds and sends leaves by lists is in [`super::sending`], what takes leaves that arrive in [`super::arrival`].
//!
//! With dynamic PAMT each page that becomes the module's at 4 KiB is counted before the call and counted off
//! after it, or when the call failed ([`crate::host::pamt`]).
//!
//! # Busy
//! Under the shared guard a hook tries a few times and reports `Busy`: the fault is simply taken again. Under
//! the exclusive guard a lock can only be held by a guest-side leaf, by VP.ENTER's zero-step filter, or by
//! another TD. So the second attempt closes the gate and kicks every vCPU first; what is still in the way then
//! is another TD, and has a bound of its own (invariants 17 and 18).
//!
//! # Giving up
//! A call that found an entry's lock taken left the host's priority mark on it, and the guest cannot take
//! that lock again until the host has had it. Whoever gives up therefore reads the entry with
//! TDH.MEM.SEPT.RD, which takes the lock and clears the mark (invariant 51).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use mirror_ept::external::phase::{Batch, Blocked, Tracked};
use mirror_ept::external::{Blocking, External, HookError};
use mirror_ept::lock::{Exclusive, Shared};
use mirror_ept::range::{GfnRange, Position};
use mirror_ept::table::ExternalPage;
use tdvisor_base::{Gfn, Hpa, Level, Pfn};
use tdx_module_iface::handles::{GpaLevel, KeyedHpa};
use tdx_module_iface::outcome::{Retry, SeamError};
use tdx_module_iface::tdh;
use tdx_module_iface::{Status, StatusCode, TdhLeaf};

use super::tables::SeptPage;
use crate::error::Blame;
use crate::host::pamt::PamtHold;
use crate::platform::Platform;
use crate::retry::{Bound, bounded, is_busy, is_interrupted, pause};
use crate::td::core::TdCore;
use crate::vcpu::presence::Requests;

/// What the module, or the way to it, said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeptError {
    /// A leaf's error.
    Seam(SeamError),
    /// The module freed another page than the one that the mirror knows.
    WrongPage {
        /// The leaf that freed it.
        leaf: TdhLeaf,
        /// The page that the module freed.
        freed: Pfn,
    },
    /// The module and the host differ about the table of an L2 VM.
    L2Page {
        /// The leaf that told.
        leaf: TdhLeaf,
        /// Where the table is.
        at: Position,
    },
}

impl SeptError {
    /// Who has to change something.
    pub const fn blame(&self) -> Blame {
        match self {
            Self::Seam(_) | Self::WrongPage { .. } | Self::L2Page { .. } => Blame::Module,
        }
    }

    /// The module's status, where there is one.
    pub fn status(&self) -> Option<Status> {
        match self {
            Self::Seam(error) => error.status(),
            Self::WrongPage { .. } | Self::L2Page { .. } => None,
        }
    }
}

impl fmt::Display for SeptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seam(error) => error.fmt(f),
            Self::WrongPage { leaf, freed } => write!(f, "{leaf} freed page {freed}, not the mapped one"),
            Self::L2Page { leaf, at } => {
                write!(
                    f,
                    "{leaf} at guest frame {}: the tables of L2 VMs are not as the host has them",
                    at.gfn()
                )
            }
        }
    }
}

pub(super) type HookResult<T = ()> = Result<T, HookError<SeptError>>;

/// A guest page that left the TD, but whose cache lines could not be written back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unclean {
    pub(crate) gfn: Gfn,
    pub(crate) level: Level,
}

/// What the hooks need of whoever changes a TD's memory, and what they leave for them.
pub(crate) struct SeptCtx<'h, P: Platform + 'h> {
    /// The LP that SEAMCALLs are issued on.
    pub(crate) lp: P::Lp<'h>,
    /// Where the next page's contents are: TDH.MEM.PAGE.ADD copies and counts them. `None` for pages that the TD
    /// gets empty, with TDH.MEM.PAGE.AUG.
    pub(crate) source: Option<Hpa>,
    /// Pages that were removed and could not be cleaned: whoever removed them withdraws them.
    pub(crate) unclean: Vec<Unclean>,
}

/// The hooks of one TD.
pub(crate) struct SeptHooks<'h, P: Platform> {
    pub(crate) core: Arc<TdCore<'h, P>>,
}

impl<'h, P: Platform> SeptHooks<'h, P> {
    /// A call beside running vCPUs: a few attempts, then `Busy`.
    fn beside_vcpus<T, D>(
        &self,
        lp: &mut P::Lp<'h>,
        at: Position,
        mut work: impl FnMut(&mut P::Lp<'h>) -> Result<T, SeamError<D>>,
    ) -> HookResult<T> {
        bounded(Bound::BESIDE_VCPUS, || work(lp))
            .map_err(|error| self.give_up(lp, at, error.without_details()))
    }

    /// A call in an exclusive section: once beside running vCPUs, then with all of them kept outside.
    pub(super) fn in_section<T, D>(
        &self,
        lp: &mut P::Lp<'h>,
        at: Position,
        mut work: impl FnMut(&mut P::Lp<'h>) -> Result<T, SeamError<D>>,
    ) -> HookResult<T> {
        match work(lp) {
            Ok(value) => return Ok(value),
            Err(error) if error.retry().is_some() => {}
            Err(error) => return Err(self.give_up(lp, at, error.without_details())),
        }
        let closed = self.core.gate.close();
        self.core.kick_all();
        let result = bounded(Bound::WITHOUT_VCPUS, || work(lp));
        drop(closed);
        result.map_err(|error| self.give_up(lp, at, error.without_details()))
    }

    /// Names the error, and leaves no priority mark of the host behind.
    fn give_up(&self, lp: &mut P::Lp<'h>, at: Position, error: SeamError) -> HookError<SeptError> {
        if is_busy(&error) {
            let entry = entry_of(at);
            let _ = bounded(Bound::BESIDE_VCPUS, || tdh::tdh_mem_sept_rd(lp, self.core.tdr, entry));
            return HookError::Busy;
        }
        if is_interrupted(&error) {
            return HookError::Interrupted;
        }
        match error.code() {
            Some(StatusCode::EPT_INVALID_PROMOTE_CONDITIONS) => HookError::Refused(SeptError::Seam(error)),
            _ => HookError::Fatal(SeptError::Seam(error)),
        }
    }

    /// TDH.MEM.TRACK, and gets every vCPU out of the guest once.
    pub(super) fn track_epoch(&self, lp: &mut P::Lp<'h>) -> Result<(), SeamError> {
        let mut attempt = 0;
        loop {
            match tdh::tdh_mem_track(lp, self.core.tdr) {
                Ok(()) => break,
                Err(error) if is_busy(&error) && attempt < Bound::WITHOUT_VCPUS.0 => {
                    // A vCPU of the epoch before the current one is still inside: get it out.
                    if matches!(error.retry(), Some(Retry::PreviousTlbEpochBusy)) {
                        self.core.kick_all();
                    }
                    pause(attempt);
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
        self.core.kick_all();
        Ok(())
    }

    /// Writes back what the caches hold of a freed page under the TD's key, and takes the page for the host.
    /// Says whether that worked.
    ///
    /// The page has left the TD already, so this cannot fail the removal: a page that cannot be cleaned is
    /// withdrawn by its owner and never used again (invariant 15).
    pub(super) fn clean(&self, lp: &mut P::Lp<'h>, pfn: Pfn, level: Level) -> bool {
        let key = self.core.key;
        let host = self.core.host;
        let shift = host.platform.key_id_shift();
        // A huge page has no 4 KiB entries of its own, but its cache lines are written back 4 KiB at a time.
        let borrowed = host.has_dynamic_pamt() && level > Level::L4K;
        if borrowed && self.count(lp, pfn).map(PamtHold::keep).is_err() {
            return false;
        }
        let clean = (0..level.frames()).all(|frame| {
            let page = pfn.wrapping_add(frame);
            let Some(keyed) = KeyedHpa::new(page.base(), key, shift) else { return false };
            let written_back = bounded(Bound::WITHOUT_VCPUS, || tdh::tdh_phymem_page_wbinvd(lp, keyed));
            written_back.is_ok() && host.platform.clear_page(page).is_ok()
        });
        if borrowed || level == Level::L4K {
            self.count_off(lp, pfn);
        }
        clean
    }

    /// Gives a page to the TD: with contents while it is built, empty after. The module holds the caller to that.
    fn give(&self, ctx: &mut SeptCtx<'h, P>, at: Position, pfn: Pfn) -> HookResult {
        let (tdr, page) = (self.core.tdr, pfn.base());
        let Some(source) = ctx.source else {
            return self
                .beside_vcpus(&mut ctx.lp, at, |lp| tdh::tdh_mem_page_aug(lp, tdr, entry_of(at), page));
        };
        let gpa = at.gfn().base();
        self.beside_vcpus(&mut ctx.lp, at, |lp| tdh::tdh_mem_page_add(lp, tdr, gpa, page, source))
    }

    /// A table page that the module freed.
    fn take_table(&self, lp: &mut P::Lp<'h>, leaf: TdhLeaf, page: &mut SeptPage, freed: Hpa) -> HookResult {
        if freed.frame() != page.pfn() {
            return Err(HookError::Fatal(SeptError::WrongPage { leaf, freed: freed.frame() }));
        }
        if !self.clean(lp, page.pfn(), Level::L4K) {
            page.mark_unclean();
        }
        Ok(())
    }
}

pub(super) fn entry_of(at: Position) -> GpaLevel {
    GpaLevel::of_gfn(at.gfn(), at.level())
}

impl<'h, P: Platform> External for SeptHooks<'h, P> {
    type Page = SeptPage;
    type Error = SeptError;
    type Ctx = SeptCtx<'h, P>;

    fn link_external_spt(
        &self,
        ctx: &mut Self::Ctx,
        _guard: &Shared<'_>,
        at: Position,
        page: &mut SeptPage,
    ) -> HookResult {
        let (tdr, table) = (self.core.tdr, page.pfn().base());
        let hold = self.count(&mut ctx.lp, page.pfn())?;
        let added =
            self.beside_vcpus(&mut ctx.lp, at, |lp| tdh::tdh_mem_sept_add(lp, tdr, entry_of(at), table));
        self.settle(&mut ctx.lp, hold, added)
    }

    fn set_external_spte(
        &self,
        ctx: &mut Self::Ctx,
        _guard: &Shared<'_>,
        at: Position,
        pfn: Pfn,
    ) -> HookResult {
        if at.level() > Level::L4K {
            return self.give(ctx, at, pfn);
        }
        let hold = self.count(&mut ctx.lp, pfn)?;
        let given = self.give(ctx, at, pfn);
        self.settle(&mut ctx.lp, hold, given)
    }

    fn block(
        &self,
        ctx: &mut Self::Ctx,
        _guard: &mut Exclusive<'_>,
        at: Position,
        _what: Blocking,
    ) -> HookResult {
        let tdr = self.core.tdr;
        self.in_section(&mut ctx.lp, at, |lp| tdh::tdh_mem_range_block(lp, tdr, entry_of(at))).map(drop)
    }

    fn track(
        &self,
        ctx: &mut Self::Ctx,
        _guard: &mut Exclusive<'_>,
        _blocked: &Batch<Blocked>,
    ) -> HookResult {
        // Nobody ran yet and the module tracks nothing: there is nothing to wait for (invariant 14).
        if !self.core.is_runnable() {
            return Ok(());
        }
        self.track_epoch(&mut ctx.lp).map_err(|error| match error {
            error if is_busy(&error) => HookError::Busy,
            error => HookError::Fatal(SeptError::Seam(error)),
        })
    }

    fn remove_external_spte(
        &self,
        ctx: &mut Self::Ctx,
        _guard: &mut Exclusive<'_>,
        entry: &Tracked,
        pfn: Pfn,
    ) -> HookResult {
        let (tdr, at) = (self.core.tdr, entry.at());
        let freed = self.in_section(&mut ctx.lp, at, |lp| tdh::tdh_mem_page_remove(lp, tdr, entry_of(at)))?;
        if freed.frame() != pfn {
            let leaf = TdhLeaf::MEM_PAGE_REMOVE;
            return Err(HookError::Fatal(SeptError::WrongPage { leaf, freed: freed.frame() }));
        }
        if !self.clean(&mut ctx.lp, pfn, at.level()) {
            ctx.unclean.push(Unclean { gfn: at.gfn(), level: at.level() });
        }
        Ok(())
    }

    fn split_external_spt(
        &self,
        ctx: &mut Self::Ctx,
        _guard: &mut Exclusive<'_>,
        entry: &Tracked,
        pfn: Pfn,
        page: &mut SeptPage,
    ) -> HookResult {
        let (tdr, at, table) = (self.core.tdr, entry.at(), page.pfn().base());
        if self.core.l2_vms > 0 {
            let hold = self.count(&mut ctx.lp, page.pfn())?;
            let split = self.demote_with_l2_tables(&mut ctx.lp, page, |hooks, lp, l2| {
                hooks.demote_with_entries(lp, at, pfn, |lp, pair| {
                    tdh::tdh_mem_page_demote_l2(lp, tdr, entry_of(at), table, l2, pair)
                })
            });
            return self.settle(&mut ctx.lp, hold, split);
        }
        if !self.core.host.has_dynamic_pamt() {
            return self
                .in_section(&mut ctx.lp, at, |lp| tdh::tdh_mem_page_demote(lp, tdr, entry_of(at), table));
        }
        let hold = self.count(&mut ctx.lp, page.pfn())?;
        let split = self.demote_with_entries(&mut ctx.lp, at, pfn, |lp, pair| match pair {
            Some(pair) => tdh::tdh_mem_page_demote_with_pamt(lp, tdr, entry_of(at), table, pair),
            None => tdh::tdh_mem_page_demote(lp, tdr, entry_of(at), table),
        });
        self.settle(&mut ctx.lp, hold, split)
    }

    fn promote_external_spt(
        &self,
        ctx: &mut Self::Ctx,
        _guard: &mut Exclusive<'_>,
        entry: &Tracked,
        pfn: Pfn,
        page: &mut SeptPage,
    ) -> HookResult {
        let (tdr, at) = (self.core.tdr, entry.at());
        let leaf = TdhLeaf::MEM_PAGE_PROMOTE;
        if self.core.l2_vms > 0 {
            let (freed, l2) =
                self.in_section(&mut ctx.lp, at, |lp| tdh::tdh_mem_page_promote_l2(lp, tdr, entry_of(at)))?;
            self.merged(&mut ctx.lp, at, pfn);
            self.take_table(&mut ctx.lp, leaf, page, freed)?;
            return self.take_l2_tables(&mut ctx.lp, leaf, at, page, l2);
        }
        let freed =
            self.in_section(&mut ctx.lp, at, |lp| tdh::tdh_mem_page_promote(lp, tdr, entry_of(at)))?;
        self.merged(&mut ctx.lp, at, pfn);
        self.take_table(&mut ctx.lp, leaf, page, freed)
    }

    fn free_external_spt(
        &self,
        ctx: &mut Self::Ctx,
        _guard: &mut Exclusive<'_>,
        entry: &Tracked,
        page: &mut SeptPage,
    ) -> HookResult {
        let (tdr, at) = (self.core.tdr, entry.at());
        let leaf = TdhLeaf::MEM_SEPT_REMOVE;
        if self.core.l2_vms > 0 {
            let (freed, l2) =
                self.in_section(&mut ctx.lp, at, |lp| tdh::tdh_mem_sept_remove_l2(lp, tdr, entry_of(at)))?;
            self.take_table(&mut ctx.lp, leaf, page, freed)?;
            return self.take_l2_tables(&mut ctx.lp, leaf, at, page, l2);
        }
        let freed = self.in_section(&mut ctx.lp, at, |lp| tdh::tdh_mem_sept_remove(lp, tdr, entry_of(at)))?;
        self.take_table(&mut ctx.lp, leaf, page, freed)
    }

    fn unblock(&self, ctx: &mut Self::Ctx, _guard: &mut Exclusive<'_>, entry: &Tracked) -> HookResult {
        let (tdr, at) = (self.core.tdr, entry.at());
        self.in_section(&mut ctx.lp, at, |lp| tdh::tdh_mem_range_unblock(lp, tdr, entry_of(at)))
    }

    fn release_writes(
        &self,
        ctx: &mut Self::Ctx,
        _guard: &Shared<'_>,
        at: Position,
        _pfn: Pfn,
    ) -> HookResult {
        let (tdr, gpa) = (self.core.tdr, at.gfn().base());
        self.beside_vcpus(&mut ctx.lp, at, |lp| tdh::tdh_export_unblockw(lp, tdr, gpa))
    }

    fn flush_direct(&self, _range: GfnRange) {
        // A vCPU outside the guest sees the request before it enters; one inside is kicked out, and sees it then.
        for presence in self.core.presences() {
            presence.request(Requests::FLUSH_DIRECT);
        }
        self.core.kick_all();
    }
}
