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

use crate::bus::Bus;
use crate::decode::cache::{BLOCKS_PER_EPOCH, Block, CodeCache};
use crate::events::{Event, vector};
use crate::exits::{Exit, FaultExit, Unimplemented};
use crate::flags::{self, Flags};
use crate::op::address;
use crate::state::{
    Activity, Attributes, ControlRegisters, Controls, DebugRegisters, Gpr, Interruptibility, Msrs, Registers,
    Seg, Segment, Shadow, SimdState, TableRegister, cr0, cr4, efer,
};
use crate::stop::Reason;
use crate::tlb::{Tlb, View};

/// DR6.BS: a single step.
const DR6_BS: u64 = 1 << 14;

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
    pub(crate) bus: &'a mut dyn Bus,
    pub(crate) kick: &'a AtomicBool,
}

/// Which instruction set the code segment selects.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub(crate) enum CodeMode {
    /// 16-bit code: nothing of it is implemented.
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
    /// General registers and RIP.
    pub regs: Registers,
    /// RFLAGS.
    pub flags: Flags,
    /// ES, CS, SS, DS, FS, GS, in this order; see [`Cpu::segment`].
    pub segments: [Segment; 6],
    /// Local descriptor table.
    pub ldtr: Segment,
    /// Task register.
    pub tr: Segment,
    /// Global descriptor table.
    pub gdtr: TableRegister,
    /// Interrupt descriptor table.
    pub idtr: TableRegister,
    /// Control registers, EFER and XCR0.
    pub control: ControlRegisters,
    /// MSRs that instructions use.
    pub msrs: Msrs,
    /// Debug registers.
    pub debug: DebugRegisters,
    /// x87 and SSE.
    pub simd: SimdState,
    /// Interrupt shadow and NMI blocking.
    pub interruptibility: Interruptibility,
    /// Whether instructions run.
    pub activity: Activity,
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
    pub(crate) view: View,
    pub(crate) mode: CodeMode,
    last_code_base: u64,
    queued: Option<Event>,
    retired: u64,
    cache: CodeCache,
}

impl Default for Cpu {
    fn default() -> Self {
        Self::new()
    }
}

impl Cpu {
    /// A CPU in 32-bit flat protected mode with paging off, CPL 0, interrupts off, RIP 0. The owner sets
    /// what its architecture wants.
    pub fn new() -> Self {
        let data = Segment::flat(0, Attributes::DATA);
        Self {
            regs: Registers::default(),
            flags: Flags::default(),
            segments: [data, Segment::flat(0, Attributes::CODE32), data, data, data, data],
            ldtr: Segment { limit: 0xFFFF, attributes: Attributes::LDT, ..Segment::NULL },
            tr: Segment { limit: 0xFFFF, attributes: Attributes::BUSY_TSS, ..Segment::NULL },
            gdtr: TableRegister::default(),
            idtr: TableRegister::default(),
            control: ControlRegisters {
                cr0: cr0::PE | cr0::NE | cr0::ET,
                cr2: 0,
                cr3: 0,
                cr4: 0,
                cr8: 0,
                efer: 0,
                xcr0: 1,
            },
            msrs: Msrs { pat: 0x0007_0406_0007_0406, ..Msrs::default() },
            debug: DebugRegisters::default(),
            simd: SimdState::default(),
            interruptibility: Interruptibility::default(),
            activity: Activity::Active,
            controls: Controls::default(),
            tlb: Tlb::default(),
            stop: Reason::None,
            stop_length: 0,
            boundary: Boundary::Usual,
            pending_cr2: 0,
            attention: false,
            pauses: 0,
            view: View::Supervisor,
            mode: CodeMode::Code32,
            last_code_base: 0,
            queued: None,
            retired: 0,
            cache: CodeCache::default(),
        }
    }

    /// A general register.
    pub const fn gpr(&self, register: Gpr) -> u64 {
        self.regs.get(register)
    }

    /// Sets a general register.
    pub const fn set_gpr(&mut self, register: Gpr, value: u64) {
        self.regs.set(register, value);
    }

    /// The address of the next instruction.
    pub const fn rip(&self) -> u64 {
        self.regs.rip()
    }

    /// Continues elsewhere.
    pub const fn set_rip(&mut self, rip: u64) {
        self.regs.set_rip(rip);
    }

    /// A segment register with its hidden part.
    #[inline(always)]
    pub const fn segment(&self, register: Seg) -> &Segment {
        &self.segments[register as usize]
    }

    /// A segment register, to be changed.
    pub const fn segment_mut(&mut self, register: Seg) -> &mut Segment {
        &mut self.segments[register as usize]
    }

    /// The current privilege level: the DPL of SS, as in VMX.
    #[inline(always)]
    pub const fn cpl(&self) -> u8 {
        self.segment(Seg::Ss).attributes.dpl()
    }

    /// Instructions retired since the CPU was made; a REP string instruction counts once.
    pub const fn retired(&self) -> u64 {
        self.retired
    }

    /// EFER.LMA: IA-32e mode, 64-bit or compatibility.
    pub const fn is_ia32e(&self) -> bool {
        self.control.efer & efer::LMA != 0
    }

    /// 64-bit mode.
    #[inline(always)]
    pub fn is_long_mode(&self) -> bool {
        self.mode == CodeMode::Code64
    }

    /// Whether an external interrupt could be taken now.
    pub const fn interrupts_open(&self) -> bool {
        self.flags.rest() & flags::IF != 0 && matches!(self.interruptibility.shadow, Shadow::None)
    }

    /// Whether an NMI could be taken now.
    pub const fn nmis_open(&self) -> bool {
        !self.interruptibility.nmi_blocked && matches!(self.interruptibility.shadow, Shadow::None)
    }

    /// Queues an event that the next [`Self::run`] delivers first, and wakes a halted CPU.
    ///
    /// The owner has checked that the event can be taken. An event queued before and not delivered yet is
    /// replaced and given back.
    pub fn inject(&mut self, event: Event) -> Option<Event> {
        if self.activity == Activity::Halted {
            self.activity = Activity::Active;
        }
        self.queued.replace(event)
    }

    /// The event that the next run will deliver.
    pub const fn queued_event(&self) -> Option<Event> {
        self.queued
    }

    /// Takes back a queued event.
    pub const fn take_queued_event(&mut self) -> Option<Event> {
        self.queued.take()
    }

    /// Steps over an instruction that the owner performed: RIP moves on, the interrupt shadow ends, the
    /// instruction counts as retired, and a pending single step is queued.
    pub fn advance(&mut self, length: u8) {
        let next = self.rip().wrapping_add(u64::from(length));
        self.refresh_mode();
        self.set_rip(if self.is_long_mode() { next } else { next & 0xFFFF_FFFF });
        self.retired = self.retired.wrapping_add(1);
        let rest = self.flags.rest();
        self.interruptibility.shadow = Shadow::None;
        self.flags.set_rest(rest & !flags::RF);
        if rest & flags::TF != 0 && self.queued.is_none() {
            self.queue_single_step();
        }
    }

    /// Recomputes what follows from CS, SS, CR0, CR4, EFER and RFLAGS.
    pub(crate) fn refresh_mode(&mut self) {
        let code = self.segment(Seg::Cs).attributes;
        self.mode = if self.is_ia32e() && code.long() {
            CodeMode::Code64
        } else if code.big() {
            CodeMode::Code32
        } else {
            CodeMode::Code16
        };
        self.view = if self.cpl() == 3 {
            View::User
        } else if self.control.cr4 & cr4::SMAP != 0 && self.flags.rest() & flags::AC == 0 {
            View::Supervisor
        } else {
            View::SupervisorNoSmap
        };
        let base = if self.mode == CodeMode::Code64 { 0 } else { self.segment(Seg::Cs).base };
        if base != self.last_code_base {
            self.last_code_base = base;
            self.tlb.touch();
        }
    }

    /// Runs instructions until something concerns the owner.
    pub fn run<B: Bus>(&mut self, bus: &mut B, budget: Budget, kick: &AtomicBool) -> Exit {
        let memory = bus.memory();
        let mut env = Env { mem: &memory, bus, kick };
        let mut cache = core::mem::take(&mut self.cache);
        let exit = self.turn(&mut env, &mut cache, budget.0);
        self.cache = cache;
        exit
    }

    fn turn(&mut self, env: &mut Env<'_>, cache: &mut CodeCache, budget: u64) -> Exit {
        self.refresh_mode();
        self.attention = false;
        let mut left = budget;
        loop {
            if let Some(event) = self.queued.take()
                && let Err(exit) = self.deliver(env, event)
            {
                return exit;
            }
            if self.activity != Activity::Active {
                return Exit::Inactive;
            }
            if env.kick.load(Ordering::Relaxed) {
                return Exit::ExternalInterrupt;
            }
            if self.controls.interrupt_window && self.interrupts_open() {
                return Exit::InterruptWindow;
            }
            if self.controls.nmi_window && self.nmis_open() {
                return Exit::NmiWindow;
            }
            if left == 0 {
                return Exit::BudgetExhausted;
            }
            cache.begin_turn();
            let before = left;
            let done = self.step_block(env, cache, &mut left);
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
        let single =
            self.flags.rest() & (flags::TF | flags::RF) != 0 || self.interruptibility.shadow != Shadow::None;
        if single {
            return self.step_single(env, cache, left);
        }
        let before = *left;
        let step = self.run_blocks(env, cache, left);
        self.retired = self.retired.wrapping_add(before - *left);
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
        let next = self.rip().wrapping_add(bytes);
        self.set_rip(if self.is_long_mode() { next } else { next & 0xFFFF_FFFF });
    }

    /// Points RIP at an operation that did not complete.
    #[cold]
    fn fault_at(&mut self, op: &crate::op::Op) {
        let at = self.rip().wrapping_add(u64::from(op.off));
        self.set_rip(if self.is_long_mode() { at } else { at & 0xFFFF_FFFF });
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
        let shadow = core::mem::take(&mut self.interruptibility.shadow);
        let trap = self.flags.rest() & flags::TF != 0;
        self.boundary = Boundary::Usual;
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
        if result.is_err() {
            if let Reason::Continue = self.stop {
                // An iteration of a repeated string instruction is a boundary as well, the last one excepted.
                if trap {
                    self.queue_single_step();
                }
                return result;
            }
            // Nothing was done: an exit or a fault finds the state as it was. Delivery ends the shadow.
            self.interruptibility.shadow = shadow;
            return result;
        }
        if self.boundary != Boundary::KeepsResumeFlag {
            self.flags.set_rest(self.flags.rest() & !flags::RF);
        }
        let due = trap && self.boundary != Boundary::StepsByItself;
        if due && self.interruptibility.shadow != Shadow::MovSs {
            self.queue_single_step();
        }
        Ok(())
    }

    /// Queues the #DB of a single step.
    fn queue_single_step(&mut self) {
        self.debug.dr6 |= DR6_BS;
        self.queued = Some(Event::exception(vector::DB));
    }

    /// Ends SYSCALL or SYSRET: see [`Boundary::StepsByItself`].
    pub(crate) fn step_by_itself(&mut self) {
        self.boundary = Boundary::StepsByItself;
        if self.flags.rest() & flags::TF != 0 {
            self.queue_single_step();
        }
    }

    /// Turns what kept an operation from completing into an event or an exit.
    fn resolve_stop(&mut self, env: &mut Env<'_>) -> Option<Exit> {
        let length = core::mem::take(&mut self.stop_length);
        match core::mem::take(&mut self.stop) {
            Reason::None | Reason::Continue => None,
            Reason::Exception(event) => {
                if event.vector == vector::PF {
                    self.control.cr2 = self.pending_cr2;
                }
                self.deliver(env, event).err()
            }
            Reason::NonCanonical => self.deliver(env, Event::exception_with_code(vector::GP, 0)).err(),
            Reason::Instruction(what) => Some(Exit::Instruction { what, length }),
            Reason::Bus { fault, gla } => Some(Exit::BusFault(FaultExit { fault, gla, idt_vectoring: None })),
            Reason::Unimplemented(what) => Some(Exit::Unimplemented(Box::new(self.describe(env, what)))),
        }
    }

    /// Names the instruction at RIP.
    fn describe(&mut self, env: &mut Env<'_>, what: &str) -> Unimplemented {
        crate::decode::describe(self, env, what)
    }

    /// Pages of memory whose decoded code the CPU may run without translating its address again.
    pub fn reachable_code(&self) -> impl Iterator<Item = (u64, tdvisor_base::Pfn)> + '_ {
        self.cache.reachable(&self.tlb)
    }
}
