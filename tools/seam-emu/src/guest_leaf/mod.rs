//! TDCALL: dispatch, and the leaves that a guest calls (Intel 348551, guest-side interface functions).
//!
//! # Protocol
//! A leaf returns a status, which the guest finds in RAX behind the instruction; or it ends in something that
//! is no return: a TD exit or an event in the middle of the instruction, which the guest executes again.

mod accept;
mod attributes;
mod leaves;
pub(crate) mod memory;
mod metadata;
mod report;
mod rtmr;
mod vcpu;
pub(crate) mod verify;

pub(crate) use leaves::LEAVES;
pub(crate) use memory::{Place, Use, check_operand, locate};

use tdx_module_iface::exit::ExitReason;
use tdx_module_iface::lifecycle::LastTdExit;
use tdx_module_iface::{LeafWord, Operand, Status, StatusCode, TdgLeaf};

use self::leaves::Run;
use crate::fields::layout::tdvps;
use crate::fields::{FieldStore, Width};
use crate::guest::{GuestRegisters, GuestState, VmExit};
use crate::host::invalid;
use crate::inject::Effect;
use crate::lock::Busy;
use crate::vcpu::{AsyncExit, Handled, Running, TdExit, complete};
use x86_arch::Gpr;

/// How a guest leaf ends other than with success.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    /// With this status, behind the instruction.
    Status(Status),
    /// With an exit or an event; the instruction is not completed.
    Fault(Handled),
    /// With a TD exit behind the instruction.
    TrapExit(TdExit),
    /// A lock was not free.
    Busy(Operand, Busy),
    /// An interrupt waits for the VMM; the guest executes the instruction again.
    Again,
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

/// What a step of a guest leaf gives.
pub(crate) type Step<T = ()> = Result<T, End>;

/// A TDCALL under way.
pub(crate) struct Call<'a, 'v, 'm> {
    pub(crate) vcpu: &'a Running<'v, 'm>,
}

/// Handles the VM exit of a TDCALL, and tells whoever listens of it.
pub(crate) fn dispatch(vcpu: &Running<'_, '_>, state: &mut GuestState, exit: &VmExit) -> Handled {
    let Some(observer) = vcpu.machine.tdcall_observer() else { return perform(vcpu, state, exit) };
    let (before, rip) = (state.gprs(), state.rip());
    let handled = perform(vcpu, state, exit);
    let after = (state.rip() != rip).then(|| state.gprs());
    observer.tdcall(vcpu.lp, &before, after.as_ref());
    handled
}

fn perform(vcpu: &Running<'_, '_>, state: &mut GuestState, exit: &VmExit) -> Handled {
    let privileged = state.cpl() == 0;
    if !state.is_64_bit() || !privileged {
        return Handled::GENERAL_PROTECTION;
    }
    let call = Call { vcpu };
    let outcome = match vcpu.machine.faults().decide_tdcall(vcpu.lp, &state.gprs()) {
        None => run(&call, state),
        Some(Effect::Return(status)) => Err(End::Status(status)),
        Some(Effect::Interrupt) => vcpu.machine.with_interrupt(vcpu.lp, || run(&call, state)),
    };
    match outcome {
        Ok(()) => {
            no_longer_busy(vcpu);
            returned(state, exit, Status::SUCCESS)
        }
        Err(End::Status(status)) => {
            no_longer_busy(vcpu);
            returned(state, exit, status)
        }
        Err(End::Busy(operand, busy)) => {
            let handled = returned(state, exit, Status::with_operand(StatusCode::OPERAND_BUSY, operand));
            match busy {
                Busy::HostPriority if waited_too_long(vcpu) => {
                    // The guest is told of it by this exit; what it meets afterwards counts anew.
                    no_longer_busy(vcpu);
                    give_up()
                }
                Busy::HostPriority => handled,
                Busy::Held => {
                    no_longer_busy(vcpu);
                    handled
                }
            }
        }
        // A leaf that leaves the TD in the middle has come to no end: it neither met a lock nor got by.
        Err(End::Fault(handled @ Handled::Exit(_))) => handled,
        Err(End::Fault(handled)) => {
            no_longer_busy(vcpu);
            handled
        }
        Err(End::TrapExit(td_exit)) => {
            complete(state, exit);
            Handled::Exit(td_exit)
        }
        Err(End::Again) => {
            no_longer_busy(vcpu);
            Handled::Resume
        }
    }
}

/// The guest met something else than a host-priority lock.
fn no_longer_busy(vcpu: &Running<'_, '_>) {
    vcpu.tdvps.store(tdvps::HP_LOCK_BUSY, Width::B1, 0);
}

fn returned(state: &mut GuestState, exit: &VmExit, status: Status) -> Handled {
    state.regs[Gpr::Rax] = status.raw();
    complete(state, exit)
}

/// Whether the guest has met nothing but host-priority locks for the TD's time-out.
fn waited_too_long(vcpu: &Running<'_, '_>) -> bool {
    let now = vcpu.machine.tsc();
    if vcpu.tdvps.load(tdvps::HP_LOCK_BUSY, Width::B1) == 0 {
        vcpu.tdvps.store(tdvps::HP_LOCK_BUSY, Width::B1, 1);
        vcpu.tdvps.store_u64(tdvps::HP_LOCK_BUSY_START, now);
        return false;
    }
    let waited = now.saturating_sub(vcpu.tdvps.load_u64(tdvps::HP_LOCK_BUSY_START));
    waited >= vcpu.tdcs.load_u64(crate::fields::layout::tdcs::HP_LOCK_TIMEOUT)
}

/// The trap-like exit after that.
fn give_up() -> Handled {
    let reason = tdx_module_iface::exit::ExitReasonField(0);
    let mut exit = AsyncExit::new(StatusCode::HOST_PRIORITY_BUSY_TIMEOUT, reason);
    exit.kind = LastTdExit::ASYNC_TRAP;
    Handled::exit(exit)
}

fn run(call: &Call<'_, '_, '_>, state: &mut GuestState) -> Step {
    let word = LeafWord(state.regs[Gpr::Rax]);
    let release = call.vcpu.machine.config().profile.release();
    let leaf = leaves::find(TdgLeaf(word.leaf())).filter(|leaf| leaf.info.exists_in(release));
    let version = word.version();
    // A leaf that has versions refuses those above its greatest itself.
    let has_versions = || leaf.is_some_and(|leaf| leaf.info.max_version(release) > 0);
    if word.has_reserved_bits() || (version != 0 && !has_versions()) {
        return Err(invalid(Operand::RAX).into());
    }
    let Some(leaf) = leaf else { return Err(invalid(Operand::RAX).into()) };
    match leaf.run {
        Run::Leaf(run) => run(call, state),
        Run::Versioned(run) => run(call, state, version),
        Run::Refused(operand) => Err(invalid(operand).into()),
    }
}

/// An EPT violation that a leaf meets at an operand: as if the guest's own access had met it.
fn violation(gpa: tdvisor_base::Gpa, qualification: u64) -> VmExit {
    let mut exit = VmExit::plain(ExitReason::EPT_VIOLATION);
    exit.qualification = qualification;
    exit.gpa = gpa;
    // The instruction is the TDCALL itself.
    exit.instruction_length = VmExit::tdcall().instruction_length;
    exit
}
