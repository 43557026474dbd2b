//! Private memory on its way to another machine: what a migration session does with it.
//!
//! # Protocol
//! [`GuestMemory::begin_sending`] makes everything private small, and keeps it so: the module sends 4 KiB pages. From
//! then on leaves of the mirror stand where [`mirror_ept::transfer`] says, and each list is one section:
//!
//! | list | leaf | standing |
//! |---|---|---|
//! | [`GuestMemory::hold_some`] | TDH.EXPORT.BLOCKW | may change → held |
//! | [`GuestMemory::send_some`] | TDH.EXPORT.MEM | due → sent |
//! | [`GuestMemory::give_back_some`] | TDH.EXPORT.RESTORE, TDH.EXPORT.UNBLOCKW | any → plain |
//!
//! Between holding and sending comes TDH.MEM.TRACK with one kick ([`GuestMemory::track_held`]). A write to a held or
//! sent page faults, and the hook `release_writes` lets it through: nothing that is written is missed (invariant 59).
//!
//! # Memory that goes
//! What is sent cannot be taken away: the module refuses to block it. And which pages are shared the other machine was told
//! when the session began. So whatever takes pages away — a conversion to either side, a hole, a slot — first *ends the session* ([`GuestMemory::stay_with`]): TDH.EXPORT.ABORT, and the pages
//! of its range are given back; the session finds out at its next step, gives back the rest, and its owner may begin
//! anew. After the token that ends the in-order phase nothing may be taken away any more: the TD may run elsewhere.
//!
//! Pages that could not be given back keep their standing, and the guest runs on: a later call goes on with them.

use alloc::vec::Vec;

use mirror_ept::{GfnRange, MmuError, MovingLeaf, Reserve, SplitOutcome, Standing, StandingCounts};
use tdvisor_base::sync::{AtomicBool, Mutex, Ordering};
use tdvisor_base::{Gfn, Level, Pfn};
use tdx_module_iface::op_state::OpState;
use tdx_module_iface::{StatusCode, metadata, tdh};

use super::listed::ListCall;
use super::remove::pieces;
use super::{GuestMemory, Seat};
use crate::error::Error;
use crate::host::Host;
use crate::migration::bundle::{MemoryBundle, PAGES_AT_ONCE};
use crate::migration::pages::CallPages;
use crate::platform::Platform;
use crate::retry::{Bound, bounded, is_busy, pause};
use crate::td::core::TdCore;

/// Attempts at making a range small.
const ATTEMPTS: u32 = 10_000;

const HANDED_OVER: Error = Error::Caller("the TD is being handed over to another machine");

/// Whether pages are on their way.
#[derive(Debug, Default)]
pub(super) struct Sending {
    /// From the beginning of a session until all of its pages are given back.
    on: AtomicBool,
    /// Memory went, and the session ended with it.
    ended: AtomicBool,
    /// Where lists of pages that are given back are written.
    list: Mutex<Option<Pfn>>,
}

impl Sending {
    /// Whether a leaf may stand otherwise than plain.
    pub(super) fn is_on(&self) -> bool {
        self.on.load(Ordering::SeqCst)
    }

    /// Whether no session has left anything.
    pub(super) fn is_idle(&self) -> bool {
        let Self { on, ended, list } = self;
        !on.load(Ordering::SeqCst) && !ended.load(Ordering::SeqCst) && list.lock().is_none()
    }

    pub(super) fn free<P: Platform>(&self, host: &Host<P>) {
        if let Some(page) = self.list.lock().take() {
            host.platform.free_page(page, Level::L4K);
        }
    }
}

/// How one list went on.
#[derive(Debug)]
pub(crate) struct Sent {
    /// What is to be told to the other machine; `None` where nothing of the range was due.
    pub(crate) bundle: Option<MemoryBundle>,
    /// Where the rest of the range begins.
    pub(crate) next: Gfn,
}

impl<'h, P: Platform> GuestMemory<'h, P> {
    /// Makes all private memory small, for a session.
    ///
    /// # Errors
    /// [`Error::Caller`] while pages of a session are on their way; [`Error::NoMemory`]. Nothing is on its way then.
    pub(crate) fn begin_sending(&self, seat: &mut Seat<'_, 'h, P>) -> Result<(), Error> {
        let _conversion = self.conversions.lock();
        if self.sending.is_on() {
            return Err(Error::Caller("the TD's memory is on its way to another machine already"));
        }
        let list = self.core.host.give_page()?;
        self.sending.free(self.core.host);
        *self.sending.list.lock() = Some(list);
        self.sending.ended.store(false, Ordering::SeqCst);
        self.sending.on.store(true, Ordering::SeqCst);
        {
            // A fault that was going to map a huge page looks again.
            let all = GfnRange::new(Gfn::new(0), self.mmu.config().end);
            let mut guard = seat.participant.exclusive();
            let window = self.mmu.notifier().begin(&mut guard, all);
            self.mmu.notifier().end(&mut guard, window);
        }
        let small = self.ranges().flat_map(pieces).try_for_each(|piece| self.make_small(seat, piece));
        if small.is_err() {
            self.sending.on.store(false, Ordering::SeqCst);
        }
        small
    }

    /// Splits every huge private page of a piece.
    fn make_small(&self, seat: &mut Seat<'_, 'h, P>, piece: GfnRange) -> Result<(), Error> {
        if !seat.may_exceed(Level::L4K) {
            return Ok(());
        }
        for attempt in 0..ATTEMPTS {
            seat.reserve(Reserve::PRIVATE)?;
            let Seat { participant, cache, ctx, .. } = &mut *seat;
            let mut guard = participant.exclusive();
            match self.mmu.split_range(ctx, &mut guard, cache, piece, Level::L4K) {
                Ok(SplitOutcome::Complete(_)) => return Ok(()),
                Ok(SplitOutcome::NeedTables(_)) => {}
                Ok(SplitOutcome::Partial { why, .. }) if why.is_retryable() => pause(attempt),
                Ok(SplitOutcome::Partial { at, step, why, .. }) => {
                    return Err(MmuError::Hook { at, step, why }.into());
                }
                Err(error) if error.is_retryable() => pause(attempt),
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::StayedBusy(piece.start()))
    }

    /// Whether memory went, and took the session with it.
    pub(crate) fn session_was_ended(&self) -> bool {
        self.sending.ended.load(Ordering::SeqCst)
    }

    /// Ends what [`Self::begin_sending`] began. Whether every page is given back; if not, calling again goes on.
    ///
    /// # Errors
    /// The TD cannot go on.
    pub(crate) fn end_sending(&self, seat: &mut Seat<'_, 'h, P>) -> Result<bool, Error> {
        let _conversion = self.conversions.lock();
        if !self.sending.is_on() {
            return Ok(true);
        }
        for range in self.ranges() {
            for piece in pieces(range) {
                if !self.give_back(seat, piece)? {
                    return Ok(false);
                }
            }
        }
        self.sending.on.store(false, Ordering::SeqCst);
        self.sending.free(self.core.host);
        Ok(true)
    }

    /// How the leaves stand.
    ///
    /// # Errors
    /// The TD cannot go on.
    pub(crate) fn standings(&self, seat: &mut Seat<'_, 'h, P>) -> Result<StandingCounts, Error> {
        let mut guard = seat.participant.exclusive();
        self.mmu.standings(&mut guard).map_err(Error::from)
    }

    /// Holds the next pages of a range that may change. Gives where the rest of the range begins.
    ///
    /// # Errors
    /// The module refused; what was held before is held.
    pub(crate) fn hold_some(
        &self,
        seat: &mut Seat<'_, 'h, P>,
        pages: &CallPages<'h, P>,
        range: GfnRange,
    ) -> Result<Gfn, Error> {
        let Seat { participant, ctx, .. } = seat;
        let mut guard = participant.exclusive();
        let core = &*self.core;
        let advance =
            self.mmu.change_standings(&mut guard, range, PAGES_AT_ONCE, Standing::may_change, |leaves| {
                let by_list = ListCall { core, page: pages.list() };
                let called =
                    by_list.run(&mut ctx.lp, leaves, |lp, list| tdh::tdh_export_blockw(lp, core.tdr, list));
                called.settle(leaves, Standing::held)
            })?;
        advance.said.unwrap_or(Ok(()))?;
        Ok(advance.next)
    }

    /// Makes what is held tracked: no vCPU writes to it through an old translation any more.
    ///
    /// # Errors
    /// The module stayed busy beyond its bound.
    pub(crate) fn track_held(&self, seat: &mut Seat<'_, 'h, P>) -> Result<(), Error> {
        let _guard = seat.participant.exclusive();
        self.mmu.external().track_epoch(&mut seat.ctx.lp)?;
        Ok(())
    }

    /// Sends the next pages of a range whose standing is wanted.
    ///
    /// # Errors
    /// The module refused. What it took before stands as sent, and the session is lost with its bundle.
    pub(crate) fn send_some(
        &self,
        seat: &mut Seat<'_, 'h, P>,
        pages: &mut CallPages<'h, P>,
        range: GfnRange,
        wanted: impl Fn(Standing) -> bool,
    ) -> Result<Sent, Error> {
        let Seat { participant, ctx, .. } = seat;
        let mut guard = participant.exclusive();
        let advance = self.mmu.change_standings(&mut guard, range, PAGES_AT_ONCE, wanted, |leaves| {
            pages.export_memory(&self.core, &mut ctx.lp, leaves)
        })?;
        Ok(Sent { bundle: advance.said.transpose()?, next: advance.next })
    }

    /// Gives the pages of a piece back to the running TD. Whether all of them are; if not, some stayed busy.
    fn give_back(&self, seat: &mut Seat<'_, 'h, P>, piece: GfnRange) -> Result<bool, Error> {
        let Some(list) = *self.sending.list.lock() else { return Ok(true) };
        let mut from = piece.start();
        let mut stalled = 0;
        while from < piece.end() {
            let (next, all) = self.give_back_some(seat, list, GfnRange::new(from, piece.end()))?;
            if all {
                (from, stalled) = (next, 0);
            } else if stalled < Bound::BESIDE_VCPUS.0 {
                pause(stalled);
                stalled += 1;
            } else {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn give_back_some(
        &self,
        seat: &mut Seat<'_, 'h, P>,
        list: Pfn,
        range: GfnRange,
    ) -> Result<(Gfn, bool), Error> {
        let Seat { participant, ctx, .. } = seat;
        let mut guard = participant.exclusive();
        let core = &*self.core;
        let lp = &mut ctx.lp;
        let wanted = |standing| standing != Standing::Plain;
        let advance = self.mmu.change_standings(&mut guard, range, PAGES_AT_ONCE, wanted, |leaves| {
            for leaf in leaves.iter_mut().filter(|leaf| leaf.standing == Standing::Held) {
                match bounded(Bound::WITHOUT_VCPUS, || {
                    tdh::tdh_export_unblockw(lp, core.tdr, leaf.gfn.base())
                }) {
                    Ok(()) => leaf.standing = Standing::Plain,
                    Err(error) if is_busy(&error) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            let mut sent: Vec<MovingLeaf> =
                leaves.iter().copied().filter(|leaf| leaf.standing.was_sent()).collect();
            if !sent.is_empty() {
                let called = ListCall { core, page: list }
                    .run(lp, &sent, |lp, list| tdh::tdh_export_restore(lp, core.tdr, list));
                called.settle(&mut sent, |_| Standing::Plain)?;
                let mut restored = sent.iter();
                for leaf in leaves.iter_mut().filter(|leaf| leaf.standing.was_sent()) {
                    if let Some(restored) = restored.next() {
                        leaf.standing = restored.standing;
                    }
                }
            }
            Ok::<_, Error>(leaves.iter().all(|leaf| leaf.standing == Standing::Plain))
        })?;
        Ok((advance.next, advance.said.unwrap_or(Ok(true))?))
    }

    /// Private memory of a piece is about to be taken away: it goes nowhere else. The caller holds the conversion lock.
    pub(super) fn stay_with(&self, seat: &mut Seat<'_, 'h, P>, piece: GfnRange) -> Result<(), Error> {
        if !self.sending.is_on() {
            return Ok(());
        }
        if !self.sending.ended.swap(true, Ordering::SeqCst)
            && let Err(error) = abort_export(&self.core, seat.lp(), None)
        {
            self.sending.ended.store(false, Ordering::SeqCst);
            return Err(error);
        }
        if self.give_back(seat, piece)? { Ok(()) } else { Err(Error::StayedBusy(piece.start())) }
    }
}

/// Ends the session of a TD as the module has it, if there is one. With the token of the other machine where it might
/// run the TD.
///
/// # Errors
/// [`Error::Caller`] where a token is needed and none is given; what the module says of a token.
pub(crate) fn abort_export<P: Platform>(
    core: &TdCore<'_, P>,
    lp: &mut P::Lp<'_>,
    token: Option<tdvisor_base::Hpa>,
) -> Result<(), Error> {
    let token = match op_state(core, lp)? {
        Some(OpState::LiveExport | OpState::PausedExport) => None,
        Some(OpState::PostExport) => Some(token.ok_or(HANDED_OVER)?),
        _ => return Ok(()),
    };
    Ok(bounded(Bound::MANAGEMENT, || tdh::tdh_export_abort(lp, core.tdr, token))?)
}

/// Where the module has a TD in its life.
pub(crate) fn op_state<P: Platform>(
    core: &TdCore<'_, P>,
    lp: &mut P::Lp<'_>,
) -> Result<Option<OpState>, Error> {
    let state = bounded(Bound::MANAGEMENT, || tdh::tdh_mng_rd(lp, core.tdr, metadata::td::OP_STATE.id))?;
    Ok(u32::try_from(state).ok().and_then(OpState::from_value))
}

/// Whether an error only says that a call came in the wrong state of the TD: its session has ended.
pub(crate) fn is_out_of_session(error: &Error) -> bool {
    error.status().is_some_and(|status| status.code() == StatusCode::OP_STATE_INCORRECT)
}
