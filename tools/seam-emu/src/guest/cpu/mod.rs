//! The software CPU as the processor of a guest.
//!
//! # Protocol
//! - Each run loads the guest's state into the CPU, executes until something concerns the module, and puts the
//!   state back. Between the two the CPU polls the processor's interrupt line: it is the kick flag.
//! - An access that a second-stage walk or memory itself refuses ends the run with RIP at the instruction (or
//!   with the event under delivery in the IDT-vectoring fields), so that running again repeats it.
//! - What the CPU does not implement ends the run with [`reason::EMULATOR_LIMIT`] and is named in
//!   [`Machine::limits`]: the vCPU stops, and nothing is approximated. That goes for what L1 wants of an L2 VM, too.
//!
//! # Translations
//! The CPU keeps translations of its own, all of which are also in the processor's TLB registry. They are good
//! for one vCPU in one address space and until the registry drops any: every run begins with that question, and
//! every slice of a run asks again. Control registers that changed behind the CPU's back cost the linear ones.
//!
//! [`Machine::limits`]: crate::Machine::limits
//! [`reason::EMULATOR_LIMIT`]: super::reason::EMULATOR_LIMIT

mod bus;
pub mod debug;
mod exits;
mod registers;
pub mod samples;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tdvisor_base::Gpa;
use tdvisor_base::sync::AtomicBool;
use tdx_module_iface::exit::ExitReason;
use x86_arch::{Activity, Event, vector};
use x86_emu::exits::{CrAccess, CrOperation};
use x86_emu::{AnyEngine, Budget, Cpu, Engine, EngineKind, Exit, InstructionExit, Unimplemented};

use super::{GuestCpu, GuestState, VmExit, reason};
use crate::config::TscSource;
use crate::machine::{EmulatorLimit, GuestEnv, GuestShutdown, Translations};
use bus::GuestBus;
use debug::{DebugLine, DebugPort, Next, StopReason};
use samples::{Sampler, Samples};

/// Instructions between two looks at the TLB registry.
const SLICE: u64 = 20_000;
/// Instructions of a slice where the clock is virtual, because that only moves between slices.
const VIRTUAL_SLICE: u64 = 2_000;

/// A software CPU that executes guests on one logical processor.
#[derive(Debug)]
pub struct CpuGuest {
    cpu: Box<Cpu>,
    engine: AnyEngine,
    translations: Option<Translations>,
    debug: Option<DebugLine>,
    /// Instructions that the machine knows of.
    noted: u64,
    /// Of the guest since it was entered, where its machine takes turns.
    pauses: u32,
    sampler: Option<Sampler>,
}

impl From<AnyEngine> for CpuGuest {
    /// A CPU that has not run anything yet, with an engine that is there already.
    fn from(engine: AnyEngine) -> Self {
        Self {
            cpu: Box::new(Cpu::new()),
            engine,
            translations: None,
            debug: None,
            sampler: None,
            noted: 0,
            pauses: 0,
        }
    }
}

impl Default for CpuGuest {
    fn default() -> Self {
        Self::new()
    }
}

impl CpuGuest {
    /// A CPU that has not run anything yet.
    pub fn new() -> Self {
        Self::with_engine(EngineKind::default())
    }

    /// A CPU that has not run anything yet, with an engine of choice.
    pub fn with_engine(engine: EngineKind) -> Self {
        Self::from(engine.engine())
    }

    /// A CPU that a debugger can stop, with an engine of choice.
    pub fn debugged(engine: EngineKind, port: Arc<DebugPort>) -> Self {
        Self { debug: Some(DebugLine::new(port)), ..Self::with_engine(engine) }
    }

    /// Tells the machine what was retired since the last time.
    fn note_retired(&mut self, env: &GuestEnv<'_>) {
        let retired = self.cpu.retired();
        env.machine().note_guest_retired(retired.wrapping_sub(self.noted));
        self.noted = retired;
    }

    /// The CPU, with samples taken of where its guests are.
    #[must_use]
    pub fn sampled(self, samples: Arc<Samples>) -> Self {
        Self { sampler: Some(Sampler::new(samples)), ..self }
    }

    /// Drops translations that are not the guest's, or that the registry has dropped.
    fn follow_registry(&mut self, env: &GuestEnv<'_>) {
        let now = env.translations();
        if self.translations != Some(now) {
            self.cpu.tlb.flush_all();
            self.translations = Some(now);
        }
    }

    /// MOV to CR8, which is intercepted because a lower priority may let an interrupt in.
    fn write_cr8(&mut self, value: u64, length: u8) -> Option<VmExit> {
        let before = self.cpu.state.control.cr8;
        match self.cpu.write_cr(8, value) {
            Ok(()) => {
                self.cpu.advance(length);
                (self.cpu.state.control.cr8 < before).then_some(VmExit::plain(ExitReason::INTERRUPT_WINDOW))
            }
            Err(event) => {
                let _ = self.cpu.inject(event);
                None
            }
        }
    }

    /// Does what never leaves the processor; gives the VM exit of everything else.
    fn settle(&mut self, env: &GuestEnv<'_>, exit: Exit<VmExit>) -> Option<VmExit> {
        match exit {
            // Undefined outside of SEAM root mode.
            Exit::Instruction { what: InstructionExit::Seamret | InstructionExit::Seamops, .. } => {
                let _ = self.cpu.inject(Event::exception(vector::UD));
                None
            }
            // Not the module's: whoever gives turns lets others run.
            Exit::Instruction { what: InstructionExit::Pause, length } if !env.intercepts().pause => {
                self.cpu.advance(length);
                self.pauses = self.pauses.saturating_add(1);
                env.spin(self.pauses);
                None
            }
            Exit::Instruction {
                what:
                    InstructionExit::CrAccess(CrAccess {
                        register: 8,
                        operation: CrOperation::Write { value, .. },
                    }),
                length,
            } if !env.intercepts().cr8_load => self.write_cr8(value, length),
            exit => Some(self.vm_exit(env, exit)),
        }
    }

    /// Runs slices until something other than the end of a slice happens.
    fn execute(&mut self, env: &GuestEnv<'_>) -> Exit<VmExit> {
        let slice = match env.machine().config().tsc_source {
            TscSource::Virtual => VIRTUAL_SLICE,
            TscSource::Host => SLICE,
        };
        let line = env.interrupt_line();
        let mut bus = GuestBus::new(env);
        loop {
            env.poll_interrupts();
            self.follow_registry(env);
            // The timer of an L2 VM ends a run as what it may then do does.
            if env.is_overdue() {
                return Exit::InterruptWindow;
            }
            match self.debug.as_mut().map_or(Next::Run, |debug| debug.next(&mut self.cpu, env)) {
                Next::Run => {}
                Next::Leave => return Exit::ExternalInterrupt,
                Next::Step => match self.step(&mut bus, env) {
                    Some(exit) => return exit,
                    None => continue,
                },
            }
            // An entry always gets somewhere, if only to deliver what was injected.
            let sample = self.sampler.as_ref().map_or(u64::MAX, Sampler::left);
            let budget = Budget(slice.min(env.quantum()).min(sample).max(1));
            let before = self.cpu.retired();
            let exit = self.engine.run(&mut self.cpu, &mut bus, budget, line);
            let retired = self.cpu.retired().wrapping_sub(before);
            // Instructions that fault use the budget up without retiring.
            let executed = if exit == Exit::BudgetExhausted { budget.0 } else { retired };
            env.executed(executed);
            if let Some(sampler) = &mut self.sampler {
                sampler.passed(executed, env.lp(), &self.cpu.state);
            }
            self.note_retired(env);
            match exit {
                Exit::BudgetExhausted if env.quantum() == 0 => return Exit::ExternalInterrupt,
                Exit::BudgetExhausted => {}
                Exit::StopPoint(point) => self.tell_debugger(env, StopReason::Point(point)),
                Exit::Inactive if self.cpu.state.activity != Activity::Shutdown => {
                    // A processor that takes turns gives its turn away instead of waiting.
                    if env.interrupt_pending() || env.quantum() != u64::MAX {
                        return Exit::ExternalInterrupt;
                    }
                    std::thread::yield_now();
                }
                exit => return exit,
            }
        }
    }

    /// Executes one instruction for a debugger: interrupts do not come in between, and nor does the host. Gives the exit
    /// of an instruction that is to be done outside.
    fn step(&mut self, bus: &mut GuestBus<'_, '_>, env: &GuestEnv<'_>) -> Option<Exit<VmExit>> {
        let quiet = AtomicBool::new(false);
        let windows = (self.cpu.controls.interrupt_window, self.cpu.controls.nmi_window);
        (self.cpu.controls.interrupt_window, self.cpu.controls.nmi_window) = (false, false);
        self.cpu.pass_stop_point();
        // With an event that waits, the step is to its handler.
        let budget = Budget(u64::from(self.cpu.state.event.is_none()));
        let exit = self.engine.run(&mut self.cpu, bus, budget, &quiet);
        env.executed(budget.0);
        (self.cpu.controls.interrupt_window, self.cpu.controls.nmi_window) = windows;
        match exit {
            Exit::BudgetExhausted => self.tell_debugger(env, StopReason::Step),
            Exit::StopPoint(point) => self.tell_debugger(env, StopReason::Point(point)),
            exit => return Some(exit),
        }
        None
    }

    fn tell_debugger(&mut self, env: &GuestEnv<'_>, reason: StopReason) {
        if let Some(debug) = &mut self.debug {
            debug.stopped(env, reason);
        }
    }

    /// Lets a debugger look at a guest that is about to end.
    fn hold_for_debugger(&mut self, env: &GuestEnv<'_>, exit: &Exit<VmExit>) {
        let reason = match exit {
            Exit::TripleFault => StopReason::TripleFault,
            Exit::Unimplemented(_) => StopReason::Unimplemented,
            _ => return,
        };
        if let Some(debug) = &mut self.debug {
            debug.hold(&self.cpu, env, reason);
        }
    }

    /// Names what the CPU cannot do, and stops the vCPU.
    fn limit(&mut self, env: &GuestEnv<'_>, what: Unimplemented) -> VmExit {
        env.machine().report_limit(EmulatorLimit { lp: env.lp(), what });
        VmExit::plain(reason::EMULATOR_LIMIT)
    }

    fn vm_exit(&mut self, env: &GuestEnv<'_>, exit: Exit<VmExit>) -> VmExit {
        match exit {
            Exit::Instruction { what, length } => exits::instruction(what, length),
            // A stop point is told to the debugger and ends no run.
            Exit::ExternalInterrupt | Exit::StopPoint(_) => VmExit::plain(ExitReason::EXTERNAL_INTERRUPT),
            Exit::InterruptWindow => VmExit::plain(ExitReason::INTERRUPT_WINDOW),
            Exit::NmiWindow => VmExit::plain(ExitReason::NMI_WINDOW),
            Exit::TripleFault | Exit::Inactive | Exit::BudgetExhausted => {
                if let Some(what) = self.cpu.take_shutdown() {
                    env.machine().report_shutdown(GuestShutdown { lp: env.lp(), what: *what });
                }
                // The exit saves the activity that the processor had before the fault.
                self.cpu.state.activity = Activity::Active;
                VmExit::plain(ExitReason::TRIPLE_FAULT)
            }
            Exit::Refused(access) => exits::refused(&access),
            Exit::Unimplemented(what) => self.limit(env, *what),
        }
    }
}

impl GuestCpu for CpuGuest {
    fn run(&mut self, state: &mut GuestState, env: &GuestEnv<'_>) -> VmExit {
        if let Some(what) = env.intercepts().missing {
            return self.limit(env, Unimplemented::in_64_bit_code(Vec::new(), state.rip(), what));
        }
        self.cpu.controls = registers::controls(env);
        registers::enter(&mut self.cpu, state);
        self.pauses = 0;
        if let Some(debug) = &mut self.debug {
            debug.enter();
        }
        loop {
            let exit = self.execute(env);
            self.hold_for_debugger(env, &exit);
            let Some(exit) = self.settle(env, exit) else { continue };
            if let Some(debug) = &mut self.debug {
                debug.leave(&self.cpu, env, Some(exit.reason.basic()));
            }
            registers::leave(&mut self.cpu, state);
            self.note_retired(env);
            return exit;
        }
    }

    fn flush_translations(&mut self, only: Option<Gpa>) {
        match only {
            Some(gpa) => self.cpu.tlb.flush_guest_page(gpa),
            None => self.translations = None,
        }
    }
}
