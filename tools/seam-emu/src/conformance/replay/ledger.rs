//! What one replayed sequence came to so far.

use std::cell::RefCell;

use tdx_module_iface::Gprs;

use crate::conformance::compare::{CallSite, Comparison, Difference, Side};
use crate::conformance::model::Expected;

/// Whether the replay of a sequence can go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The two machines are still in the same state, as far as can be told.
    GoOn,
    /// Recording and emulator are not in step any more: what follows cannot agree.
    Abandon,
}

#[derive(Default)]
struct Entries {
    agreeing: u64,
    soft: u64,
    differences: u64,
    first: Option<(CallSite, Difference)>,
    abandoned: bool,
}

/// Collects calls that agree and differences. Shared by nested calls, hence the cell.
#[derive(Default)]
pub struct Ledger(RefCell<Entries>);

/// The final counts.
pub struct Balance {
    /// Calls that agree.
    pub agreeing: u64,
    /// Registers that differ and may.
    pub soft: u64,
    /// Differences.
    pub differences: u64,
    /// The first difference.
    pub first: Option<(CallSite, Difference)>,
    /// Whether the sequence was given up.
    pub abandoned: bool,
}

impl Ledger {
    /// A call agrees.
    pub fn agree(&self) {
        self.0.borrow_mut().agreeing += 1;
    }

    /// Something differs; the sequence goes on.
    pub fn differ(&self, site: impl FnOnce() -> CallSite, difference: Difference) {
        let mut entries = self.0.borrow_mut();
        entries.differences += 1;
        if entries.first.is_none() {
            entries.first = Some((site(), difference));
        }
    }

    /// Something differs, after which nothing can agree.
    pub fn abandon(&self, site: impl FnOnce() -> CallSite, difference: Difference) {
        self.differ(site, difference);
        self.0.borrow_mut().abandoned = true;
    }

    /// Whether the sequence was given up.
    pub fn is_abandoned(&self) -> bool {
        self.0.borrow().abandoned
    }

    /// Compares and books one call.
    pub fn compare(
        &self,
        site: impl FnOnce() -> CallSite,
        side: Side,
        expected: &Expected,
        input: &Gprs,
        actual: &Gprs,
    ) -> Verdict {
        let comparison = Comparison::of(expected, input, actual);
        self.0.borrow_mut().soft += comparison.soft.len() as u64;
        if comparison.agrees() {
            self.agree();
            return Verdict::GoOn;
        }
        let verdict = if comparison.status_differs() { Verdict::Abandon } else { Verdict::GoOn };
        let difference = Difference::Registers {
            side,
            input: Box::new(*input),
            expected: Box::new(*expected),
            actual: Box::new(*actual),
            registers: comparison.different,
        };
        match verdict {
            Verdict::GoOn => self.differ(site, difference),
            Verdict::Abandon => self.abandon(site, difference),
        }
        verdict
    }

    /// Compares registers after an instruction that is no call and does not count as one.
    pub fn check(&self, site: impl FnOnce() -> CallSite, expected: &Expected, input: &Gprs, actual: &Gprs) {
        let registers = Comparison::of(expected, input, actual).different;
        if !registers.is_empty() {
            let difference = Difference::Registers {
                side: Side::Guest,
                input: Box::new(*input),
                expected: Box::new(*expected),
                actual: Box::new(*actual),
                registers,
            };
            self.differ(site, difference);
        }
    }

    /// The final counts.
    pub fn close(self) -> Balance {
        let entries = self.0.into_inner();
        Balance {
            agreeing: entries.agreeing,
            soft: entries.soft,
            differences: entries.differences,
            first: entries.first,
            abandoned: entries.abandoned,
        }
    }
}
