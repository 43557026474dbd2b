//! A processor's end of the debug port.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tdvisor_base::sync::Ordering;
use x86_emu::Cpu;

use super::{DebugPort, Inner, Order, Presence, Stop, StopReason};
use crate::machine::GuestEnv;

/// How long an interrupt of the host may go unnoticed by a processor that is parked.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// What a processor does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) enum Next {
    /// Execute.
    Run,
    /// Execute one instruction, and tell the debugger.
    Step,
    /// Leave the guest: the host has an interrupt here.
    Leave,
}

/// The line from one CPU to the port.
#[derive(Debug)]
pub(in super::super) struct DebugLine {
    port: Arc<DebugPort>,
    /// The port's generation that this CPU acts on; zero makes it look.
    seen: u64,
}

impl DebugLine {
    pub(in super::super) const fn new(port: Arc<DebugPort>) -> Self {
        Self { port, seen: 0 }
    }

    /// The guest is about to be run: nothing that was seen before counts.
    pub(in super::super) const fn enter(&mut self) {
        self.seen = 0;
    }

    /// What to do now. Waits while the processor is halted.
    pub(in super::super) fn next(&mut self, cpu: &mut Cpu, env: &GuestEnv<'_>) -> Next {
        if self.port.generation.load(Ordering::Acquire) == self.seen {
            return Next::Run;
        }
        let port = self.port.clone();
        let mut inner = port.lock();
        loop {
            cpu.set_stop_points(&inner.stop_points);
            let generation = port.generation.load(Ordering::Acquire);
            let Some(processor) = inner.processors.get_mut(env.lp()) else { return Next::Run };
            processor.space = Some(*env.space());
            if processor.is_changed
                && let Some(state) = processor.state.as_deref()
            {
                cpu.state.clone_from(state);
                processor.is_changed = false;
            }
            match processor.order {
                Order::Run => {
                    processor.presence = Presence::Running;
                    self.seen = generation;
                    return Next::Run;
                }
                Order::Step if processor.stepping.is_none_or(|from| from == cpu.state.rip()) => {
                    processor.stepping = Some(cpu.state.rip());
                    processor.presence = Presence::Running;
                    return Next::Step;
                }
                // The instruction left the guest, was done outside, and here is the next one.
                Order::Step => stop(&mut inner, Stop { lp: env.lp(), reason: StopReason::Step }),
                Order::Halt => {
                    if processor.presence != Presence::Parked {
                        processor.presence = Presence::Parked;
                        processor.state = Some(Box::new(cpu.state.clone()));
                        port.changed.notify_all();
                    }
                    if env.interrupt_pending() || env.quantum() == 0 {
                        processor.presence = Presence::Outside;
                        return Next::Leave;
                    }
                    let waited = port.changed.wait_timeout(inner, LOOK_AGAIN);
                    inner = waited.unwrap_or_else(PoisonError::into_inner).0;
                    continue;
                }
            }
            port.generation.fetch_add(1, Ordering::SeqCst);
            port.changed.notify_all();
        }
    }

    /// The processor met something that stops everybody.
    pub(in super::super) fn stopped(&mut self, env: &GuestEnv<'_>, reason: StopReason) {
        let mut inner = self.port.lock();
        // Whoever halted everybody meanwhile does not expect a stop any more, except of what cannot be met again.
        let is_halted = inner.processors.get(env.lp()).is_some_and(|at| at.order == Order::Halt);
        let comes_again =
            matches!(reason, StopReason::Point(point) if point.on == x86_emu::StopOn::Execution);
        if !(is_halted && comes_again) {
            stop(&mut inner, Stop { lp: env.lp(), reason });
        }
        self.port.announce(inner);
    }

    /// The guest is about to end: stops everybody, and waits until the debugger lets the processor go on or the host wants
    /// it back.
    pub(in super::super) fn hold(&mut self, cpu: &Cpu, env: &GuestEnv<'_>, reason: StopReason) {
        let mut inner = self.port.lock();
        stop(&mut inner, Stop { lp: env.lp(), reason });
        if let Some(processor) = inner.processors.get_mut(env.lp()) {
            processor.presence = Presence::Parked;
            processor.state = Some(Box::new(cpu.state.clone()));
        }
        self.port.generation.fetch_add(1, Ordering::SeqCst);
        self.port.changed.notify_all();
        while inner.processors.get(env.lp()).is_some_and(|at| at.order == Order::Halt)
            && !env.interrupt_pending()
        {
            let waited = self.port.changed.wait_timeout(inner, LOOK_AGAIN);
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if let Some(processor) = inner.processors.get_mut(env.lp()) {
            processor.presence = Presence::Running;
        }
    }

    /// The processor leaves its guest.
    pub(in super::super) fn leave(&mut self, cpu: &Cpu, env: &GuestEnv<'_>) {
        let mut inner = self.port.lock();
        if let Some(processor) = inner.processors.get_mut(env.lp()) {
            processor.presence = Presence::Outside;
            processor.state = Some(Box::new(cpu.state.clone()));
        }
        drop(inner);
        self.port.changed.notify_all();
    }
}

/// Halts everybody and notes why.
fn stop(inner: &mut Inner, stop: Stop) {
    for processor in &mut inner.processors {
        processor.order = Order::Halt;
        processor.stepping = None;
    }
    inner.stops.push_back(stop);
}
