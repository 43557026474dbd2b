//! Logical processors: possession, interrupts, sleep.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use seam_emu::Machine;
use serde::{Deserialize, Serialize};
use td_host::platform::{Lp, LpId, PendingEvents};
use tdvisor_base::{Hpa, Ticks};
use tdx_module_iface::{Gprs, SeamCall, SeamCallFault, TdhLeaf};

use crate::journal::{Caller, Recorded};
use crate::timer::Timers;
use crate::trace::{ObservedCall, Trace};
use crate::turns::Turns;

/// What is known of each processor outside the module.
pub struct Processors {
    machine: Arc<Machine>,
    states: Box<[Processor]>,
    /// Where processors take turns.
    turns: Option<Arc<Turns>>,
}

/// What is pending on a processor: as a snapshot holds it.
#[derive(Debug, Serialize, Deserialize)]
pub struct SavedEvents {
    ipi: bool,
    timer: bool,
    line: bool,
}

/// How time passes and who runs.
pub enum Timing {
    /// Processors run side by side, timers follow the host's clock.
    Real(Timers),
    /// One at a time, in virtual time.
    Turns(Arc<Turns>),
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
    /// `count` processors of a machine, which may have to take turns.
    pub fn new(machine: Arc<Machine>, count: usize, turns: Option<Arc<Turns>>) -> Self {
        Self { machine, states: (0..count).map(|_| Processor::default()).collect(), turns }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.states.len()
    }

    /// What is pending on each processor, and whether the machine was told of it.
    pub fn save(&self) -> Vec<SavedEvents> {
        let one = |(index, processor): (usize, &Processor)| {
            let PendingEvents { ipi, timer } = processor.lock().pending;
            SavedEvents { ipi, timer, line: self.machine.is_interrupt_pending(index) }
        };
        self.states.iter().enumerate().map(one).collect()
    }

    /// Takes over what [`Self::save`] gave; `None` where it is of another number of processors.
    pub fn restore(&self, saved: Vec<SavedEvents>) -> Option<()> {
        if saved.len() != self.states.len() {
            return None;
        }
        for (index, SavedEvents { ipi, timer, line }) in saved.into_iter().enumerate() {
            self.states.get(index)?.lock().pending = PendingEvents { ipi, timer };
            self.machine.set_interrupt_pending(index, line);
        }
        Some(())
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
        if let Some(turns) = &self.turns {
            turns.wake(lp);
        }
    }
}

/// Possession of one emulated processor; given back when dropped.
pub struct EmulatedLp<'p> {
    cpu: seam_emu::Lp<&'p Machine>,
    processor: &'p Processor,
    timing: &'p Timing,
    trace: &'p Trace,
    id: LpId,
}

impl<'p> EmulatedLp<'p> {
    /// Waits until nobody else has the processor.
    pub(super) fn take(
        machine: &'p Machine,
        processors: &'p Processors,
        timing: &'p Timing,
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
        Some(Self { cpu, processor, timing, trace, id })
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
        let enters = before.rax as u16 == TdhLeaf::VP_ENTER.0;
        if enters {
            self.show_events();
            if let Timing::Turns(turns) = self.timing {
                let machine = self.cpu.machine();
                machine.set_quantum(self.id.0 as usize, Some(turns.quantum(machine)));
            }
        }
        let began = self.trace.journal().map(|_| self.cpu.machine().tsc());
        let observers = self.trace.observers();
        let observed = (!observers.is_empty()).then(Instant::now);
        let result = self.cpu.seamcall(gprs);
        if let Some(began) = observed {
            let (lp, reached, took) = (self.id, result.is_ok(), began.elapsed());
            let call = ObservedCall { lp, before: &before, after: gprs, reached, took };
            observers.iter().for_each(|observer| observer.called(&call));
        }
        if !enters && gprs.rax != 0 {
            // A leaf that can be interrupted would be, again and again.
            self.take_interrupts();
        }
        self.trace.record(self.id, &before, gprs, result.is_ok());
        if let (Some(journal), Some(began)) = (self.trace.journal(), began) {
            let (at, now) = (Ticks::new(began), Ticks::new(self.cpu.machine().tsc()));
            let after = result.is_ok().then_some(*gprs);
            let (took, lp) = (now.saturating_since(at), self.id.0);
            journal.note(Recorded { number: 0, at, took, lp, by: Caller::Host, before, after });
        }
        result
    }
}

impl EmulatedLp<'_> {
    /// What a host does whose interrupts are on between two calls: its handlers note what came, and the line is quiet.
    fn take_interrupts(&self) {
        let state = self.processor.lock();
        self.cpu.machine().set_interrupt_pending(self.id.0 as usize, false);
        drop(state);
    }

    /// What was noted and not acknowledged ends a VP.ENTER as if it came now.
    fn show_events(&self) {
        let state = self.processor.lock();
        if state.pending.ipi || state.pending.timer {
            self.cpu.machine().set_interrupt_pending(self.id.0 as usize, true);
        }
        drop(state);
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

    fn set_timer(&mut self, deadline: Option<Ticks>) {
        let machine = self.cpu.machine();
        let timers = match self.timing {
            Timing::Turns(turns) => return turns.set_timer(self.id, deadline),
            Timing::Real(timers) => timers,
        };
        let now = Ticks::new(machine.tsc());
        let after = deadline.map(|at| at.saturating_since(now).duration(machine.config().tsc_hz));
        timers.set(self.id, after);
    }

    fn wait_for_event(&mut self) {
        let mut state = self.processor.lock();
        while !(state.pending.ipi || state.pending.timer) {
            match self.timing {
                Timing::Real(_) => {
                    state = self.processor.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                Timing::Turns(turns) => {
                    drop(state);
                    // May end early, for a timer; whoever waits looks again.
                    return turns.sleep(self.id, self.cpu.machine());
                }
            }
        }
    }

    fn give_way(&mut self) {
        if let Timing::Turns(turns) = self.timing {
            turns.give_way(self.id, self.cpu.machine());
        }
    }

    fn is_frozen(&self) -> bool {
        match self.timing {
            Timing::Real(_) => false,
            Timing::Turns(turns) => turns.is_frozen(),
        }
    }

    fn rejoin(&mut self) {
        if let Timing::Turns(turns) = self.timing {
            turns.rejoin(self.id, self.cpu.machine());
        }
    }

    fn acknowledge_events(&mut self) -> PendingEvents {
        let mut state = self.processor.lock();
        let mut pending = std::mem::take(&mut state.pending);
        if let Timing::Turns(turns) = self.timing {
            pending.timer |= turns.take_timer(self.id);
        }
        self.cpu.machine().set_interrupt_pending(self.id.0 as usize, false);
        pending
    }
}
