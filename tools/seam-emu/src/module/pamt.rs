//! PAMT: what each physical page is used for, and by whom.
//!
//! Entries are sixteen bytes in the PAMT memory that the host gave (but see [`Tdmr::entry`] for 1 GiB blocks): a
//! lock (bits 15:0), the page type (23:16), the owner as TDR page number (63:24); then BEPOCH. A page of 2 MiB or
//! 1 GiB in use has its entry at its own level, and the entries below are all free; a walk takes shared locks down
//! to the entry that describes the page and the wanted lock there.

use phys_memory::Arena;
use tdvisor_base::sync::{AtomicU64, Ordering};
use tdvisor_base::{Hpa, Level};
use tdx_module_iface::tdmr::PageType;

use super::tdmr::Tdmr;
use crate::lock::{Busy, Guard, HostPriority, Mode, Side, TryLock};

/// One entry, in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PamtEntry<'m> {
    word: &'m AtomicU64,
    bepoch: &'m AtomicU64,
}

impl<'m> PamtEntry<'m> {
    pub(super) const fn new(word: &'m AtomicU64, bepoch: &'m AtomicU64) -> Self {
        Self { word, bepoch }
    }

    pub(crate) fn page_type(self) -> PageType {
        PageType((self.word.load(Ordering::Acquire) >> 16) as u8)
    }

    pub(crate) fn is_free(self) -> bool {
        self.page_type() == PageType::NDA
    }

    pub(crate) fn owner(self) -> Hpa {
        Hpa::new(self.word.load(Ordering::Acquire) >> 24 << 12)
    }

    pub(crate) fn bepoch(self) -> u64 {
        self.bepoch.load(Ordering::Acquire)
    }

    pub(crate) fn set_bepoch(self, bepoch: u64) {
        self.bepoch.store(bepoch, Ordering::Release);
    }

    /// Gives the page a use, an owner and BEPOCH 0. The caller holds the lock exclusively.
    pub(crate) fn assign(self, page_type: PageType, owner: Hpa) {
        self.bepoch.store(0, Ordering::Release);
        self.replace_payload(u64::from(page_type.0) << 16 | owner.get() >> 12 << 24);
    }

    /// Frees the page; owner and BEPOCH stay behind, as recorded.
    pub(crate) fn free(self) {
        let kept = self.word.load(Ordering::Acquire) & !0xff_ffff;
        self.replace_payload(kept);
    }

    /// Marks the page as never usable.
    pub(super) fn set_reserved(self) {
        self.replace_payload(u64::from(PageType::RSVD.0) << 16);
    }

    fn replace_payload(self, payload: u64) {
        let mask = Guard::payload_mask();
        let _ = crate::lock::change(self.word, |old| Some(old & !mask | payload & mask));
    }

    /// Whether somebody holds the entry's lock.
    pub(crate) fn is_locked(self) -> bool {
        TryLock::new(self.word, HostPriority::Yes).is_held()
    }

    pub(crate) fn lock(self, mode: Mode, side: Side) -> Result<Guard<'m>, Busy> {
        TryLock::new(self.word, HostPriority::Yes).acquire(mode, side)
    }
}

/// A page found in the PAMT, with its locks held.
#[derive(Debug)]
pub(crate) struct PamtPage<'m> {
    /// The entry that describes the page.
    pub(crate) entry: PamtEntry<'m>,
    /// The entry's level: the size of the page.
    pub(crate) level: Level,
    /// Held locks, the page's own last.
    _guards: (Option<Guard<'m>>, Option<Guard<'m>>, Guard<'m>),
}

/// Why a page's entry was not locked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WalkError {
    /// Somebody holds a lock on the way.
    Busy,
    /// The page's range has no 4 KiB entries (dynamic PAMT).
    NoEntries,
}

impl From<Busy> for WalkError {
    fn from(_: Busy) -> Self {
        Self::Busy
    }
}

/// Finds the entry for the page that holds `hpa`, going no further down than `target`.
///
/// A level above `target` whose entry is in use ends the walk: the page is that large.
pub(crate) fn walk<'m>(
    memory: &'m Arena,
    tdmr: &'m Tdmr,
    hpa: Hpa,
    target: Level,
    mode: Mode,
    side: Side,
) -> Result<PamtPage<'m>, WalkError> {
    let missing = WalkError::NoEntries;
    let large = tdmr.entry(memory, Level::L1G, hpa).ok_or(missing)?;
    if target == Level::L1G {
        let guard = large.lock(mode, side)?;
        return Ok(PamtPage { entry: large, level: Level::L1G, _guards: (None, None, guard) });
    }
    let upper = match enter(large, mode, side)? {
        Descent::Here(guard) => {
            return Ok(PamtPage { entry: large, level: Level::L1G, _guards: (None, None, guard) });
        }
        Descent::Below(guard) => guard,
    };
    let medium = tdmr.entry(memory, Level::L2M, hpa).ok_or(missing)?;
    if target == Level::L2M {
        let guard = medium.lock(mode, side)?;
        return Ok(PamtPage { entry: medium, level: Level::L2M, _guards: (Some(upper), None, guard) });
    }
    let middle = match enter(medium, mode, side)? {
        Descent::Here(guard) => {
            return Ok(PamtPage { entry: medium, level: Level::L2M, _guards: (Some(upper), None, guard) });
        }
        Descent::Below(guard) => guard,
    };
    let small = tdmr.entry(memory, Level::L4K, hpa).ok_or(missing)?;
    let guard = small.lock(mode, side)?;
    Ok(PamtPage { entry: small, level: Level::L4K, _guards: (Some(upper), Some(middle), guard) })
}

enum Descent<'m> {
    /// The page has this entry's size; locked as asked.
    Here(Guard<'m>),
    /// The page is smaller; locked shared on the way.
    Below(Guard<'m>),
}

/// Locks an entry on the way down. A free entry is locked shared, so that it stays free (and split) while the
/// walk goes on below it.
fn enter<'m>(entry: PamtEntry<'m>, mode: Mode, side: Side) -> Result<Descent<'m>, Busy> {
    let shared = entry.lock(Mode::Shared, side)?;
    if entry.is_free() {
        return Ok(Descent::Below(shared));
    }
    if mode == Mode::Shared {
        return Ok(Descent::Here(shared));
    }
    drop(shared);
    let exclusive = entry.lock(Mode::Exclusive, side)?;
    // Between the two locks the page may have been split or freed; the loser of that race is busy.
    if entry.is_free() { Err(Busy::Held) } else { Ok(Descent::Here(exclusive)) }
}
