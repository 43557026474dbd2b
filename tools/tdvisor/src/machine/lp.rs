//! Logical processors: possession, interrupts, sleep.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use seam_emu::Machine;
use tdvisor_base::Hpa;
use tdx_module_iface::{Gprs, SeamCall, SeamCallFault};
use vmm_core::platform::{Lp, LpId, PendingEvents};

use super::timer::Timers;
use super::trace::Trace;

/// What is known of each processor outside the module.
pub struct Processors {
    machine: Arc<Machine>,
    states: Box<[Processor]>,
}

#[derive(Default)]
struct Processor {
    state: Mutex<State>,
    /// Signalled when the processor is given back, and when an event arrives.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    taken: bool,
    pending: PendingEvents,
}

impl Processor {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Processors {
    /// `count` processors of a machine.
    pub fn new(machine: Arc<Machine>, count: usize) -> Self {
        Self { machine, states: (0..count).map(|_| Processor::default()).collect() }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.states.len()
    }

    /// Makes an IPI pending. A guest that runs there, or is entered next, exits.
    pub fn send_ipi(&self, lp: LpId) {
        self.raise(lp, PendingEvents { ipi: true, timer: false });
    }

    /// Makes the timer interrupt pending.
    pub fn timer_expired(&self, lp: LpId) {
        self.raise(lp, PendingEvents { ipi: false, timer: true });
    }

    fn raise(&self, lp: LpId, events: PendingEvents) {
        let Some(processor) = self.states.get(lp.0 as usize) else { return };
        let mut state = processor.lock();
        state.pending.ipi |= events.ipi;
        state.pending.timer |= events.timer;
        // Under the lock, so that an acknowledgement cannot clear the machine's flag after it was set anew.
        self.machine.set_interrupt_pending(lp.0 as usize, true);
        drop(state);
        processor.changed.notify_all();
    }
}

/// Possession of one emulated processor; given back when dropped.
pub struct EmulatedLp<'p> {
    cpu: seam_emu::Lp<&'p Machine>,
    processor: &'p Processor,
    timers: &'p Timers,
    trace: &'p Trace,
    id: LpId,
}

impl<'p> EmulatedLp<'p> {
    /// Waits until nobody else has the processor.
    pub(super) fn take(
        machine: &'p Machine,
        processors: &'p Processors,
        timers: &'p Timers,
        trace: &'p Trace,
        id: LpId,
    ) -> Option<Self> {
        let cpu = machine.lp(id.0 as usize)?;
        let processor = processors.states.get(id.0 as usize)?;
        let mut state = processor.lock();
        while state.taken {
            state = processor.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.taken = true;
        drop(state);
        Some(Self { cpu, processor, timers, trace, id })
    }
}

impl Drop for EmulatedLp<'_> {
    fn drop(&mut self) {
        self.processor.lock().taken = false;
        self.processor.changed.notify_all();
    }
}

impl SeamCall for EmulatedLp<'_> {
    fn seamcall(&mut self, gprs: &mut Gprs) -> Result<(), SeamCallFault> {
        let before = *gprs;
        let result = self.cpu.seamcall(gprs);
        self.trace.record(self.id, &before, gprs, result.is_ok());
        result
    }
}

impl Lp for EmulatedLp<'_> {
    fn id(&self) -> LpId {
        self.id
    }

    fn invept(&mut self, _root: Hpa) {
        self.cpu.machine().invept(self.id.0 as usize);
    }

    fn wbinvd(&mut self) {
        self.cpu.machine().wbinvd(self.id.0 as usize);
    }

    fn set_timer(&mut self, deadline: Option<u64>) {
        let machine = self.cpu.machine();
        let hz = machine.config().tsc_hz.max(1);
        let in_nanos = deadline.map(|deadline| {
            let ticks = u128::from(deadline.saturating_sub(machine.tsc()));
            u64::try_from(ticks * 1_000_000_000 / u128::from(hz)).unwrap_or(u64::MAX)
        });
        self.timers.set(self.id, in_nanos.map(std::time::Duration::from_nanos));
    }

    fn wait_for_event(&mut self) {
        let mut state = self.processor.lock();
        while !(state.pending.ipi || state.pending.timer) {
            state = self.processor.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn acknowledge_events(&mut self) -> PendingEvents {
        let mut state = self.processor.lock();
        let pending = std::mem::take(&mut state.pending);
        self.cpu.machine().set_interrupt_pending(self.id.0 as usize, false);
        pending
    }
}
