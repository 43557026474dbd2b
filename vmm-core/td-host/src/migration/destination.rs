//! The destination's side of a session. What it takes when, and what an abort does, is the second table of [`super`].
//!
//! Everything that the other machine says is checked here or by the module before anything comes of it: its turn, its
//! size against what this machine has left, the memory that it speaks of. A message that is refused ends the session;
//! [`Destination::abort`] then gives everything back.

use tdx_module_iface::handles::Tdr;
use tdx_module_iface::tdh::{self, Binding};

use super::binding::bind;
use super::bundle::{Announcement, Answer, Head, Message, StateBundle};
use super::failure::{Failure, PeerFault};
use super::pages::CallPages;
use super::{STREAMS, create_stream};
use crate::error::Error;
use crate::host::{Host, on_lp};
use crate::memory::through;
use crate::platform::{LpId, Platform};
use crate::retry::{Bound, bounded};
use crate::td::control::Control;
use crate::td::teardown::control_only;
use crate::td::{Td, TeardownReport};

/// Where a session is.
enum Stage<'h, P: Platform> {
    /// Control pages, and nothing announced.
    Shell(Control),
    /// A TD of the announced shape.
    Arriving {
        td: Td<'h, P>,
        phase: Phase,
    },
    /// The TD is, or will be, this machine's.
    Committed(Td<'h, P>),
    Over,
}

/// What has arrived of a TD.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Shape,
    Memory,
    State,
    Started,
}

/// The destination of a session.
pub struct Destination<'h, P: Platform> {
    host: &'h Host<P>,
    lp: LpId,
    pages: CallPages<'h, P>,
    stage: Stage<'h, P>,
    report: TeardownReport,
}

impl<P: Platform> core::fmt::Debug for Destination<'_, P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Destination").finish_non_exhaustive()
    }
}

impl<'h, P: Platform> Destination<'h, P> {
    /// A place for a TD to arrive at, with an LP that no vCPU is on.
    ///
    /// # Errors
    /// The machine has no memory or key id left.
    pub fn new(host: &'h Host<P>, lp: LpId) -> Result<Self, Error> {
        let pages = CallPages::new(host)?;
        let mut control = Control::shell(host, 0)?;
        for _ in 0..STREAMS {
            let tdr = control.tdr;
            let created = on_lp(&host.platform, lp, |lp| {
                create_stream(host, lp, tdr, &mut |page| control.tdcx.push(page))
            });
            if let Err(error) = created {
                control_only(host, control);
                return Err(error);
            }
        }
        let (stage, report) = (Stage::Shell(control), TeardownReport::default());
        Ok(Self { host, lp, pages, stage, report })
    }

    /// The TD to come, as the module knows it; `None` once the session is over.
    pub fn tdr(&self) -> Option<Tdr> {
        match &self.stage {
            Stage::Shell(control) => Some(control.tdr),
            Stage::Arriving { td, .. } | Stage::Committed(td) => Some(td.tdr()),
            Stage::Over => None,
        }
    }

    /// Binds a migration TD of this machine to the TD to come.
    ///
    /// # Errors
    /// The module refuses: something has arrived already.
    pub fn bind(&self, service: Tdr) -> Result<Binding, Error> {
        let target = self.tdr().ok_or(Error::Caller("the migration session is over"))?;
        bind(self.host, self.lp, target, service)
    }

    /// Takes what the source says. The answer, when there is one.
    ///
    /// # Errors
    /// The session is to be aborted.
    pub fn take(&mut self, message: &Message) -> Result<Option<Answer>, Failure> {
        match message {
            Message::Announce(shape) => self.announced(shape)?,
            Message::Immutable(bundle) => self.immutable(bundle)?,
            Message::Memory(bundle) => {
                let (td, lp, pages) = self.arriving(&[Phase::Memory, Phase::State, Phase::Started])?;
                let mut seat = td.memory().take_seat(lp)?;
                td.memory().arrive(&mut seat, pages, bundle)?;
            }
            Message::Epoch(token) => {
                self.arriving(&[Phase::Memory])?;
                self.track(token)?;
            }
            Message::TdState(bundle) => self.td_state(bundle)?,
            Message::Vcpu(bundle) => {
                let Stage::Arriving { td, phase: Phase::State } = &mut self.stage else {
                    return Err(PeerFault::OutOfTurn.into());
                };
                if td.vcpus().len() >= td.core().presences().len() {
                    return Err(PeerFault::OutOfTurn.into());
                }
                td.vcpu_arrives(&self.pages, bundle)?;
            }
            Message::Shared(pages) => {
                let (td, ..) = self.arriving(&[Phase::State])?;
                pages.pages().iter().try_for_each(|page| td.memory().fill_shared(page))?;
            }
            Message::Start(token) => {
                let (td, ..) = self.arriving(&[Phase::State])?;
                if td.vcpus().len() != td.core().presences().len() {
                    return Err(PeerFault::OutOfTurn.into());
                }
                self.track(token)?;
                self.come_to(Phase::Started);
            }
            Message::Complete => {
                self.commit()?;
                return Ok(Some(Answer::Committed));
            }
        }
        Ok(None)
    }

    /// The TD, if it is one of these phases' turn.
    fn arriving(&self, turns: &[Phase]) -> Result<(&Td<'h, P>, LpId, &CallPages<'h, P>), Failure> {
        match &self.stage {
            Stage::Arriving { td, phase } if turns.contains(phase) => Ok((td, self.lp, &self.pages)),
            _ => Err(PeerFault::OutOfTurn.into()),
        }
    }

    fn come_to(&mut self, next: Phase) {
        if let Stage::Arriving { phase, .. } = &mut self.stage {
            *phase = next;
        }
    }

    fn announced(&mut self, shape: &Announcement) -> Result<(), Failure> {
        let control = match core::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Shell(control) => control,
            stage => {
                self.stage = stage;
                return Err(PeerFault::OutOfTurn.into());
            }
        };
        match Td::arriving(self.host, control, shape) {
            Ok(td) => {
                self.stage = Stage::Arriving { td, phase: Phase::Shape };
                Ok(())
            }
            Err((control, failure)) => {
                self.stage = Stage::Shell(control);
                Err(failure)
            }
        }
    }

    fn immutable(&mut self, bundle: &StateBundle) -> Result<(), Failure> {
        let (td, lp, pages) = self.arriving(&[Phase::Shape])?;
        on_lp(&self.host.platform, lp, |lp| {
            pages.import_state(td.core(), lp, bundle, |lp, head, list, command| {
                tdh::tdh_import_state_immutable(lp, td.tdr(), head, list, command)
            })
        })?;
        self.come_to(Phase::Memory);
        Ok(())
    }

    fn td_state(&mut self, bundle: &StateBundle) -> Result<(), Failure> {
        let (td, lp, pages) = self.arriving(&[Phase::Memory])?;
        on_lp(&self.host.platform, lp, |lp| {
            pages.import_state(td.core(), lp, bundle, |lp, head, list, command| {
                tdh::tdh_import_state_td(lp, td.tdr(), head, list, command)
            })
        })?;
        self.come_to(Phase::State);
        if let Stage::Arriving { td, .. } = &mut self.stage {
            td.state_arrived()?;
        }
        Ok(())
    }

    fn track(&self, token: &Head) -> Result<(), Failure> {
        let tdr = self.tdr().ok_or(Failure::Over)?;
        let head = self.pages.write_head(token)?;
        on_lp(&self.host.platform, self.lp, |lp| {
            Ok(bounded(Bound::MANAGEMENT, || tdh::tdh_import_track(lp, tdr, head))?)
        })?;
        Ok(())
    }

    /// The point of no return: the TD runs here.
    fn commit(&mut self) -> Result<(), Failure> {
        let (td, ..) = self.arriving(&[Phase::Started])?;
        let tdr = td.tdr();
        on_lp(&self.host.platform, self.lp, |lp| {
            Ok(bounded(Bound::MANAGEMENT, || tdh::tdh_import_commit(lp, tdr))?)
        })?;
        match core::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Arriving { td, .. } => {
                td.may_run();
                self.stage = Stage::Committed(td);
                Ok(())
            }
            stage => {
                self.stage = stage;
                Err(Failure::Over)
            }
        }
    }

    /// The TD, once it is committed.
    ///
    /// # Errors
    /// [`Failure::Over`] before that; [`Failure::Host`] where the module does not end the import. The session is still there
    /// then, and this may be repeated.
    pub fn finish(&mut self) -> Result<Td<'h, P>, Failure> {
        let Stage::Committed(td) = &self.stage else { return Err(Failure::Over) };
        let (core, tdr) = (td.core(), td.tdr());
        on_lp(&self.host.platform, self.lp, |lp| through(core, lp, |lp| tdh::tdh_import_end(lp, tdr)))?;
        match core::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Committed(td) => Ok(td),
            stage => {
                self.stage = stage;
                Err(Failure::Over)
            }
        }
    }

    /// Gives the session up, unless the TD is committed: everything that had arrived goes. The token for the source, if
    /// the session had begun.
    pub fn abort(&mut self) -> Option<Head> {
        let (td, begun) = match core::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Shell(control) => {
                control_only(self.host, control);
                return None;
            }
            Stage::Arriving { td, .. } => {
                let tdr = td.tdr();
                let given = on_lp(&self.host.platform, self.lp, |lp| {
                    Ok(bounded(Bound::MANAGEMENT, || tdh::tdh_import_abort(lp, tdr, self.pages.head()))?)
                });
                (td, given.and_then(|()| self.pages.read_head()).ok())
            }
            stage @ (Stage::Committed(_) | Stage::Over) => {
                self.stage = stage;
                return None;
            }
        };
        self.report = td.teardown();
        begun
    }

    /// What an abort could not give back.
    pub fn report(&self) -> &TeardownReport {
        &self.report
    }
}

impl<P: Platform> Drop for Destination<'_, P> {
    fn drop(&mut self) {
        // A committed TD keeps its pages, as one that is dropped without its teardown does.
        let _ = self.abort();
    }
}
