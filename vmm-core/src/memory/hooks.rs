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
use core::fmt;

use base::{Hpa, Level, Pfn};
use mirror_ept::external::phase::{Batch, Blocked, Tracked};
use mirror_ept::external::{Blocking, External, HookError};
use mirror_ept::lock::{Exclusive, Shared};
use mirror_ept::range::{GfnRange, Position};
use mirror_ept::table::ExternalPage;
use tdx_module_iface::handles::{GpaLevel, KeyedHpa};
use tdx_module_iface::outcome::{Retry, SeamError};
use tdx_module_iface::tdh;
use tdx_module_iface::{StatusCode, TdhLeaf};

use super::tables::SeptPage;
use crate::host::pamt::PamtHold;
use crate::platform::Platform;
use crate::retry::{Bound, bounded, is_busy, is_interrupted, pause};
use crate::td::core::{TdCore, Unclean};
use crate::vcpu::presence::Requests;

/// What the module, or the way to it, said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeptError {
    /// A leaf's error.
    Seam(SeamError),
    /// The participant holds no LP, so no SEAMCALL can be issued: a bug of the host.
    NoLp,
    /// TDH.MEM.PAGE.ADD without a source page: a bug of the host.
    NoSource,
    /// The module freed another page than the one that the mirror knows.
    WrongPage {
        /// The leaf that freed it.
        leaf: TdhLeaf,
        /// What it freed.
        freed: Pfn,
    },
}

impl fmt::Display for SeptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seam(error) => error.fmt(f),
            Self::NoLp => f.write_str("no logical processor to issue the call on"),
            Self::NoSource => f.write_str("no source page for TDH.MEM.PAGE.ADD"),
            Self::WrongPage { leaf, freed } => write!(f, "{leaf} freed page {freed}, not the mapped one"),
        }
    }
}

pub(super) type HookResult<T = ()> = Result<T, HookError<SeptError>>;

/// The hooks of one TD.
pub(crate) struct SeptHooks<'h, P: Platform> {
    pub(crate) core: Arc<TdCore<'h, P>>,
}

impl<'h, P: Platform> SeptHooks<'h, P> {
    /// Issues a call on the LP of the participant who holds the guard.
    fn call<T, D>(
        &self,
        participant: usize,
        work: impl FnOnce(&mut P::Lp<'h>) -> Result<T, SeamError<D>>,
    ) -> Result<T, CallError> {
        let mut seat = self.core.seat(participant).ok_or(CallError::NoLp)?;
        let lp = seat.as_mut().ok_or(CallError::NoLp)?;
        work(lp).map_err(|error| CallError::Seam(error.without_details()))
    }

    /// A call beside running vCPUs: a few attempts, then `Busy`.
    fn beside_vcpus<T, D>(
        &self,
        guard: &Shared<'_>,
        at: Position,
        mut work: impl FnMut(&mut P::Lp<'h>) -> Result<T, SeamError<D>>,
    ) -> HookResult<T> {
        let participant = guard.participant();
        let result = self.call(participant, |lp| bounded(Bound::BESIDE_VCPUS, || work(lp)));
        result.map_err(|error| self.give_up(participant, at, error))
    }

    /// A call in an exclusive section: once beside running vCPUs, then with all of them kept outside.
    pub(super) fn in_section<T, D>(
        &self,
        guard: &Exclusive<'_>,
        at: Position,
        mut work: impl FnMut(&mut P::Lp<'h>) -> Result<T, SeamError<D>>,
    ) -> HookResult<T> {
        let participant = guard.participant();
        match self.call(participant, &mut work) {
            Err(CallError::Seam(error)) if error.retry().is_some() => {}
            other => return other.map_err(|error| self.give_up(participant, at, error)),
        }
        let closed = self.core.gate.close();
        self.core.kick_all();
        let result = self.call(participant, |lp| bounded(Bound::WITHOUT_VCPUS, || work(lp)));
        drop(closed);
        result.map_err(|error| self.give_up(participant, at, error))
    }

    /// Names the error, and leaves no priority mark of the host behind.
    fn give_up(&self, participant: usize, at: Position, error: CallError) -> HookError<SeptError> {
        let error = match error {
            CallError::NoLp => return HookError::Fatal(SeptError::NoLp),
            CallError::Seam(error) => error,
        };
        if is_busy(&error) {
            let entry = entry_of(at);
            let tdr = self.core.tdr;
            let _ = self.call(participant, |lp| {
                bounded(Bound::BESIDE_VCPUS, || tdh::tdh_mem_sept_rd(lp, tdr, entry))
            });
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

    /// Writes back what the caches hold of a freed page under the TD's key, and takes the page for the host.
    /// Says whether that worked.
    ///
    /// The page has left the TD already, so this cannot fail the removal: a page that cannot be cleaned is
    /// withdrawn by its owner and never used again (invariant 15).
    fn clean(&self, participant: usize, pfn: Pfn, level: Level) -> bool {
        let key = self.core.key;
        let host = self.core.host;
        let shift = host.platform.key_id_shift();
        // A huge page has no 4 KiB entries of its own, but its cache lines are written back 4 KiB at a time.
        let borrowed = host.has_dynamic_pamt() && level > Level::L4K;
        if borrowed && self.count(participant, pfn).map(PamtHold::keep).is_err() {
            return false;
        }
        let clean = (0..level.frames()).all(|frame| {
            let page = pfn.wrapping_add(frame);
            let Some(keyed) = KeyedHpa::new(page.base(), key, shift) else { return false };
            let written_back = self.call(participant, |lp| {
                bounded(Bound::WITHOUT_VCPUS, || tdh::tdh_phymem_page_wbinvd(lp, keyed))
            });
            written_back.is_ok() && host.platform.clear_page(page).is_ok()
        });
        if borrowed || level == Level::L4K {
            self.count_off(participant, pfn);
        }
        clean
    }

    /// Gives a page to the TD: with contents before it is finalised, empty after.
    fn give(&self, guard: &Shared<'_>, at: Position, pfn: Pfn) -> HookResult {
        let (tdr, page) = (self.core.tdr, pfn.base());
        if self.core.is_runnable() {
            return self.beside_vcpus(guard, at, |lp| tdh::tdh_mem_page_aug(lp, tdr, entry_of(at), page));
        }
        let source = self.core.add_source().ok_or(HookError::Fatal(SeptError::NoSource))?;
        let gpa = at.gfn().base();
        self.beside_vcpus(guard, at, |lp| tdh::tdh_mem_page_add(lp, tdr, gpa, page, source))
    }

    /// A table page that the module freed.
    fn take_table(&self, participant: usize, leaf: TdhLeaf, page: &mut SeptPage, freed: Hpa) -> HookResult {
        if freed.frame() != page.pfn() {
            return Err(HookError::Fatal(SeptError::WrongPage { leaf, freed: freed.frame() }));
        }
        if !self.clean(participant, page.pfn(), Level::L4K) {
            page.mark_unclean();
        }
        Ok(())
    }
}

/// A call that did not succeed.
enum CallError {
    Seam(SeamError),
    NoLp,
}

pub(super) fn entry_of(at: Position) -> GpaLevel {
    GpaLevel::of_gfn(at.gfn(), at.level())
}

impl<P: Platform> External for SeptHooks<'_, P> {
    type Page = SeptPage;
    type Error = SeptError;

    fn link_external_spt(&self, guard: &Shared<'_>, at: Position, page: &mut SeptPage) -> HookResult {
        let (tdr, table) = (self.core.tdr, page.pfn().base());
        let hold = self.count(guard.participant(), page.pfn())?;
        let added = self.beside_vcpus(guard, at, |lp| tdh::tdh_mem_sept_add(lp, tdr, entry_of(at), table));
        self.settle(guard.participant(), hold, added)
    }

    fn set_external_spte(&self, guard: &Shared<'_>, at: Position, pfn: Pfn) -> HookResult {
        if at.level() > Level::L4K {
            return self.give(guard, at, pfn);
        }
        let hold = self.count(guard.participant(), pfn)?;
        let given = self.give(guard, at, pfn);
        self.settle(guard.participant(), hold, given)
    }

    fn block(&self, guard: &mut Exclusive<'_>, at: Position, _what: Blocking) -> HookResult {
        let tdr = self.core.tdr;
        self.in_section(guard, at, |lp| tdh::tdh_mem_range_block(lp, tdr, entry_of(at))).map(drop)
    }

    fn track(&self, guard: &mut Exclusive<'_>, _blocked: &Batch<Blocked>) -> HookResult {
        // Nobody ran yet and the module tracks nothing: there is nothing to wait for (invariant 14).
        if !self.core.is_runnable() {
            return Ok(());
        }
        let participant = guard.participant();
        let tdr = self.core.tdr;
        let mut attempt = 0;
        loop {
            match self.call(participant, |lp| tdh::tdh_mem_track(lp, tdr)) {
                Ok(()) => break,
                Err(CallError::Seam(error)) if is_busy(&error) && attempt < Bound::WITHOUT_VCPUS.0 => {
                    // A vCPU of the epoch before the current one is still inside: get it out.
                    if matches!(error.retry(), Some(Retry::PreviousTlbEpochBusy)) {
                        self.core.kick_all();
                    }
                    pause(attempt);
                    attempt += 1;
                }
                Err(CallError::Seam(error)) if is_busy(&error) => return Err(HookError::Busy),
                Err(CallError::Seam(error)) => return Err(HookError::Fatal(SeptError::Seam(error))),
                Err(CallError::NoLp) => return Err(HookError::Fatal(SeptError::NoLp)),
            }
        }
        self.core.kick_all();
        Ok(())
    }

    fn remove_external_spte(&self, guard: &mut Exclusive<'_>, entry: &Tracked, pfn: Pfn) -> HookResult {
        let (tdr, at) = (self.core.tdr, entry.at());
        let freed = self.in_section(guard, at, |lp| tdh::tdh_mem_page_remove(lp, tdr, entry_of(at)))?;
        if freed.frame() != pfn {
            let leaf = TdhLeaf::MEM_PAGE_REMOVE;
            return Err(HookError::Fatal(SeptError::WrongPage { leaf, freed: freed.frame() }));
        }
        if !self.clean(guard.participant(), pfn, at.level()) {
            self.core.note_unclean(Unclean { gfn: at.gfn(), level: at.level() });
        }
        Ok(())
    }

    fn split_external_spt(
        &self,
        guard: &mut Exclusive<'_>,
        entry: &Tracked,
        pfn: Pfn,
        page: &mut SeptPage,
    ) -> HookResult {
        let (tdr, at, table) = (self.core.tdr, entry.at(), page.pfn().base());
        if !self.core.host.has_dynamic_pamt() {
            return self.in_section(guard, at, |lp| tdh::tdh_mem_page_demote(lp, tdr, entry_of(at), table));
        }
        let hold = self.count(guard.participant(), page.pfn())?;
        let split = self.demote_with_entries(guard, at, pfn, table);
        self.settle(guard.participant(), hold, split)
    }

    fn promote_external_spt(
        &self,
        guard: &mut Exclusive<'_>,
        entry: &Tracked,
        pfn: Pfn,
        page: &mut SeptPage,
    ) -> HookResult {
        let (tdr, at) = (self.core.tdr, entry.at());
        let freed = self.in_section(guard, at, |lp| tdh::tdh_mem_page_promote(lp, tdr, entry_of(at)))?;
        self.merged(guard.participant(), at, pfn);
        self.take_table(guard.participant(), TdhLeaf::MEM_PAGE_PROMOTE, page, freed)
    }

    fn free_external_spt(
        &self,
        guard: &mut Exclusive<'_>,
        entry: &Tracked,
        page: &mut SeptPage,
    ) -> HookResult {
        let (tdr, at) = (self.core.tdr, entry.at());
        let freed = self.in_section(guard, at, |lp| tdh::tdh_mem_sept_remove(lp, tdr, entry_of(at)))?;
        self.take_table(guard.participant(), TdhLeaf::MEM_SEPT_REMOVE, page, freed)
    }

    fn unblock(&self, guard: &mut Exclusive<'_>, entry: &Tracked) -> HookResult {
        let (tdr, at) = (self.core.tdr, entry.at());
        self.in_section(guard, at, |lp| tdh::tdh_mem_range_unblock(lp, tdr, entry_of(at)))
    }

    fn flush_direct(&self, _range: GfnRange) {
        // A vCPU outside the guest sees the request before it enters; one inside is kicked out, and sees it then.
        for presence in self.core.presences() {
            presence.request(Requests::FLUSH_DIRECT);
        }
        self.core.kick_all();
    }
}
