//! The source's side of a session. The steps, and what an abort does at each, are the first table of [`super`].

use alloc::boxed::Box;

use mirror_ept::{GfnRange, Standing};
use tdvisor_base::Gfn;
use tdx_module_iface::metadata;
use tdx_module_iface::tdh::{self, Epoch, Stream};

use super::bundle::{Announcement, Answer, Head, Message, PAGES_AT_ONCE, SharedPages, VcpuBundle, VcpuHost};
use super::failure::{Failure, PeerFault};
use super::pages::CallPages;
use super::{STREAMS, create_stream};
use crate::error::Error;
use crate::host::on_lp;
use crate::memory::{Seat, abort_export, is_out_of_session};
use crate::platform::{LpId, Platform};
use crate::retry::{Bound, bounded, pause};
use crate::td::{Ending, Td};
use crate::vcpu::park::dissociate;

/// Rounds of sending while the TD runs, at most.
const ROUNDS: u32 = 8;
/// Due pages with which the TD is paused: what is left takes no longer than a few lists.
const FEW: u64 = 4 * PAGES_AT_ONCE as u64;
/// Looks at a vCPU until it is at rest. Each gives the processor away.
const LOOKS: u32 = 20_000_000;
/// Rounds over what is due while the TD is paused: nobody makes pages due any more.
const PAUSED_ROUNDS: u32 = 64;

/// What a source keeps for the out-of-order phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Everything is sent before the token.
    #[default]
    InOrder,
    /// What is sent for the first time after the pause follows after the token.
    NewPagesLast,
}

/// How a session is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Rounds while the TD runs: 0 sends everything while it is paused.
    pub rounds: u32,
    /// What comes after the token.
    pub order: Order,
}

impl Default for Plan {
    fn default() -> Self {
        Self { rounds: ROUNDS, order: Order::InOrder }
    }
}

/// What is done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Announce,
    Immutable,
    Hold { round: u32 },
    Send { round: u32, from: Gfn },
    Pause,
    Rest { round: u32, from: Gfn },
    TdState,
    Vcpu(u32),
    Shared { from: Gfn },
    Start,
    OutOfOrder { from: Gfn },
    Complete,
    Wait,
    Over,
}

/// What a step came to.
#[derive(Debug)]
#[must_use]
pub enum Step {
    /// A message is to be delivered.
    Say(Message),
    /// There is nothing to say: step again.
    Quiet,
    /// Everything is said: an answer is awaited.
    Wait,
}

/// Counts of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Private pages sent, again and again included.
    pub pages: u64,
    /// Epochs begun while the TD ran.
    pub epochs: u32,
}

/// The source of a session.
pub struct Source<'t, 'h, P: Platform> {
    td: &'t Td<'h, P>,
    lp: LpId,
    pages: CallPages<'h, P>,
    plan: Plan,
    next: Next,
    progress: Progress,
}

impl<P: Platform> core::fmt::Debug for Source<'_, '_, P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Source").field("next", &self.next).finish_non_exhaustive()
    }
}

impl<'t, 'h, P: Platform> Source<'t, 'h, P> {
    /// A session of a TD, on an LP that no vCPU of it is on. Nothing happens to the TD yet.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub fn new(td: &'t Td<'h, P>, lp: LpId, plan: Plan) -> Result<Self, Error> {
        let pages = CallPages::new(td.host())?;
        Ok(Self { td, lp, pages, plan, next: Next::Announce, progress: Progress::default() })
    }

    /// What was done so far.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Does the next step. Whatever fails, the session is to be aborted: the TD is as it was.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn step(&mut self) -> Result<Step, Failure> {
        if self.td.memory().session_was_ended() && self.next != Next::Announce {
            return Err(Failure::MemoryWent);
        }
        self.do_next().map_err(|failure| match &failure {
            // The session ended under the step.
            Failure::Host(error) if is_out_of_session(error) && self.td.memory().session_was_ended() => {
                Failure::MemoryWent
            }
            _ => failure,
        })
    }

    fn do_next(&mut self) -> Result<Step, Failure> {
        let start = Gfn::new(0);
        let (step, next) = match self.next {
            Next::Announce => (self.announce()?, Next::Immutable),
            Next::Immutable => {
                let core = self.td.core();
                let mut seat = self.seat()?;
                let bundle = self.pages.export_state(core, seat.lp(), |lp, head, pages, command| {
                    tdh::tdh_export_state_immutable(lp, core.tdr, head, pages, command)
                })?;
                let next = if self.plan.rounds == 0 { Next::Pause } else { Next::Hold { round: 1 } };
                (Step::Say(Message::Immutable(bundle)), next)
            }
            Next::Hold { round } => {
                self.hold()?;
                (Step::Quiet, Next::Send { round, from: start })
            }
            Next::Send { round, from } => {
                let held = |standing| matches!(standing, Standing::Held | Standing::DirtyHeld);
                match self.send(from, held)? {
                    Some((message, from)) => (Step::Say(message), Next::Send { round, from }),
                    None => self.end_round(round)?,
                }
            }
            Next::Pause => {
                self.pause()?;
                (Step::Quiet, Next::Rest { round: 0, from: start })
            }
            Next::Rest { round, from } => {
                let order = self.plan.order;
                let due = move |standing: Standing| match order {
                    Order::InOrder => standing.is_due(),
                    Order::NewPagesLast => standing.is_due() && standing.was_sent(),
                };
                match self.send(from, due)? {
                    Some((message, from)) => (Step::Say(message), Next::Rest { round, from }),
                    None if !self.is_any_due(due)? => (Step::Quiet, Next::TdState),
                    None if round < PAUSED_ROUNDS => {
                        (Step::Quiet, Next::Rest { round: round + 1, from: start })
                    }
                    None => return Err(Failure::StaysDirty),
                }
            }
            Next::TdState => {
                let core = self.td.core();
                let mut seat = self.seat()?;
                let bundle = self.pages.export_state(core, seat.lp(), |lp, head, pages, command| {
                    tdh::tdh_export_state_td(lp, core.tdr, head, pages, command)
                })?;
                (Step::Say(Message::TdState(bundle)), Next::Vcpu(0))
            }
            Next::Vcpu(index) => match self.vcpu(index)? {
                Some(bundle) => (Step::Say(Message::Vcpu(Box::new(bundle))), Next::Vcpu(index + 1)),
                None => (Step::Quiet, Next::Shared { from: start }),
            },
            Next::Shared { from } => {
                let pages = self.td.memory().shared_from(from, PAGES_AT_ONCE)?;
                match pages.last().map(|page| page.gfn.wrapping_add(1)) {
                    Some(from) => {
                        (Step::Say(Message::Shared(SharedPages::new(pages)?)), Next::Shared { from })
                    }
                    None => (Step::Quiet, Next::Start),
                }
            }
            Next::Start => {
                let token = self.track(Epoch::OutOfOrder)?;
                (Step::Say(Message::Start(token)), Next::OutOfOrder { from: start })
            }
            Next::OutOfOrder { from } => {
                let never = |standing| matches!(standing, Standing::Plain | Standing::Held);
                match self.send(from, never)? {
                    Some((message, from)) => (Step::Say(message), Next::OutOfOrder { from }),
                    None if self.is_any_due(Standing::is_due)? => return Err(Failure::StaysDirty),
                    None => (Step::Quiet, Next::Complete),
                }
            }
            Next::Complete => (Step::Say(Message::Complete), Next::Wait),
            Next::Wait => (Step::Wait, Next::Wait),
            Next::Over => return Err(Failure::Over),
        };
        self.next = next;
        Ok(step)
    }

    fn seat(&self) -> Result<Seat<'t, 'h, P>, Error> {
        self.td.memory().take_seat(self.lp)
    }

    fn announce(&self) -> Result<Step, Failure> {
        let memory = self.td.memory();
        let shape = memory.shape()?;
        let vcpus = u32::try_from(self.td.vcpus().len()).unwrap_or(u32::MAX);
        let announcement = Announcement::new(shape, vcpus, memory.largest_page())?;
        let core = self.td.core();
        let mut seat = self.seat()?;
        let lp = seat.lp();
        let streams = bounded(Bound::MANAGEMENT, || tdh::tdh_mng_rd(lp, core.tdr, metadata::td::NUM_MIGS.id))
            .map_err(Error::from)?;
        for _ in streams..STREAMS {
            create_stream(core.host, seat.lp(), core.tdr, &mut |page| core.note_control_page(page))?;
        }
        memory.begin_sending(&mut seat)?;
        Ok(Step::Say(Message::Announce(announcement)))
    }

    /// Holds every page that may change, and makes that tracked.
    fn hold(&self) -> Result<(), Failure> {
        let memory = self.td.memory();
        for range in memory.ranges() {
            let mut from = range.start();
            while from < range.end() {
                let mut seat = self.seat()?;
                from = memory.hold_some(&mut seat, &self.pages, GfnRange::new(from, range.end()))?;
            }
        }
        let mut seat = self.seat()?;
        Ok(memory.track_held(&mut seat)?)
    }

    /// Sends the next list of wanted pages from `from` on: what is to be said, and where the rest begins.
    fn send(
        &mut self,
        from: Gfn,
        wanted: impl Fn(Standing) -> bool,
    ) -> Result<Option<(Message, Gfn)>, Failure> {
        let memory = self.td.memory();
        for range in memory.ranges() {
            let mut rest = GfnRange::new(range.start().max(from), range.end());
            while !rest.is_empty() {
                let mut seat = self.seat()?;
                let sent = memory.send_some(&mut seat, &mut self.pages, rest, &wanted)?;
                if let Some(bundle) = sent.bundle {
                    self.progress.pages += bundle.entries().len() as u64;
                    return Ok(Some((Message::Memory(bundle), sent.next)));
                }
                rest = GfnRange::new(sent.next, range.end());
            }
        }
        Ok(None)
    }

    fn is_any_due(&self, due: impl Fn(Standing) -> bool) -> Result<bool, Failure> {
        let counts = self.td.memory().standings(&mut self.seat()?)?;
        let counted =
            [(Standing::Plain, counts.plain), (Standing::Held, counts.held), (Standing::Dirty, counts.dirty)];
        Ok(counted.into_iter().any(|(standing, count)| count > 0 && due(standing)))
    }

    /// A round is sent: a new epoch begins, and another round or the pause.
    fn end_round(&mut self, round: u32) -> Result<(Step, Next), Failure> {
        let token = self.track(Epoch::Next)?;
        self.progress.epochs += 1;
        let due = self.td.memory().standings(&mut self.seat()?)?.due();
        let next = if due <= FEW || round >= self.plan.rounds {
            Next::Pause
        } else {
            Next::Hold { round: round + 1 }
        };
        Ok((Step::Say(Message::Epoch(token)), next))
    }

    fn track(&self, epoch: Epoch) -> Result<Head, Failure> {
        let core = self.td.core();
        let mut seat = self.seat()?;
        let lp = seat.lp();
        bounded(Bound::MANAGEMENT, || tdh::tdh_export_track(lp, core.tdr, self.pages.head(), epoch))
            .map_err(Error::from)?;
        Ok(self.pages.read_head()?)
    }

    /// Brings every vCPU to rest, and has the module keep it there.
    fn pause(&self) -> Result<(), Failure> {
        let core = self.td.core();
        core.pause();
        for vcpu in self.td.vcpus() {
            let mut looks = 0;
            while vcpu.at_rest().is_none() {
                if looks >= LOOKS || core.ending().is_some() {
                    return Err(Failure::NotAtRest(vcpu.index()));
                }
                pause(looks);
                looks += 1;
            }
        }
        let mut seat = self.seat()?;
        let lp = seat.lp();
        bounded(Bound::MANAGEMENT, || tdh::tdh_export_pause(lp, core.tdr)).map_err(Error::from)?;
        Ok(())
    }

    /// The bundle of a vCPU; `None` behind the last.
    fn vcpu(&self, index: u32) -> Result<Option<VcpuBundle>, Failure> {
        let Some(vcpu) = self.td.vcpus().get(index as usize) else { return Ok(None) };
        let core = self.td.core();
        let next = vcpu.at_rest().ok_or(Failure::NotAtRest(index))?;
        let host = VcpuHost {
            next,
            apic: vcpu.apic().clone(),
            mtrrs: vcpu.mtrrs().clone(),
            posted: vcpu.control.posted.requested(core.host)?,
        };
        // A vCPU that no thread has may still be associated with its LP.
        if !vcpu.is_parked() {
            on_lp(&core.host.platform, vcpu.lp(), |lp| dissociate::<P>(lp, vcpu.tdvpr()))?;
        }
        let mut seat = self.seat()?;
        let state = self.pages.export_state(core, seat.lp(), |lp, head, pages, command| {
            tdh::tdh_export_state_vp(lp, vcpu.tdvpr(), head, pages, Stream::FIRST, command)
        });
        // Should it run again here, it is on its own LP.
        dissociate::<P>(seat.lp(), vcpu.tdvpr())?;
        Ok(Some(VcpuBundle { state: state?, host }))
    }

    /// Hears the answer. After Committed the TD has ended here, and is to be taken down.
    ///
    /// # Errors
    /// [`PeerFault::OutOfTurn`] for an answer that cannot be. Those of [`Self::abort`] after Aborted; the session is still
    /// there then.
    pub fn hear(&mut self, answer: &Answer) -> Result<(), Failure> {
        match answer {
            Answer::Committed if self.next == Next::Wait => {
                self.next = Next::Over;
                self.td.core().end(Ending::Stopped);
                self.td.core().unpause();
                Ok(())
            }
            Answer::Committed => Err(PeerFault::OutOfTurn.into()),
            Answer::Aborted(token) => self.abort(token.as_ref()),
        }
    }

    /// Gives the session up: the TD goes on here with all that it has. Once the destination might run it, its token is
    /// needed. An abort that failed may be repeated.
    ///
    /// # Errors
    /// [`Failure::NeedsToken`]; [`Failure::Host`] where the module refuses a token, or stays busy.
    pub fn abort(&mut self, token: Option<&Head>) -> Result<(), Failure> {
        let core = self.td.core();
        match self.next {
            Next::Over => return Err(Failure::Over),
            Next::Announce => return Ok(()),
            _ => {}
        }
        let may_run_there = matches!(self.next, Next::OutOfOrder { .. } | Next::Complete | Next::Wait);
        let token = match (may_run_there, token) {
            (true, None) => return Err(Failure::NeedsToken),
            (_, Some(token)) => Some(self.pages.write_head(token)?),
            (false, None) => None,
        };
        {
            let mut seat = self.seat()?;
            abort_export(core, seat.lp(), token)?;
        }
        core.unpause();
        self.next = Next::Announce;
        self.progress = Progress::default();
        let all = self.td.memory().end_sending(&mut self.seat()?)?;
        if all { Ok(()) } else { Err(Failure::StaysDirty) }
    }

    /// Names of the steps that a session has come to, for who reports on it.
    pub fn at(&self) -> &'static str {
        match self.next {
            Next::Announce => "before it began",
            Next::Immutable => "announced",
            Next::Hold { .. } => "before a round",
            Next::Send { .. } => "in a round",
            Next::Pause => "before the pause",
            Next::Rest { .. } => "paused",
            Next::TdState => "before the TD's state",
            Next::Vcpu(_) => "before a vCPU's state",
            Next::Shared { .. } => "before shared pages",
            Next::Start => "before the token",
            Next::OutOfOrder { .. } => "out of order",
            Next::Complete => "before the end",
            Next::Wait => "waiting",
            Next::Over => "over",
        }
    }
}

/// Runs both sides of a session by turns until it is over: for two machines in one process.
///
/// # Errors
/// What made it fail; both sides are aborted then.
pub fn run_both<P: Platform, D: Platform>(
    source: &mut Source<'_, '_, P>,
    destination: &mut super::destination::Destination<'_, D>,
) -> Result<(), Failure> {
    loop {
        let failed = match source.step() {
            Ok(Step::Say(message)) => match destination.take(&message) {
                Ok(Some(answer)) => return source.hear(&answer),
                Ok(None) => continue,
                Err(failure) => failure,
            },
            Ok(Step::Quiet) => continue,
            Ok(Step::Wait) => Failure::Over,
            Err(failure) => failure,
        };
        let token = destination.abort();
        source.abort(token.as_ref())?;
        return Err(failed);
    }
}
