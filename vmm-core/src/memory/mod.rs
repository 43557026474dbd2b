//! Guest memory: which pages, private or shared, mapped how.
//!
//! # Protocol
//! A *slot* is a run of guest frames with memory behind it. Each frame has an attribute (private or shared)
//! and at most one host page, which it keeps through conversions. The MMU maps frames on demand:
//! - a fault takes an invalidation snapshot, then the slot's lock to learn attribute and page, then the MMU's
//!   shared guard to map it; if anything was taken away meanwhile, it starts again (invariant 37);
//! - a conversion takes the conversion lock, opens an invalidation window, removes the mappings under the
//!   exclusive guard, changes the attribute, and closes the window. The attribute changes after the removal
//!   succeeded: that is its point of no return (invariant 40).
//!
//! Private memory is mapped through the mirror and its hooks (`hooks.rs`) and in no other way.

pub mod attributes;
mod audit;
pub mod backing;
mod convert;
mod fault;
mod hooks;
mod host_access;
mod seat;
mod tables;

use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::sync::{AtomicU64, Mutex, Ordering};
use base::{Gfn, Level};
use mirror_ept::{Config, GfnRange, Mmu, MmuError, Statistics};

use crate::error::Error;
use crate::platform::Platform;
use crate::td::core::TdCore;
use attributes::{Attribute, AttributeMap};
use backing::{Backed, Backing};
pub use convert::{Converted, FRAMES_AT_ONCE};
pub use fault::Resolution;
pub use hooks::SeptError;
pub(crate) use hooks::SeptHooks;
pub use host_access::NotShared;
pub use seat::Seat;
pub(crate) use tables::Tables;

/// The MMU of one TD.
pub(crate) type TdMmu<'h, P> = Mmu<Tables<'h, P>, SeptHooks<'h, P>>;

/// A slot: guest frames with memory behind them.
#[derive(Debug)]
struct Slot {
    frames: GfnRange,
    state: Mutex<SlotState>,
}

#[derive(Debug)]
struct SlotState {
    attributes: AttributeMap,
    backing: Backing,
}

/// What a slot knows of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    attribute: Attribute,
    backed: Backed,
    /// The largest page here whose frames all have this attribute.
    uniform: Level,
}

/// The memory of one TD.
pub struct GuestMemory<'h, P: Platform> {
    core: Arc<TdCore<'h, P>>,
    mmu: TdMmu<'h, P>,
    slots: Box<[Slot]>,
    /// Serialises conversions, and the host's own accesses to shared memory with them.
    conversions: Mutex<()>,
    largest: Level,
    frames_converted: AtomicU64,
}

impl<'h, P: Platform> GuestMemory<'h, P> {
    /// Memory for these ranges of guest frames, all private, nothing mapped. No page is larger than `largest`.
    ///
    /// # Errors
    /// [`Error::Caller`] for ranges that overlap, are empty, or leave the guest-physical space;
    /// [`Error::NoMemory`].
    pub(crate) fn new(
        core: Arc<TdCore<'h, P>>,
        config: Config,
        ranges: &[GfnRange],
        largest: Level,
    ) -> Result<Self, Error> {
        let mut ranges: Vec<GfnRange> = ranges.to_vec();
        ranges.sort_unstable_by_key(|range| range.start());
        let apart = ranges.windows(2).all(|pair| match pair {
            [a, b] => a.end() <= b.start(),
            _ => true,
        });
        let inside = ranges.iter().all(|range| !range.is_empty() && range.end() <= config.end);
        if !apart || !inside {
            return Err(Error::Caller("memory ranges must be disjoint, not empty, and addressable"));
        }
        let slots = ranges
            .into_iter()
            .map(|frames| Slot {
                frames,
                state: Mutex::new(SlotState {
                    attributes: AttributeMap::new(frames, Attribute::Private),
                    backing: Backing::new(frames, largest),
                }),
            })
            .collect();
        let pages = Tables { core: core.clone() };
        let hooks = SeptHooks { core: core.clone() };
        let mmu = Mmu::new(config, pages, hooks).map_err(|_| Error::NoMemory)?;
        Ok(Self {
            core,
            mmu,
            slots,
            conversions: Mutex::new(()),
            largest,
            frames_converted: AtomicU64::new(0),
        })
    }

    fn slot(&self, gfn: Gfn) -> Option<&Slot> {
        let index = self.slots.partition_point(|slot| slot.frames.start() <= gfn).checked_sub(1)?;
        self.slots.get(index).filter(|slot| slot.frames.contains(gfn))
    }

    /// Whether a frame has memory behind it.
    pub fn has(&self, gfn: Gfn) -> bool {
        self.slot(gfn).is_some()
    }

    /// The attribute of a frame; `None` outside every slot.
    pub fn attribute(&self, gfn: Gfn) -> Option<Attribute> {
        self.slot(gfn)?.state.lock().attributes.get(gfn)
    }

    /// What a fault on a frame may map: gives the frame a page if it has none.
    ///
    /// # Errors
    /// [`Error::NoSlot`], [`Error::NoMemory`].
    fn frame(&self, gfn: Gfn) -> Result<Frame, Error> {
        let slot = self.slot(gfn).ok_or(Error::NoSlot(gfn))?;
        let mut state = slot.state.lock();
        let attribute = state.attributes.get(gfn).ok_or(Error::NoSlot(gfn))?;
        let backed = state.backing.resolve(&self.core.host.platform, gfn).ok_or(Error::NoMemory)?;
        let uniform = state.attributes.largest_uniform_page(gfn, self.largest);
        Ok(Frame { attribute, backed, uniform })
    }

    /// Ranges of guest frames with memory behind them, ascending.
    pub fn ranges(&self) -> impl Iterator<Item = GfnRange> + '_ {
        self.slots.iter().map(|slot| slot.frames)
    }

    /// What is mapped, by tree and level.
    pub fn statistics(&self) -> Statistics {
        self.mmu.statistics()
    }

    /// Frames that changed their attribute so far.
    pub fn frames_converted(&self) -> u64 {
        self.frames_converted.load(Ordering::Relaxed)
    }

    pub(crate) fn mmu(&self) -> &TdMmu<'h, P> {
        &self.mmu
    }

    /// Withdraws the page of a mapping for ever: it could not be taken back from the module.
    pub(crate) fn withdraw(&self, gfn: Gfn, level: Level) {
        let Some(slot) = self.slot(gfn) else { return };
        let mut state = slot.state.lock();
        for frame in 0..level.frames() {
            state.backing.quarantine(gfn.wrapping_add(frame));
        }
    }

    /// Frees all pages that are left, and gives their number of frames. Nothing maps them any more.
    pub(crate) fn release(&self) -> u64 {
        self.slots.iter().map(|slot| slot.state.lock().backing.release(&self.core.host.platform)).sum()
    }

    /// Withdraws pages that left the TD and could not be cleaned.
    fn withdraw_unclean(&self) {
        for page in self.core.take_unclean() {
            self.withdraw(page.gfn, page.level);
        }
    }
}

/// An MMU error as one of the host's.
fn mmu_error(error: MmuError<SeptError>) -> Error {
    match error {
        MmuError::NoMemory => Error::NoMemory,
        other => Error::Mmu(other.to_string()),
    }
}
