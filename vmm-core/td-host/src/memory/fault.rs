//! EPT violations: getting one page mapped.
//!
//! # Protocol
//! The loop of invariants 34 and 56: the guest is entered again only when the page is mapped, because each
//! unresolved entry brings the module's zero-step filter closer. The loop ends when the page is mapped, when
//! nothing can map it, when the vCPU is asked for something else, or at its bound. Each turn takes an
//! invalidation snapshot, asks what the frame is now, reserves tables, and tries once.
//!
//! What a guest's ACCEPT at another level finds ([`GuestMemory::private_fault`] with the level that it asked for):
//!
//! | mapped | asked for | what happens |
//! |---|---|---|
//! | nothing | any | a page of that level at most is mapped, and waits to be accepted |
//! | the same level | – | nothing: the guest repeats its ACCEPT, which succeeds |
//! | larger | smaller | the page is split to the level asked for, and the range inhibited: see [`super::collapse`] |
//! | smaller | larger | no exit: the module tells the guest TDX_PAGE_SIZE_MISMATCH |

use alloc::sync::Arc;

use mirror_ept::{
    Access, Backing as FolioBacking, DirtyLog, Fault, FaultOutcome, GfnRange, MmuError, Reserve, Retry,
    SplitOutcome, Target,
};
use tdvisor_base::{Gfn, Level, Side};

use super::backing::Backed;
use super::{GuestMemory, Seat};
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
    WrongSide(Side),
}

/// What a slot knows of one frame.
#[derive(Clone, Debug)]
struct Frame {
    attribute: Side,
    backed: Backed,
    /// The largest page here whose frames all have this attribute.
    uniform: Level,
    /// Where writes to it are logged, if it is shared.
    log: Option<Arc<DirtyLog>>,
}

/// What a fault is to map.
enum Aim {
    Private(Frame),
    Shared(Frame),
    Device,
    /// Nothing: this is the answer.
    Nothing(Resolution),
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
        wanted_elsewhere: impl FnMut() -> bool,
    ) -> Result<Resolution, Error> {
        let aim = || {
            Ok(match self.frame(gfn)? {
                Some(frame) if frame.attribute == Side::Private => Aim::Private(frame),
                Some(frame) => Aim::Nothing(Resolution::WrongSide(frame.attribute)),
                None => Aim::Nothing(Resolution::NoMemoryThere),
            })
        };
        self.map(seat, gfn, Access::Write, max_level, aim, wanted_elsewhere)
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
        wanted_elsewhere: impl FnMut() -> bool,
    ) -> Result<Resolution, Error> {
        let aim = || {
            Ok(match self.frame(gfn)? {
                Some(frame) if frame.attribute == Side::Shared => Aim::Shared(frame),
                Some(frame) => Aim::Nothing(Resolution::WrongSide(frame.attribute)),
                None => Aim::Device,
            })
        };
        self.map(seat, gfn, access, self.largest, aim, wanted_elsewhere)
    }

    /// Makes a frame without memory a device's: from now on a touch of it, with the SHARED bit, raises #VE in
    /// the guest instead of leaving it. Where memory is, nothing changes and the answer says on which side.
    ///
    /// # Errors
    /// The TD cannot go on.
    pub fn map_device(&self, seat: &mut Seat<'_, 'h, P>, gfn: Gfn) -> Result<Resolution, Error> {
        let aim = || {
            Ok(match self.attribute(gfn) {
                Some(attribute) => Aim::Nothing(Resolution::WrongSide(attribute)),
                None => Aim::Device,
            })
        };
        self.map(seat, gfn, Access::Read, Level::L4K, aim, || false)
    }

    /// The loop: what to map is asked anew at each turn.
    fn map(
        &self,
        seat: &mut Seat<'_, 'h, P>,
        gfn: Gfn,
        access: Access,
        max_level: Level,
        aim: impl Fn() -> Result<Aim, Error>,
        mut wanted_elsewhere: impl FnMut() -> bool,
    ) -> Result<Resolution, Error> {
        for attempt in 0..ATTEMPTS {
            if wanted_elsewhere() {
                return Ok(Resolution::Interrupted);
            }
            let snapshot = self.mmu.notifier().snapshot();
            let aim = aim()?;
            let (target, limit, reserve) = match &aim {
                Aim::Private(frame) => {
                    let Backed { pfn, folio_level } = frame.backed;
                    let limit = frame.uniform.min(self.build_limit());
                    (Target::Private { pfn, backing: folio_level }, limit, Reserve::PRIVATE)
                }
                Aim::Shared(frame) => {
                    let Backed { pfn, folio_level } = frame.backed;
                    let backing = FolioBacking::Folio(folio_level);
                    let target = Target::Shared { pfn, backing, writable: true, log: frame.log.as_deref() };
                    (target, frame.uniform, Reserve::SHARED)
                }
                Aim::Device => (Target::Device, Level::L4K, Reserve::SHARED),
                Aim::Nothing(resolution) => return Ok(*resolution),
            };
            seat.reserve(reserve)?;
            let fault = Fault { gfn, access, max_level: max_level.min(limit), snapshot, target };
            let Seat { participant, cache, ctx, .. } = &mut *seat;
            let outcome = self.mmu.fault(ctx, &participant.shared(), cache, &fault)?;
            match outcome {
                FaultOutcome::Mapped(level)
                | FaultOutcome::Restored(level)
                | FaultOutcome::Spurious(level)
                | FaultOutcome::ReadOnly(level) => return Ok(Resolution::Mapped(level)),
                FaultOutcome::NeedsSplit(_) => self.split_for_guest(seat, gfn, max_level)?,
                FaultOutcome::Retry(Retry::NeedTables) => {}
                FaultOutcome::Retry(Retry::ExternalMemory) => return Err(Error::NoMemory),
                FaultOutcome::Retry(Retry::Contended | Retry::Invalidated | Retry::ExternalBusy) => {
                    pause(attempt)
                }
            }
        }
        Err(Error::StayedBusy(gfn))
    }

    /// What a fault on a frame may map: gives the frame a page if it has none. `None` outside every slot.
    fn frame(&self, gfn: Gfn) -> Result<Option<Frame>, Error> {
        let platform = &self.core.host.platform;
        let frame = self.slots.with(gfn, |_, state| {
            Some(Frame {
                attribute: state.attributes.get(gfn)?,
                backed: state.backing.resolve(platform, gfn)?,
                uniform: state.attributes.largest_uniform_page(gfn, self.largest),
                log: state.log.clone(),
            })
        });
        match frame {
            Some(Some(frame)) => Ok(Some(frame)),
            Some(None) => Err(Error::NoMemory),
            None => Ok(None),
        }
    }

    /// Splits the page that covers `gfn` down to `to`, and remembers that the guest wants no larger one.
    fn split_for_guest(&self, seat: &mut Seat<'_, 'h, P>, gfn: Gfn, to: Level) -> Result<(), Error> {
        let range = GfnRange::new(gfn, gfn.wrapping_add(1));
        for _ in 0..ATTEMPTS {
            seat.reserve(Reserve::PRIVATE)?;
            let Seat { participant, cache, ctx, .. } = &mut *seat;
            let mut guard = participant.exclusive();
            match self.mmu.split_range(ctx, &mut guard, cache, range, to) {
                Ok(SplitOutcome::Complete(_)) => {
                    for level in [Level::L2M, Level::L1G].into_iter().filter(|level| *level > to) {
                        self.mmu.inhibit_huge(&mut guard, gfn, level)?;
                    }
                    self.cut.note(gfn);
                    return Ok(());
                }
                Ok(SplitOutcome::NeedTables(_)) => {}
                Ok(SplitOutcome::Partial { why, .. }) if why.is_retryable() => {}
                Ok(SplitOutcome::Partial { at, step, why, .. }) => {
                    return Err(MmuError::Hook { at, step, why }.into());
                }
                Err(error) if error.is_retryable() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::StayedBusy(gfn))
    }

    /// No leaf above 4K while the TD is being built (invariant 26e), or its pages are sent to another machine.
    fn build_limit(&self) -> Level {
        if self.core.is_runnable() && !self.sending.is_on() { self.largest } else { Level::L4K }
    }
}
