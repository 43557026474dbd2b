//! A vCPU's alarm clock, and its sleep.
//!
//! # Protocol
//! The guest's timer ([`tdvisor_vm::apic_timer`]) only says when it expires next. [`Alarm::serve`] runs before
//! each entry and in each round of a sleep: it delivers what is due, and sets the LP's timer when the next expiry
//! is not the one it is set to. An LP timer that fires makes the entry or the sleep end; if it fired a little
//! early, the timer is not due yet and is set again.
//!
//! How a sleep misses nothing: [`super::sleep`].

use tdvisor_base::sync::Ordering;

use super::sleep::{Sleeper, Slept, sleep};
use super::{Vcpu, state};
use crate::error::Error;
use crate::ghci::Wake;
use crate::memory::Seat;
use crate::platform::{Lp, PendingEvents, Platform};
use crate::td::Td;

/// What the LP's timer is set to, in guest time.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    set_to: Option<u64>,
}

impl Alarm {
    /// An alarm that is set already.
    pub(super) const fn new(set_to: Option<u64>) -> Self {
        Self { set_to }
    }

    /// What the LP's timer is set to.
    pub(super) const fn set_to(&self) -> Option<u64> {
        self.set_to
    }

    /// Takes note of what ended an entry or a wait.
    pub(super) fn note(&mut self, events: PendingEvents) {
        if events.timer {
            self.set_to = None;
        }
    }

    /// Delivers the guest's timer interrupt if it is due, and sets the LP's timer for the next.
    pub(super) fn serve<'h, P: Platform>(
        &mut self,
        td: &Td<'h, P>,
        vcpu: &Vcpu,
        seat: &mut Seat<'_, 'h, P>,
    ) -> Result<(), Error> {
        let (expired, next) = {
            let mut apic = vcpu.apic();
            if apic.timer.deadline().is_none() && self.set_to.is_none() {
                return Ok(());
            }
            (apic.timer.expire(td.guest_tsc()), apic.timer.deadline())
        };
        if let Some(vector) = expired {
            // A vector below 16 is the guest's mistake, and nobody's interrupt.
            let _ = td.post_interrupt(vcpu.index(), vector);
        }
        if next != self.set_to {
            let deadline = next.map(|deadline| td.tsc().host(deadline, td.host().platform.ticks()));
            seat.lp().set_timer(deadline);
            self.set_to = next;
        }
        Ok(())
    }
}

/// Sleeps until an interrupt is there for the guest, or somebody wants something of the vCPU.
pub(super) fn halt<'h, P: Platform>(
    td: &Td<'h, P>,
    vcpu: &Vcpu,
    seat: &mut Seat<'_, 'h, P>,
    alarm: &mut Alarm,
    wake: Wake,
) -> Result<Slept, Error> {
    let slept = sleep(&mut Halted { td, vcpu, seat, alarm }, wake)?;
    if wake == Wake::NmiOnly && td.core().ending().is_some() {
        // Read once the vCPU's thread is joined.
        vcpu.halted_for_good.store(true, Ordering::Relaxed);
    }
    Ok(slept)
}

/// A vCPU whose guest executed HLT.
struct Halted<'a, 's, 'h, P: Platform> {
    td: &'a Td<'h, P>,
    vcpu: &'a Vcpu,
    seat: &'a mut Seat<'s, 'h, P>,
    alarm: &'a mut Alarm,
}

impl<P: Platform> Sleeper for Halted<'_, '_, '_, P> {
    type Error = Error;

    fn serve_timer(&mut self) -> Result<(), Error> {
        self.alarm.serve(self.td, self.vcpu, self.seat)
    }

    fn is_wanted(&self) -> bool {
        !self.td.presence(self.vcpu).requests().is_empty() || self.td.core().ending().is_some()
    }

    fn is_posted(&self) -> bool {
        self.vcpu.control.posted.is_pending(self.td.host())
    }

    fn is_undelivered(&mut self) -> Result<bool, Error> {
        state::has_pending_interrupt(self.vcpu, self.seat)
    }

    fn wait(&mut self) -> Result<(), Error> {
        let lp = self.seat.lp();
        lp.wait_for_event();
        if !lp.is_frozen() {
            self.alarm.note(lp.acknowledge_events());
        }
        Ok(())
    }

    fn is_frozen(&self) -> bool {
        self.seat.is_frozen()
    }
}
