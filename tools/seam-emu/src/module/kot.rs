//! The key ownership table: which key id belongs to whom, and where its cache lines still have to be written
//! back.

use tdvisor_base::sync::{AtomicU64, Ordering};
use tdx_module_iface::lifecycle::HkidState;

use crate::lock::{Busy, Guard, HostPriority, Mode, Side, TryLock};

/// One private key id: its state in bits 7:0, the packages still to be written back in bits 63:8.
#[derive(Debug)]
struct Slot(AtomicU64);

/// The table. Slots change only under the exclusive lock.
#[derive(Debug)]
pub(crate) struct Kot {
    first: u16,
    slots: Box<[Slot]>,
    lock: AtomicU64,
}

impl Kot {
    pub(crate) fn new(hkids: &core::ops::RangeInclusive<u16>) -> Self {
        let count = usize::from(hkids.end().saturating_sub(*hkids.start())) + 1;
        Self {
            first: *hkids.start(),
            slots: (0..count).map(|_| Slot(AtomicU64::new(0))).collect(),
            lock: AtomicU64::new(0),
        }
    }

    pub(crate) fn fork(&self) -> Self {
        Self {
            first: self.first,
            slots: self.slots.iter().map(|s| Slot(AtomicU64::new(s.0.load(Ordering::Acquire)))).collect(),
            lock: AtomicU64::new(0),
        }
    }

    /// All slots, as a snapshot holds them.
    pub(super) fn save(&self) -> Vec<u64> {
        let Self { first: _, slots, lock: _ } = self;
        slots.iter().map(|slot| slot.0.load(Ordering::Acquire)).collect()
    }

    /// Takes over what [`Self::save`] gave; `None` where that is of another machine.
    pub(super) fn restore(self, saved: &[u64]) -> Option<Self> {
        let slots: Box<[Slot]> = saved.iter().map(|slot| Slot(AtomicU64::new(*slot))).collect();
        (slots.len() == self.slots.len()).then_some(Self { slots, ..self })
    }

    pub(crate) fn lock(&self, mode: Mode) -> Result<Guard<'_>, Busy> {
        TryLock::new(&self.lock, HostPriority::No).acquire(mode, Side::Host)
    }

    fn slot(&self, hkid: u16) -> Option<&AtomicU64> {
        self.slots.get(usize::from(hkid.checked_sub(self.first)?)).map(|slot| &slot.0)
    }

    pub(crate) fn state(&self, hkid: u16) -> HkidState {
        self.slot(hkid).map_or(HkidState::RESERVED, |slot| HkidState(slot.load(Ordering::Acquire) as u8))
    }

    /// Packages on which the key's cache lines are not written back yet.
    pub(crate) fn unwritten_packages(&self, hkid: u16) -> u64 {
        self.slot(hkid).map_or(0, |slot| slot.load(Ordering::Acquire) >> 8)
    }

    pub(crate) fn set(&self, hkid: u16, state: HkidState, unwritten_packages: u64) {
        if let Some(slot) = self.slot(hkid) {
            slot.store(u64::from(state.0) | unwritten_packages << 8, Ordering::Release);
        }
    }

    /// Flushed key ids, those included whose lines are written back already.
    pub(crate) fn flushed(&self) -> Vec<u16> {
        (self.first..)
            .zip(&self.slots)
            .filter(|(_, slot)| HkidState(slot.0.load(Ordering::Acquire) as u8) == HkidState::FLUSHED)
            .map(|(hkid, _)| hkid)
            .collect()
    }

    /// A package has written the lines of these key ids back.
    pub(crate) fn mark_written(&self, hkids: &[u16], package: u32) {
        for slot in hkids.iter().filter_map(|hkid| self.slot(*hkid)) {
            slot.fetch_and(!(1 << 8 << package.min(55)), Ordering::AcqRel);
        }
    }
}
