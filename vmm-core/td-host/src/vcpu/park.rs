//! Parking: a vCPU that stays outside of its guest, and outside of everything else, until its TD goes on.
//!
//! # Protocol
//! [`TdCore::pause`](crate::td::core::TdCore) sets the TD's flag, *then* asks every vCPU ([`Requests::PARK`]). A vCPU
//! looks at the flag after it took its requests and before it enters; a flag that is set later comes with a request that
//! keeps it from entering ([`super::presence`]). So once the flag is set a vCPU enters no more, and parks:
//! 1. TDH.VP.FLUSH: it is associated with no LP, so that its state can be exported on any.
//! 2. Its place says [`Place::Parked`], with how it will enter next. What the guest asked last is answered by then.
//! 3. It waits on its LP until the flag is cleared or the TD has ended, then takes its place back.
//!
//! Whoever paused the TD looks at the places ([`Vcpu::at_rest`]): a vCPU that no thread has taken is at rest as it is.
//! The flag is cleared *before* the LP is interrupted, so a parked vCPU misses nothing.
//!
//! [`Requests::PARK`]: super::presence::Requests::PARK

use tdx_module_iface::StatusCode;
use tdx_module_iface::handles::Tdvpr;
use tdx_module_iface::tdh;

use super::Vcpu;
use super::halt::Alarm;
use super::next::NextEntry;
use crate::error::Error;
use crate::memory::Seat;
use crate::platform::{Lp, Platform};
use crate::retry::{Bound, bounded};
use crate::td::Td;

/// Where a vCPU is, as far as its thread says.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// No thread has it. It enters next like this, unless it waits for an answer that nobody will give.
    Idle { next: NextEntry, waits: bool },
    /// A thread has it.
    Taken,
    /// A thread has it and does nothing. It enters next like this.
    Parked { next: NextEntry },
}

impl Default for Place {
    fn default() -> Self {
        Self::Idle { next: NextEntry::Plain, waits: false }
    }
}

impl Vcpu {
    /// A thread takes the vCPU: how it enters next.
    pub(super) fn take_place(&self) -> NextEntry {
        match core::mem::replace(&mut *self.place.lock(), Place::Taken) {
            Place::Idle { next, .. } | Place::Parked { next } => next,
            Place::Taken => NextEntry::Plain,
        }
    }

    /// A thread lets go of the vCPU.
    pub(super) fn leave(&self, next: NextEntry, waits: bool) {
        *self.place.lock() = Place::Idle { next, waits };
    }

    /// How the vCPU will enter next; `None` while it may still enter, or waits for an answer.
    pub(crate) fn at_rest(&self) -> Option<NextEntry> {
        match *self.place.lock() {
            Place::Idle { next, waits: false } | Place::Parked { next } => Some(next),
            Place::Idle { waits: true, .. } | Place::Taken => None,
        }
    }

    /// Whether its thread has parked it, which took it off its LP.
    pub(crate) fn is_parked(&self) -> bool {
        matches!(*self.place.lock(), Place::Parked { .. })
    }

    /// How the vCPU will enter when a thread takes it first.
    pub(crate) fn set_next(&self, next: NextEntry) {
        *self.place.lock() = Place::Idle { next, waits: false };
    }

    /// Takes over what the host of another machine kept of it.
    pub(crate) fn take_over(
        &self,
        apic: crate::interrupts::local_apic::LocalApic,
        mtrrs: super::mtrr::Mtrrs,
    ) {
        *self.apic.lock() = apic;
        *self.mtrrs.lock() = mtrrs;
    }
}

/// Ends the association of a vCPU with an LP, if it is with this one.
pub(crate) fn dissociate<P: Platform>(lp: &mut P::Lp<'_>, tdvpr: Tdvpr) -> Result<(), Error> {
    match bounded(Bound::MANAGEMENT, || tdh::tdh_vp_flush(lp, tdvpr)) {
        Err(error) if error.code() == Some(StatusCode::VCPU_NOT_ASSOCIATED) => Ok(()),
        other => Ok(other?),
    }
}

/// Stays parked until the TD goes on, or has ended.
pub(super) fn park<'h, P: Platform>(
    td: &Td<'h, P>,
    vcpu: &Vcpu,
    seat: &mut Seat<'_, 'h, P>,
    alarm: &mut Alarm,
    next: NextEntry,
) -> Result<(), Error> {
    dissociate::<P>(seat.lp(), vcpu.tdvpr())?;
    *vcpu.place.lock() = Place::Parked { next };
    while td.core().is_paused() && td.core().ending().is_none() {
        let lp = seat.lp();
        lp.give_way();
        lp.wait_for_event();
        alarm.note(lp.acknowledge_events());
    }
    *vcpu.place.lock() = Place::Taken;
    Ok(())
}
