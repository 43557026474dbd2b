//! The virtual APIC of an L2 VM, as its processor keeps it (SDM volume 3, "APIC Virtualization and Virtual Interrupts").
//!
//! Its registers lie in a page of L1's. The processor reads them there, and keeps the task priority; where L1 asks for
//! virtual-interrupt delivery it also takes the interrupts that L1 requests by the guest interrupt status, ends them, and
//! lets the VM send some to itself. All of that happens without a VM exit: neither the module nor L1 learns of it.

use tdx_module_iface::exit::ExitReason;
use tdx_module_iface::metadata::{vmcs as own, vp};
use x86_arch::{Event, Gpr, vector};

use super::Vm;
use super::store::{NOT_SET, VmView, msr_bitmaps, of_vm};
use crate::fields::layout::tdvps;
use crate::fields::{FieldStore, Width, vmcs};
use crate::guest::{GuestState, VmExit, Window, reason};
use crate::msr::{self, MsrAccess};
use crate::vcpu::Running;
use crate::vcpu::apic::{
    self, IRR, ISR, MSR_EOI, MSR_PPR, MSR_SELF_IPI, MSR_TPR, PPR, clear_bit, highest, set_bit, task_priority,
};
use crate::vcpu::msr::is_x2apic;

/// Secondary control: virtual-interrupt delivery.
const DELIVERY: u64 = 1 << 9;
/// Primary control: the VM exits when it could take an interrupt.
const INTERRUPT_WINDOW: u64 = 1 << 2;

/// The guest interrupt status.
#[derive(Clone, Copy)]
struct Status {
    /// The highest vector that is requested; zero where none is.
    requested: u8,
    /// The highest vector in service.
    serviced: u8,
}

/// The virtual APIC of the L2 VM that runs.
struct Apic<'a, 'm> {
    view: VmView<'a, 'm>,
}

impl<'a, 'm> Apic<'a, 'm> {
    fn of(vcpu: &'a Running<'_, 'm>) -> Self {
        Self { view: vcpu.view(vcpu.vm()) }
    }

    fn control(&self, field: u32) -> u64 {
        self.view.load_u64(field)
    }

    fn field(&self, encoding: u32) -> u64 {
        vmcs::offset(encoding).map_or(0, |offset| self.view.load_u64(offset))
    }

    /// Whether L1 wants interrupts delivered.
    fn delivers(&self) -> bool {
        self.control(vmcs::PROCBASED2) & DELIVERY != 0
    }

    fn status(&self) -> Status {
        let [requested, serviced, ..] = self.view.load_u64(vmcs::INTERRUPT_STATUS).to_le_bytes();
        Status { requested, serviced }
    }

    fn set_status(&self, status: Status) {
        let word = u64::from(status.serviced) << 8 | u64::from(status.requested);
        self.view.store_u64(vmcs::INTERRUPT_STATUS, word);
    }

    /// The processor priority, which the page shows.
    fn priority(&self, state: &GuestState) -> u8 {
        let priority = apic::priority(&self.view, task_priority(state));
        self.view.store(tdvps::VAPIC + PPR, Width::B4, priority.into());
        priority
    }

    /// The vector that is requested and has priority over what the VM does.
    fn pending(&self, state: &GuestState) -> Option<u8> {
        if !self.delivers() {
            return None;
        }
        let requested = self.status().requested;
        (requested >> 4 > self.priority(state) >> 4).then_some(requested)
    }

    /// The interrupt in service ends; gives its vector.
    fn end_of_interrupt(&self) -> u8 {
        let status = self.status();
        clear_bit(&self.view, ISR, status.serviced);
        self.set_status(Status { serviced: highest(&self.view, ISR).unwrap_or(0), ..status });
        status.serviced
    }

    fn request(&self, vector: u8) {
        set_bit(&self.view, IRR, vector);
        let status = self.status();
        self.set_status(Status { requested: status.requested.max(vector), ..status });
    }

    /// Whether L1 wants to know of the end of an interrupt.
    fn tells_end_of(&self, vector: u8) -> bool {
        let word = own::EOI_EXIT_BITMAP.id.code() + 2 * u32::from(vector / 64);
        self.field(word) >> (vector % 64) & 1 != 0
    }
}

/// The interrupt that the VM takes now: it is in service from here on.
pub(crate) fn deliverable(vcpu: &Running<'_, '_>, state: &GuestState) -> Option<Event> {
    if state.event.is_some() || !state.interrupts_open() {
        return None;
    }
    let apic = Apic::of(vcpu);
    // An exit for the window comes before an interrupt.
    if apic.control(vmcs::PROCBASED) & INTERRUPT_WINDOW != 0 {
        return None;
    }
    let vector = apic.pending(state)?;
    set_bit(&apic.view, ISR, vector);
    clear_bit(&apic.view, IRR, vector);
    let requested = highest(&apic.view, IRR).unwrap_or(0);
    apic.set_status(Status { requested, serviced: vector });
    apic.priority(state);
    Some(Event::external(vector))
}

/// Whether an interrupt waits for the VM to become able to take it.
pub(crate) fn window(vcpu: &Running<'_, '_>, state: &GuestState) -> Window {
    match Apic::of(vcpu).pending(state) {
        Some(_) => Window::Wanted,
        None => Window::Closed,
    }
}

/// The exit that the processor makes before the VM executes anything: its time is over, or its task priority is lower
/// than L1 wants it to be.
pub(crate) fn due(vcpu: &Running<'_, '_>, state: &GuestState) -> Option<VmExit> {
    if state.event.is_some() {
        return None;
    }
    if deadline(vcpu, vcpu.vm()).is_some_and(|deadline| vcpu.machine.tsc() >= deadline) {
        return Some(VmExit::plain(ExitReason::PREEMPTION_TIMER));
    }
    let apic = Apic::of(vcpu);
    let threshold = apic.field(own::TPR_THRESHOLD.id.code()) & 0xf;
    let is_below = !apic.delivers() && u64::from(task_priority(state) >> 4) < threshold;
    is_below.then_some(VmExit::plain(reason::TPR_BELOW_THRESHOLD))
}

/// The processor's time at which L1 wants an L2 VM back.
pub(crate) fn deadline(vcpu: &Running<'_, '_>, vm: Vm) -> Option<u64> {
    let of = |field: tdx_module_iface::metadata::Field| {
        field.offset().map(|array| vcpu.tdvps.load_u64(of_vm(array, vm)))
    };
    let wanted = of(vp::TSC_DEADLINE)?;
    of(vp::SHADOW_TSC_DEADLINE).filter(|_| wanted != NOT_SET)
}

/// Does what the processor does without an exit. Gives the exit that is left of it, if any.
pub(crate) fn settle(vcpu: &Running<'_, '_>, state: &mut GuestState, exit: VmExit) -> Option<VmExit> {
    let apic = Apic::of(vcpu);
    match exit.reason.basic() {
        ExitReason::INTERRUPT_WINDOW => {
            let asked = apic.control(vmcs::PROCBASED) & INTERRUPT_WINDOW != 0;
            (asked && state.interrupts_open()).then_some(exit)
        }
        ExitReason::RDMSR if passes(vcpu, state, MsrAccess::Read) => {
            let value = read(&apic, state, state.regs[Gpr::Rcx] as u32);
            state.regs[Gpr::Rax] = value & 0xffff_ffff;
            state.regs[Gpr::Rdx] = value >> 32;
            state.complete_instruction(exit.instruction_length as u8);
            None
        }
        ExitReason::WRMSR if passes(vcpu, state, MsrAccess::Write) => write(&apic, state, exit),
        _ => Some(exit),
    }
}

/// Whether an access is to a register of the APIC, and neither L1 nor the module intercepts it.
fn passes(vcpu: &Running<'_, '_>, state: &GuestState, access: MsrAccess) -> bool {
    let index = state.regs[Gpr::Rcx] as u32;
    is_x2apic(index) && msr::passes(vcpu.tdvps, msr_bitmaps(vcpu.vm()), index, access)
}

/// What a register reads as.
fn read(apic: &Apic<'_, '_>, state: &GuestState, index: u32) -> u64 {
    match index {
        MSR_TPR => task_priority(state).into(),
        MSR_PPR => apic.priority(state).into(),
        _ => apic.view.load_u64(tdvps::VAPIC + (index & 0xff) * 0x10),
    }
}

fn write(apic: &Apic<'_, '_>, state: &mut GuestState, exit: VmExit) -> Option<VmExit> {
    let value = state.regs[Gpr::Rax] & 0xffff_ffff | state.regs[Gpr::Rdx] << 32;
    let length = exit.instruction_length as u8;
    let mut left = None;
    match (state.regs[Gpr::Rcx] as u32, u8::try_from(value)) {
        (MSR_TPR, Ok(priority)) => state.control.cr8 = u64::from(priority >> 4),
        (MSR_EOI, Ok(0)) if apic.delivers() => {
            let vector = apic.end_of_interrupt();
            if apic.tells_end_of(vector) {
                // It comes behind the instruction.
                left = Some(VmExit {
                    qualification: vector.into(),
                    ..VmExit::plain(ExitReason::VIRTUALIZED_EOI)
                });
            }
        }
        (MSR_SELF_IPI, Ok(vector)) if apic.delivers() => apic.request(vector),
        (MSR_TPR, _) => return fault(state),
        (MSR_EOI | MSR_SELF_IPI, _) if apic.delivers() => return fault(state),
        // The processor has no more of it.
        _ => return Some(exit),
    }
    state.complete_instruction(length);
    left
}

/// #GP(0).
fn fault(state: &mut GuestState) -> Option<VmExit> {
    state.event = Some(Event::exception_with_code(vector::GP, 0));
    None
}
