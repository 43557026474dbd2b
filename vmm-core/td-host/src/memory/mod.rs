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
//! - holes, the removal of slots and the way back to huge pages take the conversion lock too (`remove.rs`,
//!   `slots.rs`, `collapse.rs`); faults never do.
//!
//! - while pages are sent to another machine (`sending.rs`) everything private is small; whatever takes pages away ends
//!   the session first.
//!
//! Private memory is mapped through the mirror and its hooks (`hooks.rs`) and in no other way.

mod accounting;
mod arrival;
pub mod attributes;
mod audit;
pub mod backing;
mod collapse;
mod convert;
mod dirty;
mod fault;
mod hooks;
mod host_access;
mod list;
mod listed;
mod partitioned;
mod prefault;
mod remove;
mod saved;
mod seat;
mod sending;
mod slots;
mod tables;

use alloc::sync::Arc;
use alloc::vec::Vec;

use mirror_ept::{Config, GfnRange, Mmu, Statistics};
use tdvisor_base::sync::{AtomicU64, Mutex, Ordering};
use tdvisor_base::{Gfn, Level};

use crate::error::Error;
use crate::platform::Platform;
use crate::td::core::TdCore;
use backing::Folio;
use collapse::Cut;
pub use convert::Converted;
pub use dirty::HugeShared;
pub use fault::Resolution;
pub use hooks::SeptError;
pub(crate) use hooks::{SeptHooks, Unclean};
pub(crate) use listed::{read_entries, through};
pub(crate) use partitioned::MissingTables;
pub use prefault::Prefaulted;
pub use remove::{FRAMES_AT_ONCE, Reached};
pub(crate) use saved::RestoringMemory;
pub use seat::Seat;
use sending::Sending;
pub(crate) use sending::{abort_export, is_out_of_session};
use slots::Slots;
pub(crate) use tables::{SeptPage, Tables};

/// The MMU of one TD.
pub(crate) type TdMmu<'h, P> = Mmu<Tables<'h, P>, SeptHooks<'h, P>>;

/// The memory of one TD.
pub struct GuestMemory<'h, P: Platform> {
    core: Arc<TdCore<'h, P>>,
    mmu: TdMmu<'h, P>,
    slots: Slots,
    /// Serialises conversions, holes, changes of slots, and the host's own accesses to shared memory with them.
    conversions: Mutex<()>,
    largest: Level,
    /// Huge pages that were cut.
    cut: Cut,
    /// Pages that nothing maps any more, but that a vCPU outside the guest may have a translation to.
    leaving: Mutex<Vec<Folio>>,
    frames_converted: AtomicU64,
    /// Pages on their way to another machine.
    sending: Sending,
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
        let slots = Slots::new(ranges, config.end, largest)?;
        let pages = Tables { core: core.clone() };
        let hooks = SeptHooks { core: core.clone() };
        let mmu = Mmu::new(config, pages, hooks).map_err(|_| Error::NoMemory)?;
        Ok(Self {
            core,
            mmu,
            slots,
            conversions: Mutex::new(()),
            largest,
            cut: Cut::default(),
            leaving: Mutex::new(Vec::new()),
            frames_converted: AtomicU64::new(0),
            sending: Sending::default(),
        })
    }

    /// Whether a frame has memory behind it.
    pub fn has(&self, gfn: Gfn) -> bool {
        self.slots.with(gfn, |_, _| ()).is_some()
    }

    /// Ranges of guest frames with memory behind them, ascending.
    pub fn ranges(&self) -> impl Iterator<Item = GfnRange> + '_ {
        self.slots.ranges().into_iter()
    }

    /// The largest page that it is mapped with.
    pub(crate) fn largest_page(&self) -> Level {
        self.largest
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

    /// Frames of this TD's memory whose page was withdrawn for ever: it left the TD and could not be cleaned, or
    /// could not be taken back.
    pub fn quarantined_frames(&self) -> u64 {
        let mut frames = 0;
        self.slots.for_all(|state| {
            frames += state.backing.quarantined().iter().map(|folio| folio.level.frames()).sum::<u64>();
        });
        frames
    }

    /// Withdraws the page of a mapping for ever: it could not be taken back from the module.
    pub(crate) fn withdraw(&self, gfn: Gfn, level: Level) {
        self.slots.with_any(gfn, |slot| {
            let mut state = slot.state.lock();
            for frame in 0..level.frames() {
                state.backing.quarantine(gfn.wrapping_add(frame));
            }
        });
    }

    /// Frees all pages that are left, and gives their number of frames. Nothing maps them any more.
    pub(crate) fn release(&self) -> u64 {
        let mut frames = self.free_leaving();
        self.sending.free(self.core.host);
        self.slots.for_all(|state| frames += state.backing.release(&self.core.host.platform));
        frames
    }

    /// Withdraws pages that left the TD and could not be cleaned.
    fn withdraw_unclean(&self, unclean: &mut Vec<Unclean>) {
        for page in unclean.drain(..) {
            self.withdraw(page.gfn, page.level);
        }
    }
}
