//! Every SEAMCALL counted, and, where asked for, written down.
//!
//! A trace is one JSON object a line, with the field names of a recording: `n`, `lp`, `op`, `leaf`, `in`, `out`.
//! Registers that are zero are left out. `tdvisor decode` explains it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value, json};
use tdx_module_iface::{Gprs, TdhLeaf};
use vmm_core::platform::LpId;

/// Leaf numbers that are counted apart; the module has none above.
const LEAVES: usize = 256;

/// Counts, and the file if there is one.
pub struct Trace {
    counts: Box<[AtomicU64]>,
    file: Option<Mutex<Log>>,
}

struct Log {
    out: BufWriter<File>,
    next: u64,
    failed: Option<io::Error>,
}

impl Trace {
    /// Counts only.
    pub fn counting() -> Self {
        Self { counts: (0..LEAVES).map(|_| AtomicU64::new(0)).collect(), file: None }
    }

    /// Counts, and writes every call to a new file.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn to_file(path: &Path) -> io::Result<Self> {
        let out = BufWriter::new(File::create(path)?);
        Ok(Self { file: Some(Mutex::new(Log { out, next: 0, failed: None })), ..Self::counting() })
    }

    /// Notes one call.
    pub fn record(&self, lp: LpId, before: &Gprs, after: &Gprs, reached: bool) {
        let leaf = before.rax as u16;
        if let Some(count) = self.counts.get(usize::from(leaf)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(log) = &self.file {
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            log.write(lp, before, after, reached);
        }
    }

    /// Calls by leaf, those that were made.
    pub fn calls(&self) -> BTreeMap<String, u64> {
        (0u16..)
            .zip(&self.counts)
            .map(|(leaf, count)| (TdhLeaf(leaf).to_string(), count.load(Ordering::Relaxed)))
            .filter(|(_, count)| *count != 0)
            .collect()
    }

    /// Writes out what is buffered.
    ///
    /// # Errors
    /// The first write that failed: the trace is incomplete.
    pub fn finish(&self) -> io::Result<()> {
        let Some(log) = &self.file else { return Ok(()) };
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        match log.failed.take() {
            Some(error) => Err(error),
            None => log.out.flush(),
        }
    }
}

impl Log {
    fn write(&mut self, lp: LpId, before: &Gprs, after: &Gprs, reached: bool) {
        if self.failed.is_some() {
            return;
        }
        let mut line = json!({
            "n": self.next,
            "lp": lp.0,
            "op": "seamcall",
            "leaf": TdhLeaf(before.rax as u16).to_string(),
            "in": registers(before),
        });
        if reached {
            line["out"] = registers(after);
        }
        self.next += 1;
        if let Err(error) = writeln!(self.out, "{line}") {
            self.failed = Some(error);
        }
    }
}

/// RAX always, others where they are not zero.
fn registers(gprs: &Gprs) -> Value {
    let shown: Map<String, Value> = gprs
        .iter()
        .filter(|(reg, value)| *value != 0 || reg.index() == 0)
        .map(|(reg, value)| (reg.name().to_owned(), Value::String(format!("{value:#x}"))))
        .collect();
    Value::Object(shown)
}
