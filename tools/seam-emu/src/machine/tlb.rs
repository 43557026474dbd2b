//! The translations that a processor holds.
//!
//! The registry does not speed anything up: it remembers what a processor *may* still use, so that a mistake
//! of the host shows. An entry survives BLOCK, REMOVE and changes of the shared EPT; it goes away when the
//! guest invalidates it, when a vCPU enters in a newer epoch, at VP.FLUSH, and at INVEPT.

use std::collections::BTreeMap;

use tdvisor_base::sync::{AtomicU64, Mutex, Ordering};
use tdvisor_base::{Gpa, Hpa, KeyId, Level};

use crate::l2::Vm;

/// Whose translations: a VM of a TD, which is named by its TDR.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub(crate) struct Asid {
    pub(crate) tdr: Hpa,
    pub(crate) vm: Vm,
}

/// One translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) hpa: Hpa,
    pub(crate) key: KeyId,
    pub(crate) level: Level,
    pub(crate) rights: u8,
    pub(crate) shared: bool,
}

/// How many translations a processor holds before it drops them all.
const CAPACITY: usize = 1 << 16;

#[derive(Default)]
pub(crate) struct Tlb {
    /// By TD and guest-physical base of the mapping.
    entries: Mutex<BTreeMap<(Asid, Gpa), Entry>>,
    /// Number of entries, to skip the lock when there are none.
    count: AtomicU64,
    /// Moves on with every flush that the CPU behind has to follow.
    flushes: AtomicU64,
}

impl Tlb {
    fn with<R>(&self, act: impl FnOnce(&mut BTreeMap<(Asid, Gpa), Entry>) -> R) -> R {
        let mut entries = self.entries.lock();
        let result = act(&mut entries);
        self.count.store(entries.len() as u64, Ordering::Release);
        result
    }

    /// Every translation.
    pub(crate) fn all(&self) -> Vec<((Asid, Gpa), Entry)> {
        self.entries.lock().iter().map(|(at, entry)| (*at, *entry)).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// How many flushes there were; a CPU that caches translations drops them when this moved.
    pub(crate) fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Acquire)
    }

    pub(crate) fn insert(&self, asid: Asid, gpa: Gpa, entry: Entry) {
        self.with(|entries| {
            if entries.len() >= CAPACITY {
                entries.clear();
                self.flushes.fetch_add(1, Ordering::AcqRel);
            }
            entries.insert((asid, gpa.align_down(entry.level.bytes())), entry);
        });
    }

    /// The translation that covers `gpa`.
    pub(crate) fn lookup(&self, asid: Asid, gpa: Gpa) -> Option<Entry> {
        if self.is_empty() {
            return None;
        }
        self.with(|entries| {
            [Level::L4K, Level::L2M, Level::L1G].into_iter().find_map(|level| {
                entries.get(&(asid, gpa.align_down(level.bytes()))).filter(|e| e.level == level).copied()
            })
        })
    }

    /// Drops the translations of all VMs of a TD, private and shared.
    pub(crate) fn flush(&self, tdr: Hpa) {
        if self.is_empty() {
            return;
        }
        self.with(|entries| entries.retain(|(owner, _), _| owner.tdr != tdr));
        self.flushes.fetch_add(1, Ordering::AcqRel);
    }

    /// Drops the translations of one VM, private and shared.
    pub(crate) fn flush_vm(&self, vm: Asid) {
        if self.is_empty() {
            return;
        }
        self.with(|entries| entries.retain(|(owner, _), _| *owner != vm));
        self.flushes.fetch_add(1, Ordering::AcqRel);
    }

    /// Drops the shared translations of all TDs.
    pub(crate) fn flush_shared(&self) {
        if self.is_empty() {
            return;
        }
        self.with(|entries| entries.retain(|_, entry| !entry.shared));
        self.flushes.fetch_add(1, Ordering::AcqRel);
    }

    /// Drops everything.
    pub(crate) fn flush_all(&self) {
        self.with(BTreeMap::clear);
        self.flushes.fetch_add(1, Ordering::AcqRel);
    }

    /// Translations into `[hpa, hpa + bytes)` for which `which` holds.
    pub(crate) fn reaching(&self, hpa: Hpa, bytes: u64, which: impl Fn(&Entry) -> bool) -> Vec<(Gpa, Entry)> {
        if self.is_empty() {
            return Vec::new();
        }
        let end = hpa.get().saturating_add(bytes);
        self.with(|entries| {
            entries
                .iter()
                .filter(|(_, e)| e.hpa.get() < end && hpa.get() < e.hpa.get().saturating_add(e.level.bytes()))
                .filter(|(_, e)| which(e))
                .map(|((_, gpa), e)| (*gpa, *e))
                .collect()
        })
    }

    /// Translations of all VMs of a TD for guest addresses in `[gpa, gpa + bytes)`.
    pub(crate) fn of_range(&self, tdr: Hpa, gpa: Gpa, bytes: u64) -> Vec<(Gpa, Entry)> {
        if self.is_empty() {
            return Vec::new();
        }
        let end = gpa.get().saturating_add(bytes);
        self.with(|entries| {
            entries
                .iter()
                .filter(|((asid, _), _)| asid.tdr == tdr)
                .filter(|((_, at), e)| at.get() < end && gpa.get() < at.get().saturating_add(e.level.bytes()))
                .map(|((_, at), e)| (*at, *e))
                .collect()
        })
    }
}
