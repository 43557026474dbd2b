//! A processor's end of the debug port.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tdvisor_base::sync::Ordering;
use tdx_module_iface::TdhLeaf;
use tdx_module_iface::exit::ExitReason;
use x86_emu::Cpu;

use super::{DebugPort, Order, Presence, Space, Stop, StopReason};
use crate::machine::GuestEnv;

/// How long an interrupt of the host may go unnoticed by a processor that is parked.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// A processor whose instructions a debugger can stop, at this moment.
pub trait Debuggable {
    /// The processor's number.
    fn lp(&self) -> usize;

    /// The memory that its instructions see.
    fn space(&self) -> Space;

    /// Whether something else than its instructions wants it: an interrupt of the host, the end of the machine.
    fn is_wanted(&self) -> bool;

    /// Whether the processor takes turns with others, and its turn is over.
    fn turn_is_over(&self) -> bool;
}

impl Debuggable for GuestEnv<'_> {
    fn lp(&self) -> usize {
        GuestEnv::lp(self)
    }

    fn space(&self) -> Space {
        Space::of_guest(*GuestEnv::space(self))
    }

    fn is_wanted(&self) -> bool {
        self.interrupt_pending()
    }

    fn turn_is_over(&self) -> bool {
        self.quantum() == 0
    }
}

/// What a processor does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Execute.
    Run,
    /// Execute one instruction, and tell the debugger.
    Step,
    /// Do what the processor is wanted for.
    Leave,
}

/// The line from one CPU to the port.
#[derive(Debug)]
pub struct DebugLine {
    port: Arc<DebugPort>,
    /// The port's generation that this CPU acts on; zero makes it look.
    seen: u64,
}

impl DebugLine {
    /// A line to this port.
    pub const fn new(port: Arc<DebugPort>) -> Self {
        Self { port, seen: 0 }
    }

    /// The processor comes back to its instructions: nothing that was seen before counts.
    pub const fn enter(&mut self) {
        self.seen = 0;
    }

    /// What to do now. Waits while the processor is halted.
    pub fn next(&mut self, cpu: &mut Cpu, at: &dyn Debuggable) -> Next {
        if self.port.generation.load(Ordering::Acquire) == self.seen {
            return Next::Run;
        }
        let port = self.port.clone();
        let mut inner = port.lock();
        loop {
            cpu.set_stop_points(&inner.stop_points);
            let generation = port.generation.load(Ordering::Acquire);
            let Some(processor) = inner.processors.get_mut(at.lp()) else { return Next::Run };
            processor.space = Some(at.space());
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
                Order::Step => inner.stop(Stop { lp: at.lp(), reason: StopReason::Step }),
                Order::Halt => {
                    if processor.presence != Presence::Parked {
                        processor.presence = Presence::Parked;
                        processor.state = Some(Box::new(cpu.state.clone()));
                        port.changed.notify_all();
                    }
                    if at.is_wanted() || at.turn_is_over() {
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
    pub fn stopped(&mut self, at: &dyn Debuggable, reason: StopReason) {
        let mut inner = self.port.lock();
        // Whoever halted everybody meanwhile does not expect a stop any more, except of what cannot be met again.
        let is_halted = inner.processors.get(at.lp()).is_some_and(|own| own.order == Order::Halt);
        let comes_again =
            matches!(reason, StopReason::Point(point) if point.on == x86_emu::StopOn::Execution);
        if !(is_halted && comes_again) {
            inner.stop(Stop { lp: at.lp(), reason });
        }
        self.port.announce(inner);
    }

    /// The processor is about to call the module: if that is caught, stops everybody and waits until the debugger lets it go on.
    pub fn calls(&mut self, cpu: &Cpu, at: &dyn Debuggable, leaf: TdhLeaf) {
        let inner = self.port.lock();
        if inner.catches.has_call(leaf) && inner.is_going(at.lp()) {
            drop(inner);
            self.hold(cpu, at, StopReason::Call(leaf));
        }
    }

    /// The guest is about to end, or something else that cannot be done twice is about to be done: stops everybody, and waits until
    /// the debugger lets the processor go on or the host wants it back.
    pub fn hold(&mut self, cpu: &Cpu, at: &dyn Debuggable, reason: StopReason) {
        let mut inner = self.port.lock();
        inner.stop(Stop { lp: at.lp(), reason });
        if let Some(processor) = inner.processors.get_mut(at.lp()) {
            // The registers of a call that is about to be made are not changed any more.
            let is_call = matches!(reason, StopReason::Call(_));
            processor.presence = if is_call { Presence::Outside } else { Presence::Parked };
            processor.state = Some(Box::new(cpu.state.clone()));
        }
        self.port.generation.fetch_add(1, Ordering::SeqCst);
        self.port.changed.notify_all();
        while inner.processors.get(at.lp()).is_some_and(|own| own.order == Order::Halt) && !at.is_wanted() {
            let waited = self.port.changed.wait_timeout(inner, LOOK_AGAIN);
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if let Some(processor) = inner.processors.get_mut(at.lp()) {
            processor.presence = Presence::Running;
        }
    }

    /// The processor leaves its instructions: its guest by a VM exit, or for a sleep. Everybody stops if the exit is caught.
    pub fn leave(&mut self, cpu: &Cpu, at: &dyn Debuggable, exit: Option<ExitReason>) {
        let mut inner = self.port.lock();
        if let Some(processor) = inner.processors.get_mut(at.lp()) {
            processor.presence = Presence::Outside;
            processor.state = Some(Box::new(cpu.state.clone()));
        }
        // One that is halted leaves because the host wants it.
        let caught = exit.filter(|exit| inner.catches.has_exit(*exit) && inner.is_going(at.lp()));
        let Some(exit) = caught else {
            drop(inner);
            return self.port.changed.notify_all();
        };
        inner.stop(Stop { lp: at.lp(), reason: StopReason::Exit(exit) });
        self.port.announce(inner);
    }
}
