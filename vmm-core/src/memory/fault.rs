//! EPT violations: getting one page mapped.
//!
//! # Protocol
//! The loop of invariants 34 and 56: the guest is entered again only when the page is mapped, because each
//! unresolved entry brings the module's zero-step filter closer. The loop ends when the page is mapped, when
//! nothing can map it, when the vCPU is asked for something else, or at its bound.

use base::{Gfn, Level};
use mirror_ept::{
    Access, Backing as FolioBacking, Fault, FaultOutcome, GfnRange, Reserve, Retry, SplitOutcome, Target,
};

use super::attributes::Attribute;
use super::{GuestMemory, Seat, mmu_error};
use crate::error::Error;
use crate::platform::Platform;
use crate::retry::pause;

/// Attempts at one fault. Each one either makes progress or loses a race to somebody who did.
const ATTEMPTS: u32 = 100_000;

/// What became of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The page is mapped: enter the guest.
    Mapped(Level),
    /// The vCPU is wanted elsewhere first.
    Interrupted,
    /// There is no memory at the address.
    NoMemoryThere,
    /// The frame is on the other side: shared memory touched as private, or the reverse.
    WrongSide(Attribute),
}

impl<'h, P: Platform> GuestMemory<'h, P> {
    /// Maps a private page that the guest touched, or wants to accept at `max_level`.
    ///
    /// # Errors
    /// The TD cannot go on.
    pub fn private_fault(
        &self,
        seat: &mut Seat<'_, 'h, P>,
        gfn: Gfn,
        max_level: Level,
        mut wanted_elsewhere: impl FnMut() -> bool,
    ) -> Result<Resolution, Error> {
        for attempt in 0..ATTEMPTS {
            if wanted_elsewhere() {
                return Ok(Resolution::Interrupted);
            }
            let snapshot = self.mmu.notifier().snapshot();
            let frame = match self.frame(gfn) {
                Ok(frame) => frame,
                Err(Error::NoSlot(_)) => return Ok(Resolution::NoMemoryThere),
                Err(error) => return Err(error),
            };
            if frame.attribute != Attribute::Private {
                return Ok(Resolution::WrongSide(frame.attribute));
            }
            seat.reserve(Reserve::PRIVATE)?;
            let fault = Fault {
                gfn,
                access: Access::Write,
                max_level: max_level.min(frame.uniform).min(self.build_limit()),
                snapshot,
                target: Target::Private { pfn: frame.backed.pfn, backing: frame.backed.folio_level },
            };
            let outcome =
                self.mmu.fault(&seat.participant.shared(), &mut seat.cache, &fault).map_err(mmu_error)?;
            match outcome {
                FaultOutcome::Mapped(level)
                | FaultOutcome::Restored(level)
                | FaultOutcome::Spurious(level)
                | FaultOutcome::ReadOnly(level) => return Ok(Resolution::Mapped(level)),
                FaultOutcome::NeedsSplit(_) => self.split(seat, gfn, max_level)?,
                FaultOutcome::Retry(Retry::NeedTables) => {}
                FaultOutcome::Retry(Retry::ExternalMemory) => return Err(Error::NoMemory),
                FaultOutcome::Retry(Retry::Contended | Retry::Invalidated | Retry::ExternalBusy) => {
                    pause(attempt)
                }
            }
        }
        Err(Error::Mmu(alloc::format!("the private page at guest frame {gfn} stayed busy")))
    }

    /// Maps a shared page that the guest touched; a frame without memory becomes a device's.
    ///
    /// # Errors
    /// The TD cannot go on.
    pub fn shared_fault(
        &self,
        seat: &mut Seat<'_, 'h, P>,
        gfn: Gfn,
        access: Access,
        mut wanted_elsewhere: impl FnMut() -> bool,
    ) -> Result<Resolution, Error> {
        for attempt in 0..ATTEMPTS {
            if wanted_elsewhere() {
                return Ok(Resolution::Interrupted);
            }
            let snapshot = self.mmu.notifier().snapshot();
            let (target, max_level) = match self.frame(gfn) {
                Ok(frame) if frame.attribute == Attribute::Shared => {
                    let backing = FolioBacking::Folio(frame.backed.folio_level);
                    let pfn = frame.backed.pfn;
                    (Target::Shared { pfn, backing, writable: true, log: None }, frame.uniform)
                }
                Ok(frame) => return Ok(Resolution::WrongSide(frame.attribute)),
                Err(Error::NoSlot(_)) => (Target::Device, Level::L4K),
                Err(error) => return Err(error),
            };
            seat.reserve(Reserve::SHARED)?;
            let fault = Fault { gfn, access, max_level, snapshot, target };
            let outcome =
                self.mmu.fault(&seat.participant.shared(), &mut seat.cache, &fault).map_err(mmu_error)?;
            match outcome {
                FaultOutcome::Mapped(level)
                | FaultOutcome::Restored(level)
                | FaultOutcome::Spurious(level)
                | FaultOutcome::ReadOnly(level) => return Ok(Resolution::Mapped(level)),
                FaultOutcome::NeedsSplit(_) | FaultOutcome::Retry(Retry::NeedTables) => {}
                FaultOutcome::Retry(_) => pause(attempt),
            }
        }
        Err(Error::Mmu(alloc::format!("the shared page at guest frame {gfn} stayed busy")))
    }

    /// Splits the page that covers `gfn` down to `to`, and remembers that the guest wants no larger one.
    fn split(&self, seat: &mut Seat<'_, 'h, P>, gfn: Gfn, to: Level) -> Result<(), Error> {
        let range = GfnRange::new(gfn, gfn.wrapping_add(1));
        for _ in 0..ATTEMPTS {
            seat.reserve(Reserve::PRIVATE)?;
            let mut guard = seat.participant.exclusive();
            match self.mmu.split_range(&mut guard, &mut seat.cache, range, to) {
                Ok(SplitOutcome::Complete(_)) => return Ok(()),
                Ok(SplitOutcome::NeedTables(_)) => {}
                Ok(SplitOutcome::Partial { why, .. }) if why.is_retryable() => {}
                Ok(SplitOutcome::Partial { at, step, why, .. }) => {
                    return Err(Error::Mmu(alloc::format!("{step:?} of {at} failed: {why}")));
                }
                Err(error) if error.is_retryable() => {}
                Err(error) => return Err(mmu_error(error)),
            }
        }
        Err(Error::Mmu(alloc::format!("the page at guest frame {gfn} could not be split")))
    }

    /// No leaf above 4K while the TD is being built (invariant 26e).
    fn build_limit(&self) -> Level {
        if self.core.is_runnable() { self.largest } else { Level::L4K }
    }
}
