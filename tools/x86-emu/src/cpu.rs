//! The CPU: its architectural state, and what follows from it.

use phys_memory::Arena;
use tdvisor_base::sync::AtomicBool;

use crate::breakpoints::{Breakpoints, Pace};
use crate::bus::Surroundings;
use crate::controls::Controls;
use crate::exits::Shutdown;
use crate::stop::Reason;
use crate::stop_points::{Passed, StopPoint};
use crate::tlb::{Tlb, View};
use x86_arch::{Activity, CpuState, Event, Seg, cr0, cr4, flags};

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
    /// The stop point for data that the running instruction met.
    pub(crate) met_stop_point: Option<StopPoint>,
    /// The instruction that may execute although a stop point lies at it.
    pub(crate) passed: Option<Passed>,
    pub(crate) pace: Pace,
    /// The block at RIP holds an instruction breakpoint further on.
    pub(crate) near_breakpoint: bool,
    /// The bits of RSP that are the stack pointer: all, 32 or 16.
    pub(crate) stack_mask: u64,
    pub(crate) view: View,
    pub(crate) mode: CodeMode,
    last_code_base: u64,
    pub(crate) last_pkru: u32,
    pub(crate) retired: u64,
    pub(crate) shutdown: Option<Box<Shutdown>>,
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
            met_stop_point: None,
            passed: None,
            pace: Pace::Block,
            near_breakpoint: false,
            stack_mask: 0xFFFF_FFFF,
            view: View::Supervisor,
            mode: CodeMode::Code32,
            last_code_base: 0,
            last_pkru: 0,
            retired: 0,
            shutdown: None,
        }
    }

    /// Instructions retired since the CPU was made; a REP string instruction counts once.
    pub const fn retired(&self) -> u64 {
        self.retired
    }

    /// What the last [`crate::Exit::TripleFault`] was about; it is told once.
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

    /// Ends SYSCALL or SYSRET: see [`Boundary::StepsByItself`].
    pub(crate) fn step_by_itself(&mut self) {
        self.boundary = Boundary::StepsByItself;
        if self.state.flags.rest() & flags::TF != 0 {
            self.state.queue_single_step();
        }
    }
}
