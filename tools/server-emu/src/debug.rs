//! The host's processors under a debugger.
//!
//! A processor is halted and stepped between two of its turns' slices, where nothing of the machine is under way. One that sleeps,
//! is parked or is in a TD comes to its next turn first: what is seen of it meanwhile is where it left its instructions.

use std::ops::Range;

use seam_emu::guest::debug::{DebugLine, Debuggable, HostMemory, Next, Space, StopReason};
use tdvisor_base::sync::AtomicBool;
use tdx_module_iface::TdhLeaf;
use x86_emu::{Budget, Cpu, Engine, Exit};

use crate::layout::{HIGH_RAM, LOW_RAM_LIMIT, SEAM_BASE, SEAM_BYTES};
use crate::processor::{Flow, Processor};
use crate::server::Server;

/// A processor at this moment.
struct At<'s> {
    server: &'s Server,
    index: usize,
}

impl Debuggable for At<'_> {
    fn lp(&self) -> usize {
        self.index
    }

    fn space(&self) -> Space {
        Space::of_host(HostMemory::new(&memory(self.server.machine.memory().bytes())))
    }

    fn is_wanted(&self) -> bool {
        self.server.has_ended()
    }

    fn turn_is_over(&self) -> bool {
        false
    }
}

/// Where a host has memory, of an arena of so many bytes.
fn memory(bytes: u64) -> [Range<u64>; 3] {
    let below = |end: u64| end.min(bytes);
    [0..below(SEAM_BASE), below(SEAM_BASE + SEAM_BYTES)..below(LOW_RAM_LIMIT), HIGH_RAM..bytes.max(HIGH_RAM)]
}

/// A processor's line to the debug port, if its server is debugged.
pub(crate) struct Line<'s> {
    line: Option<DebugLine>,
    at: At<'s>,
}

impl<'s> Line<'s> {
    pub(crate) fn new(server: &'s Server, index: usize) -> Self {
        let line = server.debug.clone().map(DebugLine::new);
        Self { line, at: At { server, index } }
    }

    /// What to do now. Waits while the processor is halted.
    pub(crate) fn next(&mut self, cpu: &mut Cpu) -> Next {
        self.line.as_mut().map_or(Next::Run, |line| line.next(cpu, &self.at))
    }

    /// The processor stops executing by itself; what is next is looked at when it comes back.
    pub(crate) fn leave(&mut self, cpu: &Cpu) {
        if let Some(line) = &mut self.line {
            line.leave(cpu, &self.at, None);
            line.enter();
        }
    }

    /// The processor met something that stops everybody.
    pub(crate) fn stopped(&mut self, reason: StopReason) {
        if let Some(line) = &mut self.line {
            line.stopped(&self.at, reason);
        }
    }

    /// The host is about to call the module: whoever waits for that may look first.
    pub(crate) fn calls(&mut self, cpu: &Cpu, leaf: TdhLeaf) {
        if let Some(line) = &mut self.line {
            line.calls(cpu, &self.at, leaf);
        }
    }

    /// The machine is about to end: the debugger may look first.
    pub(crate) fn hold(&mut self, cpu: &Cpu, reason: StopReason) {
        if let Some(line) = &mut self.line {
            line.hold(cpu, &self.at, reason);
        }
    }
}

impl Processor<'_> {
    /// Executes one instruction for a debugger: interrupts do not come in between.
    pub(crate) fn step(&mut self) -> Flow {
        let quiet = AtomicBool::new(false);
        let windows = (self.cpu.controls.interrupt_window, self.cpu.controls.nmi_window);
        (self.cpu.controls.interrupt_window, self.cpu.controls.nmi_window) = (false, false);
        self.cpu.pass_stop_point();
        // With an event that waits, the step is to its handler.
        let budget = Budget(u64::from(self.cpu.state.event.is_none()));
        let exit = self.engine.run(&mut self.cpu, &mut self.bus, budget, &quiet);
        self.pass_time(budget.0);
        (self.cpu.controls.interrupt_window, self.cpu.controls.nmi_window) = windows;
        if exit == Exit::BudgetExhausted {
            self.debug.stopped(StopReason::Step);
        }
        self.settle(exit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debugger_sees_memory_where_the_host_has_some() {
        let has = |bytes: u64, at: u64| memory(bytes).iter().any(|range| range.contains(&at));
        assert!(has(64 << 20, 0x1000) && !has(64 << 20, 64 << 20));
        for at in [SEAM_BASE, SEAM_BASE + SEAM_BYTES - 1, LOW_RAM_LIMIT, HIGH_RAM - 1] {
            assert!(!has(8 << 30, at), "{at:#x}");
        }
        assert!(has(8 << 30, SEAM_BASE - 1) && has(8 << 30, HIGH_RAM));
    }
}
