//! What SEAMCALLs the host made.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use tdx_module_iface::{Gprs, LeafWord, Status, StatusCode, TdhLeaf};

/// One SEAMCALL, complete.
#[derive(Clone, Copy, Debug)]
pub struct ObservedCall {
    /// The processor.
    pub processor: usize,
    /// Registers before.
    pub before: Gprs,
    /// Registers after.
    pub after: Gprs,
    /// Nobody answered: CF was 1.
    pub failed_invalid: bool,
}

/// Who wants to see every SEAMCALL.
pub trait Observer: Send + Sync {
    /// Called on the processor's thread after each SEAMCALL.
    fn observe(&self, call: &ObservedCall);
}

/// The most different pairs of leaf and status that are counted apart; the rest is counted together.
const LIMIT: usize = 1024;

/// How often each leaf ended with each status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// By leaf and by the status without its operand.
    pub by_leaf: BTreeMap<(TdhLeaf, StatusCode), u64>,
    /// Calls that nobody answered.
    pub failed_invalid: u64,
    /// Calls beyond the bound of what is counted apart.
    pub others: u64,
}

/// Counts calls, and shows them to an observer.
#[derive(Default)]
pub struct Record {
    counts: Mutex<Counts>,
    observer: Option<Box<dyn Observer>>,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record").field("counts", &self.counts).finish_non_exhaustive()
    }
}

impl Record {
    /// A record that shows each call to `observer`.
    pub fn observed_by(observer: Box<dyn Observer>) -> Self {
        Self { counts: Mutex::default(), observer: Some(observer) }
    }

    pub(crate) fn note(&self, call: &ObservedCall) {
        if let Some(observer) = &self.observer {
            observer.observe(call);
        }
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if call.failed_invalid {
            counts.failed_invalid += 1;
            return;
        }
        let key = (TdhLeaf(LeafWord(call.before.rax).leaf()), Status::from_raw(call.after.rax).code());
        if counts.by_leaf.len() >= LIMIT && !counts.by_leaf.contains_key(&key) {
            counts.others += 1;
        } else {
            *counts.by_leaf.entry(key).or_default() += 1;
        }
    }

    /// Goes on from these counts.
    pub(crate) fn restore(&self, counts: Counts) {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = counts;
    }

    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
