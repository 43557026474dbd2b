//! What the module does about each VM exit (VP.ENTER reference, sections 2 to 5).

use tdx_module_iface::StatusCode;
use tdx_module_iface::exit::ExitReason;
use tdx_module_iface::lifecycle::VcpuState;
use x86_arch::{Event, EventKind, InterruptionInfo, vector};

use super::{AsyncExit, Handled, Running, complete, cpuid, ept, msr, registers, ve};
use crate::fields::layout::tdvps;
use crate::fields::{FieldStore, Width};
use crate::guest::{GuestState, VmExit, reason};
use crate::guest_leaf;

/// Handles one VM exit.
pub(super) fn handle(vcpu: &Running<'_, '_>, state: &mut GuestState, exit: &VmExit) -> Handled {
    if exit.reason.is_entry_failure() {
        return fatal(vcpu, exit);
    }
    match exit.reason.basic() {
        ExitReason::EXCEPTION_NMI => exception_or_nmi(vcpu, exit),
        ExitReason::EXTERNAL_INTERRUPT | ExitReason::INIT | ExitReason::SIPI | ExitReason::OTHER_SMI => {
            Handled::exit(AsyncExit::pass(exit))
        }
        // A limit of the emulator stops the vCPU under a reason of its own.
        ExitReason::TRIPLE_FAULT | reason::EMULATOR_LIMIT => {
            vcpu.tdvps.set_state(VcpuState::DISABLED);
            Handled::exit(AsyncExit::new(StatusCode::NON_RECOVERABLE_VCPU, exit.reason))
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
        ExitReason::HLT
        | ExitReason::IO_INSTRUCTION
        | ExitReason::INVD
        | ExitReason::WBINVD
        | ExitReason::VMCALL
        | ExitReason::MONITOR
        | ExitReason::MWAIT
        | ExitReason::PCONFIG
        | ExitReason::RDPMC
        | ExitReason::APIC_WRITE
        | ExitReason::NOTIFY => ve::inject(vcpu, exit),
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
        | reason::LOADIWKEY
        | reason::UMWAIT
        | reason::TPAUSE => Handled::UNDEFINED_OPCODE,
        ExitReason::BUS_LOCK => Handled::Resume,
        ExitReason::DR_ACCESS => complete(state, exit),
        _ => fatal(vcpu, exit),
    }
}

fn exception_or_nmi(vcpu: &Running<'_, '_>, exit: &VmExit) -> Handled {
    let info = InterruptionInfo { info: exit.interruption_info, ..InterruptionInfo::NONE };
    match info.unpack() {
        Some(Event { kind: EventKind::Nmi, .. }) => {
            let mut out = AsyncExit::pass(exit);
            out.interruption_info = exit.interruption_info;
            Handled::exit(out)
        }
        Some(Event { vector: vector::MC, .. }) => not_accessible(vcpu, exit),
        _ => fatal(vcpu, exit),
    }
}

/// The TD's memory or control structures failed the integrity check: the TD dies.
pub(crate) fn not_accessible(vcpu: &Running<'_, '_>, exit: &VmExit) -> Handled {
    vcpu.tdr.set_fatal();
    Handled::exit(AsyncExit::new(StatusCode::NON_RECOVERABLE_TD_NON_ACCESSIBLE, exit.reason))
}

/// An exit that a TD cannot survive. The owner of a debuggable TD may look at it and go on.
fn fatal(vcpu: &Running<'_, '_>, exit: &VmExit) -> Handled {
    if vcpu.tdcs.is_debug() {
        return Handled::exit(AsyncExit::pass(exit));
    }
    vcpu.tdr.set_fatal();
    Handled::exit(AsyncExit::new(StatusCode::NON_RECOVERABLE_TD, exit.reason))
}
