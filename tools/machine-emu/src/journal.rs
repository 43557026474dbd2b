//! The last calls, in memory: for an inspector, which shows what led to a state.
//!
//! Calls about guest memory (TDH.MEM.*, EPT violations, the guest's ACCEPTs) and all others have a ring each, so that a guest
//! that waits in a loop does not push the history of its memory out.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use seam_emu::machine::TdcallObserver;
use tdvisor_base::Ticks;
use tdx_module_iface::exit::ExitReason;
use tdx_module_iface::{Gprs, LeafWord, TdgLeaf, TdhLeaf};

/// Calls about memory that are kept.
const MEMORY_CALLS: usize = 100_000;
/// Other calls that are kept.
const OTHER_CALLS: usize = 20_000;

/// Who made a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// The host, by SEAMCALL.
    Host,
    /// A guest, by TDCALL.
    Guest,
}

/// A call.
#[derive(Clone, Copy, Debug)]
pub struct Recorded {
    /// Calls are numbered from 0 as they end.
    pub number: u64,
    /// When the call began, by the machine's time-stamp counter.
    pub at: Ticks,
    /// How long it took.
    pub took: Ticks,
    /// The logical processor.
    pub lp: u32,
    /// Who made it.
    pub by: Caller,
    /// The registers before the call.
    pub before: Gprs,
    /// The registers after the call; `None` where it did not return.
    pub after: Option<Gprs>,
}

/// The last calls of a machine.
#[derive(Debug, Default)]
pub struct Journal(Mutex<Rings>);

#[derive(Debug, Default)]
struct Rings {
    next: u64,
    memory: VecDeque<Recorded>,
    others: VecDeque<Recorded>,
}

impl Journal {
    fn lock(&self) -> MutexGuard<'_, Rings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a call that has ended; its number is given here.
    pub(crate) fn note(&self, call: Recorded) {
        let mut rings = self.lock();
        let call = Recorded { number: rings.next, ..call };
        rings.next += 1;
        let (ring, most) = match is_about_memory(&call) {
            true => (&mut rings.memory, MEMORY_CALLS),
            false => (&mut rings.others, OTHER_CALLS),
        };
        if ring.len() == most {
            ring.pop_front();
        }
        ring.push_back(call);
    }

    /// The calls that are kept, oldest first, and how many were not.
    pub fn calls(&self) -> (Vec<Recorded>, u64) {
        let rings = self.lock();
        let mut calls: Vec<_> = rings.memory.iter().chain(&rings.others).copied().collect();
        let lost = rings.next - calls.len() as u64;
        drop(rings);
        calls.sort_unstable_by_key(|call| call.number);
        (calls, lost)
    }
}

fn is_about_memory(call: &Recorded) -> bool {
    match call.by {
        Caller::Guest => true,
        Caller::Host if call.before.rax as u16 == TdhLeaf::VP_ENTER.0 => {
            call.after.is_some_and(|after| after.rax as u16 == ExitReason::EPT_VIOLATION.0)
        }
        Caller::Host => is_memory_leaf(TdhLeaf(call.before.rax as u16)),
    }
}

/// Whether RCX of a SEAMCALL is a guest-physical address and a level.
pub fn is_memory_leaf(leaf: TdhLeaf) -> bool {
    leaf.name().is_some_and(|name| name.starts_with("TDH.MEM."))
        && leaf != TdhLeaf::MEM_TRACK
        && leaf != TdhLeaf::MEM_SEPT_RD
}

/// Guests' ACCEPTs only: operands of other leaves are between a guest and the module.
impl TdcallObserver for JournalOf {
    fn tdcall(&self, lp: usize, before: &Gprs, after: Option<&Gprs>) {
        if LeafWord(before.rax).leaf() != TdgLeaf::MEM_PAGE_ACCEPT.0 {
            return;
        }
        let Some(machine) = self.machine.upgrade() else { return };
        // Nothing but the operand: the other registers are the guest's own.
        let of = |gprs: &Gprs| Gprs { rax: gprs.rax, rcx: gprs.rcx, ..Gprs::ZERO };
        self.journal.note(Recorded {
            number: 0,
            at: Ticks::new(machine.tsc()),
            took: Ticks::new(0),
            lp: lp as u32,
            by: Caller::Guest,
            before: of(before),
            after: after.map(|after| Gprs { rcx: before.rcx, ..of(after) }),
        });
    }
}

/// The journal of a machine, as its guests' TDCALLs are noted in it.
pub(crate) struct JournalOf {
    pub(crate) journal: std::sync::Arc<Journal>,
    pub(crate) machine: std::sync::Weak<seam_emu::Machine>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(leaf: TdhLeaf, rcx: u64) -> Recorded {
        let before = Gprs { rax: u64::from(leaf.0), rcx, ..Gprs::ZERO };
        let (at, took) = (Ticks::new(0), Ticks::new(1));
        Recorded { number: 0, at, took, lp: 0, by: Caller::Host, before, after: Some(Gprs::ZERO) }
    }

    #[test]
    fn a_guest_that_waits_does_not_push_the_history_of_its_memory_out() {
        let journal = Journal::default();
        journal.note(call(TdhLeaf::MEM_PAGE_AUG, 0x1000));
        for _ in 0..OTHER_CALLS + 5 {
            journal.note(call(TdhLeaf::VP_ENTER, 0));
        }
        let (calls, lost) = journal.calls();
        assert_eq!(calls.first().map(|first| (first.number, first.before.rcx)), Some((0, 0x1000)));
        assert_eq!((calls.len(), lost), (OTHER_CALLS + 1, 5));
        assert!(calls.windows(2).all(|pair| pair[0].number < pair[1].number));
    }
}
