//! The run loop of one vCPU.
//!
//! # Protocol
//! Before each entry the vCPU does what was asked of it ([`Requests`]), then announces itself
//! ([`super::presence`]) and enters. After the exit it is outside as far as others can tell; it resolves the
//! exit completely before it enters again (invariant 56): a fault that is not resolved is never retried by
//! entering the guest. The loop ends when the TD has ended.
//!
//! An error in here is the end of this TD and of nothing else.

use alloc::collections::BTreeMap;

use base::{Level, Side};
use mirror_ept::Access;
use tdx_module_iface::exit::{EptViolation, ExitReason, ExtendedType};
use tdx_module_iface::tdh::{self, AsyncExit, AsyncKind, Entry, ExposedGprs, TdExit};
use tdx_module_iface::{Gprs, Reg};

use super::halt::{Alarm, halt};
use super::presence::{Requests, StayOut};
use super::{ExitKind, Vcpu, state};
use crate::error::Error;
use crate::ghci::{Answer, Reply, Request, answer};
use crate::memory::{Resolution, Seat};
use crate::platform::{Lp, Platform};
use crate::retry::{Bound, pause};
use crate::td::{Death, DeathCause, Ending, Td};

/// What follows an exit.
enum Next {
    Enter(Entry),
    Stop,
}

/// Runs a vCPU until its TD has ended.
pub(crate) fn run<'h, P: Platform>(td: &Td<'h, P>, vcpu: &Vcpu) {
    let mut exits = BTreeMap::new();
    if let Err(error) = run_loop(td, vcpu, &mut exits) {
        die(td, vcpu, DeathCause::Host(error));
    }
    vcpu.set_exits(exits);
}

fn run_loop<'h, P: Platform>(
    td: &Td<'h, P>,
    vcpu: &Vcpu,
    exits: &mut BTreeMap<ExitKind, u64>,
) -> Result<(), Error> {
    let mut seat = td.memory().take_seat(vcpu.lp())?;
    let mut entry = Entry::new();
    let mut busy = 0;
    let mut alarm = Alarm::default();
    loop {
        seat.lp().give_way();
        if serve_requests(td, vcpu, &mut seat)? {
            return Ok(());
        }
        alarm.serve(td, vcpu, &mut seat)?;
        let exit = match enter(td, vcpu, &mut seat, &mut alarm, entry)? {
            Entered::Exit(exit) => exit,
            Entered::StayedOut => continue,
            Entered::Busy(error) => {
                busy += 1;
                if busy > Bound::MANAGEMENT.0 {
                    return Err(error);
                }
                pause(busy);
                continue;
            }
        };
        busy = 0;
        *exits.entry(ExitKind::of(&exit)).or_insert(0) += 1;
        match resolve(td, vcpu, &mut seat, &mut alarm, &exit)? {
            Next::Enter(next) => entry = next,
            Next::Stop => return Ok(()),
        }
    }
}

/// Does what others asked for. Whether the vCPU has to stop.
fn serve_requests<'h, P: Platform>(
    td: &Td<'h, P>,
    vcpu: &Vcpu,
    seat: &mut Seat<'_, 'h, P>,
) -> Result<bool, Error> {
    let requests = td.presence(vcpu).take_requests();
    if requests.contains(Requests::STOP) || td.core().ending().is_some() {
        return Ok(true);
    }
    if requests.contains(Requests::FLUSH_DIRECT) {
        let root = td.memory().mmu().direct_root().base();
        seat.lp().invept(root);
    }
    if requests.contains(Requests::NMI) {
        state::pend_nmi(vcpu, seat)?;
    }
    Ok(false)
}

enum Entered {
    Exit(TdExit),
    /// Asked to stay out: look at the requests again.
    StayedOut,
    /// The module was busy: try again.
    Busy(Error),
}

fn enter<'h, P: Platform>(
    td: &Td<'h, P>,
    vcpu: &Vcpu,
    seat: &mut Seat<'_, 'h, P>,
    alarm: &mut Alarm,
    entry: Entry,
) -> Result<Entered, Error> {
    let inside = match td.presence(vcpu).enter(&td.core().gate, vcpu.lp()) {
        Ok(inside) => inside,
        Err(StayOut::Requested) => return Ok(Entered::StayedOut),
        Err(StayOut::GateClosed) => {
            base::sync::yield_now();
            return Ok(Entered::StayedOut);
        }
    };
    let result = tdh::tdh_vp_enter(seat.lp(), vcpu.tdvpr(), entry);
    // Whatever ended the entry early has done its work now.
    let events = seat.lp().acknowledge_events();
    drop(inside);
    alarm.note(events);
    match result {
        Ok(exit) => Ok(Entered::Exit(exit)),
        Err(error) if error.retry().is_some() => Ok(Entered::Busy(error.into())),
        Err(error) => Err(error.into()),
    }
}

fn resolve<'h, P: Platform>(
    td: &Td<'h, P>,
    vcpu: &Vcpu,
    seat: &mut Seat<'_, 'h, P>,
    alarm: &mut Alarm,
    exit: &TdExit,
) -> Result<Next, Error> {
    match exit {
        TdExit::TdVmCall(call) => {
            let request = Request::parse(&exposed(&call.gprs));
            match answer(td, vcpu, seat, &request)? {
                Answer::Reply(reply) => Ok(Next::Enter(replying(call.gprs, &reply))),
                Answer::Halt(wake) => {
                    halt(td, vcpu, seat, alarm, wake)?;
                    Ok(Next::Enter(replying(call.gprs, &Reply::SUCCESS)))
                }
                Answer::End => Ok(Next::Stop),
            }
        }
        TdExit::Async(exit) => resolve_async(td, vcpu, seat, exit),
    }
}

/// The exposed registers as a whole set; what the guest did not expose is zero.
fn exposed(gprs: &ExposedGprs) -> Gprs {
    let mut all = Gprs::ZERO;
    for (reg, value) in gprs.iter() {
        all.set(reg, value);
    }
    all
}

fn replying(mut gprs: ExposedGprs, reply: &Reply) -> Entry {
    let mut results = Gprs::ZERO;
    reply.store(&mut results);
    for reg in [Reg::R10, Reg::R11, Reg::R12, Reg::R13, Reg::R14, Reg::R15] {
        gprs.set(reg, results.get(reg));
    }
    Entry::answering(gprs)
}

fn resolve_async<'h, P: Platform>(
    td: &Td<'h, P>,
    vcpu: &Vcpu,
    seat: &mut Seat<'_, 'h, P>,
    exit: &AsyncExit,
) -> Result<Next, Error> {
    let died = |cause: DeathCause| {
        die(td, vcpu, cause);
        Ok(Next::Stop)
    };
    match exit.kind {
        AsyncKind::Resumable => match exit.reason.basic() {
            ExitReason::EXTERNAL_INTERRUPT | ExitReason::EXCEPTION_NMI => Ok(Next::Enter(Entry::new())),
            ExitReason::EPT_VIOLATION => ept_violation(td, vcpu, seat, exit),
            reason => died(DeathCause::UnhandledExit(reason)),
        },
        AsyncKind::HostPriorityBusyTimeout => Ok(Next::Enter(Entry::new().with_host_recoverability_hint())),
        AsyncKind::VcpuDead if exit.reason.basic() == ExitReason::TRIPLE_FAULT => {
            died(DeathCause::TripleFault)
        }
        AsyncKind::VcpuDead => died(DeathCause::VcpuDisabled(exit.status)),
        AsyncKind::TdDead(why) => died(DeathCause::TdDisabled { why, status: exit.status }),
        kind => died(DeathCause::UnhandledKind(kind)),
    }
}

fn ept_violation<'h, P: Platform>(
    td: &Td<'h, P>,
    vcpu: &Vcpu,
    seat: &mut Seat<'_, 'h, P>,
    exit: &AsyncExit,
) -> Result<Next, Error> {
    let violation = EptViolation(exit.qualification.into());
    let memory = td.memory();
    let wanted = || !td.presence(vcpu).requests().is_empty();
    let (side, gpa) = td.shared_bit().split(exit.gpa);
    let resolution = if side == Side::Shared {
        let access = if violation.is_write() {
            Access::Write
        } else if violation.is_fetch() {
            Access::Execute
        } else {
            Access::Read
        };
        memory.shared_fault(seat, gpa.frame(), access, wanted)?
    } else {
        let largest = match exit.extended.kind() {
            ExtendedType::PENDING_EPT_VIOLATION => {
                die(td, vcpu, DeathCause::NotAccepted(gpa));
                return Ok(Next::Stop);
            }
            ExtendedType::ACCEPT => exit.extended.requested_level().unwrap_or(Level::L4K),
            _ => Level::L1G,
        };
        memory.private_fault(seat, gpa.frame(), largest, wanted)?
    };
    let cause = match resolution {
        Resolution::Mapped(_) | Resolution::Interrupted => return Ok(Next::Enter(Entry::new())),
        Resolution::NoMemoryThere => DeathCause::NoMemoryThere(gpa),
        Resolution::WrongSide(is) => DeathCause::WrongSide { gpa, is },
    };
    die(td, vcpu, cause);
    Ok(Next::Stop)
}

/// Ends the TD: it cannot go on.
fn die<P: Platform>(td: &Td<'_, P>, vcpu: &Vcpu, cause: DeathCause) {
    td.core().end(Ending::Died(Death { vcpu: vcpu.index(), cause }));
}
