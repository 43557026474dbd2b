//! Every SEAMCALL counted, and, where asked for, written down.
//!
//! A trace is one JSON object a line, with the field names of a recording: `n`, `lp`, `op`, `leaf`, `in`, `out`.
//! `in` has RAX and what is not zero, `out` has RAX, what is not zero and what the call changed: whichever of zero and
//! "as it was" a reader takes an unlisted register of `out` for, it is both. `tdvisor decode` explains it.
//!
//! A file has [`MAX_BYTES`] at most, or as many as whoever asks for it says; calls beyond that are counted and not written.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use seam_emu::machine::Recent;
use serde_json::{Map, Value, json};
use td_host::platform::LpId;
use tdx_module_iface::{Gprs, Status, TdhLeaf};

use crate::journal::Journal;
use crate::outlet::{Metered, Outlet};

/// The largest trace that is written.
pub const MAX_BYTES: u64 = 8 << 30;
/// Bytes that wait for the file.
const QUEUE: usize = 1 << 20;

/// Leaf numbers that are counted apart; the module has none above.
const LEAVES: usize = 256;

/// A SEAMCALL, and what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// The processor.
    pub lp: LpId,
    /// Which.
    pub leaf: TdhLeaf,
    /// What the module answered; `None` where it was not reached.
    pub status: Option<Status>,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on LP {}: ", self.leaf, self.lp.0)?;
        match self.status {
            Some(status) => status.code().fmt(f),
            None => f.write_str("the module was not reached"),
        }
    }
}

/// A SEAMCALL as an observer sees it.
#[derive(Clone, Copy, Debug)]
pub struct ObservedCall<'c> {
    /// The processor.
    pub lp: LpId,
    /// The registers before the call.
    pub before: &'c Gprs,
    /// The registers after the call.
    pub after: &'c Gprs,
    /// Whether the module was reached.
    pub reached: bool,
    /// How long it took, by the clock of the machine that emulates.
    pub took: Duration,
}

/// Hears of every SEAMCALL, on the thread that made it.
pub trait CallObserver: Send + Sync {
    /// A call has ended.
    fn called(&self, call: &ObservedCall<'_>);
}

/// Counts, the last calls, and the file if there is one.
pub struct Trace {
    counts: Box<[AtomicU64]>,
    last: Recent<Call>,
    file: Option<Log>,
    journal: Option<Arc<Journal>>,
    observers: Vec<Arc<dyn CallObserver>>,
}

struct Log {
    outlet: Outlet,
    /// Held while a call is sent, so that the file is in order.
    writer: Mutex<Writer>,
}

struct Writer {
    out: Metered,
    /// The next call's number.
    next: u64,
}

impl Trace {
    /// Counts only.
    pub fn counting() -> Self {
        Self {
            counts: (0..LEAVES).map(|_| AtomicU64::new(0)).collect(),
            last: Recent::default(),
            file: None,
            journal: None,
            observers: Vec::new(),
        }
    }

    /// Counts, and writes every call to this file.
    pub fn to_file(file: File) -> Self {
        Self::to_file_within(file, MAX_BYTES)
    }

    /// Counts, and writes every call to this file until it has so many bytes.
    pub fn to_file_within(file: File, bytes: u64) -> Self {
        let outlet = Outlet::new(file, QUEUE);
        let writer = Mutex::new(Writer { out: Metered::new(outlet.clone(), bytes), next: 0 });
        Self { file: Some(Log { outlet, writer }), ..Self::counting() }
    }

    /// Keeps the last calls in this journal, too.
    #[must_use]
    pub fn with_journal(self, journal: Arc<Journal>) -> Self {
        Self { journal: Some(journal), ..self }
    }

    /// Tells this observer of every call, too.
    #[must_use]
    pub fn observed_by(mut self, observer: Arc<dyn CallObserver>) -> Self {
        self.observers.push(observer);
        self
    }

    /// Who is told of every call.
    pub(crate) fn observers(&self) -> &[Arc<dyn CallObserver>] {
        &self.observers
    }

    /// The journal, if there is one.
    pub fn journal(&self) -> Option<&Arc<Journal>> {
        self.journal.as_ref()
    }

    /// Where the calls are written, if they are.
    pub fn outlet(&self) -> Option<&Outlet> {
        self.file.as_ref().map(|log| &log.outlet)
    }

    /// Waits until everything is in the file.
    ///
    /// # Panics
    /// Some of it is not: for tests, which have no use for a part.
    pub fn finish(&self) {
        if let Some(outlet) = self.outlet() {
            let loss = outlet.drain(|| false);
            assert!(loss.failed.is_none(), "{loss:?}");
        }
    }

    /// Bytes of calls that were too many for the file. Waits for a call that is being written.
    pub fn dropped(&self) -> u64 {
        self.file.as_ref().map_or(0, |log| log.lock().out.dropped())
    }

    /// Notes one call.
    pub fn record(&self, lp: LpId, before: &Gprs, after: &Gprs, reached: bool) {
        let leaf = before.rax as u16;
        if let Some(count) = self.counts.get(usize::from(leaf)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let status = reached.then_some(Status::from_raw(after.rax));
        self.last.push(Call { lp, leaf: TdhLeaf(leaf), status });
        if let Some(log) = &self.file {
            log.write(lp, before, after, reached);
        }
    }

    /// How many calls there were, by leaf number.
    pub(crate) fn counts(&self) -> Vec<u64> {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }

    /// Counts on, and numbers calls on, from what [`Self::counts`] gave.
    pub(crate) fn count_on(&self, counts: &[u64]) {
        for (place, count) in self.counts.iter().zip(counts) {
            place.store(*count, Ordering::Relaxed);
        }
        if let Some(log) = &self.file {
            log.lock().next = counts.iter().fold(0, |sum: u64, count| sum.saturating_add(*count));
        }
    }

    /// The last calls, oldest first.
    pub fn last_calls(&self) -> Vec<Call> {
        self.last.all()
    }

    /// Calls by leaf, those that were made.
    pub fn calls(&self) -> BTreeMap<String, u64> {
        (0u16..)
            .zip(&self.counts)
            .map(|(leaf, count)| (TdhLeaf(leaf).to_string(), count.load(Ordering::Relaxed)))
            .filter(|(_, count)| *count != 0)
            .collect()
    }
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, lp: LpId, before: &Gprs, after: &Gprs, reached: bool) {
        let mut writer = self.lock();
        let mut line = json!({
            "n": writer.next,
            "lp": lp.0,
            "op": "seamcall",
            "leaf": TdhLeaf(before.rax as u16).to_string(),
            "in": registers(before, before),
        });
        if reached {
            line["out"] = registers(after, before);
        }
        writer.next += 1;
        let mut line = line.to_string();
        line.push('\n');
        writer.out.send(line.as_bytes());
    }
}

/// RAX always, others where they are not zero or not what they were.
fn registers(gprs: &Gprs, before: &Gprs) -> Value {
    let shown: Map<String, Value> = gprs
        .iter()
        .filter(|(reg, value)| *value != 0 || *value != before.get(*reg) || reg.index() == 0)
        .map(|(reg, value)| (reg.name().to_owned(), Value::String(format!("{value:#x}"))))
        .collect();
    Value::Object(shown)
}
