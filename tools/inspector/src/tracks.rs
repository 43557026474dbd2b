//! What the calls of a TD's life add up to over time, as counter tracks of a time line.
//!
//! | track | values |
//! |---|---|
//! | `private memory` | bytes in private mappings, by the size of the pages |
//! | `shared memory` | bytes that the guest asked to be shared, and the host made so (MapGPA) |
//! | `conversions` | 4 KiB frames that MapGPA has converted so far, by direction |
//! | `SEAMCALLs per ms` | calls of the host |
//! | `EPT violations per ms` | exits for memory that was not mapped, by side |
//!
//! # Where calls are missing
//! A journal keeps the last calls. Private memory ends as the inspection found it, whatever was lost before; the other tracks begin
//! with the first call that is kept.

use std::collections::BTreeMap;

use machine_emu::journal::{Caller, Recorded};
use mirror_ept::list::ListedKind;
use serde_json::{Map, Value, json};
use td_host::ghci::Request;
use tdvisor_base::{Gpa, Level, PAGE_SIZE, SharedBit, Side};
use tdvisor_runtime::inspect::{self, Inspection};
use tdx_module_iface::exit::ExitReason;
use tdx_module_iface::ghci::CallStatus;
use tdx_module_iface::handles::GpaLevel;
use tdx_module_iface::tdh::TdExit;
use tdx_module_iface::{Gprs, LeafWord, Status, TdhLeaf};

use crate::calls::Times;

/// Levels that pages have.
const SIZES: [Level; 3] = [Level::L4K, Level::L2M, Level::L1G];
/// Microseconds that a rate is counted over.
const MILLISECOND: f64 = 1_000.0;

/// The tracks of a TD, one sample after the other.
pub(crate) fn samples(inspection: &Inspection, time: &Times, process: u32) -> Vec<Value> {
    let mut tracks = Tracks::of(inspection, process);
    for call in inspection.calls.iter().filter(|call| call.by == Caller::Host) {
        tracks.add(call, time);
    }
    tracks.finish()
}

struct Tracks {
    process: u32,
    shared_bit: SharedBit,
    samples: Vec<Value>,
    /// Bytes by the place in [`SIZES`].
    private: [u64; SIZES.len()],
    shared: Ranges,
    to_private: u64,
    to_shared: u64,
    /// What a guest asked for on a processor, until the host's answer.
    asked: BTreeMap<u32, (Gpa, u64)>,
    calls: BTreeMap<u64, u64>,
    /// Private ones and shared ones.
    violations: BTreeMap<u64, [u64; 2]>,
}

impl Tracks {
    fn of(inspection: &Inspection, process: u32) -> Self {
        let mut tracks = Self {
            process,
            shared_bit: inspection.shared_bit,
            samples: Vec::new(),
            private: before_first_call(inspection),
            shared: Ranges::default(),
            to_private: 0,
            to_shared: 0,
            asked: BTreeMap::new(),
            calls: BTreeMap::new(),
            violations: BTreeMap::new(),
        };
        tracks.tell_private(0.0);
        tracks
    }

    fn sample(&mut self, track: &str, at: f64, values: Value) {
        self.samples.push(json!({"ph": "C", "pid": self.process, "name": track, "ts": at, "args": values}));
    }

    fn tell_private(&mut self, at: f64) {
        let sizes = SIZES.iter().zip(self.private);
        let values: Map<String, Value> =
            sizes.map(|(level, bytes)| (level.to_string(), json!(bytes))).collect();
        self.sample("private memory", at, Value::Object(values));
    }

    fn add(&mut self, call: &Recorded, time: &Times) {
        let (begin, end) = (time.at(call.at), time.at(call.at.saturating_add(call.took)));
        let in_millisecond = (begin / MILLISECOND) as u64;
        *self.calls.entry(in_millisecond).or_default() += 1;
        let leaf = TdhLeaf(LeafWord(call.before.rax).leaf());
        if leaf == TdhLeaf::VP_ENTER {
            if let Some((gpa, bytes)) = self.asked.remove(&call.lp) {
                self.answered(gpa, bytes, &call.before, begin);
            }
            if let Some(exit) = call.after.as_ref().and_then(TdExit::from_gprs) {
                self.left(call, &exit, in_millisecond);
            }
        } else if let Some(changes) = changes(call, leaf) {
            apply(&mut self.private, changes);
            self.tell_private(end);
        }
    }

    /// Takes note of why a vCPU left its guest.
    fn left(&mut self, call: &Recorded, exit: &TdExit, in_millisecond: u64) {
        match exit {
            TdExit::TdVmCall(_) => {
                if let Some(Request::MapGpa { gpa, size }) = call.after.as_ref().map(Request::parse) {
                    self.asked.insert(call.lp, (gpa, size));
                }
            }
            TdExit::Async(exit) if exit.reason.basic() == ExitReason::EPT_VIOLATION => {
                let [private, shared] = self.violations.entry(in_millisecond).or_default();
                match self.shared_bit.split(exit.gpa).0 {
                    Side::Private => *private += 1,
                    Side::Shared => *shared += 1,
                }
            }
            TdExit::Async(_) => {}
        }
    }

    /// Takes note of what the host says to MapGPA when it enters the guest again.
    fn answered(&mut self, asked: Gpa, bytes: u64, answer: &Gprs, at: f64) {
        // What was not done begins at R11.
        let is_done = CallStatus(answer.r10) == CallStatus::SUCCESS;
        let bytes = if is_done { bytes } else { answer.r11.saturating_sub(asked.get()).min(bytes) };
        if bytes == 0 {
            return;
        }
        let (side, gpa) = self.shared_bit.split(asked);
        let (begin, end) = (gpa.get(), gpa.get().saturating_add(bytes));
        match side {
            Side::Private => {
                self.shared.remove(begin, end);
                self.to_private += bytes / PAGE_SIZE;
            }
            Side::Shared => {
                self.shared.insert(begin, end);
                self.to_shared += bytes / PAGE_SIZE;
            }
        }
        self.sample("shared memory", at, json!({"bytes": self.shared.bytes}));
        self.sample("conversions", at, json!({"to private": self.to_private, "to shared": self.to_shared}));
    }

    fn finish(mut self) -> Vec<Value> {
        let calls = std::mem::take(&mut self.calls);
        for (at, count) in with_gaps(&calls, 0) {
            self.sample("SEAMCALLs per ms", at, json!({"calls": count}));
        }
        let violations = std::mem::take(&mut self.violations);
        for (at, [private, shared]) in with_gaps(&violations, [0; 2]) {
            self.sample("EPT violations per ms", at, json!({"private": private, "shared": shared}));
        }
        self.samples
    }
}

/// The counts of milliseconds, and `none` behind each that is followed by one of which there is no count.
fn with_gaps<T: Copy>(counts: &BTreeMap<u64, T>, none: T) -> Vec<(f64, T)> {
    let mut all = Vec::new();
    for (millisecond, count) in counts {
        all.push((*millisecond as f64 * MILLISECOND, *count));
        if !counts.contains_key(&(millisecond + 1)) {
            all.push(((millisecond + 1) as f64 * MILLISECOND, none));
        }
    }
    all
}

/// Bytes by the place in [`SIZES`] that a call adds, or takes away.
type Changes = [i64; SIZES.len()];

fn apply(bytes: &mut [u64; SIZES.len()], changes: Changes) {
    for (bytes, change) in bytes.iter_mut().zip(changes) {
        *bytes = bytes.saturating_add_signed(change);
    }
}

/// What a call changes of private memory.
fn changes(call: &Recorded, leaf: TdhLeaf) -> Option<Changes> {
    let is_done = call.after.is_some_and(|after| Status::from_raw(after.rax).is_success());
    if !is_done {
        return None;
    }
    let level = GpaLevel::from_word(call.before.rcx)?.level();
    let bytes = level.bytes() as i64;
    let (here, below) = match leaf {
        TdhLeaf::MEM_PAGE_ADD | TdhLeaf::MEM_PAGE_AUG => (bytes, 0),
        TdhLeaf::MEM_PAGE_REMOVE => (-bytes, 0),
        TdhLeaf::MEM_PAGE_DEMOTE => (-bytes, bytes),
        TdhLeaf::MEM_PAGE_PROMOTE => (bytes, -bytes),
        _ => return None,
    };
    let at = SIZES.iter().position(|size| *size == level)?;
    let mut changes = [0; SIZES.len()];
    *changes.get_mut(at)? = here;
    if let Some(change) = at.checked_sub(1).and_then(|at| changes.get_mut(at)) {
        *change = below;
    }
    Some(changes)
}

/// Private memory before the first call that is kept: what there is at last, without what the calls made of it.
fn before_first_call(inspection: &Inspection) -> [u64; SIZES.len()] {
    if inspection.calls_lost == 0 {
        return [0; SIZES.len()];
    }
    let is_private = |entry: &&inspect::Entry| entry.side == inspect::Side::Private;
    let is_leaf =
        |entry: &&inspect::Entry| entry.host.is_some_and(|host| matches!(host.kind, ListedKind::Leaf(_)));
    let mut bytes = SIZES.map(|size| {
        let leaves = inspection.entries.iter().filter(is_private).filter(is_leaf);
        leaves.filter(|entry| entry.level == size).count() as u64 * size.bytes()
    });
    let host = inspection.calls.iter().rev().filter(|call| call.by == Caller::Host);
    for changes in host.filter_map(|call| changes(call, TdhLeaf(LeafWord(call.before.rax).leaf()))) {
        apply(&mut bytes, changes.map(|change| -change));
    }
    bytes
}

/// Ranges of addresses that do not overlap, by their beginnings.
#[derive(Debug, Default)]
struct Ranges {
    ends: BTreeMap<u64, u64>,
    bytes: u64,
}

impl Ranges {
    fn insert(&mut self, begin: u64, end: u64) {
        self.remove(begin, end);
        if begin < end {
            self.ends.insert(begin, end);
            self.bytes += end - begin;
        }
    }

    fn remove(&mut self, begin: u64, end: u64) {
        let ends = self.ends.range(..end).rev().take_while(|(_, other)| **other > begin);
        let cut: Vec<(u64, u64)> = ends.map(|(begin, end)| (*begin, *end)).collect();
        for (first, last) in cut {
            self.ends.remove(&first);
            self.bytes -= last - first;
            for (begin, end) in [(first, begin), (end, last)] {
                if begin < end {
                    self.ends.insert(begin, end);
                    self.bytes += end - begin;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tdvisor_base::Ticks;

    use super::*;
    use crate::trace_events::tests::{call, enter, inspection};

    const SHARED: u64 = 1 << 47;

    /// The values of a track.
    fn track(calls: Vec<Recorded>, name: &str) -> Vec<Value> {
        values(&inspection(calls), name)
    }

    fn values(inspection: &Inspection, name: &str) -> Vec<Value> {
        let all = samples(inspection, &Times::of(inspection), 1);
        let of_track = all.iter().filter(|sample| sample["name"] == name);
        of_track.map(|sample| sample["args"].clone()).collect()
    }

    /// An entry that gives this answer, and an exit that asks for a conversion.
    fn map_gpa(gpa: u64, bytes: u64, answer: (u64, u64)) -> Recorded {
        let request = Gprs { rax: 77, rcx: 0xfc00, r11: 0x1_0001, r12: gpa, r13: bytes, ..Gprs::ZERO };
        let mut call = enter(request);
        (call.before.r10, call.before.r11) = answer;
        call
    }

    #[test]
    fn private_memory_is_told_by_the_size_of_its_pages() {
        let aug = call(TdhLeaf::MEM_PAGE_AUG, 0x20_0001, 0);
        let refused = call(TdhLeaf::MEM_PAGE_AUG, 0x40_0000, 0xC000_0100_0000_0001);
        let demote = call(TdhLeaf::MEM_PAGE_DEMOTE, 0x20_0001, 0);
        let remove = call(TdhLeaf::MEM_PAGE_REMOVE, 0x20_0000, 0);
        let told = track(vec![aug, refused, demote, remove], "private memory");
        let expected = [[0, 0], [0, 2 << 20], [2 << 20, 0], [(2 << 20) - 4096, 0]];
        assert_eq!(told, expected.map(|[small, large]| json!({"4K": small, "2M": large, "1G": 0})));
    }

    #[test]
    fn private_memory_ends_as_it_was_found_where_the_first_calls_are_lost() {
        let mut inspection = inspection(vec![call(TdhLeaf::MEM_PAGE_REMOVE, 0x1000, 0)]);
        inspection.calls_lost = 7;
        let told = values(&inspection, "private memory");
        assert_eq!((&told[0]["4K"], &told[1]["4K"]), (&json!(4096), &json!(0)));
    }

    #[test]
    fn memory_is_shared_once_the_host_has_said_so_and_as_far_as_it_said() {
        let calls = vec![
            map_gpa(SHARED | 0x10_0000, 0x4000, (0, 0)),
            // Half of it was done; the rest is asked for again, and refused.
            map_gpa(SHARED | 0x10_2000, 0x2000, (CallStatus::RETRY.0, SHARED | 0x10_2000)),
            map_gpa(0x10_1000, 0x1000, (CallStatus::INVALID_OPERAND.0, 0)),
            map_gpa(SHARED | 0x10_0000, 0x1000, (CallStatus::SUCCESS.0, 0)),
            map_gpa(0, 0x1000, (CallStatus::SUCCESS.0, 0)),
        ];
        let bytes: Vec<_> =
            track(calls.clone(), "shared memory").iter().map(|values| values["bytes"].clone()).collect();
        assert_eq!(bytes, [0x2000, 0x1000, 0x1000].map(|bytes: u64| json!(bytes)));
        let last = track(calls, "conversions").pop();
        assert_eq!(last, Some(json!({"to private": 1, "to shared": 3})));
    }

    #[test]
    fn calls_and_violations_are_counted_by_the_millisecond_and_none_is_said_where_none_were() {
        let at =
            |milliseconds: u64, call: Recorded| Recorded { at: Ticks::new(milliseconds * 1_000_000), ..call };
        let violation =
            |gpa: u64| enter(Gprs { rax: u64::from(ExitReason::EPT_VIOLATION.0), r8: gpa, ..Gprs::ZERO });
        let calls = vec![
            at(0, call(TdhLeaf::MEM_TRACK, 0, 0)),
            at(0, violation(SHARED | 0x1000)),
            at(1, violation(0x1000)),
            at(5, call(TdhLeaf::MEM_TRACK, 0, 0)),
        ];
        let told = track(calls.clone(), "SEAMCALLs per ms");
        let counts: Vec<_> = told.iter().map(|values| values["calls"].as_u64().unwrap()).collect();
        assert_eq!(counts, [2, 1, 0, 1, 0]);
        let told = track(calls, "EPT violations per ms");
        let counts: Vec<_> =
            told.iter().map(|values| (values["private"].clone(), values["shared"].clone())).collect();
        assert_eq!(counts, [(json!(0), json!(1)), (json!(1), json!(0)), (json!(0), json!(0))]);
    }

    #[test]
    fn ranges_that_overlap_are_counted_once_and_cut() {
        let mut ranges = Ranges::default();
        ranges.insert(0, 10);
        ranges.insert(5, 20);
        assert_eq!(ranges.bytes, 20);
        ranges.remove(8, 12);
        assert_eq!((ranges.bytes, ranges.ends.len()), (16, 3));
        ranges.insert(0, 20);
        assert_eq!((ranges.bytes, ranges.ends.len()), (20, 1));
        ranges.remove(0, u64::MAX);
        assert_eq!(ranges.bytes, 0);
    }
}
