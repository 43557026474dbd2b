//! The run loop of one vCPU.
//!
//! # Protocol
//! Before each entry the vCPU does what was asked of it ([`Requests`]), then announces itself
//! ([`super::presence`]) and enters. After the exit it is outside as far as others can tell; it resolves the
//! exit completely before it enters again (invariant 56): a fault that is not resolved is never retried by
//! entering the guest. What it cannot resolve itself leaves the loop as a [`VmExit`], and the guest hears of the answer
//! at the next run. The loop ends when the TD has ended.
//!
//! An error in here is the end of this TD and of nothing else.

use mirror_ept::{Access, GfnRange, TableCache};
use tdvisor_base::{Gfn, Level, Side};
use tdvisor_vm::{Answer, ConvertError, FaultReason, MemoryFault, VmExit};
use tdx_module_iface::exit::{EptViolation, ExitReason, ExtendedType};
use tdx_module_iface::tdh::{self, AsyncExit, AsyncKind, ExposedGprs, TdExit};
use tdx_module_iface::{Gprs, Reg};

use super::halt::{Alarm, halt};
use super::next::NextEntry;
use super::park::park;
use super::presence::{Requests, StayOut};
use super::sleep::Slept;
use super::standing::{Halted, Point, Standing};
use super::{ExitKind, Vcpu, state};
use crate::error::Error;
use crate::ghci::{Reply, Request, Response, reply_to, respond};
use crate::memory::{Converted, MissingTables, Resolution, Seat};
use crate::platform::{Lp, Platform};
use crate::retry::{Bound, pause};
use crate::td::{Death, DeathCause, Ending, Td};

/// A vCPU in the hands of the thread that runs it.
pub struct RunningVcpu<'t, 'h, P: Platform> {
    td: &'t Td<'h, P>,
    vcpu: &'t Vcpu,
    seat: Seat<'t, 'h, P>,
    alarm: Alarm,
    next: NextEntry,
    /// What the guest asked and was not told the answer of.
    asked: Option<(ExposedGprs, Request)>,
    /// The guest's HLT that is not over. Whatever its host wants in between, the guest does not hear of it.
    halted: Option<Halted>,
    /// Entries in a row that the module was too busy for.
    busy: u32,
    /// Where the vCPU stood when its machine froze: it goes on from there, or leaves there.
    stood: Option<Point>,
}

impl<P: Platform> core::fmt::Debug for RunningVcpu<'_, '_, P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("RunningVcpu").field("index", &self.vcpu.index()).finish_non_exhaustive()
    }
}

impl<P: Platform> Drop for RunningVcpu<'_, '_, P> {
    fn drop(&mut self) {
        if let (Some(point), true) = (self.stood, self.seat.is_frozen()) {
            self.vcpu.stand(Standing {
                point,
                next: self.next,
                halted: self.halted.take(),
                alarm: core::mem::take(&mut self.alarm),
                busy: self.busy,
                cache: self.seat.exchange_cache(TableCache::new()),
            });
        }
        // Whoever takes the vCPU next enters as this one would have.
        self.vcpu.leave(self.next, self.asked.is_some());
    }
}

/// What follows an exit.
enum Next {
    Enter(NextEntry),
    Sleep,
    Leave(VmExit<Death>),
    Stop,
}

/// What others want of a vCPU.
enum Wanted {
    Nothing,
    Leave,
    Park,
    Stop,
}

enum Entered {
    Exit(TdExit),
    /// Asked to stay out: look at the requests again.
    StayedOut,
    /// The module was busy: try again.
    Busy(Error),
}

impl<'t, 'h, P: Platform> RunningVcpu<'t, 'h, P> {
    /// Takes a vCPU, with the LP that it runs on.
    ///
    /// # Errors
    /// [`Error::NoLp`].
    pub(crate) fn take(td: &'t Td<'h, P>, vcpu: &'t Vcpu) -> Result<Self, Error> {
        let mut seat = td.memory().take_seat(vcpu.lp())?;
        let next = vcpu.take_place();
        Ok(match vcpu.take_standing() {
            Some(Standing { point, next, halted, alarm, busy, cache }) => {
                seat.exchange_cache(cache);
                Self { td, vcpu, seat, alarm, next, asked: None, halted, busy, stood: Some(point) }
            }
            None => {
                let alarm = Alarm::default();
                Self { td, vcpu, seat, alarm, next, asked: None, halted: None, busy: 0, stood: None }
            }
        })
    }

    fn run_loop(&mut self) -> Result<VmExit<Death>, Error> {
        loop {
            if !self.come_to_turn()? {
                return Ok(self.ended());
            }
            match self.serve_requests()? {
                Wanted::Nothing => {}
                Wanted::Leave => return Ok(VmExit::Interrupted),
                Wanted::Park => {
                    park(self.td, self.vcpu, &mut self.seat, &mut self.alarm, self.next)?;
                    continue;
                }
                Wanted::Stop => return Ok(self.ended()),
            }
            if self.halted.is_some() {
                continue;
            }
            self.alarm.serve(self.td, self.vcpu, &mut self.seat)?;
            let exit = match self.enter()? {
                Entered::Exit(exit) => exit,
                Entered::StayedOut => continue,
                Entered::Busy(error) => {
                    self.busy += 1;
                    if self.busy > Bound::MANAGEMENT.0 {
                        return Err(error);
                    }
                    pause(self.busy);
                    continue;
                }
            };
            self.busy = 0;
            self.vcpu.count_exit(ExitKind::of(&exit));
            match self.resolve(&exit)? {
                Next::Enter(next) => self.next = next,
                Next::Sleep => {}
                Next::Leave(exit) => return Ok(exit),
                Next::Stop => return Ok(self.ended()),
            }
        }
    }

    fn ended(&self) -> VmExit<Death> {
        VmExit::Ended(self.td.ending().unwrap_or(Ending::Stopped))
    }

    /// Comes to the vCPU's next turn, in which it may look at its requests and enter: from where it stood, if its machine froze
    /// there. Whether there is one: none is left where the machine stops for good.
    fn come_to_turn(&mut self) -> Result<bool, Error> {
        let mut from = self.stood.take();
        if from.is_some() {
            self.seat.lp().rejoin();
        }
        loop {
            if self.seat.is_frozen() {
                self.stood = from;
                return Ok(false);
            }
            from = match from {
                Some(Point::Turn) => return Ok(true),
                Some(Point::Sleep) => {
                    let events = self.seat.lp().acknowledge_events();
                    self.alarm.note(events);
                    None
                }
                None => match self.sleep_on()? {
                    Slept::Frozen => Some(Point::Sleep),
                    Slept::Over | Slept::Wanted => {
                        self.seat.lp().give_way();
                        Some(Point::Turn)
                    }
                },
            };
        }
    }

    /// Sleeps while the guest is halted, until there is something for it or for the vCPU.
    fn sleep_on(&mut self) -> Result<Slept, Error> {
        let Some((_, wake)) = self.halted else { return Ok(Slept::Over) };
        let slept = halt(self.td, self.vcpu, &mut self.seat, &mut self.alarm, wake)?;
        if slept == Slept::Over {
            self.wake();
        }
        Ok(slept)
    }

    /// The guest's HLT is over, if it was halted.
    fn wake(&mut self) {
        if let Some((gprs, _)) = self.halted.take() {
            self.next = replying(gprs, &Reply::SUCCESS);
        }
    }

    /// Does what others asked for.
    fn serve_requests(&mut self) -> Result<Wanted, Error> {
        let requests = self.td.presence(self.vcpu).take_requests();
        if requests.contains(Requests::STOP) || self.td.core().ending().is_some() {
            return Ok(Wanted::Stop);
        }
        if requests.contains(Requests::FLUSH_DIRECT) {
            let root = self.td.memory().mmu().direct_root().base();
            self.seat.lp().invept(root);
        }
        if requests.contains(Requests::NMI) {
            state::pend_nmi(self.vcpu, &mut self.seat)?;
            self.wake();
        }
        if self.td.core().is_paused() {
            // Whoever wanted it back as well asks again.
            if requests.contains(Requests::LEAVE) {
                self.td.presence(self.vcpu).request(Requests::LEAVE);
            }
            return Ok(Wanted::Park);
        }
        Ok(if requests.contains(Requests::LEAVE) { Wanted::Leave } else { Wanted::Nothing })
    }

    fn enter(&mut self) -> Result<Entered, Error> {
        let inside = match self.td.presence(self.vcpu).enter(&self.td.core().gate, self.vcpu.lp()) {
            Ok(inside) => inside,
            Err(StayOut::Requested) => return Ok(Entered::StayedOut),
            Err(StayOut::GateClosed) => {
                tdvisor_base::sync::yield_now();
                return Ok(Entered::StayedOut);
            }
        };
        let result = tdh::tdh_vp_enter(self.seat.lp(), self.vcpu.tdvpr(), self.next.into());
        // Whatever ended the entry early has done its work now.
        let events = self.seat.lp().acknowledge_events();
        drop(inside);
        self.alarm.note(events);
        match result {
            Ok(exit) => Ok(Entered::Exit(exit)),
            Err(error) if error.retry().is_some() => Ok(Entered::Busy(error.into())),
            Err(error) => Err(error.into()),
        }
    }

    fn resolve(&mut self, exit: &TdExit) -> Result<Next, Error> {
        match exit {
            TdExit::TdVmCall(call) => {
                let request = Request::parse(&exposed(&call.gprs));
                Ok(match respond(self.td, self.vcpu, &request)? {
                    Response::Reply(reply) => Next::Enter(replying(call.gprs, &reply)),
                    Response::Halt(wake) => {
                        self.halted = Some((call.gprs, wake));
                        Next::Sleep
                    }
                    Response::Exit(exit) => {
                        self.asked = Some((call.gprs, request));
                        Next::Leave(exit)
                    }
                    Response::End => Next::Stop,
                })
            }
            TdExit::Async(exit) => self.resolve_async(exit),
        }
    }

    fn resolve_async(&mut self, exit: &AsyncExit) -> Result<Next, Error> {
        Ok(match exit.kind {
            AsyncKind::Resumable => match exit.reason.basic() {
                ExitReason::EXTERNAL_INTERRUPT | ExitReason::EXCEPTION_NMI => {
                    Next::Enter(self.after_interrupt(exit))
                }
                ExitReason::EPT_VIOLATION => return self.ept_violation(exit),
                reason => self.die(DeathCause::UnhandledExit(reason)),
            },
            AsyncKind::HostPriorityBusyTimeout => Next::Enter(NextEntry::Recoverable),
            AsyncKind::VcpuDead if exit.reason.basic() == ExitReason::TRIPLE_FAULT => {
                self.die(DeathCause::TripleFault)
            }
            AsyncKind::VcpuDead => self.die(DeathCause::VcpuDisabled(exit.status)),
            AsyncKind::TdDead(why) => self.die(DeathCause::TdDisabled { why, status: exit.status }),
            kind => self.die(DeathCause::UnhandledKind(kind)),
        })
    }

    /// How a vCPU goes on that left for an interrupt of its host. An L2 VM does not take the interrupts that are posted to its
    /// L1: where some are, L1 goes on.
    fn after_interrupt(&self, exit: &AsyncExit) -> NextEntry {
        let for_l1 = exit.vm != 0 && self.vcpu.control.posted.is_pending(self.td.host());
        if for_l1 { NextEntry::ResumingL1 } else { NextEntry::Plain }
    }

    fn ept_violation(&mut self, exit: &AsyncExit) -> Result<Next, Error> {
        let violation = EptViolation(exit.qualification.into());
        let (td, vcpu) = (self.td, self.vcpu);
        let wanted = || !td.presence(vcpu).requests().is_empty();
        let (side, gpa) = td.shared_bit().split(exit.gpa);
        if side == Side::Shared && exit.vm != 0 {
            // The host gives L2 VMs no shared memory: it is L1's to say what is there.
            return Ok(Next::Enter(NextEntry::ResumingL1));
        }
        let resolution = if side == Side::Shared {
            let access = if violation.is_write() {
                Access::Write
            } else if violation.is_fetch() {
                Access::Execute
            } else {
                Access::Read
            };
            td.memory().shared_fault(&mut self.seat, gpa.frame(), access, wanted)?
        } else {
            let largest = match exit.extended.kind() {
                ExtendedType::PENDING_EPT_VIOLATION => return Ok(self.die(DeathCause::NotAccepted(gpa))),
                ExtendedType::GPA_DETAILS => {
                    if let Some(missing) = missing_tables(exit, gpa.frame()) {
                        td.memory().add_l2_tables(&mut self.seat, missing)?;
                    }
                    return Ok(Next::Enter(NextEntry::Plain));
                }
                ExtendedType::ACCEPT | ExtendedType::ATTR_WR => {
                    exit.extended.requested_level().unwrap_or(Level::L4K)
                }
                _ => Level::L1G,
            };
            td.memory().private_fault(&mut self.seat, gpa.frame(), largest, wanted)?
        };
        let reason = match resolution {
            Resolution::Mapped(_) | Resolution::Interrupted => return Ok(Next::Enter(NextEntry::Plain)),
            // L1 asked for nothing of what its VM does.
            _ if exit.vm != 0 => return Ok(Next::Enter(NextEntry::ResumingL1)),
            Resolution::NoMemoryThere => FaultReason::NoMemory,
            Resolution::WrongSide(_) => FaultReason::WrongSide,
        };
        // Run again, the guest touches the same memory again: so it may be mended in between.
        self.next = NextEntry::Plain;
        Ok(Next::Leave(VmExit::MemoryFault(MemoryFault { gpa, touched: side, reason })))
    }

    /// Ends the TD: it cannot go on.
    fn die(&self, cause: DeathCause) -> Next {
        self.td.core().end(Ending::Died(Death { vcpu: self.vcpu.index(), cause }));
        Next::Stop
    }
}

impl<P: Platform> tdvisor_vm::Vcpu for RunningVcpu<'_, '_, P> {
    type Death = Death;

    fn index(&self) -> u32 {
        self.vcpu.index()
    }

    fn run(&mut self, answer: Answer) -> VmExit<Death> {
        if let Some((gprs, request)) = self.asked.take() {
            self.next = replying(gprs, &reply_to(&request, answer));
        }
        self.run_loop().unwrap_or_else(|error| {
            self.die(DeathCause::Host(error));
            self.ended()
        })
    }

    fn convert(&mut self, start: Gfn, end: Gfn, to: Side) -> Result<Gfn, ConvertError<Death>> {
        match self.td.memory().convert(&mut self.seat, GfnRange::new(start, end), to) {
            Ok(Converted::All) => Ok(end),
            Ok(Converted::Upto(reached)) => Ok(reached),
            Err(Error::NoSlot(gfn)) => Err(ConvertError::NoMemory(gfn)),
            Err(error) => {
                let cause = DeathCause::Host(error);
                Err(ConvertError::Died(Death { vcpu: self.vcpu.index(), cause }))
            }
        }
    }
}

/// The tables that an attribute write needs of an L2 VM's tree.
fn missing_tables(exit: &AsyncExit, gfn: Gfn) -> Option<MissingTables> {
    let (wanted, found) = (exit.extended.requested_level()?, exit.extended.found_level()?);
    Some(MissingTables { vm: exit.extended.vm(), gfn, found, wanted })
}

/// The exposed registers as a whole set; what the guest did not expose is zero.
fn exposed(gprs: &ExposedGprs) -> Gprs {
    let mut all = Gprs::ZERO;
    for (reg, value) in gprs.iter() {
        all.set(reg, value);
    }
    all
}

fn replying(mut gprs: ExposedGprs, reply: &Reply) -> NextEntry {
    let mut results = Gprs::ZERO;
    reply.store(&mut results);
    for reg in [Reg::R10, Reg::R11, Reg::R12, Reg::R13, Reg::R14, Reg::R15] {
        gprs.set(reg, results.get(reg));
    }
    NextEntry::Answering(gprs)
}
