//! The guest of a recording: executes the recorded events and checks what the module makes of each.

use std::sync::Arc;

use tdvisor_base::Gpa;
use tdx_module_iface::Gprs;
use tdx_module_iface::exit::{ExitReason, ExitReasonField};

use crate::conformance::compare::{CallSite, Difference, Outcome, Side};
use crate::conformance::model::{
    AccessKind, Content, Contents, ControlRegister, ExitCause, Expected, GuestAct, GuestEvent, GuestResult,
    GuestRun, Privilege, Seamcall,
};
use crate::conformance::symbols::Bindings;
use crate::guest::{GuestCpu, GuestRegisters, GuestState, VmExit, gpr};
use crate::machine::{GuestEnv, GuestMemoryError};
use crate::msr::MsrAccess;
use crate::vcpu::control::Owned;
use x86_arch::{Access, Attributes, Seg, efer};

use super::Run;

/// How far the TSC moves before every guest event.
const TSC_STEP: u64 = 1_000_000;
/// How far RIP moves before every guest event.
const RIP_STEP: u64 = 64;
/// How often an interrupted TDCALL is executed again where the recording does not say so.
const EXTRA_RETRIES: u32 = 1024;

/// An event that was executed and left the guest, and whose result is not known yet.
struct Pending<'r> {
    /// Position in the list of events.
    position: usize,
    act: &'r GuestAct,
    expected: GuestResult,
    /// The VM in which it happened.
    vm: u8,
    /// The registers of another VM that goes on.
    after: Option<&'r Gprs>,
    /// All registers when it was executed.
    input: Gprs,
    /// RIP when it was executed.
    rip: u64,
    /// Executions beyond the recorded ones.
    extra: u32,
}

/// Executes one [`GuestRun`].
pub struct ScriptedVcpu<'r, 'm> {
    run: &'r Run<'m>,
    step: u32,
    call: &'r Seamcall,
    /// The TDVPR of the VCPU.
    tdvpr: u64,
    script: &'r GuestRun,
    next: usize,
    pending: Option<Pending<'r>>,
    started: bool,
}

impl<'r, 'm> ScriptedVcpu<'r, 'm> {
    pub fn new(run: &'r Run<'m>, step: u32, call: &'r Seamcall, tdvpr: u64, script: &'r GuestRun) -> Self {
        Self { run, step, call, tdvpr, script, next: 0, pending: None, started: false }
    }

    fn site(&self, position: Option<usize>) -> CallSite {
        let leaf = match position.and_then(|position| self.script.events.get(position)) {
            Some(GuestEvent::Guest { event, .. }) => event.name(),
            _ => Arc::clone(&self.call.leaf),
        };
        CallSite { step: self.step, lp: self.call.lp, event: position, leaf }
    }

    fn outcome_differs(&self, position: usize, expected: GuestResult, actual: Outcome) {
        let difference = Difference::Event { expected: Outcome::Known(expected), actual };
        self.run.ledger.abandon(|| self.site(Some(position)), difference);
    }

    /// The VP.ENTER came back: the script must have come to its end.
    pub fn left_guest(&mut self, _after: &Gprs) {
        if self.run.ledger.is_abandoned() {
            return;
        }
        if !self.started {
            self.run.ledger.abandon(|| self.site(None), Difference::Entered { expected: true });
            return;
        }
        match self.pending.take() {
            Some(pending) if pending.expected == GuestResult::Exit => {
                if matches!(pending.act, GuestAct::Tdcall { .. }) {
                    self.run.ledger.agree();
                }
            }
            Some(pending) => {
                let actual = Outcome::Known(GuestResult::Exit);
                self.outcome_differs(pending.position, pending.expected, actual);
            }
            None => self.outcome_differs(self.next, GuestResult::Exit, Outcome::NeverExecuted),
        }
    }

    /// The guest starts to run.
    fn start(&mut self, state: &mut GuestState, env: &GuestEnv<'_>) {
        self.started = true;
        let vm = env.vm().number();
        if self.script.vm != vm {
            let why = format!("VM {vm} was entered instead of VM {}", self.script.vm);
            self.run.ledger.abandon(|| self.site(None), Difference::NotReplayed { why });
            return;
        }
        let Some(expected) = self.run.values(&self.script.entry, || self.site(None)) else { return };
        if state.gprs() != expected {
            let difference =
                Difference::GuestEntry { expected: Box::new(expected), actual: Box::new(state.gprs()) };
            self.run.ledger.differ(|| self.site(None), difference);
        }
        let actual = state.event.take().map(|injection| injection.vector);
        if actual != self.script.inject {
            let difference = Difference::Injection { expected: self.script.inject, actual };
            self.run.ledger.differ(|| self.site(None), difference);
        }
    }

    /// The guest runs again after an event that left it: finds out what came of the event.
    ///
    /// Gives an exit if the same instruction must be executed once more before the script can go on.
    fn settle(&mut self, pending: Pending<'r>, state: &mut GuestState, env: &GuestEnv<'_>) -> Option<VmExit> {
        let vm = env.vm().number();
        let observed = match state.event.take() {
            _ if vm != pending.vm && vm == 0 => GuestResult::LeavesL2,
            _ if vm != pending.vm => GuestResult::EntersL2 { vm },
            Some(injection) => {
                GuestResult::Inject { vector: injection.vector, error_code: injection.error_code }
            }
            None => match (pending.act, state.rip() == pending.rip) {
                (GuestAct::Tdcall { .. }, true) => GuestResult::Retry,
                (GuestAct::Tdcall { .. }, false) => GuestResult::Ret,
                (_, true) => GuestResult::Resume,
                (_, false) => GuestResult::Emulated,
            },
        };
        if observed != pending.expected {
            // How often an interrupted instruction is resumed is not compared, only where it ends.
            if observed == GuestResult::Retry && pending.extra < EXTRA_RETRIES {
                state.set_gprs(pending.input);
                self.pending = Some(Pending { extra: pending.extra + 1, ..pending });
                return Some(VmExit::tdcall());
            }
            if observed == GuestResult::Ret && pending.expected == GuestResult::Retry {
                self.skip_recorded_retries(&pending, state);
                return None;
            }
            self.outcome_differs(pending.position, pending.expected, Outcome::Known(observed));
            return None;
        }
        match (pending.act, observed) {
            (GuestAct::Tdcall { expected: Some(expected), binds, .. }, GuestResult::Ret) => {
                self.compare_tdcall(pending.position, expected, binds, &pending.input, state);
            }
            (act, GuestResult::EntersL2 { .. } | GuestResult::LeavesL2) => {
                if matches!(act, GuestAct::Tdcall { .. }) {
                    self.run.ledger.agree();
                }
                self.compare_other_vm(&pending, state);
            }
            (GuestAct::Tdcall { .. }, _) => self.run.ledger.agree(),
            (GuestAct::Exit { cause, expected }, observed) => {
                self.compare_exit(&pending, *cause, expected.as_ref(), state);
                if observed == GuestResult::Emulated {
                    state.set_gprs(Gprs::ZERO);
                }
            }
            _ => {}
        }
        None
    }

    /// What an instruction left that exited: the registers that the module gave, and a control register.
    fn compare_exit(
        &self,
        pending: &Pending<'r>,
        cause: ExitCause,
        expected: Option<&Expected>,
        state: &GuestState,
    ) {
        let site = || self.site(Some(pending.position));
        if let Some(expected) = expected {
            self.run.ledger.check(site, expected, &pending.input, &state.gprs());
        }
        self.compare_control(pending.position, cause, state);
    }

    fn compare_control(&self, position: usize, cause: ExitCause, state: &GuestState) {
        let ExitCause::MovToControl { register, after: expected, .. } = cause else { return };
        let actual = match register {
            ControlRegister::Cr0 => state.control.cr0,
            ControlRegister::Cr4 => state.control.cr4,
        };
        if actual != expected {
            let difference = Difference::ControlRegister { register, expected, actual };
            self.run.ledger.differ(|| self.site(Some(position)), difference);
        }
    }

    /// A TDCALL completed which the recording sees interrupted some more times: those calls agree, and the
    /// recorded completion is compared with this one.
    fn skip_recorded_retries(&mut self, pending: &Pending<'r>, state: &mut GuestState) {
        self.run.ledger.agree();
        while let Some(event) = self.script.events.get(self.next) {
            let GuestEvent::Guest { event: GuestAct::Tdcall { input, expected, binds, .. }, result, .. } =
                event
            else {
                break;
            };
            let Some(input) = self.run.values(input, || self.site(Some(self.next))) else { break };
            if input != pending.input {
                break;
            }
            let position = self.next;
            self.next += 1;
            match (result, expected) {
                (GuestResult::Retry, _) => self.run.ledger.agree(),
                (GuestResult::Ret, Some(expected)) => {
                    self.compare_tdcall(position, expected, binds, &pending.input, state);
                    return;
                }
                (result, _) => {
                    self.outcome_differs(position, *result, Outcome::Known(GuestResult::Ret));
                    return;
                }
            }
        }
    }

    fn compare_other_vm(&self, pending: &Pending<'r>, state: &GuestState) {
        let actual = state.gprs();
        if let Some(expected) = pending.after
            && *expected != actual
        {
            let difference = Difference::OtherVm { expected: Box::new(*expected), actual: Box::new(actual) };
            self.run.ledger.differ(|| self.site(Some(pending.position)), difference);
        }
    }

    fn compare_tdcall(
        &self,
        position: usize,
        expected: &Expected,
        binds: &Bindings,
        input: &Gprs,
        state: &mut GuestState,
    ) {
        let _ = self.run.ledger.compare(
            || self.site(Some(position)),
            Side::Guest,
            expected,
            input,
            &state.gprs(),
        );
        self.run.bind(binds, &state.gprs());
        for reg in expected.masked.iter() {
            state.set_gpr(gpr(reg), 0);
        }
    }

    /// Executes events until one leaves the guest.
    fn execute(&mut self, state: &mut GuestState, env: &GuestEnv<'_>) -> VmExit {
        let script = self.script;
        while let Some(event) = script.events.get(self.next) {
            let position = self.next;
            self.next += 1;
            match event {
                GuestEvent::Host(step) => {
                    self.run.step(step);
                    if self.run.ledger.is_abandoned() {
                        return leave();
                    }
                }
                GuestEvent::IrqPending(irq) => self.run.irq_pending(*irq),
                GuestEvent::Guest { same_rip, privilege, event, result, vm, after } => {
                    let running = env.vm().number();
                    if *vm != running {
                        let why = format!("VM {running} runs instead of VM {vm}");
                        let difference = Difference::NotReplayed { why };
                        self.run.ledger.abandon(|| self.site(Some(position)), difference);
                        return leave();
                    }
                    self.move_on(*same_rip, *vm, state);
                    enter_64_bit_mode(state);
                    set_privilege(*privilege, state);
                    if let Some(exit) = self.act(position, event, (*result, after.as_ref()), state, env) {
                        return exit;
                    }
                    if self.run.ledger.is_abandoned() {
                        return leave();
                    }
                }
            }
        }
        // The recorded exit was the last event: `settle` has already said that it did not leave the guest.
        self.run.ledger.abandon(
            || self.site(None),
            Difference::NotReplayed { why: "the guest runs on after its recorded exit".to_owned() },
        );
        leave()
    }

    /// Time passes and the guest comes to its next instruction.
    fn move_on(&self, same_rip: bool, vm: u8, state: &mut GuestState) {
        self.run.machine.advance_tsc(TSC_STEP);
        let mut rips = self.run.rips.borrow_mut();
        let last = rips.entry((self.tdvpr, vm)).or_insert(state.rip());
        state.set_rip(if same_rip { *last } else { state.rip().wrapping_add(RIP_STEP) });
        *last = state.rip();
    }

    /// Executes one event; `None` if it does not leave the guest.
    fn act(
        &mut self,
        position: usize,
        act: &'r GuestAct,
        (expected, after): (GuestResult, Option<&'r Gprs>),
        state: &mut GuestState,
        env: &GuestEnv<'_>,
    ) -> Option<VmExit> {
        let exit = match act {
            GuestAct::Tdcall { input, .. } => {
                let input = self.run.values(input, || self.site(Some(position)))?;
                state.set_gprs(input);
                Some(VmExit::tdcall())
            }
            GuestAct::Access { gpa, kind } => self.touch(*gpa, *kind, env),
            GuestAct::Write { gpa, content } => self.write(position, *gpa, content, env),
            GuestAct::Read { gpa, len, must_be } => self.read(position, *gpa, *len, must_be, env),
            GuestAct::Exit { cause, expected: output } => {
                // Recordings that say nothing of results present every instruction to the module.
                let asks = expected == GuestResult::Ok || output.is_some();
                if asks && !cause.is_intercepted(env) {
                    cause.pass(env, state);
                    self.compare_control(position, *cause, state);
                    None
                } else {
                    Some(cause.happen(state))
                }
            }
        };
        let Some(exit) = exit else {
            if expected != GuestResult::Ok {
                self.outcome_differs(position, expected, Outcome::Known(GuestResult::Ok));
            }
            return None;
        };
        if expected == GuestResult::Ok {
            self.outcome_differs(position, expected, Outcome::Known(GuestResult::Exit));
            return Some(leave());
        }
        self.pending = Some(Pending {
            position,
            act,
            expected,
            vm: env.vm().number(),
            after,
            input: state.gprs(),
            rip: state.rip(),
            extra: 0,
        });
        Some(exit)
    }

    fn touch(&self, gpa: Gpa, kind: AccessKind, env: &GuestEnv<'_>) -> Option<VmExit> {
        self.flush(env);
        let access = match kind {
            AccessKind::Read => Access::Read,
            AccessKind::Write => Access::Write,
            AccessKind::Fetch => Access::Execute,
        };
        let exit = env.translate(gpa, access).err()?;
        Some(at_linear_address(exit, gpa, env))
    }

    fn write(&self, position: usize, gpa: Gpa, content: &Content, env: &GuestEnv<'_>) -> Option<VmExit> {
        self.flush(env);
        match env.write(gpa, &content.bytes()) {
            Ok(()) => None,
            Err(GuestMemoryError::Exit(exit)) => Some(at_linear_address(exit, gpa, env)),
            Err(GuestMemoryError::Memory(_)) => {
                self.outcome_differs(position, GuestResult::Ok, Outcome::Faulted);
                None
            }
        }
    }

    fn read(
        &self,
        position: usize,
        gpa: Gpa,
        len: u64,
        must_be: &Contents,
        env: &GuestEnv<'_>,
    ) -> Option<VmExit> {
        self.flush(env);
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        match env.read(gpa, &mut bytes) {
            Ok(()) => {
                if !must_be.are(&bytes) {
                    let difference = Difference::GuestMemory { at: gpa, len };
                    self.run.ledger.differ(|| self.site(Some(position)), difference);
                }
                None
            }
            Err(GuestMemoryError::Exit(exit)) => Some(at_linear_address(exit, gpa, env)),
            Err(GuestMemoryError::Memory(_)) => {
                self.outcome_differs(position, GuestResult::Ok, Outcome::Faulted);
                None
            }
        }
    }

    /// The recordings know no TLB.
    fn flush(&self, env: &GuestEnv<'_>) {
        if let Some(processor) = self.run.machine.processors().get(env.lp()) {
            processor.tlb.flush_all();
        }
    }
}

impl GuestCpu for ScriptedVcpu<'_, '_> {
    /// The recordings' processor had no APIC.
    fn takes_posted_interrupts(&self) -> bool {
        false
    }

    fn run(&mut self, state: &mut GuestState, env: &GuestEnv<'_>) -> VmExit {
        if self.run.ledger.is_abandoned() {
            state.event = None;
            return leave();
        }
        if !self.started {
            self.start(state, env);
        } else if let Some(pending) = self.pending.take()
            && let Some(exit) = self.settle(pending, state, env)
        {
            return exit;
        }
        if self.run.ledger.is_abandoned() {
            return leave();
        }
        self.execute(state, env)
    }
}

/// The guests of the recordings run 64-bit code at CPL 0 from their first instruction on.
fn enter_64_bit_mode(state: &mut GuestState) {
    const CODE_64_BIT: u32 = 1 << 13;
    const CODE_32_BIT: u32 = 1 << 14;
    state.control.efer |= efer::LME | efer::LMA;
    let code = state.segment_mut(Seg::Cs);
    code.attributes = Attributes(code.attributes.0 & !CODE_32_BIT | CODE_64_BIT);
}

/// The level is that of the stack segment.
fn set_privilege(privilege: Privilege, state: &mut GuestState) {
    const DPL: u32 = 3 << 5;
    let stack = state.segment_mut(Seg::Ss);
    stack.attributes = Attributes(match privilege {
        Privilege::Supervisor => stack.attributes.0 & !DPL,
        Privilege::User => stack.attributes.0 | DPL,
    });
}

/// What a guest does that has nothing more to do: it is interrupted.
fn leave() -> VmExit {
    VmExit::plain(ExitReason::EXTERNAL_INTERRUPT)
}

/// Adds what the recordings' guests have and a bare walk does not know: a linear address equal to the
/// guest-physical one without SHARED, and an instruction of four bytes.
fn at_linear_address(exit: VmExit, gpa: Gpa, env: &GuestEnv<'_>) -> VmExit {
    VmExit {
        qualification: exit.qualification | 0x180,
        gla: gpa.get() & !env.shared_bit(),
        gpa,
        instruction_length: 4,
        ..exit
    }
}

impl ExitCause {
    /// Whether the processor leaves the guest for it.
    fn is_intercepted(self, env: &GuestEnv<'_>) -> bool {
        match self {
            Self::Rdmsr { index } => !env.passes_msr(index, MsrAccess::Read),
            Self::Wrmsr { index, .. } => !env.passes_msr(index, MsrAccess::Write),
            Self::MovToControl { register, value, .. } => register.owned(env).intercepts(value),
            _ => true,
        }
    }

    /// Carries out what the processor does without leaving the guest. MSRs are not part of the recordings.
    fn pass(self, env: &GuestEnv<'_>, state: &mut GuestState) {
        if let Self::MovToControl { register, value, .. } = self {
            let mask = register.owned(env).mask;
            let slot = register.slot(state);
            *slot = *slot & mask | value & !mask;
        }
    }

    /// Loads the registers that the instruction needs and gives the VM exit that it causes.
    fn happen(self, state: &mut GuestState) -> VmExit {
        let plain = |reason, length| VmExit::instruction(reason, length, 0);
        match self {
            Self::Hlt => plain(ExitReason::HLT, 1),
            Self::Wbinvd => plain(ExitReason::WBINVD, 2),
            Self::Invd => plain(ExitReason::INVD, 2),
            Self::Vmcall => plain(ExitReason::VMCALL, 3),
            Self::Monitor => plain(ExitReason::MONITOR, 3),
            Self::Mwait => plain(ExitReason::MWAIT, 3),
            Self::Vmxon => plain(ExitReason::VMXON, 4),
            Self::Seamcall => plain(ExitReason::SEAMCALL, 4),
            Self::Io { qualification } => VmExit::instruction(ExitReason::IO_INSTRUCTION, 1, qualification),
            Self::Cpuid { leaf, subleaf } => {
                state.set_gprs(Gprs { rax: leaf, rcx: subleaf, ..Gprs::ZERO });
                plain(ExitReason::CPUID, 2)
            }
            Self::Rdmsr { index } => {
                state.set_gprs(Gprs { rcx: u64::from(index), ..Gprs::ZERO });
                plain(ExitReason::RDMSR, 2)
            }
            Self::Wrmsr { index, value } => {
                state.set_gprs(Gprs {
                    rcx: u64::from(index),
                    rax: value & 0xffff_ffff,
                    rdx: value >> 32,
                    ..Gprs::ZERO
                });
                plain(ExitReason::WRMSR, 2)
            }
            Self::MovToControl { register, value, .. } => {
                state.set_gprs(Gprs { rax: value, ..Gprs::ZERO });
                VmExit::instruction(ExitReason::CR_ACCESS, 3, register.number())
            }
            Self::Xsetbv { index, value } => {
                state.set_gprs(Gprs { rcx: index, rax: value & 0xffff_ffff, rdx: value >> 32, ..Gprs::ZERO });
                plain(ExitReason::XSETBV, 3)
            }
            Self::VmExit { exit, regs } => {
                state.set_gprs(regs);
                exit
            }
            Self::ExternalInterrupt { info } => {
                VmExit { interruption_info: info, ..VmExit::plain(ExitReason::EXTERNAL_INTERRUPT) }
            }
            Self::Nmi => {
                VmExit { interruption_info: 0x8000_0202, ..VmExit::plain(ExitReason::EXCEPTION_NMI) }
            }
            Self::TripleFault => VmExit::plain(ExitReason::TRIPLE_FAULT),
            Self::EntryFailure { reason } => {
                let failure = ExitReasonField(reason);
                VmExit { reason: failure, ..VmExit::plain(failure.basic()) }
            }
        }
    }

    /// The event with what tells it from its like, for reports.
    fn title(self) -> Arc<str> {
        let name = self.name();
        Arc::from(match self {
            Self::Cpuid { leaf, subleaf } => format!("{name} {leaf:#x}.{subleaf:#x}"),
            Self::Rdmsr { index } => format!("{name} {index:#x}"),
            Self::Wrmsr { index, value } => format!("{name} {index:#x} := {value:#x}"),
            Self::MovToControl { register, value, .. } => {
                format!("MOV CR{} := {value:#x}", register.number())
            }
            Self::Xsetbv { index, value } => format!("{name} {index:#x} := {value:#x}"),
            Self::VmExit { exit, .. } => format!("{name} {:?}", exit.reason),
            _ => name.to_owned(),
        })
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Hlt => "HLT",
            Self::Wbinvd => "WBINVD",
            Self::Invd => "INVD",
            Self::Vmcall => "VMCALL",
            Self::Monitor => "MONITOR",
            Self::Mwait => "MWAIT",
            Self::Vmxon => "VMXON",
            Self::Seamcall => "SEAMCALL by the guest",
            Self::MovToControl { .. } => "MOV to a control register",
            Self::Xsetbv { .. } => "XSETBV",
            Self::VmExit { .. } => "VM exit",
            Self::Io { .. } => "port I/O",
            Self::Cpuid { .. } => "CPUID",
            Self::Rdmsr { .. } => "RDMSR",
            Self::Wrmsr { .. } => "WRMSR",
            Self::ExternalInterrupt { .. } => "external interrupt",
            Self::Nmi => "NMI",
            Self::TripleFault => "triple fault",
            Self::EntryFailure { .. } => "VM entry failure",
        }
    }
}

impl ControlRegister {
    const fn number(self) -> u64 {
        match self {
            Self::Cr0 => 0,
            Self::Cr4 => 4,
        }
    }

    fn owned(self, env: &GuestEnv<'_>) -> Owned {
        match self {
            Self::Cr0 => env.controls().cr0,
            Self::Cr4 => env.controls().cr4,
        }
    }

    const fn slot(self, state: &mut GuestState) -> &mut u64 {
        match self {
            Self::Cr0 => &mut state.control.cr0,
            Self::Cr4 => &mut state.control.cr4,
        }
    }
}

impl GuestAct {
    /// The event, for reports.
    fn name(&self) -> Arc<str> {
        match self {
            Self::Tdcall { leaf, .. } => Arc::clone(leaf),
            Self::Access { gpa, kind } => {
                let what = match kind {
                    AccessKind::Read => "read",
                    AccessKind::Write => "write",
                    AccessKind::Fetch => "fetch",
                };
                Arc::from(format!("guest {what} at {gpa}"))
            }
            Self::Write { gpa, .. } => Arc::from(format!("guest store at {gpa}")),
            Self::Read { gpa, .. } => Arc::from(format!("guest load at {gpa}")),
            Self::Exit { cause, .. } => cause.title(),
        }
    }
}
