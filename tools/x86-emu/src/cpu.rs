//! The CPU: its state, and the loop that runs blocks of operations.
//!
//! # Protocol of one turn of the loop
//! 1. A queued event is delivered.
//! 2. The kick flag, the budget, the windows and the activity state are looked at.
//! 3. The block at RIP is found (see `decode::cache`) and its operations run until one does not
//!    complete, code was modified, or the block or the budget ends. With the trap flag set, or in an
//!    interrupt shadow, one operation runs.
//! 4. What kept an operation from completing becomes an event or an exit.

use phys_memory::Arena;
use tdvisor_base::sync::{AtomicBool, Ordering};

use crate::breakpoints::{Breakpoints, Pace};
use crate::bus::{Bus, Port, Refused, Surroundings};
use crate::controls::Controls;
use crate::decode::cache::{BLOCKS_PER_EPOCH, Block, CodeCache};
use crate::exits::{Exit, Shutdown};
use crate::op::address;
use crate::stop::Reason;
use crate::tlb::{Tlb, View};
use x86_arch::{Activity, CpuState, Event, Seg, Shadow, cr0, cr4, flags, vector};

/// How many instructions a run may retire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget(pub u64);

impl Budget {
    /// Until something else ends the run.
    pub const UNLIMITED: Self = Self(u64::MAX);
}

/// What a run borrows from the machine.
pub(crate) struct Env<'a> {
    pub(crate) mem: &'a Arena,
    pub(crate) bus: &'a mut dyn Surroundings,
    pub(crate) kick: &'a AtomicBool,
}

/// Which instruction set the code segment selects.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub(crate) enum CodeMode {
    /// 16-bit protected or compatibility mode.
    Code16,
    /// 32-bit protected or compatibility mode.
    Code32,
    /// 64-bit mode.
    Code64,
}

/// What becomes of RF and TF at the boundary behind an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Boundary {
    /// RF is cleared, and a single step is due where TF was set *before* the instruction (SDM vol. 3, "Single-Step
    /// Exception Condition"): an instruction that sets TF is not stepped, one that clears it is.
    #[default]
    Usual,
    /// IRET: RF is what it loaded.
    KeepsResumeFlag,
    /// SYSCALL and SYSRET: TF counts as it is *behind* them, so that IA32_FMASK can keep a step over SYSCALL out of
    /// the kernel, and the step arrives where SYSRET returns to. They queue it themselves.
    StepsByItself,
}

/// One logical processor.
#[derive(Debug)]
pub struct Cpu {
    /// The architectural state. An owner may save and replace it between two runs.
    pub state: CpuState,
    /// What the owner intercepts and offers.
    pub controls: Controls,
    /// Translation caches.
    pub tlb: Tlb,
    pub(crate) stop: Reason,
    pub(crate) stop_length: u8,
    pub(crate) boundary: Boundary,
    pub(crate) pending_cr2: u64,
    pub(crate) attention: bool,
    pub(crate) pauses: u32,
    pub(crate) breakpoints: Breakpoints,
    /// Data breakpoints that the running instruction met, as bits of DR6.
    pub(crate) met: u64,
    /// Port breakpoints that the access meets which the owner was asked for.
    pub(crate) met_port: u64,
    pub(crate) pace: Pace,
    /// The block at RIP holds an instruction breakpoint further on.
    pub(crate) near_breakpoint: bool,
    /// The bits of RSP that are the stack pointer: all, 32 or 16.
    pub(crate) stack_mask: u64,
    pub(crate) view: View,
    pub(crate) mode: CodeMode,
    last_code_base: u64,
    last_pkru: u32,
    retired: u64,
    pub(crate) shutdown: Option<Box<Shutdown>>,
    cache: CodeCache,
}

impl Default for Cpu {
    fn default() -> Self {
        Self::new()
    }
}

impl Cpu {
    /// A CPU in the state that [`CpuState::default`] describes. The owner sets what its architecture wants.
    pub fn new() -> Self {
        Self {
            state: CpuState::default(),
            controls: Controls::default(),
            tlb: Tlb::default(),
            stop: Reason::None,
            stop_length: 0,
            boundary: Boundary::Usual,
            pending_cr2: 0,
            attention: false,
            pauses: 0,
            breakpoints: Breakpoints::default(),
            met: 0,
            met_port: 0,
            pace: Pace::Block,
            near_breakpoint: false,
            stack_mask: 0xFFFF_FFFF,
            view: View::Supervisor,
            mode: CodeMode::Code32,
            last_code_base: 0,
            last_pkru: 0,
            retired: 0,
            shutdown: None,
            cache: CodeCache::default(),
        }
    }

    /// Instructions retired since the CPU was made; a REP string instruction counts once.
    pub const fn retired(&self) -> u64 {
        self.retired
    }

    /// What the last [`Exit::TripleFault`] was about; it is told once.
    pub fn take_shutdown(&mut self) -> Option<Box<Shutdown>> {
        self.shutdown.take()
    }

    /// 64-bit mode.
    #[inline(always)]
    pub fn is_long_mode(&self) -> bool {
        self.mode == CodeMode::Code64
    }

    /// Has an event delivered before the next instruction, and wakes a halted CPU.
    ///
    /// The owner has checked that the event can be taken. An event that waited before and was not delivered yet is
    /// replaced and given back.
    pub fn inject(&mut self, event: Event) -> Option<Event> {
        if self.state.activity == Activity::Halted {
            self.state.activity = Activity::Active;
        }
        self.state.event.replace(event)
    }

    /// Steps over an instruction that the owner performed: RIP moves on, the interrupt shadow ends, the
    /// instruction counts as retired, and a pending single step is queued.
    pub fn advance(&mut self, length: u8) {
        self.state.complete_instruction(length);
        self.settle_met_port();
        self.refresh_mode();
        self.retired = self.retired.wrapping_add(1);
    }

    /// Recomputes what follows from CS, SS, CR0, CR4, EFER and RFLAGS.
    pub(crate) fn refresh_mode(&mut self) {
        let code = self.state.segment(Seg::Cs).attributes;
        self.mode = if self.state.is_ia32e() && code.long() {
            CodeMode::Code64
        } else if code.big() {
            CodeMode::Code32
        } else {
            CodeMode::Code16
        };
        self.stack_mask = if self.mode == CodeMode::Code64 {
            u64::MAX
        } else if self.state.segment(Seg::Ss).attributes.big() {
            0xFFFF_FFFF
        } else {
            0xFFFF
        };
        self.view = if self.state.cpl() == 3 {
            let aligned = self.state.control.cr0 & cr0::AM != 0 && self.state.flags.rest() & flags::AC != 0;
            if aligned { View::UserAligned } else { View::User }
        } else if self.state.control.cr4 & cr4::SMAP != 0 && self.state.flags.rest() & flags::AC == 0 {
            View::Supervisor
        } else {
            View::SupervisorNoSmap
        };
        let base = if self.mode == CodeMode::Code64 { 0 } else { self.state.segment(Seg::Cs).base };
        if base != self.last_code_base {
            self.last_code_base = base;
            self.tlb.touch();
        }
    }

    /// Runs instructions until something concerns the owner.
    pub fn run<B: Bus>(&mut self, bus: &mut B, budget: Budget, kick: &AtomicBool) -> Exit<B::Refusal> {
        let memory = bus.memory();
        let mut port = Port::new(bus);
        let mut env = Env { mem: &memory, bus: &mut port, kick };
        let mut cache = core::mem::take(&mut self.cache);
        let exit = self.turn(&mut env, &mut cache, budget.0);
        self.last_pkru = self.state.pkru;
        self.cache = cache;
        exit.because(port.into_refusal())
    }

    fn turn(&mut self, env: &mut Env<'_>, cache: &mut CodeCache, budget: u64) -> Exit<Refused> {
        self.refresh_mode();
        self.arm_breakpoints();
        // The owner may have brought another PKRU.
        let pkru = core::mem::replace(&mut self.state.pkru, self.last_pkru);
        self.write_pkru(pkru);
        (self.met, self.met_port) = (0, 0);
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
            cache.begin_turn();
            let before = left;
            let done = self.step_block(env, cache, &mut left);
            if self.met != 0 {
                self.settle_met(done.is_ok());
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
    fn step_block(&mut self, env: &mut Env<'_>, cache: &mut CodeCache, left: &mut u64) -> crate::stop::Step {
        let single = self.state.flags.rest() & (flags::TF | flags::RF) != 0
            || self.state.interruptibility.shadow != Shadow::None;
        if single {
            return self.step_single(env, cache, left);
        }
        let before = *left;
        let step = self.run_blocks(env, cache, left);
        self.retired = self.retired.wrapping_add(before - *left);
        if step.is_err() && core::mem::take(&mut self.near_breakpoint) {
            self.stop = Reason::None;
            return if *left == 0 { Ok(()) } else { self.step_single(env, cache, left) };
        }
        step
    }

    fn run_blocks(&mut self, env: &mut Env<'_>, cache: &mut CodeCache, left: &mut u64) -> crate::stop::Step {
        let mut blocks = BLOCKS_PER_EPOCH;
        loop {
            blocks -= 1;
            if blocks == 0 {
                blocks = BLOCKS_PER_EPOCH;
                cache.begin_epoch();
            }
            let block = cache.lookup(self, env)?;
            let count = block.ops.len() as u64;
            if count > *left {
                return self.run_part(env, block, left);
            }
            let mut rest = block.ops.iter();
            while let Some(op) = rest.next() {
                if let Err(stop) = (op.run)(self, env, op) {
                    *left -= count - 1 - rest.len() as u64;
                    self.fault_at(op);
                    return Err(stop);
                }
                if self.attention {
                    *left -= count - rest.len() as u64;
                    self.attention = false;
                    if !(block.sets_rip && rest.len() == 0) {
                        self.move_on(op.end());
                    }
                    return Ok(());
                }
            }
            *left -= count;
            if !block.sets_rip {
                self.move_on(u64::from(block.end));
            }
            if *left == 0 || env.kick.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
    }

    /// Runs the first `left` operations of a block that has more.
    #[cold]
    fn run_part(&mut self, env: &mut Env<'_>, block: &Block, left: &mut u64) -> crate::stop::Step {
        let mut end = 0;
        for op in block.ops.iter().take(*left as usize) {
            if let Err(stop) = (op.run)(self, env, op) {
                self.fault_at(op);
                return Err(stop);
            }
            *left -= 1;
            end = op.end();
            if self.attention {
                break;
            }
        }
        self.attention = false;
        self.move_on(end);
        Ok(())
    }

    /// Moves RIP from the start of a block to an operation's end.
    #[inline(always)]
    fn move_on(&mut self, bytes: u64) {
        let next = self.state.rip().wrapping_add(bytes);
        self.state.set_rip(if self.is_long_mode() { next } else { next & 0xFFFF_FFFF });
    }

    /// Points RIP at an operation that did not complete.
    #[cold]
    fn fault_at(&mut self, op: &crate::op::Op) {
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
    fn step_single(&mut self, env: &mut Env<'_>, cache: &mut CodeCache, left: &mut u64) -> crate::stop::Step {
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

    /// Ends SYSCALL or SYSRET: see [`Boundary::StepsByItself`].
    pub(crate) fn step_by_itself(&mut self) {
        self.boundary = Boundary::StepsByItself;
        if self.state.flags.rest() & flags::TF != 0 {
            self.state.queue_single_step();
        }
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
            Reason::Instruction(what) => Some(Exit::Instruction { what, length }),
            Reason::Refused(access) => Some(Exit::Refused(access)),
            Reason::Unimplemented(what) => {
                Some(Exit::Unimplemented(Box::new(crate::decode::describe(self, env, what))))
            }
        }
    }

    /// Pages of memory whose decoded code the CPU may run without translating its address again.
    pub fn reachable_code(&self) -> impl Iterator<Item = (u64, tdvisor_base::Pfn)> + '_ {
        self.cache.reachable(&self.tlb)
    }
}
