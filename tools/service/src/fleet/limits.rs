//! How much TDs may have, one and all of them.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// What TDs may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FleetLimits {
    /// Bytes of memory of one TD.
    pub td_memory: u64,
    /// vCPUs of one TD.
    pub td_vcpus: u32,
    /// Bytes of the state directory that the console of one TD may fill.
    pub td_disk: u64,
    /// Bytes of the state directory that the SEAMCALLs of one TD may fill, if it asks for them, and its page of the inspector.
    pub td_trace: u64,
    /// Bytes of memory of all TDs that run.
    pub memory: u64,
    /// vCPUs of all TDs that run.
    pub vcpus: u32,
    /// Key ids of all TDs that run: each has one.
    pub key_ids: u32,
    /// Bytes of the state directory that the consoles, dumps and snapshots of all TDs may fill.
    pub disk: u64,
    /// Bytes of the state directory that the SEAMCALLs of all TDs may fill, and their pages of the inspector.
    pub trace: u64,
}

impl Default for FleetLimits {
    fn default() -> Self {
        Self {
            td_memory: 16 << 30,
            td_vcpus: 16,
            td_disk: 16 << 20,
            td_trace: 256 << 20,
            memory: 64 << 30,
            vcpus: 128,
            key_ids: 63,
            disk: 16 << 30,
            trace: 16 << 30,
        }
    }
}

/// What there is not enough of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Over {
    /// Of what.
    pub what: &'static str,
    /// How much was asked for.
    pub asked: u64,
    /// How much there is.
    pub left: u64,
    /// Whether others have the rest, and may give it back.
    pub for_now: bool,
}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, asked, left, for_now } = self;
        let of = if *for_now { "are left of the service's limit" } else { "are the limit" };
        write!(f, "{what}: {asked} are needed, {left} {of}")
    }
}

/// What is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Used {
    memory: u64,
    vcpus: u32,
    key_ids: u32,
    disk: u64,
    trace: u64,
}

/// The room that there is.
#[derive(Clone, Debug)]
pub(super) struct Room {
    limits: FleetLimits,
    used: Arc<Mutex<Used>>,
}

/// What a worker has, until it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    room: Room,
    memory: u64,
    vcpus: u32,
}

/// What is kept of a TD beside its console.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    /// Its SEAMCALLs.
    pub(super) trace: bool,
    /// Its page of the inspector.
    pub(super) inspector: bool,
    /// Bytes of what it held, at most.
    pub(super) dump: u64,
    /// Bytes of its snapshots, at most: the last one, and one that is being written.
    pub(super) snapshots: u64,
}

/// Bytes of the state directory.
struct Files {
    disk: u64,
    trace: u64,
}

/// Whether so much is left of a sum.
fn fits(what: &'static str, asked: u64, used: u64, most: u64) -> Result<(), Over> {
    let left = most.saturating_sub(used);
    if asked <= left { Ok(()) } else { Err(Over { what, asked, left, for_now: true }) }
}

/// As [`fits`], but what is more than the whole sum is refused for good.
fn fits_at_all(what: &'static str, asked: u64, used: u64, most: u64) -> Result<(), Over> {
    let never = Over { what, asked, left: most, for_now: false };
    fits(what, asked, used, most).map_err(|over| if asked <= most { over } else { never })
}

impl Room {
    pub(super) fn new(limits: FleetLimits) -> Self {
        Self { limits, used: Arc::default() }
    }

    pub(super) const fn limits(&self) -> FleetLimits {
        self.limits
    }

    pub(super) fn used(&self) -> Used {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one TD may have so much.
    pub(super) fn check(&self, memory: u64, vcpus: u32) -> Result<(), Over> {
        let least = |what, asked: u64, most: u64| {
            if asked <= most { Ok(()) } else { Err(Over { what, asked, left: most, for_now: false }) }
        };
        least("bytes of memory", memory, self.limits.td_memory)?;
        least("vCPUs", vcpus.into(), self.limits.td_vcpus.into())
    }

    /// Takes what a TD needs that runs.
    pub(super) fn take(&self, memory: u64, vcpus: u32) -> Result<Share, Over> {
        let mut used = self.lock();
        fits("bytes of memory", memory, used.memory, self.limits.memory)?;
        fits("vCPUs", vcpus.into(), used.vcpus.into(), self.limits.vcpus.into())?;
        fits("key ids", 1, used.key_ids.into(), self.limits.key_ids.into())?;
        used.memory += memory;
        used.vcpus += vcpus;
        used.key_ids += 1;
        Ok(Share { room: self.clone(), memory, vcpus })
    }

    /// The part of the state directory that a TD of this kind may fill.
    fn files(&self, kept: Kept) -> Files {
        let Kept { trace, inspector, dump, snapshots } = kept;
        Files {
            disk: self.limits.td_disk.saturating_add(dump).saturating_add(snapshots),
            trace: self.limits.td_trace.saturating_mul(u64::from(trace) + u64::from(inspector)),
        }
    }

    /// Takes the part of the state directory that a TD may fill.
    pub(super) fn take_files(&self, kept: Kept) -> Result<(), Over> {
        let mut used = self.lock();
        let Files { disk, trace } = self.files(kept);
        fits_at_all("bytes of the state directory", disk, used.disk, self.limits.disk)?;
        fits_at_all("bytes of traces and pages", trace, used.trace, self.limits.trace)?;
        used.disk += disk;
        used.trace += trace;
        Ok(())
    }

    /// Counts the part of a TD that is there already.
    pub(super) fn keep_files(&self, kept: Kept) {
        let Files { disk, trace } = self.files(kept);
        let mut used = self.lock();
        used.disk += disk;
        used.trace += trace;
    }

    pub(super) fn give_files(&self, kept: Kept) {
        let Files { disk, trace } = self.files(kept);
        let mut used = self.lock();
        used.disk = used.disk.saturating_sub(disk);
        used.trace = used.trace.saturating_sub(trace);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut used = self.room.lock();
        used.memory -= self.memory;
        used.vcpus -= self.vcpus;
        used.key_ids -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_kept_to_and_what_is_given_back_can_be_had_again() {
        let limits =
            FleetLimits { memory: 10, vcpus: 3, key_ids: 2, disk: 3, td_disk: 2, ..FleetLimits::default() };
        let room = Room::new(limits);
        let first = room.take(6, 1).unwrap();
        assert_eq!(
            room.take(5, 1).unwrap_err(),
            Over { what: "bytes of memory", asked: 5, left: 4, for_now: true }
        );
        assert_eq!(room.take(4, 3).unwrap_err().what, "vCPUs");
        let second = room.take(4, 1).unwrap();
        assert_eq!(room.take(0, 0).unwrap_err().what, "key ids");
        drop((first, second));
        assert_eq!(room.used(), Used::default());
        room.take_files(Kept::default()).unwrap();
        assert_eq!(room.take_files(Kept::default()).unwrap_err().left, 1);
        room.give_files(Kept::default());
        room.take_files(Kept::default()).unwrap();
    }

    #[test]
    fn room_for_a_trace_is_taken_by_a_td_that_asks_for_one() {
        let traced = Kept { trace: true, ..Kept::default() };
        let room = Room::new(FleetLimits { trace: 3, td_trace: 2, ..FleetLimits::default() });
        assert_eq!(room.take_files(Kept { inspector: true, ..traced }).unwrap_err().asked, 4, "both");
        room.take_files(traced).unwrap();
        assert_eq!(room.take_files(traced).unwrap_err().what, "bytes of traces and pages");
        let one = room.used();
        room.take_files(Kept::default()).unwrap();
        room.give_files(Kept::default());
        assert_eq!(room.used(), one, "what was refused took nothing");
        room.give_files(traced);
        assert_eq!(room.used(), Used::default());
    }

    #[test]
    fn room_for_what_a_td_holds_is_taken_by_a_td_that_may_be_dumped() {
        let room = Room::new(FleetLimits { disk: 10, td_disk: 1, ..FleetLimits::default() });
        let dumped = Kept { dump: 6, ..Kept::default() };
        room.take_files(dumped).unwrap();
        assert_eq!(room.take_files(dumped).unwrap_err().left, 3);
        room.take_files(Kept::default()).unwrap();
    }

    #[test]
    fn a_limit_of_one_td_is_one_for_good() {
        let room = Room::new(FleetLimits { td_memory: 5, td_vcpus: 2, ..FleetLimits::default() });
        room.check(5, 2).unwrap();
        assert!(!room.check(6, 1).unwrap_err().for_now);
        assert_eq!(room.check(1, 3).unwrap_err().what, "vCPUs");
    }
}
