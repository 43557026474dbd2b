//! VM exits of L2 VMs: which of them L1 gets, which the host, and which the module settles itself.

use tdvisor_base::{Level, PAGE_SIZE};
use tdx_module_iface::exit::{EptViolation, ExitReason, ExitReasonField, ExtendedQualification};
use tdx_module_iface::sept::SeptStates;
use tdx_module_iface::{LeafWord, Status, StatusCode, TdgLeaf};
use x86_arch::{Event, EventKind, Gpr, InterruptionInfo, Seg, vector};

use super::Vm;
use super::registers::control_register;
use super::store::{l1_msr_bitmaps, of_vm};
use crate::fields::FieldStore;
use crate::fields::vmcs;
use crate::guest::{GuestRegisters, GuestState, VmExit, reason};
use crate::guest_leaf;
use crate::msr::{self, MsrAccess};
use crate::td::sept::Walk;
use crate::vcpu::{AsyncExit, Handled, Running, apic, exits, zero_step};

/// L2_CTLS: TDG.VP.VMCALL of the VM goes to the host.
const ENABLE_TDVMCALL: u64 = 1 << 1;

/// L2_DEBUG_CTLS.
mod debug {
    pub(super) const EXIT_BEFORE_ENTRY: u64 = 1 << 0;
    pub(super) const EXIT_ON_L2_TO_L1: u64 = 1 << 1;
    pub(super) const EXIT_ON_ALL: u64 = 1 << 2;
}

const L2_CTLS: u32 = offset(&tdx_module_iface::metadata::vp::L2_CTLS);
const L2_DEBUG_CTLS: u32 = offset(&tdx_module_iface::metadata::vp::L2_DEBUG_CTLS);

pub(super) const fn offset(field: &tdx_module_iface::metadata::Field) -> u32 {
    match field.offset() {
        Some(offset) => offset,
        None => panic!("a field of the TDVPS"),
    }
}

/// What L1 learns of an exit of its L2 VM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct L1Exit {
    /// Bits 63:32 of RAX.
    pub(crate) code: StatusCode,
    /// What the processor said.
    pub(crate) exit: VmExit,
    /// R13.
    pub(crate) extended: ExtendedQualification,
}

impl L1Exit {
    pub(crate) const fn new(exit: &VmExit) -> Self {
        Self { code: StatusCode::SUCCESS, exit: *exit, extended: ExtendedQualification::NONE }
    }
}

/// Whether the host of a debuggable TD wants to stop before an L2 VM is entered.
pub(crate) fn stops_before_entry(vcpu: &Running<'_, '_>, vm: Vm) -> bool {
    debug_controls(vcpu, vm) & debug::EXIT_BEFORE_ENTRY != 0
}

fn debug_controls(vcpu: &Running<'_, '_>, vm: Vm) -> u64 {
    if vcpu.tdcs.is_debug() { vcpu.tdvps.load_u64(of_vm(L2_DEBUG_CTLS, vm)) } else { 0 }
}

/// A TD exit that only the host of a debuggable TD sees.
fn debug_exit(code: StatusCode, exit: &VmExit) -> Handled {
    Handled::exit(AsyncExit::with_status(code, exit))
}

/// Handles one VM exit of an L2 VM.
pub(crate) fn handle(vcpu: &Running<'_, '_>, state: &mut GuestState, exit: &VmExit) -> Handled {
    let controls = debug_controls(vcpu, vcpu.vm());
    if controls & debug::EXIT_ON_ALL != 0 {
        return debug_exit(StatusCode::TD_EXIT_ON_L2_VM_EXIT, exit);
    }
    let handled = match route(vcpu, state, exit) {
        Handled::Inject(event) if l1_intercepts(vcpu, &event) => {
            // L1 gets the exit that led to the exception, with the error code of the exception (as the module does it).
            let InterruptionInfo { error_code, .. } = InterruptionInfo::pack(Some(event));
            to_l1(&VmExit { interruption_error: error_code, ..*exit })
        }
        handled => handled,
    };
    match handled {
        Handled::ToL1(l1) if controls & debug::EXIT_ON_L2_TO_L1 != 0 => {
            debug_exit(StatusCode::TD_EXIT_ON_L2_TO_L1, &l1.exit)
        }
        handled => handled,
    }
}

/// L1 gets the exit as it is.
pub(super) fn to_l1(exit: &VmExit) -> Handled {
    Handled::ToL1(L1Exit::new(exit))
}

/// Whether L1 wants an exception of its L2 VM. Page faults, of which it may want some, are never the module's own.
fn l1_intercepts(vcpu: &Running<'_, '_>, event: &Event) -> bool {
    let bitmap = vcpu.view(vcpu.vm()).load_u64(vmcs::EXCEPTION_BITMAP);
    event.kind == EventKind::HardwareException && event.vector < 32 && bitmap >> event.vector & 1 != 0
}

/// Whether an exit concerns the host, whatever the VM is.
fn is_for_host(exit: &VmExit) -> bool {
    match exit.reason.basic() {
        ExitReason::EXTERNAL_INTERRUPT
        | ExitReason::INIT
        | ExitReason::SIPI
        | ExitReason::IO_SMI
        | ExitReason::OTHER_SMI
        | ExitReason::BUS_LOCK
        | ExitReason::NOTIFY => true,
        ExitReason::EXCEPTION_NMI => {
            let info = InterruptionInfo { info: exit.interruption_info, ..InterruptionInfo::NONE };
            info.unpack().is_some_and(|event| event.kind == EventKind::Nmi || event.vector == vector::MC)
        }
        _ => false,
    }
}

fn route(vcpu: &Running<'_, '_>, state: &mut GuestState, exit: &VmExit) -> Handled {
    if exit.reason.is_entry_failure() {
        return match exit.reason.basic() {
            ExitReason::ENTRY_FAIL_GUEST_STATE => to_l1(exit),
            _ => exits::handle(vcpu, state, exit),
        };
    }
    match exit.reason.basic() {
        ExitReason::EXTERNAL_INTERRUPT => match posted_to_l1(vcpu, exit) {
            Some(handled) => handled,
            None => exits::handle(vcpu, state, exit),
        },
        _ if is_for_host(exit) => exits::handle(vcpu, state, exit),
        // A limit of the emulator stops the vCPU, whoever met it.
        reason::EMULATOR_LIMIT | ExitReason::EPT_MISCONFIG => exits::handle(vcpu, state, exit),
        ExitReason::EPT_VIOLATION => violation(vcpu, exit),
        ExitReason::TDCALL if is_vmcall_for_host(vcpu, state) => guest_leaf::dispatch(vcpu, state, exit),
        ExitReason::RDMSR => msr(vcpu, state, exit, MsrAccess::Read),
        ExitReason::WRMSR => msr(vcpu, state, exit, MsrAccess::Write),
        ExitReason::CR_ACCESS => control_register(vcpu, state, exit),
        reason if is_for_l1(reason) => to_l1(exit),
        _ => exits::fatal(vcpu, exit),
    }
}

/// Whether L1 gets an exit as it is. It gets no other exit of which this table does not know.
const fn is_for_l1(reason: ExitReason) -> bool {
    use ExitReason as R;
    matches!(
        reason,
        R::EXCEPTION_NMI
            | R::TRIPLE_FAULT
            | R::INTERRUPT_WINDOW
            | R::NMI_WINDOW
            | R::TASK_SWITCH
            | R::CPUID
            | reason::GETSEC
            | R::HLT
            | R::INVD
            | reason::INVLPG
            | R::RDPMC
            | reason::RDTSC
            | reason::RSM
            | R::VMCALL
            | reason::VMCLEAR
            | reason::VMLAUNCH
            | reason::VMPTRLD
            | reason::VMPTRST
            | reason::VMREAD
            | reason::VMRESUME
            | reason::VMWRITE
            | reason::VMXOFF
            | R::VMXON
            | R::DR_ACCESS
            | R::IO_INSTRUCTION
            | R::MWAIT
            | R::MONITOR
            | R::PAUSE
            | reason::TPR_BELOW_THRESHOLD
            | R::VIRTUALIZED_EOI
            | reason::GDTR_IDTR_ACCESS
            | reason::LDTR_TR_ACCESS
            | reason::INVEPT
            | reason::RDTSCP
            | R::PREEMPTION_TIMER
            | reason::INVVPID
            | R::WBINVD
            | R::XSETBV
            | R::APIC_WRITE
            | reason::RDRAND
            | reason::INVPCID
            | reason::VMFUNC
            | reason::ENCLS
            | reason::RDSEED
            | reason::XSAVES
            | reason::XRSTORS
            | R::PCONFIG
            | reason::UMWAIT
            | reason::TPAUSE
            | reason::LOADIWKEY
            | reason::ENCLV
            | reason::SGX_CONFLICT
            | reason::ENQCMD
            | reason::ENQCMDS
            | R::SEAMCALL
            | R::TDCALL
    )
}

fn is_vmcall_for_host(vcpu: &Running<'_, '_>, state: &GuestState) -> bool {
    TdgLeaf(LeafWord(state.regs[Gpr::Rax]).leaf()) == TdgLeaf::VP_VMCALL
        && vcpu.tdvps.load_u64(of_vm(L2_CTLS, vcpu.vm())) & ENABLE_TDVMCALL != 0
}

/// L1 gets what it intercepts; what the TD's own bitmaps intercept is handled as L1's own access is, but that #VE goes
/// to L1.
fn msr(vcpu: &Running<'_, '_>, state: &mut GuestState, exit: &VmExit, access: MsrAccess) -> Handled {
    let index = state.regs[Gpr::Rcx] as u32;
    if !msr::passes(vcpu.tdvps, l1_msr_bitmaps(vcpu.vm()), index, access) {
        return to_l1(exit);
    }
    exits::handle(vcpu, state, exit)
}

/// An EPT violation: L1 gets it if the page is there and only the VM's alias is in the way, and if the address is none
/// that the TD can have.
fn violation(vcpu: &Running<'_, '_>, exit: &VmExit) -> Handled {
    let is_too_wide = exit.gpa.get() >> vcpu.tdcs.gpa_bits() != 0;
    if is_too_wide && exit.qualification & EptViolation::GLA_VALID != 0 {
        return to_l1(exit);
    }
    let slot = vcpu.tdcs.walk(exit.gpa.align_down(PAGE_SIZE), Level::L4K);
    if !vcpu.is_shared(exit.gpa)
        && let Some(Walk::Found(slot) | Walk::Stopped(slot)) = slot
    {
        if SeptStates::GUEST_ACCESSIBLE_LEAF.contains(slot.state()) {
            return to_l1(exit);
        }
        if SeptStates::ANY_PENDING_AND_GUEST_ACCEPTABLE.contains(slot.state()) {
            return Handled::ToL1(L1Exit { extended: ExtendedQualification::PENDING, ..L1Exit::new(exit) });
        }
    }
    if !vcpu.is_shared(exit.gpa) {
        zero_step::log(vcpu.tdvps, exit.gpa);
    }
    let mut out = AsyncExit::pass(exit);
    out.qualification = EptViolation(exit.qualification).for_host().0 & 0xffff_ffff;
    out.gpa = exit.gpa.align_down(PAGE_SIZE);
    Handled::exit(out)
}

/// A notification that interrupts are posted to L1: L1 goes on if it could take one now.
fn posted_to_l1(vcpu: &Running<'_, '_>, exit: &VmExit) -> Option<Handled> {
    const PROCESS_POSTED_INTERRUPTS: u64 = 1 << 7;
    let info = InterruptionInfo { info: exit.interruption_info, ..InterruptionInfo::NONE };
    let vector = info.unpack().map(|event: Event| event.vector)?;
    let on = vcpu.tdvps.load_u64(vmcs::PINBASED) & PROCESS_POSTED_INTERRUPTS != 0;
    if !on || u64::from(vector) != vcpu.tdvps.load_u64(vmcs::NOTIFICATION_VECTOR) {
        return None;
    }
    apic::take_posted(vcpu);
    if !apic::interrupts_l1(vcpu, apic::saved_task_priority(vcpu)) {
        return Some(Handled::Resume);
    }
    Some(Handled::ToL1(L1Exit { code: StatusCode::L2_EXIT_PENDING_INTERRUPT, ..L1Exit::new(exit) }))
}

impl Running<'_, '_> {
    /// Goes on in L1, behind its TDG.VP.ENTER, with what it learns of the exit.
    pub(crate) fn resume_l1(&self, guest: &mut GuestState, l1: &L1Exit) {
        let code = guest.segment(Seg::Cs);
        let (selector, access) = (u64::from(code.selector), u64::from(code.attributes.0));
        let (limit, base) = (u64::from(code.limit), code.base);
        let (privilege, rbp) = (u64::from(guest.cpl()), guest.gpr(Gpr::Rbp));
        self.switch(guest, Vm::L1);
        let exit = &l1.exit;
        let ExitReasonField(reason) = exit.reason;
        guest.set_gprs(tdx_module_iface::Gprs {
            rax: Status::with_details(l1.code, reason).raw(),
            rcx: exit.qualification,
            rdx: exit.gla,
            rbp,
            rsi: selector | access << 16 | limit << 32,
            rdi: base,
            r8: exit.gpa.get(),
            r9: u64::from(exit.interruption_info) | u64::from(exit.interruption_error) << 32,
            r10: u64::from(exit.idt_vectoring_info) | u64::from(exit.idt_vectoring_error) << 32,
            r11: u64::from(exit.instruction_info) | u64::from(exit.instruction_length) << 32,
            r12: privilege,
            r13: l1.extended.0,
            ..tdx_module_iface::Gprs::ZERO
        });
        guest.complete_instruction(VmExit::tdcall().instruction_length as u8);
    }
}

/// What the VMCS of a VM says of its last exit, for an exit that L1 learns of later.
pub(crate) fn recorded(vcpu: &Running<'_, '_>, vm: Vm) -> VmExit {
    let view = vcpu.view(vm);
    let word = |offset| view.load_u64(offset);
    let reason = ExitReasonField(word(vmcs::EXIT_REASON) as u32);
    VmExit {
        reason,
        qualification: word(vmcs::EXIT_QUALIFICATION),
        gpa: tdvisor_base::Gpa::new(word(vmcs::GUEST_PHYSICAL_ADDRESS)),
        gla: word(vmcs::GUEST_LINEAR_ADDRESS),
        interruption_info: word(vmcs::EXIT_INTERRUPTION_INFO) as u32,
        interruption_error: word(vmcs::EXIT_INTERRUPTION_ERROR) as u32,
        idt_vectoring_error: word(vmcs::IDT_VECTORING_ERROR) as u32,
        instruction_info: word(vmcs::EXIT_INSTRUCTION_INFO) as u32,
        idt_vectoring_info: word(vmcs::IDT_VECTORING_INFO) as u32,
        instruction_length: word(vmcs::EXIT_INSTRUCTION_LENGTH) as u32,
        ..VmExit::plain(reason.basic())
    }
}

/// The root of an L2 VM's shared EPT; zero where it has none.
pub(crate) fn shared_root(vcpu: &Running<'_, '_>, vm: Vm) -> tdvisor_base::Hpa {
    const ENABLE_SHARED_EPTP: u64 = 1;
    if vcpu.tdvps.load_u64(of_vm(L2_CTLS, vm)) & ENABLE_SHARED_EPTP == 0 {
        return tdvisor_base::Hpa::new(0);
    }
    crate::vcpu::state::shared_root(&vcpu.view(vm))
}

/// The fields that tell whether the host asked to go on in L1.
pub(crate) const HOST_ROUTING: u32 = offset(&tdx_module_iface::metadata::vp::L2_EXIT_HOST_ROUTING);
