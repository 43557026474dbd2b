//! The loop of every engine: what is looked at between two blocks, single steps, and what becomes of an operation that did
//! not complete.
//!
//! # Protocol of one turn
//! 1. A queued event is delivered.
//! 2. The kick flag, the budget, the windows and the activity state are looked at.
//! 3. The engine runs blocks from RIP on until an operation does not complete, code was modified, or the budget ends. With
//!    the trap flag set, or in an interrupt shadow, one operation runs.
//! 4. What kept an operation from completing becomes an event or an exit.

use tdvisor_base::sync::{AtomicBool, Ordering};
use x86_arch::{Activity, Event, Seg, Shadow, flags, vector};

use super::Blocks;
use crate::breakpoints::Pace;
use crate::bus::{Bus, Port, Refused};
use crate::cpu::{Boundary, Budget, Cpu, Env};
use crate::decode::cache::CodeCache;
use crate::exits::Exit;
use crate::op::{Op, address};
use crate::stop::{Reason, Step};

/// Runs a CPU by what `blocks` makes of blocks.
pub(super) fn run<B: Bus, K: Blocks>(
    cpu: &mut Cpu,
    blocks: &mut K,
    bus: &mut B,
    budget: Budget,
    kick: &AtomicBool,
) -> Exit<B::Refusal> {
    let memory = bus.memory();
    let mut port = Port::new(bus);
    let mut env = Env { mem: &memory, bus: &mut port, kick };
    let exit = cpu.turn(&mut env, blocks, budget.0);
    cpu.last_pkru = cpu.state.pkru;
    exit.because(port.into_refusal())
}

impl Cpu {
    fn turn<K: Blocks>(&mut self, env: &mut Env<'_>, blocks: &mut K, budget: u64) -> Exit<Refused> {
        self.refresh_mode();
        self.arm_breakpoints();
        // The owner may have brought another PKRU.
        let pkru = core::mem::replace(&mut self.state.pkru, self.last_pkru);
        self.write_pkru(pkru);
        (self.met, self.met_port, self.met_stop_point) = (0, 0, None);
        self.attention = false;
        let mut left = budget;
        loop {
            if let Some(event) = self.state.event.take()
                && let Err(exit) = self.deliver(env, event)
            {
                return exit;
            }
            if self.state.activity != Activity::Active {
                return Exit::Inactive;
            }
            // A breakpoint that a load of SS holds off belongs to this run.
            if self.met == 0 && env.kick.load(Ordering::Relaxed) {
                return Exit::ExternalInterrupt;
            }
            if self.controls.interrupt_window && self.state.interrupts_open() {
                return Exit::InterruptWindow;
            }
            if self.controls.nmi_window && self.state.nmis_open() {
                return Exit::NmiWindow;
            }
            if left == 0 {
                return Exit::BudgetExhausted;
            }
            blocks.cache().begin_turn();
            let before = left;
            let done = self.step_block(env, blocks, &mut left);
            if self.met != 0 {
                self.settle_met(done.is_ok());
            }
            if self.met_stop_point.is_some()
                && let Some(exit) = self.settle_stop_point(done.is_ok())
            {
                self.stop = Reason::None;
                return exit;
            }
            if done.is_err()
                && let Some(exit) = self.resolve_stop(env)
            {
                return exit;
            }
            if left == before {
                // An instruction that only faulted costs as well, or a handler that faults at once would run for ever.
                left -= 1;
            }
        }
    }

    /// Runs blocks until something has to be looked at.
    fn step_block<K: Blocks>(&mut self, env: &mut Env<'_>, blocks: &mut K, left: &mut u64) -> Step {
        let single = self.state.flags.rest() & (flags::TF | flags::RF) != 0
            || self.state.interruptibility.shadow != Shadow::None;
        if single {
            return self.step_single(env, blocks.cache(), left);
        }
        let before = *left;
        let step = blocks.run_blocks(self, env, left);
        self.retired = self.retired.wrapping_add(before - *left);
        if step.is_err() && core::mem::take(&mut self.near_breakpoint) {
            self.stop = Reason::None;
            return if *left == 0 { Ok(()) } else { self.step_single(env, blocks.cache(), left) };
        }
        step
    }

    /// Moves RIP from the start of a block to an operation's end.
    #[inline(always)]
    pub(super) fn move_on(&mut self, bytes: u64) {
        let next = self.state.rip().wrapping_add(bytes);
        self.state.set_rip(if self.is_long_mode() { next } else { next & 0xFFFF_FFFF });
    }

    /// Points RIP at an operation that did not complete.
    #[cold]
    pub(super) fn fault_at(&mut self, op: &Op) {
        let at = self.state.rip().wrapping_add(u64::from(op.off));
        self.state.set_rip(if self.is_long_mode() { at } else { at & 0xFFFF_FFFF });
        if let Reason::NonCanonical = self.stop {
            let stack = op.address & address::SEGMENT == Seg::Ss as u8;
            let vector = if stack { vector::SS } else { vector::GP };
            self.stop = Reason::Exception(Event::exception_with_code(vector, 0));
        }
        self.stop_length = op.len;
    }

    /// Runs one operation with the trap flag, the resume flag or an interrupt shadow in force.
    #[cold]
    fn step_single(&mut self, env: &mut Env<'_>, cache: &mut CodeCache, left: &mut u64) -> Step {
        let shadow = core::mem::take(&mut self.state.interruptibility.shadow);
        let trap = self.state.flags.rest() & flags::TF != 0;
        self.boundary = Boundary::Usual;
        let past = self.state.flags.rest() & flags::RF != 0 || shadow == Shadow::MovSs;
        self.pace = if past { Pace::SinglePastBreakpoint } else { Pace::Single };
        let result = cache.lookup(self, env).and_then(|block| {
            let Some(op) = block.ops.first() else { return Ok(()) };
            if let Err(stop) = (op.run)(self, env, op) {
                self.fault_at(op);
                return Err(stop);
            }
            *left -= 1;
            self.retired = self.retired.wrapping_add(1);
            if !(block.ops.len() == 1 && block.sets_rip) {
                self.move_on(op.end());
            }
            Ok(())
        });
        self.attention = false;
        self.pace = Pace::Block;
        if result.is_err() {
            if let Reason::Continue = self.stop {
                // An iteration of a repeated string instruction is a boundary as well, the last one excepted.
                if trap {
                    self.state.queue_single_step();
                }
                return result;
            }
            // Nothing was done: an exit or a fault finds the state as it was. Delivery ends the shadow.
            self.state.interruptibility.shadow = shadow;
            return result;
        }
        if self.boundary != Boundary::KeepsResumeFlag {
            self.state.flags.set_rest(self.state.flags.rest() & !flags::RF);
        }
        let due = trap && self.boundary != Boundary::StepsByItself;
        if due && self.state.interruptibility.shadow != Shadow::MovSs {
            self.state.queue_single_step();
        }
        Ok(())
    }

    /// Turns what kept an operation from completing into an event or an exit.
    fn resolve_stop(&mut self, env: &mut Env<'_>) -> Option<Exit<Refused>> {
        let length = core::mem::take(&mut self.stop_length);
        match core::mem::take(&mut self.stop) {
            Reason::None | Reason::Continue => None,
            Reason::Exception(event) => {
                if event.vector == vector::PF {
                    self.state.control.cr2 = self.pending_cr2;
                }
                self.deliver(env, event).err()
            }
            Reason::NonCanonical => self.deliver(env, Event::exception_with_code(vector::GP, 0)).err(),
            Reason::StopPoint(point) => Some(Exit::StopPoint(point)),
            Reason::Instruction(what) => Some(Exit::Instruction { what, length }),
            Reason::Refused(access) => Some(Exit::Refused(access)),
            Reason::Unimplemented(what) => {
                Some(Exit::Unimplemented(Box::new(crate::decode::describe(self, env, what))))
            }
        }
    }
}
