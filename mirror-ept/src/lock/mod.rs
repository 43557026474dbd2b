//! The MMU lock: per-participant reader slots, one exclusive side, and grace periods for aging.
//!
//! # Protocol
//! - Everybody who uses an MMU is a [`Participant`] with a slot on its own cache line. All guards borrow the
//!   participant mutably, so no thread can hold two of them: there is no upgrade to deadlock on.
//! - [`Shared`]: publish `slot.shared = 1` with a full barrier, then read `writer`. If it is set, withdraw,
//!   wait, try again. One locked instruction, on a line that no other reader writes.
//! - [`Exclusive`]: take `writer` from 0 to 1 with a full barrier, then wait until every `slot.shared` is 0. Of
//!   a reader and a writer that publish at the same time at least one sees the other.
//! - [`Rcu`]: publish the global epoch in `slot.rcu` with a full barrier; 0 again when done.
//!   What is unlinked later waits for it.
//! - The exclusive side has priority over readers that have not entered yet.

pub mod notifier;
mod shortcut;
pub mod stale;
mod stats;
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use tdvisor_base::sync::{Arc, AtomicBool, AtomicU64, Ordering, spin_loop, yield_now};

pub(crate) use shortcut::Shortcut;
pub(crate) use stats::{Counters, Tree};
pub use stats::{LevelCounts, Statistics};

use crate::table::NoMemory;

/// Spins before a waiter offers its time slice.
const SPINS: u32 = 64;

/// One participant's words. A pair of cache lines, because hardware prefetches lines in pairs.
#[repr(align(128))]
#[derive(Debug)]
pub(crate) struct Slot {
    shared: AtomicU64,
    /// 0, or the epoch in which the participant started to read, plus one.
    rcu: AtomicU64,
    taken: AtomicBool,
    pub(crate) shortcut: Shortcut,
    pub(crate) counters: Counters,
}

impl Slot {
    fn new() -> Self {
        Self {
            shared: AtomicU64::new(0),
            rcu: AtomicU64::new(0),
            taken: AtomicBool::new(false),
            shortcut: Shortcut::new(),
            counters: Counters::new(),
        }
    }
}

/// The lock itself.
pub(crate) struct Core {
    slots: Box<[Arc<Slot>]>,
    /// 1 while somebody is exclusive or waits for readers to leave.
    writer: AtomicU64,
    epoch: AtomicU64,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("slots", &self.slots.len()).finish_non_exhaustive()
    }
}

/// Publishes a word before anything that follows it, for all observers.
///
/// On x86 one `xchg`, a quarter of the price of `mfence`. loom models sequential consistency for fences
/// only, so there the same barrier is spelt as a store and a fence.
#[inline(always)]
fn publish(word: &AtomicU64, value: u64) {
    #[cfg(not(loom))]
    word.swap(value, Ordering::SeqCst);
    #[cfg(loom)]
    {
        word.store(value, Ordering::Release);
        tdvisor_base::sync::fence(Ordering::SeqCst);
    }
}

fn wait_until(mut ready: impl FnMut() -> bool) {
    let mut spins = 0;
    while !ready() {
        if cfg!(any(loom, shuttle)) || spins >= SPINS {
            yield_now();
        } else {
            spin_loop();
            spins += 1;
        }
    }
}

impl Core {
    pub(crate) fn new(slots: usize) -> Result<Self, NoMemory> {
        let mut list = Vec::new();
        list.try_reserve_exact(slots).map_err(|_| NoMemory)?;
        list.extend((0..slots).map(|_| Arc::new(Slot::new())));
        Ok(Self { slots: list.into_boxed_slice(), writer: AtomicU64::new(0), epoch: AtomicU64::new(1) })
    }

    /// Counts what is mapped already, before anybody has joined.
    pub(crate) fn set_counters(&self, values: [u64; stats::COUNTERS]) {
        if let Some(slot) = self.slots().next() {
            slot.counters.set(values);
        }
    }

    pub(crate) fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().map(|slot| &**slot)
    }

    /// Ends the current epoch and gives the next one: what was unlinked before may be freed when no reader
    /// shows an older one.
    pub(crate) fn advance_epoch(&self) -> u64 {
        #[cfg(loom)]
        tdvisor_base::sync::fence(Ordering::SeqCst);
        let next = self.epoch.fetch_add(1, Ordering::SeqCst).wrapping_add(1);
        #[cfg(loom)]
        tdvisor_base::sync::fence(Ordering::SeqCst);
        next
    }

    /// The oldest epoch that a reader still shows; `u64::MAX` where nobody reads.
    pub(crate) fn oldest_reader(&self) -> u64 {
        self.slots().map(|slot| slot.rcu.load(Ordering::SeqCst).wrapping_sub(1)).min().unwrap_or(u64::MAX)
    }
}

/// Joins an MMU's lock: every vCPU, and every control thread, has one.
///
/// It gives the guards, one at a time. Dropping it leaves the lock; its statistics stay.
#[derive(Debug)]
pub struct Participant {
    core: Arc<Core>,
    slot: Arc<Slot>,
}

impl Participant {
    /// Takes a free slot; `None` where all are taken.
    pub(crate) fn join(core: &Arc<Core>) -> Option<Self> {
        let slot = core.slots.iter().find(|slot| {
            slot.taken.compare_exchange(false, true, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        })?;
        Some(Self { core: core.clone(), slot: slot.clone() })
    }

    /// Waits for the exclusive side to be gone and enters with others.
    #[inline]
    pub fn shared(&mut self) -> Shared<'_> {
        let (core, slot) = (&*self.core, &*self.slot);
        publish(&slot.shared, 1);
        if core.writer.load(Ordering::SeqCst) != 0 {
            wait_for_writer(core, slot);
        }
        Shared { core, slot }
    }

    /// Waits for everybody else to be out and enters alone.
    pub fn exclusive(&mut self) -> Exclusive<'_> {
        let (core, slot) = (&*self.core, &*self.slot);
        close(core);
        Exclusive { core, slot }
    }

    /// Enters a read-side section: tables that are unlinked from now on are not freed before it ends.
    #[inline]
    pub fn rcu(&mut self) -> Rcu<'_> {
        let (core, slot) = (&*self.core, &*self.slot);
        let epoch = core.epoch.load(Ordering::Acquire);
        publish(&slot.rcu, epoch.wrapping_add(1));
        Rcu { core, slot }
    }
}

#[cold]
fn wait_for_writer(core: &Core, slot: &Slot) {
    loop {
        slot.shared.store(0, Ordering::Release);
        wait_until(|| core.writer.load(Ordering::Acquire) == 0);
        publish(&slot.shared, 1);
        if core.writer.load(Ordering::SeqCst) == 0 {
            return;
        }
    }
}

/// Keeps everybody else out and waits for those inside.
fn close(core: &Core) {
    wait_until(|| core.writer.compare_exchange(0, 1, Ordering::SeqCst, Ordering::Relaxed).is_ok());
    #[cfg(loom)]
    tdvisor_base::sync::fence(Ordering::SeqCst);
    for slot in core.slots() {
        wait_until(|| slot.shared.load(Ordering::SeqCst) == 0);
    }
}

impl Drop for Participant {
    fn drop(&mut self) {
        self.slot.taken.store(false, Ordering::Release);
    }
}

/// The MMU is shared with other faults; single entries change by compare-exchange.
#[derive(Debug)]
#[must_use = "the section ends when the guard is dropped"]
pub struct Shared<'p> {
    core: &'p Core,
    slot: &'p Slot,
}

impl Shared<'_> {
    #[inline(always)]
    pub(crate) fn counters(&self) -> &Counters {
        &self.slot.counters
    }

    #[inline(always)]
    pub(crate) fn shortcut(&self) -> &Shortcut {
        &self.slot.shortcut
    }

    #[inline(always)]
    pub(crate) fn is_of(&self, core: &Core) -> bool {
        core::ptr::eq(self.core, core)
    }
}

impl Drop for Shared<'_> {
    #[inline]
    fn drop(&mut self) {
        self.slot.shared.store(0, Ordering::Release);
    }
}

/// The MMU is ours: nobody else changes an entry, except aging on direct leaves.
#[must_use = "the section ends when the guard is dropped"]
pub struct Exclusive<'p> {
    core: &'p Core,
    slot: &'p Slot,
}

impl fmt::Debug for Exclusive<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exclusive")
    }
}

impl<'p> Exclusive<'p> {
    pub(crate) fn counters(&self) -> &'p Counters {
        &self.slot.counters
    }

    pub(crate) fn is_of(&self, core: &Core) -> bool {
        core::ptr::eq(self.core, core)
    }

    /// Before a mirror table is unlinked: nobody starts a walk in it any more.
    pub(crate) fn forget_shortcuts(&self) {
        self.core.slots().for_each(|slot| slot.shortcut.forget());
    }

    /// A shared guard of this exclusive section: who is alone may do what is allowed to many.
    pub(crate) fn as_shared(&mut self) -> Shared<'_> {
        // Our own slot is not entered, so leaving it again when the view is dropped changes nothing.
        Shared { core: self.core, slot: self.slot }
    }

    /// Lets waiting faults pass, then enters again. Nothing that was read before is valid after (35), which
    /// the mutable borrow makes true of everything borrowed from the guard.
    pub fn yield_to_readers(&mut self) {
        self.core.writer.store(0, Ordering::Release);
        yield_now();
        close(self.core);
    }
}

impl Drop for Exclusive<'_> {
    fn drop(&mut self) {
        self.core.writer.store(0, Ordering::Release);
    }
}

/// A read-side section: what is reachable now stays a table until the section ends.
#[derive(Debug)]
#[must_use = "the section ends when the guard is dropped"]
pub struct Rcu<'p> {
    core: &'p Core,
    slot: &'p Slot,
}

impl Rcu<'_> {
    pub(crate) fn is_of(&self, core: &Core) -> bool {
        core::ptr::eq(self.core, core)
    }
}

impl Drop for Rcu<'_> {
    fn drop(&mut self) {
        self.slot.rcu.store(0, Ordering::Release);
    }
}
