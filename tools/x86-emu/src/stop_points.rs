//! Stop points: addresses at which the owner of a CPU wants it back, whatever the guest's debug registers say.
//!
//! # Protocol
//! - The owner hands over the whole list with [`Cpu::set_stop_points`]; addresses are linear, in every address space.
//! - A stop point for execution ends the run with [`crate::Exit::StopPoint`] before anything of the instruction happens; one
//!   for data ends it behind the instruction that made the access. The guest sees nothing of either: no #DB, no bit of
//!   DR6, and its memory is what it was.
//! - [`Cpu::pass_stop_point`] lets the instruction at RIP execute once although a stop point lies there.
//!
//! They are kept beside the guest's breakpoints and found on the same slow paths: a CPU without any pays nothing.

use crate::cpu::Cpu;
use crate::exits::Exit;
use crate::stop::Reason;

/// What a stop point waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum StopOn {
    /// The first byte of an instruction that is about to execute.
    Execution,
    /// Writes.
    Write,
    /// Reads. An instruction that reads and writes its operand does both.
    Read,
    /// Reads and writes.
    Access,
}

/// Where the owner wants its CPU back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct StopPoint {
    /// The first linear address covered.
    pub address: u64,
    /// Bytes covered; only the first counts where execution is waited for.
    pub bytes: u64,
    /// What is waited for.
    pub on: StopOn,
}

impl StopPoint {
    const fn last(&self) -> u64 {
        let bytes = if matches!(self.on, StopOn::Execution) || self.bytes == 0 { 1 } else { self.bytes };
        self.address.saturating_add(bytes - 1)
    }

    /// Whether any of these bytes is covered.
    pub(crate) const fn covers(&self, first: u64, last: u64) -> bool {
        self.address <= last && first <= self.last()
    }
}

/// An instruction that executes although a stop point lies at it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Passed {
    linear: u64,
    /// [`Cpu::retired`] when it was allowed: it lasts until something has executed.
    retired: u64,
}

impl Cpu {
    /// Replaces the stop points.
    pub fn set_stop_points(&mut self, points: &[StopPoint]) {
        if self.breakpoints.set_stop_points(points) {
            self.tlb.flush_linear();
        }
    }

    /// Lets the instruction at RIP execute although a stop point lies at it. It lasts until an instruction has executed, so
    /// one that ends in an exit can be run again.
    pub fn pass_stop_point(&mut self) {
        self.refresh_mode();
        self.passed = Some(Passed { linear: self.code_linear(self.state.rip()), retired: self.retired() });
    }

    /// The stop point that ends the run before the instruction at this address.
    pub(crate) fn stop_point_at(&self, linear: u64) -> Option<StopPoint> {
        if self.passed == Some(Passed { linear, retired: self.retired() }) {
            return None;
        }
        self.breakpoints.stop_point(|on| on == StopOn::Execution, linear, linear)
    }

    /// Ends the run behind an instruction that has completed and met a stop point for data; forgets what an instruction met
    /// that did not complete.
    #[cold]
    pub(crate) fn settle_stop_point<R>(&mut self, completed: bool) -> Option<Exit<R>> {
        let met = self.met_stop_point.take();
        // An iteration of a repeated string instruction has been done as well.
        met.filter(|_| completed || matches!(self.stop, Reason::Continue)).map(Exit::StopPoint)
    }
}
