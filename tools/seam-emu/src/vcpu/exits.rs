//! What the module does about each VM exit (recorded).

use tdx_module_iface::StatusCode;
use tdx_module_iface::exit::ExitReason;
use tdx_module_iface::lifecycle::VcpuState;
use x86_arch::{Event, EventKind, InterruptionInfo, vector};

use super::{AsyncExit, Handled, Running, cpuid, ept, msr, registers, ve};
use crate::fields::layout::tdvps;
use crate::fields::{FieldStore, Width};
use crate::guest::{GuestState, VmExit, reason};
use crate::guest_leaf;
use crate::rules::Intercept;

/// Qualification of an SMI exit: the SMI is one that a machine check raised.
const MACHINE_CHECK_SMI: u64 = 1;
/// Qualification of a notify exit: the VM's context is not valid any more.
const INVALID_CONTEXT: u64 = 1;

/// Handles one VM exit.
pub(crate) fn handle(vcpu: &Running<'_, '_>, state: &mut GuestState, exit: &VmExit) -> Handled {
    if exit.reason.is_entry_failure() {
        return entry_failure(vcpu, exit);
    }
    match exit.reason.basic() {
        ExitReason::EXCEPTION_NMI => exception_or_nmi(vcpu, exit),
        ExitReason::OTHER_SMI | ExitReason::IO_SMI if exit.qualification & MACHINE_CHECK_SMI != 0 => {
            not_accessible(vcpu, exit)
        }
        ExitReason::NOTIFY if exit.qualification & INVALID_CONTEXT != 0 => corrupted(vcpu, exit),
        ExitReason::EXTERNAL_INTERRUPT
        | ExitReason::INIT
        | ExitReason::SIPI
        | ExitReason::IO_SMI
        | ExitReason::OTHER_SMI
        | ExitReason::TASK_SWITCH
        | ExitReason::BUS_LOCK
        | ExitReason::NOTIFY => Handled::exit(AsyncExit::pass(exit)),
        // A limit of the emulator stops the vCPU under a reason of its own.
        ExitReason::TRIPLE_FAULT | reason::EMULATOR_LIMIT => {
            vcpu.tdvps.set_state(VcpuState::DISABLED);
            Handled::exit(AsyncExit::with_status(StatusCode::NON_RECOVERABLE_VCPU, exit))
        }
        ExitReason::INTERRUPT_WINDOW => Handled::Resume,
        ExitReason::NMI_WINDOW => {
            vcpu.tdvps.store(tdvps::PEND_NMI, Width::B1, 0);
            Handled::Inject(Event::nmi())
        }
        ExitReason::TDCALL => guest_leaf::dispatch(vcpu, state, exit),
        ExitReason::EPT_VIOLATION => ept::violation(vcpu, state, exit),
        ExitReason::EPT_MISCONFIG => ept::misconfiguration(exit),
        ExitReason::CPUID => cpuid::cpuid(vcpu, state, exit),
        ExitReason::RDMSR => msr::rdmsr(vcpu, state, exit),
        ExitReason::WRMSR => msr::wrmsr(vcpu, state, exit),
        ExitReason::CR_ACCESS => registers::control_register(vcpu, state, exit),
        ExitReason::XSETBV => registers::xsetbv(vcpu, state, exit),
        ExitReason::MONITOR | ExitReason::MWAIT => match vcpu.rules().monitor_mwait {
            Intercept::VirtualisationException => ve::inject(vcpu, exit),
            Intercept::UndefinedOpcode => Handled::UNDEFINED_OPCODE,
        },
        ExitReason::HLT
        | ExitReason::IO_INSTRUCTION
        | ExitReason::INVD
        | ExitReason::WBINVD
        | ExitReason::VMCALL
        | ExitReason::PCONFIG
        | ExitReason::APIC_WRITE => ve::inject(vcpu, exit),
        // ENQCMD translates a PASID that no TD has; counters belong to the TDs that have them.
        reason::ENQCMD | ExitReason::RDPMC => Handled::GENERAL_PROTECTION,
        ExitReason::SEAMCALL
        | ExitReason::VMXON
        | reason::VMCLEAR
        | reason::VMLAUNCH
        | reason::VMPTRLD
        | reason::VMPTRST
        | reason::VMREAD
        | reason::VMRESUME
        | reason::VMWRITE
        | reason::VMXOFF
        | reason::INVEPT
        | reason::INVVPID
        | reason::VMFUNC
        | reason::GETSEC
        | reason::RSM
        | reason::ENCLS
        | reason::ENCLV
        | reason::ENQCMDS
        | reason::LOADIWKEY
        | reason::UMWAIT
        | reason::TPAUSE => Handled::UNDEFINED_OPCODE,
        _ => fatal(vcpu, exit),
    }
}

/// A VM entry that failed.
fn entry_failure(vcpu: &Running<'_, '_>, exit: &VmExit) -> Handled {
    match exit.reason.basic() {
        ExitReason::ENTRY_FAIL_MACHINE_CHECK => not_accessible(vcpu, exit),
        _ => fatal(vcpu, exit),
    }
}

fn exception_or_nmi(vcpu: &Running<'_, '_>, exit: &VmExit) -> Handled {
    let info = InterruptionInfo { info: exit.interruption_info, ..InterruptionInfo::NONE };
    match info.unpack() {
        Some(Event { kind: EventKind::Nmi, .. }) => Handled::exit(AsyncExit::pass(exit)),
        Some(Event { vector: vector::MC, .. }) => not_accessible(vcpu, exit),
        _ => fatal(vcpu, exit),
    }
}

/// The TD's memory or control structures failed the integrity check: the TD dies.
pub(crate) fn not_accessible(vcpu: &Running<'_, '_>, exit: &VmExit) -> Handled {
    vcpu.tdr.set_fatal();
    Handled::exit(AsyncExit::with_status(StatusCode::NON_RECOVERABLE_TD_NON_ACCESSIBLE, exit))
}

/// The state of the VCPU is lost: the TD dies, debuggable or not.
fn corrupted(vcpu: &Running<'_, '_>, exit: &VmExit) -> Handled {
    vcpu.tdr.set_fatal();
    Handled::exit(AsyncExit::with_status(StatusCode::NON_RECOVERABLE_TD, exit))
}

/// An exit that a TD cannot survive. The owner of a debuggable TD may look at it and go on.
pub(crate) fn fatal(vcpu: &Running<'_, '_>, exit: &VmExit) -> Handled {
    if vcpu.tdcs.is_debug() {
        return Handled::exit(AsyncExit::pass(exit));
    }
    vcpu.tdr.set_fatal();
    Handled::exit(AsyncExit::with_status(StatusCode::NON_RECOVERABLE_TD, exit))
}
