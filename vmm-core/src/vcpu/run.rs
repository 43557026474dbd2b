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
use alloc::format;
use alloc::string::String;

use base::{Gpa, Level};
use mirror_ept::Access;
use tdx_module_iface::exit::{EptViolation, ExitReason, ExtendedType};
use tdx_module_iface::tdh::{self, AsyncExit, AsyncKind, Entry, ExposedGprs, TdDeath, TdExit};
use tdx_module_iface::{Gprs, Reg};

use super::halt::{Alarm, halt};
use super::presence::{Requests, StayOut};
use super::{ExitKind, Vcpu, state};
use crate::error::Error;
use crate::ghci::{Answer, Reply, Request, answer};
use crate::memory::attributes::Attribute;
use crate::memory::{Resolution, Seat};
use crate::platform::{Lp, Platform};
use crate::retry::{Bound, pause};
use crate::td::Td;
use crate::td::core::Ending;

/// What follows an exit.
enum Next {
    Enter(Entry),
    Stop,
}

/// Runs a vCPU until its TD has ended.
pub(crate) fn run<'h, P: Platform>(td: &Td<'h, P>, vcpu: &Vcpu) {
    let mut exits = BTreeMap::new();
    if let Err(error) = run_loop(td, vcpu, &mut exits) {
        td.core().end(Ending::Died(format!("vCPU {}: {error}", vcpu.index())));
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
        seat.with_lp(Lp::give_way)?;
        if serve_requests(td, vcpu, &seat)? {
            return Ok(());
        }
        alarm.serve(td, vcpu, &seat)?;
        let exit = match enter(td, vcpu, &seat, &mut alarm, entry)? {
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
    seat: &Seat<'_, 'h, P>,
) -> Result<bool, Error> {
    let requests = td.presence(vcpu).take_requests();
    if requests.contains(Requests::STOP) || td.core().ending().is_some() {
        return Ok(true);
    }
    if requests.contains(Requests::FLUSH_DIRECT) {
        let root = td.memory().mmu().direct_root().base();
        seat.with_lp(|lp| lp.invept(root))?;
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
    seat: &Seat<'_, 'h, P>,
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
    let (result, events) = seat.with_lp(|lp| {
        let result = tdh::tdh_vp_enter(lp, vcpu.tdvpr(), entry);
        // Whatever ended the entry early has done its work now.
        (result, lp.acknowledge_events())
    })?;
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
    let died = |why: String| {
        td.core().end(Ending::Died(why));
        Ok(Next::Stop)
    };
    let index = vcpu.index();
    match exit.kind {
        AsyncKind::Resumable => match exit.reason.basic() {
            ExitReason::EXTERNAL_INTERRUPT | ExitReason::EXCEPTION_NMI => Ok(Next::Enter(Entry::new())),
            ExitReason::EPT_VIOLATION => ept_violation(td, vcpu, seat, exit),
            reason => died(format!("vCPU {index} left the guest for {reason}, which nothing handles")),
        },
        AsyncKind::HostPriorityBusyTimeout => Ok(Next::Enter(Entry::new().with_host_recoverability_hint())),
        AsyncKind::VcpuDead if exit.reason.basic() == ExitReason::TRIPLE_FAULT => {
            died(format!("triple fault on vCPU {index}"))
        }
        AsyncKind::VcpuDead => died(format!("vCPU {index} cannot go on: {}", exit.status)),
        AsyncKind::TdDead(death) => {
            died(format!("{} (vCPU {index}: {})", death_in_words(death), exit.status))
        }
        kind => died(format!("vCPU {index} left the guest for {kind:?}, which nothing handles")),
    }
}

const fn death_in_words(death: TdDeath) -> &'static str {
    match death {
        TdDeath::GuestState => "the guest's state made running impossible",
        TdDeath::NonAccessible => "its memory was corrupted: something wrote to it with the host's key",
        TdDeath::WrongApicMode => "the APIC mode changed",
        TdDeath::CorruptedMetadata => "its metadata is corrupted",
    }
}

fn ept_violation<'h, P: Platform>(
    td: &Td<'h, P>,
    vcpu: &Vcpu,
    seat: &mut Seat<'_, 'h, P>,
    exit: &AsyncExit,
) -> Result<Next, Error> {
    let violation = EptViolation(exit.qualification.into());
    let shared_bit = td.shared_bit();
    let memory = td.memory();
    let wanted = || !td.presence(vcpu).requests().is_empty();
    let gpa = Gpa::new(exit.gpa.get() & !shared_bit);
    let resolution = if exit.gpa.get() & shared_bit != 0 {
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
                td.core().end(Ending::Died(format!(
                    "vCPU {} touched private memory at {gpa} that it has not accepted",
                    vcpu.index()
                )));
                return Ok(Next::Stop);
            }
            ExtendedType::ACCEPT => exit.extended.requested_level().unwrap_or(Level::L4K),
            _ => Level::L1G,
        };
        memory.private_fault(seat, gpa.frame(), largest, wanted)?
    };
    let why = match resolution {
        Resolution::Mapped(_) | Resolution::Interrupted => return Ok(Next::Enter(Entry::new())),
        Resolution::NoMemoryThere => format!("vCPU {} touched {gpa}, where it has no memory", vcpu.index()),
        Resolution::WrongSide(Attribute::Shared) => {
            format!("vCPU {} touched shared memory at {gpa} as private", vcpu.index())
        }
        Resolution::WrongSide(Attribute::Private) => {
            format!("vCPU {} touched private memory at {gpa} as shared", vcpu.index())
        }
    };
    td.core().end(Ending::Died(why));
    Ok(Next::Stop)
}
